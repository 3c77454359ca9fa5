"""Safetensors files: what is written is what the library writes, what lies is refused, what is interrupted leaves no trace."""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import generator
from doconv_core.checkpoint import CheckpointError, TensorFile, TensorWriter, write_tensors

TENSORS = {
    "b": generator.floats("files/b", (2, 3)).astype(np.float32),
    "a": np.arange(4, dtype=np.int64),
    "z": generator.floats("files/z", (3,)).astype(ml_dtypes.bfloat16),
    "flag": np.array([True, False]),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 4), np.float16),
} | {f"of {dtype}": np.ones(2, dtype) for dtype in ("u8", "u4", "u2", "u1", "i4", "i2", "i1", "f2", "f4", "c8", "f8")}


def test_a_file_has_the_bytes_that_the_library_writes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "ours", TENSORS, {"k": "v"})
    save_file(TENSORS, tmp_path / "theirs", metadata={"k": "v"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_file_reads_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", TENSORS, {"k": "v"})
    with TensorFile(tmp_path / "file") as file:
        assert file.metadata == {"k": "v"}
        assert file.shapes == {name: array.shape for name, array in TENSORS.items()}
        for name, array in TENSORS.items():
            np.testing.assert_array_equal(file.array(name), array)
            assert file.array(name).dtype == array.dtype
            assert b"".join(file.chunks(name)) == array.tobytes()


def test_an_array_outlives_its_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", TENSORS, {})
    with TensorFile(tmp_path / "file") as file:
        array = file.array("b")
    np.testing.assert_array_equal(array, TENSORS["b"])
    with pytest.raises(ValueError, match=r"the file is closed. Received: "):
        file.array("b")


def test_unaligned_tensors_are_read(tmp_path: Path) -> None:
    header = json.dumps({"x": entry([2], [0, 8])}).encode()
    header += b" " * (-len(header) % 8 + 1)  # the data begins at an odd byte
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", len(header)) + header + np.array([1.5, -2], np.float32).tobytes())
    with TensorFile(path) as file:
        assert file.array("x").tolist() == [1.5, -2]


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


LIES = {
    "overlap": (
        {"a": entry([2], [0, 8]), "b": entry([7], [4, 32])},
        "header lies about b, whose bytes must begin .* at 8",
    ),
    "hole": (
        {"a": entry([2], [0, 8]), "b": entry([6], [12, 36])},
        "header lies about b, whose bytes must begin .* at 8",
    ),
    "beyond": ({"a": entry([2], [0, 8]), "b": entry([9], [8, 44])}, "is truncated: b ends at byte"),
    "too few": ({"a": entry([2], [0, 8])}, "the tensors end at byte"),
    "shape": (
        {"a": entry([3], [0, 8]), "b": entry([7], [8, 36])},
        "header lies about a, F32 of shape .3,. has 12 bytes",
    ),
    "backwards": ({"a": entry([9], [36, 0])}, "header lies about a"),
    "type": ({"a": entry([9], [0, 36], "F33")}, "not a valid safetensors file: .*F33"),
    "negative": ({"a": entry([-9], [0, 36])}, "header lies about a"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 36]}}, "no readable safetensors header: KeyError: 'shape'"),
    "no object": ([1], "no readable safetensors header"),
    "no entry": ({"a": 5}, "no readable safetensors header"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_refused_by_name(lie: str, tmp_path: Path) -> None:
    header, text = LIES[lie]
    path = tmp_path / "lie.safetensors"
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(36))
    with pytest.raises(CheckpointError, match=text) as caught:
        TensorFile(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("size", [0, 3, 8, 20, 200, -1])
def test_a_truncated_file_is_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_tensors(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"truncated|lies|end at byte"):
        TensorFile(path)


def test_a_type_that_numpy_lacks_is_passed_on_but_not_read(tmp_path: Path) -> None:
    header = json.dumps({"x": entry([4], [0, 2], "F4")}).encode()
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x12\x34")
    with TensorFile(path) as file:
        assert b"".join(file.chunks("x")) == b"\x12\x34"
        with pytest.raises(CheckpointError, match=r"x has a type that NumPy lacks. Received: F4"):
            file.array("x")


def test_a_type_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"no such type. Received: c of dtype complex128"):
        write_tensors(tmp_path / "file", {"c": np.zeros(2, np.complex128)}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("old", [True, False])
def test_a_failure_leaves_the_old_file_and_nothing_else(old: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if old:
        path.write_bytes(b"old")

    def interrupted() -> None:
        with TensorWriter(path, {"x": ("F32", (4,)), "y": ("F32", (4,))}, {}) as writer:
            writer.write("x", np.ones(4, np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")] * old


def test_an_incomplete_file_is_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is incomplete"), TensorWriter(tmp_path / "file", {"x": ("F32", (4,))}, {}):
        pass
    assert not list(tmp_path.iterdir())


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"x has 8 bytes left. Received: 12"),
        TensorWriter(tmp_path / "file", {"x": ("F32", (2,)), "y": ("F32", (2,))}, {}) as writer,
    ):
        writer.write("x", np.ones(3, np.float32))


def test_mode_and_link_of_the_old_file_stay(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_tensors(tmp_path / "link", TENSORS, {})
    assert (tmp_path / "link").is_symlink()
    assert load_file(tmp_path / "real").keys() == TENSORS.keys()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


KILLED = """
import os, signal, sys
import numpy as np
from doconv_core.checkpoint import TensorWriter
with TensorWriter(sys.argv[1], {"x": ("F32", (4,)), "y": ("F32", (4,))}, {}) as writer:
    writer.write("x", np.ones(4, np.float32))
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
    writer.write("y", np.ones(4, np.float32))
"""


def test_a_killed_run_leaves_the_old_file_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), "kill"], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write_tensors(path, TENSORS, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    command = [sys.executable, "-c", KILLED, str(path), "wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as slow:
        assert slow.stdout
        assert slow.stdout.readline() == "writing\n"
        write_tensors(path, TENSORS, {})
        assert load_file(path).keys() == TENSORS.keys()
        slow.communicate("", timeout=60)
    assert slow.returncode == 0
    assert load_file(path).keys() == {"x", "y"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


LIMITED = """
import resource, signal, sys
from doconv_core.checkpoint import write_tensors
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_tensors(sys.argv[1], {"x": np.ones(9_000, np.float32)}, {})
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout == "File too large\n", done.stderr
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


def test_a_disk_that_is_too_small_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(OSError, match=r"the disk has 100 bytes free, "):
        write_tensors(tmp_path / "file", TENSORS, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="the system has no users of that kind")
def test_a_folder_that_is_read_only_is_left_alone() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder, user = Path(name), os.geteuid()
        (folder / "file").write_bytes(b"old")
        folder.chmod(0o555)
        try:
            if user == 0:  # root may write to every folder
                os.seteuid(65534)
            with pytest.raises(PermissionError):
                write_tensors(folder / "file", TENSORS, {})
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
        assert [(entry.name, entry.read_bytes()) for entry in folder.iterdir()] == [("file", b"old")]
