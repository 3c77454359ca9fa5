"""Safetensors files written tensor by tensor. The library's own interface holds a whole file in memory to write it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from doconv_core.checkpoint._format import CODES, Tensors, make_header
from doconv_core.outputs import Output

OTHER_FORMATS = (
    ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pdparams", ".params", ".h5", ".hdf5", ".keras", ".npz", ".npy", ".onnx",
    ".pb", ".tflite", ".msgpack", ".gguf", ".json",
)  # fmt: skip
FLUSH = 2**26  # bytes that are written before the system is told to put them on the disk


def name_of_another_format(path: str | os.PathLike[str]) -> str:
    """Why a safetensors file can't have this name, or nothing."""
    if Path(path).suffix.lower() not in OTHER_FORMATS:
        return ""
    return (
        f"is written as safetensors, so its name must not end in another format's suffix. Received: {Path(path).name}"
    )


class TensorWriter(Output):
    """A safetensors file written under a temporary name beside `path`, and renamed to it once it is complete and on the disk.

    Used in a `with` block, as `Output`, whose guarantees it gives. Several threads may write at the same time.

    Args:
        path: the file to write or replace; a symbolic link is followed, a pipe or a device written to.
        tensors: the code of its type and the shape of every tensor.
        metadata: strings to store.

    Attributes:
        order: the names in the order of their bytes: by type, wide ones first, then by name, as the library orders them.
        size: of the whole file.
        is_stream: whether it is a pipe or a device, which takes the tensors in this order only.

    Raises:
        TypeError: names, or keys or values of `metadata`, that are not strings.
        ValueError: such that UTF-8 cannot write; a name of another format's ending.
        OSError: the folder does not exist or is not writable, or the disk is too small.
    """

    def __init__(self, path: str | os.PathLike[str], tensors: Tensors, metadata: Mapping[str, str]) -> None:
        if text := name_of_another_format(path):
            raise ValueError(f"the file {text}")
        self._header, self._ranges = make_header(tensors, metadata)
        self.order = list(self._ranges)
        super().__init__(path, len(self._header) + max((end for _, end in self._ranges.values()), default=0))
        self._written = self._flushed = 0
        self._lock = threading.Lock()

    def __enter__(self) -> TensorWriter:
        super().__enter__()
        try:
            self._put(memoryview(self._header), 0)
        except BaseException:
            self.discard()
            raise
        return self

    def write(self, name: str, data: np.ndarray | memoryview, offset: int = 0) -> None:
        """The bytes of a tensor, or those from `offset` on."""
        view = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else data
        start, end = self._ranges[name]
        start += offset
        if start + view.nbytes > end:
            raise ValueError(f"{name} has {end - start} bytes left. Received: {view.nbytes}")
        self._put(view, len(self._header) + start)

    def sync(self) -> None:
        """Put the bytes on the disk, all of them.

        Raises:
            ValueError: some were not written.
            OSError: as `Output.sync`.
        """
        if self._written != self.size:
            raise ValueError(f"{self.path} is incomplete. Received: {self._written} of {self.size} bytes")
        super().sync()

    def _put(self, view: memoryview, position: int) -> None:
        with self._lock:
            if not self.is_stream:
                self.file.seek(position)
            elif position != self._written:
                raise ValueError(
                    f"a pipe takes tensors in their order. Received: byte {position} after {self._written}"
                )
            self.put(view)
            self._written += view.nbytes
            if self._written - self._flushed >= FLUSH and hasattr(os, "posix_fadvise") and not self.is_stream:
                # Writing to the disk begins now, not all at the end. Pages that are still to be written stay.
                new = self._written - self._flushed
                os.posix_fadvise(self.file.fileno(), self._flushed, new, os.POSIX_FADV_DONTNEED)
                self._flushed = self._written


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """All of `tensors` into one file, which replaces `path` once it is complete.

    Raises:
        TypeError: the format has no such type; names, or keys or values of `metadata`, that are not strings.
        ValueError: such that UTF-8 cannot write.
        OSError: as `TensorWriter`.
    """
    for name, array in tensors.items():
        if not isinstance(array, np.ndarray) or array.dtype not in CODES:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"safetensors has no such type. Received: {name} of dtype {kind}")
    with TensorWriter(path, {n: (CODES[a.dtype], a.shape) for n, a in tensors.items()}, metadata) as writer:
        for name in writer.order:
            writer.write(name, tensors[name])
