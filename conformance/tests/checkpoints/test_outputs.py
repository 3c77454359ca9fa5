"""Every writer against every fault of a target: nothing is lost, links are followed, pipes are written to."""

import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save_file

from doconv_conformance import files
from doconv_core.checkpoint import fold_file, open_checkpoint, write_tensors
from doconv_core.outputs import is_stream, same_file

Writer = Callable[[Path], None]


def tensors(path: Path) -> None:
    write_tensors(path, {"x": np.ones(3, np.float32)}, {})


def fold(path: Path) -> None:
    source = Path(os.environ["PYTEST_SOURCE"])
    with open_checkpoint(source) as checkpoint:
        fold_file(checkpoint, path)


def text(path: Path) -> None:
    files.write_text(path, "report ü\n")


def json(path: Path) -> None:
    files.write_json(path, {"a": 1})


def by_name(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"picture")


WRITERS = {writer.__name__: writer for writer in (tensors, fold, text, json, by_name)}


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    (tmp_path / "elsewhere").mkdir()
    source = tmp_path / "elsewhere" / "in.safetensors"
    save_file({"a.W": np.ones((4, 2, 9), np.float32), "a.D": np.ones((2, 9, 9), np.float32)}, source)
    monkeypatch.setenv("PYTEST_SOURCE", str(source))
    return WRITERS[request.param]


def written(writer: Writer, path: Path) -> bytes:
    writer(path)
    return path.read_bytes()


def test_a_link_is_followed(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere/target")
    assert written(writer, tmp_path / "link") == (tmp_path / "elsewhere" / "target").read_bytes()
    assert (tmp_path / "link").is_symlink()
    assert {entry.name for entry in (tmp_path / "elsewhere").iterdir()} == {"in.safetensors", "target"}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_of_an_old_file_stays(writer: Writer, mode: int, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    path.chmod(mode)
    assert written(writer, path) != b"old"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_of_any_new_file(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "any").write_bytes(b"")
    written(writer, tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_an_old_file_stays(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    os.chown(tmp_path / "out", 65534, 65534)
    written(writer, tmp_path / "out")
    assert ((tmp_path / "out").stat().st_uid, (tmp_path / "out").stat().st_gid) == (65534, 65534)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_written_to(writer: Writer, tmp_path: Path) -> None:
    want = written(writer, tmp_path / "out")
    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    writer(tmp_path / "pipe")
    reader.join(60)
    assert received == [want]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="the system has no /dev")
def test_a_device_is_written_to_and_stays_one(writer: Writer) -> None:
    writer(Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert is_stream("/dev/null")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_device_is_an_error(writer: Writer) -> None:
    with pytest.raises(OSError, match="No space left"):
        writer(Path("/dev/full"))


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such limit")
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_the_old_one(writer: Writer, tmp_path: Path) -> None:
    import resource

    (tmp_path / "out").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))  # bytes of a file
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            writer(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path / "out") in str(caught.value)
    assert (tmp_path / "out").read_bytes() == b"old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"out", "elsewhere"}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system has no /proc")
def test_an_open_file_by_its_systems_name_is_written_to(writer: Writer, tmp_path: Path) -> None:
    want = written(writer, tmp_path / "out")
    with (tmp_path / "open").open("wb") as file:
        writer(Path(f"/proc/self/fd/{file.fileno()}"))
        assert os.fstat(file.fileno()).st_ino == (tmp_path / "open").stat().st_ino
    assert (tmp_path / "open").read_bytes() == want


def test_a_name_of_255_bytes(writer: Writer, tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127 + "x")
    assert written(writer, path)
    assert len([*tmp_path.iterdir()]) == 2


def test_a_folder_in_its_place_is_an_error_that_leaves_nothing(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        writer(tmp_path / "folder")
    assert {entry.name for entry in tmp_path.iterdir()} == {"elsewhere", "folder"}


def test_files_that_are_not_ours_stay(writer: Writer, tmp_path: Path) -> None:
    foreign = (".out.0123abcd.partial", ".out.backup.partial", ".doconv-notes-out", ".doconv-0123456789abcdef-other")
    for name in foreign:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / ".doconv-0123456789abcdef-out").write_bytes(b"of a killed run")
    written(writer, tmp_path / "out")
    assert {entry.name for entry in tmp_path.iterdir()} == {"elsewhere", "out", *foreign}


def test_what_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "hard")
    for other in ("link", "hard", "../" + tmp_path.name + "/a"):
        assert same_file(tmp_path / "a", tmp_path / other)
    assert same_file(tmp_path / "new", tmp_path / "." / "new")
    assert not same_file(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("outputs", "inputs", "error"),
    [
        (("x.json", "x.json"), (), "two outputs have the same path"),
        (("x.json", "./x.json"), (), "two outputs have the same path"),
        (("x.json", "x.html"), ("x.html",), "x.html is a file that is read, and would be lost"),
        (("link",), ("elsewhere/in.safetensors",), "is a file that is read"),
        (("nowhere/x.json",), (), "the folder of nowhere/x.json does not exist"),
        (("elsewhere",), (), "the report must be a file. Received the folder: elsewhere"),
    ],
)
def test_reports_that_would_be_lost_are_refused_before_any_work(
    outputs: tuple[str, ...], inputs: tuple[str, ...], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "in.safetensors").write_bytes(b"")
    (tmp_path / "x.html").write_bytes(b"")
    (tmp_path / "link").symlink_to("elsewhere/in.safetensors")
    with pytest.raises(ValueError, match=error):
        files.check_writable(*map(Path, outputs), None, inputs=[None, *map(Path, inputs)])
    files.check_writable(Path("y.json"), Path("y.html"), inputs=[Path("x.html")])


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"epoch": 5}, r"the metadata of a file must be strings. Received: 'epoch': 5"),
        ({5: "a"}, r"must be strings. Received: 5: 'a'"),
        ({"a": None}, "must be strings"),
        ({"a": b"x"}, "must be strings"),
        ({"a": "\ud800"}, "must be strings that UTF-8 can write"),
    ],
)
def test_metadata_that_nothing_reads_is_refused_before_the_old_file_is_touched(
    metadata: dict, error: str, tmp_path: Path
) -> None:
    path = tmp_path / "best.safetensors"
    write_tensors(path, {"x": np.ones(3, np.float32)}, {"epoch": "4"})
    with pytest.raises((TypeError, ValueError), match=error):
        write_tensors(path, {"x": np.zeros(3, np.float32)}, metadata)
    assert load_file(path)["x"].all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["best.safetensors"]


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ({"x": [1]}, "no such type. Received: x of dtype list"),
        ({"x": None}, "no such type"),
        ({5: np.ones(3)}, "the name of a tensor must be a string. Received: 5"),
        ({"x\ud800": np.ones(3)}, "that UTF-8 can write"),
        ({"__metadata__": np.ones(3)}, "the format keeps a name for itself"),
        ({"x": np.ones(3, ">f4")}, "no such type"),
    ],
)
def test_tensors_that_the_format_lacks_are_refused(named: dict, error: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        write_tensors(tmp_path / "file", named, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_many_parts_go_through_a_pipe_in_their_order(tmp_path: Path) -> None:
    array, received = np.arange(2_000_000, dtype=np.float32), list[bytes]()
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write_tensors(tmp_path / "pipe", {"x": array, "y": np.ones(2)}, {})
    reader.join(60)
    np.testing.assert_array_equal(load(received[0])["x"], array)
