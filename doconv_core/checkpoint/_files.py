"""Safetensors files, read on a memory map and written tensor by tensor.

The library's own NumPy interface holds a whole file in memory to write it. The format is short enough to stream: eight bytes
with the length of a JSON header, the header (name, type, shape and byte range of each tensor), then the bytes.
"""

from __future__ import annotations

import errno
import glob
import json
import math
import mmap
import os
import secrets
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from operator import index
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

try:
    import fcntl
except ImportError:  # Windows: a partial file of an ended run stays until it is removed by hand
    fcntl = None  # type: ignore[assignment]

DTYPES: dict[str, np.dtype] = {
    code: np.dtype(kind)
    for code, kind in {
        "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "C64": np.complex64,
        "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "BOOL": np.bool_,
        "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
        "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    }.items()
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}
# Bits of every type of the format, in the order in which the library puts tensors of different types.
BITS = {
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F32": 32, "U32": 32, "I32": 32, "BF16": 16, "F16": 16, "U16": 16, "I16": 16,
    "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8,
    "F6_E3M2": 6, "F6_E2M3": 6, "F4": 4, "BOOL": 8,
}  # fmt: skip
ORDER = list(BITS)
CHUNK = 2**23  # bytes of a tensor that is passed through, at a time
FLUSH = 2**26  # bytes that are written before the system is told to put them on the disk
LONGEST_HEADER = 100_000_000  # the library's limit


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit; the text names the file and the tensor."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file: the format's code of its type, its shape, and its byte range counted from the file's start."""

    code: str
    shape: tuple[int, ...]
    start: int
    end: int


class TensorFile:
    """A safetensors file on a memory map: nothing is read before it is asked for.

    Args:
        path: the file.

    Attributes:
        stored: every tensor by name, in the order of the bytes.
        metadata: the file's own strings.

    Raises:
        CheckpointError: it is not a safetensors file, is truncated, or its header lies about types, shapes or offsets.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.stored, self.metadata = _read_header(self.path)
        try:  # a second opinion: what passes here can be read by every user of the format
            with safe_open(self.path, "numpy"):
                pass
        except SafetensorError as error:
            raise CheckpointError(f"{self.path} is not a valid safetensors file: {error}") from None
        with self.path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Every array is a view of this one, which holds the map open; `numpy.ndarray(buffer=map)` does not.
        self._bytes: np.ndarray | None = np.frombuffer(self._map, np.uint8)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bytes = None
        with suppress(BufferError):  # an array is still in use: the map is closed with the last of them
            self._map.close()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.stored.items()}

    def code(self, name: str) -> str:
        """The format's code of a tensor's type."""
        return self.stored[name].code

    def array(self, name: str) -> np.ndarray:
        """A tensor as a read-only view of the map.

        Raises:
            CheckpointError: NumPy has no such type.
        """
        tensor = self.stored[name]
        if tensor.code not in DTYPES:
            raise CheckpointError(f"{self.path}: {name} has a type that NumPy lacks. Received: {tensor.code}")
        return self._open()[tensor.start : tensor.end].view(DTYPES[tensor.code]).reshape(tensor.shape)

    def chunks(self, name: str) -> Iterator[memoryview]:
        """A tensor's bytes, whatever its type, a part at a time."""
        tensor, whole = self.stored[name], self._open().data
        for start in range(tensor.start, tensor.end, CHUNK):
            yield whole[start : min(start + CHUNK, tensor.end)]

    def release(self, name: str) -> None:
        """Give the memory of a tensor back to the system; it is read again where it is used again."""
        tensor = self.stored[name]
        if hasattr(mmap, "MADV_DONTNEED"):
            first = tensor.start // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, tensor.end - first)

    def _open(self) -> np.ndarray:
        if self._bytes is None:
            raise ValueError(f"the file is closed. Received: {self.path}")
        return self._bytes


class TensorWriter:
    """A safetensors file written under a temporary name beside `path`, and renamed to it once it is complete and on the disk.

    Used in a `with` block. On an exception, a full disk included, nothing is left and an old `path` is untouched. The partial
    file of a run that was killed is removed by the next one that writes the same `path`.

    Args:
        path: the file to write or replace; a symbolic link is followed.
        tensors: the code of its type and the shape of every tensor.
        metadata: strings to store.

    Attributes:
        order: the names in the order of their bytes: by type, wide ones first, then by name, as the library orders them.

    Raises:
        OSError: the folder does not exist or is not writable, or the disk is too small.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
        metadata: Mapping[str, str],
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.order = sorted(tensors, key=lambda name: (ORDER.index(tensors[name][0]), name))
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        self._start: dict[str, int] = {}
        self._end: dict[str, int] = {}
        position = 0
        for name in self.order:
            code, shape = tensors[name]
            self._start[name], position = position, position + _bytes(code, shape)
            self._end[name] = position
            header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [self._start[name], position]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._header = struct.pack("<Q", len(text)) + text
        self.size = len(self._header) + position
        self._written = self._flushed = 0

    def __enter__(self) -> TensorWriter:
        _remove_stale(self.path)
        free = shutil.disk_usage(self.path.parent).free
        if free < self.size:
            raise OSError(errno.ENOSPC, f"the disk has {free} bytes free, {self.size} are needed", str(self.path))
        self._file, self._partial = _open_partial(self.path)
        try:
            self._put(memoryview(self._header), 0)
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, name: str, data: np.ndarray | memoryview, offset: int = 0) -> None:
        """The bytes of a tensor, or those from `offset` on."""
        view = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else data
        start = self._start[name] + offset
        if start + view.nbytes > self._end[name]:
            raise ValueError(f"{name} has {self._end[name] - start} bytes left. Received: {view.nbytes}")
        self._put(view, len(self._header) + start)

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            if self._written != self.size:
                raise ValueError(f"{self.path} is incomplete. Received: {self._written} of {self.size} bytes")
            os.fsync(self._file.fileno())
            if self.path.exists():
                shutil.copymode(self.path, self._partial)
            if fcntl is None:
                self._file.close()  # Windows renames no open file
            os.replace(self._partial, self.path)
        except BaseException:
            self._discard()
            raise
        self._file.close()
        with suppress(OSError):  # not every system can sync a folder
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    def _put(self, view: memoryview, position: int) -> None:
        self._file.seek(position)
        while view.nbytes:
            count = self._file.write(view)
            view, self._written = view[count:], self._written + count
        if self._written - self._flushed >= FLUSH and hasattr(os, "posix_fadvise"):
            # Writing to the disk begins now, not all at the end. Pages that are still to be written are not dropped by this.
            new = self._written - self._flushed
            os.posix_fadvise(self._file.fileno(), self._flushed, new, os.POSIX_FADV_DONTNEED)
            self._flushed = self._written

    def _discard(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """All of `tensors` into one file, which replaces `path` once it is complete.

    Raises:
        TypeError: the format has no such type.
        OSError: as `TensorWriter`.
    """
    for name, array in tensors.items():
        if array.dtype not in CODES:
            raise TypeError(f"safetensors has no such type. Received: {name} of dtype {array.dtype}")
    with TensorWriter(path, {n: (CODES[a.dtype], a.shape) for n, a in tensors.items()}, metadata) as writer:
        for name in writer.order:
            writer.write(name, tensors[name])


def _read_header(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 0 < length <= min(size - 8, LONGEST_HEADER):
            raise CheckpointError(
                f"{path} is not a safetensors file, or is truncated: its header should have {length} bytes. "
                f"Received: {size} bytes"
            )
        try:
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", None) or {}
            begin = 8 + length
            listed = {
                name: Stored(
                    str(entry["dtype"]),
                    tuple(index(size) for size in entry["shape"]),
                    begin + index(entry["data_offsets"][0]),
                    begin + index(entry["data_offsets"][1]),
                )
                for name, entry in header.items()
            }
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{path} has no readable safetensors header: {type(error).__name__}: {error}"
            ) from None
    stored = dict(sorted(listed.items(), key=lambda item: (item[1].start, item[1].end)))
    position = begin
    for name, tensor in stored.items():
        if tensor.start != position or tensor.end < tensor.start:
            raise CheckpointError(
                f"{path}: the header lies about {name}, whose bytes must begin where the last tensor's end, at "
                f"{position - begin}. Received: {tensor.start - begin} to {tensor.end - begin}"
            )
        if tensor.end > size:
            raise CheckpointError(
                f"{path} is truncated: {name} ends at byte {tensor.end}. Received: a file of {size} bytes"
            )
        if tensor.code in BITS and _bytes(tensor.code, tensor.shape) != tensor.end - tensor.start:
            raise CheckpointError(
                f"{path}: the header lies about {name}, {tensor.code} of shape {tensor.shape} has "
                f"{_bytes(tensor.code, tensor.shape)} bytes. Received: {tensor.end - tensor.start} bytes"
            )
        position = tensor.end
    if position != size:
        raise CheckpointError(f"{path}: the tensors end at byte {position}. Received: a file of {size} bytes")
    return stored, metadata


def _bytes(code: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * BITS[code] // 8


def _open_partial(path: Path) -> tuple[FileIO, Path]:
    """A new file beside `path`, locked for as long as this process writes it."""
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        file = FileIO(partial, "x")
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if partial.exists():
            return file, partial
        file.close()  # another run took it for a stale one before it was locked


def _remove_stale(path: Path) -> None:
    """Remove the partial files of runs that ended without removing them: nobody holds their lock."""
    if fcntl is None:
        return
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError), stale.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stale.unlink()
