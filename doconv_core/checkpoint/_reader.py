"""Sources of tensors: what all of them have in common, and the first, safetensors files on a memory map."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np

from doconv_core.checkpoint._format import DTYPES, CheckpointError, read_header

CHUNK = 2**23  # bytes of a tensor that is passed through, at a time


class Source:
    """Where tensors come from: files, or arrays in memory. Leaving a `with` block closes it.

    Attributes:
        shapes: of every tensor.
        metadata: a file's own strings.
    """

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def code(self, name: str) -> str:
        """The format's code of a tensor's type."""
        raise NotImplementedError

    def array(self, name: str) -> np.ndarray:
        """A tensor, as a rule read-only."""
        raise NotImplementedError

    def chunks(self, name: str) -> Iterator[memoryview]:
        """A tensor's bytes, whatever its type, a part at a time."""
        raise NotImplementedError

    def release(self, name: str) -> None:
        """Give the memory of a tensor back to the system; it is read again where it is used again."""

    def close(self) -> None:
        """Close the files."""


class Gathered(Source):
    """Tensors of other sources, under names of its own.

    Args:
        origins: for each name the source that has the tensor, and its name there.
        metadata: the strings.
    """

    def __init__(self, origins: Mapping[str, tuple[Source, str]], metadata: dict[str, str]) -> None:
        self._origins, self.metadata = origins, metadata
        self.shapes = {name: source.shapes[stored] for name, (source, stored) in origins.items()}

    def code(self, name: str) -> str:
        source, stored = self._origins[name]
        return source.code(stored)

    def array(self, name: str) -> np.ndarray:
        source, stored = self._origins[name]
        return source.array(stored)

    def chunks(self, name: str) -> Iterator[memoryview]:
        source, stored = self._origins[name]
        return source.chunks(stored)

    def release(self, name: str) -> None:
        source, stored = self._origins[name]
        source.release(stored)

    def close(self) -> None:
        for source in {source for source, _ in self._origins.values()}:
            source.close()


class TensorFile(Source):
    """A safetensors file on a memory map: nothing is read before it is asked for.

    Args:
        path: the file.

    Attributes:
        stored: every tensor by name, in the order of the bytes.
        shapes: of every tensor.
        metadata: the file's own strings.

    Raises:
        CheckpointError: it is not a safetensors file, is truncated, or its header lies about types, shapes or offsets.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.stored, self.metadata = read_header(self.path)
        self.shapes = {name: tensor.shape for name, tensor in self.stored.items()}
        with self.path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Every array is a view of this one, which holds the map open; `numpy.ndarray(buffer=map)` does not.
        self._bytes: np.ndarray | None = np.frombuffer(self._map, np.uint8)

    def close(self) -> None:
        self._bytes = None
        with suppress(BufferError):  # an array is still in use: the map is closed with the last of them
            self._map.close()

    def code(self, name: str) -> str:
        return self.stored[name].code

    def array(self, name: str) -> np.ndarray:
        """A tensor as a read-only view of the map.

        Raises:
            CheckpointError: NumPy has no such type, or no such shape (of no values, but for an axis too long).
        """
        tensor = self.stored[name]
        if tensor.code not in DTYPES:
            raise CheckpointError(f"{self.path}: {name} has a type that NumPy lacks. Received: {tensor.code}")
        values = self._open()[tensor.start : tensor.end].view(DTYPES[tensor.code])
        try:
            return values.reshape(tensor.shape)
        except ValueError as error:
            raise CheckpointError(
                f"{self.path}: {name}: {str(error).rstrip('.')}. Received: shape {tensor.shape}"
            ) from None

    def chunks(self, name: str) -> Iterator[memoryview]:
        tensor, whole = self.stored[name], self._open().data
        for start in range(tensor.start, tensor.end, CHUNK):
            yield whole[start : min(start + CHUNK, tensor.end)]

    def release(self, name: str) -> None:
        tensor = self.stored[name]
        if tensor.start < tensor.end and hasattr(mmap, "MADV_DONTNEED"):
            first = tensor.start // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, tensor.end - first)

    def _open(self) -> np.ndarray:
        if self._bytes is None:
            raise ValueError(f"the file is closed. Received: {self.path}")
        return self._bytes
