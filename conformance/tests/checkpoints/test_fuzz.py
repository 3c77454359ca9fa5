"""Hostile files: a seeded sample of the fuzz session, the seeds that once failed, and the worst by name."""

import json
import random
import re
import struct
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from doconv_conformance.maintenance import fuzz as fuzz_module
from doconv_conformance.maintenance.fuzz import KINDS, fuzz
from doconv_conformance.maintenance.fuzz_readers import Kind
from doconv_core.checkpoint import CheckpointError, open_checkpoint

# Each failed once. A change of the generators makes other files of them: then they are a sample like any other.
CORPUS = {
    113: "W of no channels",
    1386: "D_diag beside --transposed",
    1002162: "an HDF5 name in no UTF-8",
    1002452: "var without mean",
}


def is_installed(package: str) -> bool:
    """Not the folder of that name among the tests, which pytest puts on the path."""
    found = find_spec(package)
    return found is not None and found.origin is not None


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if name != "h5" and is_installed(kind.needs)])
def test_every_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    failures, opened = fuzz(
        range(300 if kind == "index-bin" else 1500), tmp_path, [kind]
    )  # that one is the same reader
    assert not failures, failures[0]
    assert opened > 50  # else nothing but the first check of each reader is tried


def test_seeds_that_failed_once(tmp_path: Path) -> None:
    failures, _ = fuzz(CORPUS, tmp_path, ["safetensors", "npz", "h5", "index"])
    assert not failures, failures[0]


