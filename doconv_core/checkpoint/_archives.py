"""Tensors from NumPy's `.npz` and from the HDF5 files of `tf.keras`, one at a time.

Both are read as what they may be, files that anyone may have made: nothing is unpickled, no other file is opened, and no
tensor takes more memory than the size of the file can account for.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from doconv_core.checkpoint._format import CheckpointError

RATIO = 1032  # what deflate can make of a byte, at most
SMALL = 2**20  # bytes that are never too many


@dataclass(frozen=True)
class Member:
    """A tensor that is read when NumPy asks for it."""

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype)


def read_arrays(path: Path) -> dict[str, Any]:
    """The tensors by dotted name, `conv1.kernel` for `conv1/kernel:0`; nothing is read before an array is used.

    Raises:
        CheckpointError: the file cannot be read, has two tensors of one name, or was written by Keras 3, whose names say
            nothing.
        ImportError: h5py is not installed.
        OSError: there is no such file.
    """
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return _named(path, _npz(path) if path.suffix.lower() == ".npz" else _hdf5(path))


def _npz(path: Path) -> dict[str, Member]:
    with _readable(path, "cannot be read"), zipfile.ZipFile(path) as archive:
        members: dict[str, Member] = {}
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name in members:
                raise ValueError(f"two members share the name {name!r}")
            members[name] = _npz_member(path, archive, entry)
        return members


def _npz_member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member:
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{entry.filename} has an unknown version {version}")
        shape, _, dtype = read_header[version](file)
        header = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} has Python objects, which are not read")
    if dtype.kind == "V":
        raise ValueError(f"{entry.filename} has the type {dtype}: NumPy keeps no bfloat16 or float8, safetensors does")
    _check_size(entry.filename, shape, dtype, entry.file_size - header, exact=True)
    _check_size(entry.filename, shape, dtype, entry.compress_size * RATIO)

    def read() -> np.ndarray:
        with _readable(path, "cannot be read"), zipfile.ZipFile(path) as again, again.open(entry) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    return Member(dtype, shape, read)


def _hdf5(path: Path) -> dict[str, Member]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading an .h5 file needs h5py: pip install h5py") from error
    with _readable(path, "is not a readable HDF5 file"), h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        if isinstance(root, h5py.Dataset):
            raise ValueError("model_weights is not a group")
        found: dict[str, Any] = {}
        root.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        if other := [name for name in found if not isinstance(name, str)]:
            raise ValueError(f"{other[0]!r} is not a name in UTF-8")
        if old := next((name for name in found if "/vars/" in name), None):
            raise CheckpointError(
                f"{path} was written by Keras 3, not by the authors' tf.keras: load it there and use "
                f"doconv_keras.save_checkpoint. Received: {old}"
            )
        members = {name: _hdf5_member(path, name, item) for name, item in found.items()}
    # `<layer>/<scope of the weight>/kernel:0`; the scope repeats the layer's name, in a nested or subclassed model with more.
    short = {name.split("/", 1)[1] if name.count("/") > 1 else name: member for name, member in members.items()}
    return short if len(short) == len(members) else members  # two models may have layers of the same name


def _hdf5_member(path: Path, name: str, item: Any) -> Member:
    if item.external or item.is_virtual:
        raise ValueError(f"{name} has its values in another file, which is not opened")
    if item.shape is None:
        raise ValueError(f"{name} has no values")
    # A filter other than deflate may pack more, but no weights do.
    _check_size(name, item.shape, item.dtype, item.id.get_storage_size() * RATIO)
    opener, place = type(item.file), item.name

    def read() -> np.ndarray:  # an open file could not be written again
        with _readable(path, "is not a readable HDF5 file"), opener(path, "r") as again:
            return np.asarray(again[place][()])

    return Member(item.dtype, tuple(item.shape), read)


def _check_size(name: str, shape: tuple[int, ...], dtype: np.dtype, stored: int, *, exact: bool = False) -> None:
    size = math.prod(shape) * dtype.itemsize
    if size != stored if exact else size > max(stored, SMALL):
        raise ValueError(f"{name} of shape {shape} and dtype {dtype} cannot be in {stored} bytes")


@contextmanager
def _readable(path: Path, fault: str) -> Iterator[None]:
    """Whatever the libraries raise on a broken file, as one error that names it.

    Raises:
        CheckpointError: in place of any other exception but a lack of memory.
    """
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(f"{path} {fault}: {error or type(error).__name__}") from None


def _named(path: Path, tensors: Mapping[str, Any]) -> dict[str, Any]:
    called: dict[str, list[str]] = {}
    for name in tensors:
        called.setdefault(name.removesuffix(":0").replace("/", "."), []).append(name)
    for dotted, names in called.items():
        if len(names) > 1:
            which = ", ".join(map(repr, names))
            raise CheckpointError(f"{path} has more than one tensor of the name {dotted}. Received: {which}")
    return {dotted: tensors[names[0]] for dotted, names in called.items()}