@pytest.mark.skipif(not find_spec("h5py"), reason="h5py is not installed")
def test_hdf5_files_in_a_process_of_their_own() -> None:
    """The library is C, and has crashed on broken files before."""
    command = [sys.executable, "-m", "doconv_conformance.maintenance.fuzz", "--kinds", "h5", "--count", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_the_fuzz_finds_a_planted_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doconv_core.checkpoint._do_layers.plain_sizes", lambda *_: 1 / 0)
    failures, _ = fuzz(range(300), tmp_path, ["safetensors"])
    assert any("ZeroDivisionError" in failure.error for failure in failures)


TOO_MUCH = {
    "a hang": (lambda: time.sleep(60), "TooMuch: more than 1 s"),
    "memory": (lambda: np.ones(2**26, np.uint8), "TooMuch: .* bytes of memory"),
    "more memory than there is": (lambda: np.empty(2**50, np.uint8), "MemoryError"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
@pytest.mark.parametrize("case", TOO_MUCH)
def test_the_fuzz_stops_what_takes_too_much(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use, error = TOO_MUCH[case]

    def check(path: Path, rng: random.Random) -> bool:
        """A reader that calls every fault one of the file, but for what it documents."""
        try:
            return use() is None
        except MemoryError:
            raise
        except Exception:
            return False

    monkeypatch.setattr(fuzz_module, "SECONDS", 1)
    monkeypatch.setattr(fuzz_module, "MEMORY", 2**25)
    monkeypatch.setitem(KINDS, "planted", Kind(lambda rng: b"", "in", check))
    failures, _ = fuzz([0], tmp_path, ["planted"])
    assert re.search(error, failures[0].error)


def header(path: Path, value: Any, size: int = 0) -> Path:
    text = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    return path


def declared(path: Path, layers: Any, **more: Any) -> Path:
    tensors = {"a.W": np.ones((1, 1, 3), np.float32), "a.D_delta": np.ones((1, 3, 3), np.float32)}
    metadata = {"version": 1, "layout": "canonical", "layers": layers} | more
    save_file(tensors, path, metadata={"doconv": json.dumps(metadata)})
    return path


def conv(**geometry: Any) -> dict[str, Any]:
    known = {"in_channels": 1, "out_channels": 1, "kernel_size": [3], "d_mul": 3} | geometry
    return {"a": {"kind": "conv", "geometry": known}}


LIES = {
    "kernel_size of strings": (conv(kernel_size=["x", 2_000_000_000]), {}, "kernel_size of a is out of range"),
    "kernel_size of four axes": (conv(kernel_size=[1, 1, 1, 3]), {}, "kernel_size of a is out of range"),
    "d_mul": (conv(d_mul=10**10), {}, "d_mul of a is out of range"),
    "d_mul in range": (conv(d_mul=10**9), {}, r"a\.W must have shape \(1, 1, 1000000000\)"),
    "channels": (conv(in_channels=2**40, out_channels=2**40), {}, "in_channels of a is out of range"),
    "channels in range": (conv(in_channels=2**30, out_channels=2**30), {}, r"a\.W must have shape"),
    "a bool": (conv(groups=True), {}, "groups of a is out of range"),
    "a float": (conv(in_channels=1.0), {}, "in_channels of a is out of range"),
    "transposed": (conv(transposed=1), {}, "transposed of a is out of range"),
    "nested": (conv(stride=[[[1]]]), {}, "stride of a is out of range"),
    "epsilon": ({"a": {"kind": "norm", "epsilon": float("nan")}}, {}, "the epsilon of a must be a number"),
    "depthwise": ({"a": conv()["a"] | {"depthwise": 1}}, {}, "depthwise of a must be true or false"),
    "a layer": ({"a": []}, {}, "a must be an object. Received: list"),
    "guessed": ({"a": conv()["a"] | {"guessed": ["x"]}}, {}, "a has unknown options in `guessed`"),
    "version true": (conv(), {"version": True}, "version must be an integer. Received: True"),
    "version 0": (conv(), {"version": 0}, "version must be at least 1. Received: 0"),
    "a surrogate": ({"\ud800": {"kind": "norm"}}, {}, "UnicodeEncodeError"),
    "an alias of nothing": (conv(), {"aliases": {"b": "c"}}, "an alias must be a further name of a layer"),
    "an alias of a list": (conv(), {"aliases": {"b": ["a"]}}, "an alias must be a further name of a layer"),
    "an alias that is a layer": (conv(), {"aliases": {"a": "a"}}, "an alias must be a further name of a layer"),
    "D beside a plain kernel": ({"a": {"kind": "conv", "geometry": {"in_channels": 1, "out_channels": 1, "kernel_size": [3]}}},
                                {}, r"a is a plain convolution and has no such tensor. Received: a\.W, a\.D_delta"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_metadata_that_lie_are_refused_before_they_cost_anything(lie: str, tmp_path: Path) -> None:
    layers, more, error = LIES[lie]
    path = declared(tmp_path / "in", layers, **more)
    with pytest.raises(CheckpointError, match=error) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 990 + "]" * 990, '{"a":' * 990 + "1" + "}" * 990, "[" * 100_000, "nul", ""])
def test_metadata_that_are_no_json_are_refused(text: str, tmp_path: Path) -> None:
    save_file({"x": np.ones(3, np.float32)}, tmp_path / "in", metadata={"doconv": text})
    with pytest.raises(CheckpointError, match="unreadable metadata 'doconv'"):
        open_checkpoint(tmp_path / "in")


HEADERS = {
    "an axis of 4000 digits": (
        b'{"a":{"dtype":"F32","shape":[0,%s],"data_offsets":[0,0]}}' % (b"9" * 4000),
        "axes must be",
    ),
    "two such": (b'{"a":{"dtype":"F32","shape":[%s,%s],"data_offsets":[0,0]}}' % ((b"9" * 4000,) * 2), "axes must be"),
    "5000 digits": (b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,0]}}' % (b"9" * 5000), "no readable"),
    "100 axes": (
        b'{"a":{"dtype":"F32","shape":[%s1],"data_offsets":[0,4]}}' % (b"1," * 99),
        "can have 64 axes at most",
    ),
    "an offset of 4000 digits": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,%s]}}' % (b"9" * 4000), "about 2"),
    "a key twice": (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
        "a key occurs twice. Received: 'a'",
    ),
    "deep": (b'{"a":' * 5000, "no readable|not a valid"),
    "metadata of a list": (b'{"__metadata__":[1]}', "no readable|metadata"),
    "metadata of numbers": (b'{"__metadata__":{"a":1}}', "metadata that are not strings"),
    "a megabyte of lists": (b'{"a":[' + b"[]," * 400_000 + b"[]]}", "0 tensors do not need 12000.. bytes"),
    "a megabyte of numbers": (b'{"a":{"dtype":"F32","shape":[' + b"1," * 900_000 + b"1]}}", "1 tensors do not need"),
    "a megabyte of a string": (b'{"a":"' + b"x" * 1_500_000 + b'"}', "not a valid safetensors file"),
    "a string without an end": (b'{"a":"' + b"\\" * 1_500_000, "do not need|not a valid"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_lie_are_refused(case: str, tmp_path: Path) -> None:
    text, error = HEADERS[case]
    with pytest.raises(CheckpointError, match=error) as caught:
        open_checkpoint(header(tmp_path / "in.safetensors", text, 4))
    assert len(str(caught.value)) < 5000


def test_an_empty_tensor_at_the_end_of_a_page(tmp_path: Path) -> None:
    entries = {"a.weight": ([8, 2], [0, 64]), "z.weight": ([0, 5], [64, 64])}
    value = {name: {"dtype": "F32", "shape": s, "data_offsets": o} for name, (s, o) in entries.items()}
    text = json.dumps(value).encode()
    path = header(tmp_path / "page", text + b" " * (4096 - 8 - 64 - len(text)), 64)
    with open_checkpoint(path) as checkpoint:
        for layer in checkpoint.layers:
            checkpoint.read(layer)
            checkpoint.release(layer)


def test_a_file_of_very_many_tensors_takes_no_longer_for_each(tmp_path: Path) -> None:
    """Opened and described in a time that grows with the number of tensors and not with its square: by counting look-ups."""
    counts = []
    for count in (1000, 2000):
        tensors = {f"c{i}.{leaf}": np.zeros((1, 1, 2) if leaf == "weight" else 1, np.float32) for i in range(count)
                   for leaf in ("weight", "bias")}  # fmt: skip
        save_file(tensors, tmp_path / "many")
        calls = 0

        def trace(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(trace)
        try:
            with open_checkpoint(tmp_path / "many"):
                pass
        finally:
            sys.setprofile(None)
        counts.append(calls)
    assert counts[1] < 2.2 * counts[0]


H5 = {
    "external storage": (
        "x",
        {"shape": (28,), "dtype": "<f4", "external": [("secret.txt", 0, 112)]},
        "in another file",
    ),
    "no values": ("x", {"data": h5py.Empty("f4")}, "has no values"),
    "4 TB": ("x", {"shape": (10**9, 10**3), "dtype": "f4", "chunks": (1000, 1000)}, "cannot be in 0 bytes"),
    "strings": ("x", {"data": np.array([b"a", b"b"])}, "a type that the format lacks"),
    "compound": ("x", {"data": np.zeros(3, [("a", "f4")])}, "a type that the format lacks"),
    "complex128": ("x", {"data": np.ones(3, complex)}, "a type that the format lacks"),
    "Keras 3": ("layers/conv/vars/0", {"data": np.ones(3)}, "was written by Keras 3"),
}


@pytest.mark.parametrize("case", H5)
def test_hdf5_files_that_are_refused(case: str, tmp_path: Path) -> None:
    name, options, error = H5[case]
    (tmp_path / "secret.txt").write_bytes(b"TOP SECRET" * 20)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset(f"{name}/gamma:0" if name == "x" else name, **options)
    with pytest.raises(CheckpointError, match=error):
        open_checkpoint(tmp_path / "in.h5", dialect="original-tf")


def test_types_that_npz_does_not_keep_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **{"a.W": np.ones((4, 2, 9), ml_dtypes.bfloat16)})
    with pytest.raises(CheckpointError, match=r"a\.W\.npy has the type \|V2: NumPy keeps no bfloat16"):
        open_checkpoint(tmp_path / "in.npz")


def test_hdf5_virtual_data_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (3,))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_virtual_dataset("bn/gamma:0", layout)
    with pytest.raises(CheckpointError, match="in another file, which is not opened"):
        open_checkpoint(tmp_path / "in.h5", dialect="original-tf")


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("place", [0, 10, 0.5, 0.9, -1])
def test_archives_that_are_cut_are_refused(suffix: str, place: float, tmp_path: Path) -> None:
    path = tmp_path / f"in{suffix}"
    tensors = {"conv/kernel:0": np.ones((9, 3, 4), np.float32), "conv/D:0": np.ones((9, 9, 3), np.float32)}
    if suffix == ".npz":
        np.savez(path, **tensors)
    else:
        with h5py.File(path, "w") as file:
            file.update(tensors)
    content = path.read_bytes()
    path.write_bytes(content[: int(place * len(content)) if isinstance(place, float) else place])
    with pytest.raises(CheckpointError, match=r"in\.(npz cannot be read|h5 is not a readable HDF5 file)"):
        open_checkpoint(path, dialect="original-tf")


@pytest.mark.parametrize(
    "names",
    [("conv/kernel:0", "conv.kernel"), ("conv/kernel:0", "conv/kernel")],
)
def test_two_tensors_of_one_name_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **{name: np.ones((9, 3, 4), np.float32) for name in names})
    with pytest.raises(
        CheckpointError, match=r"more than one tensor of the name conv\.kernel. Received: 'conv/kernel:0'"
    ):
        open_checkpoint(tmp_path / "in.npz", dialect="original-tf")


def test_layers_of_one_name_in_two_models_stay_apart(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "in.h5", "w") as file:
        for model in ("encoder", "decoder"):
            file[f"{model}/conv/kernel:0"] = np.ones((9, 3, 4), np.float32)
            file[f"{model}/conv/D:0"] = np.ones((9, 9, 3), np.float32)
    with open_checkpoint(tmp_path / "in.h5", dialect="original-tf") as checkpoint:
        assert set(checkpoint.layers) == {"encoder.conv", "decoder.conv"}
