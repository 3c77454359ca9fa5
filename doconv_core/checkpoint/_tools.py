"""Files to files, tensor by tensor: fold, and convert to another layout."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import cycle

import numpy as np

from doconv_core.blocked import MAX_KERNELS_PER_BLOCK
from doconv_core.checkpoint._checkpoint import KEY, Checkpoint, describe
from doconv_core.checkpoint._files import CheckpointError, TensorWriter
from doconv_core.checkpoint._layers import LayerInfo
from doconv_core.layouts import FRAMEWORKS

PIECE = 2**22  # elements of W that are composed between two writes
Target = str | os.PathLike[str]
Progress = Callable[[int, int], None]
Make = Callable[["Scratch"], np.ndarray]
Part = tuple[int, Make]  # where in a tensor's bytes, and what makes them


def silent(done: int, total: int) -> None:
    """The progress of a tool that nobody watches."""


@dataclass(frozen=True)
class Written:
    """What a tool did.

    Attributes:
        folded: paths of the layers that were folded.
        refolded: of those that could only be folded and were over-parameterized afresh.
        passed: how many other tensors were passed on.
        notes: what was assumed of the input.
        bytes: the size of the output.
    """

    folded: tuple[str, ...]
    refolded: tuple[str, ...]
    passed: int
    notes: tuple[str, ...]
    bytes: int


def fold_file(checkpoint: Checkpoint, path: Target, *, progress: Progress = silent) -> Written:
    """Write a checkpoint with every DO-Conv layer folded into its plain convolution; all else byte for byte, metadata kept.

    The output has the input's layout: of a PyTorch state dict it is the state dict of the plain model. A layer is read,
    composed in float64, rounded once and written before the next is looked at.

    Args:
        checkpoint: the input.
        path: the output, replaced once it is complete.
        progress: called after each write with the bytes written and their total.

    Raises:
        CheckpointError: a value that is not finite, or two tensors of one name.
        OSError: as `TensorWriter`.
    """
    layers, plan = dict(checkpoint.layers), _Plan(checkpoint)
    folded = tuple(path for path, info in layers.items() if "W" in info.tensors)
    for layer in folded:
        info = layers[layer] = layers[layer].folded().named(layer, checkpoint.layout)
        source = checkpoint.layers[layer]
        for role in ("W", "D_delta", "diagonal"):
            plan.drop(source.tensors.get(role))
        shape = info.from_canonical("weight", _dummy(source.conv.kernel_shape), checkpoint.layout).shape
        plan.add(info.tensors["weight"], checkpoint.source.code(source.tensors["W"]), shape, layer)
    metadata = dict(checkpoint.source.metadata)
    if KEY in metadata or checkpoint.layout != "torch":
        metadata[KEY] = describe(layers, checkpoint.layout, checkpoint.aliases)
    total = plan.write(path, metadata, lambda name: _folded_pieces(checkpoint, plan.made[name], layers), progress)
    passed = len(plan.tensors) - len(plan.made)
    return Written(folded, (), passed, tuple(checkpoint.notes), total)


def convert_file(checkpoint: Checkpoint, path: Target, layout: str, *, progress: Progress = silent) -> Written:
    """Write a checkpoint in another layout: "canonical", "torch", "keras" or "flax". Tensors of no layer are passed on.

    Nothing is folded, but a layer of the authors' PyTorch file whose pairing with `D` has no counterpart here is folded and
    over-parameterized afresh (`Checkpoint.read`). A kernel of one tap becomes a plain convolution.

    Args:
        checkpoint: the input.
        path: the output, replaced once it is complete.
        layout: of the output.
        progress: called after each write with the bytes written and their total.

    Raises:
        CheckpointError: two tensors of one name, or a layer that the layout cannot hold.
        ValueError: an unknown layout.
        OSError: as `TensorWriter`.
    """
    if layout not in FRAMEWORKS:
        raise ValueError(f"layout must be one of {', '.join(FRAMEWORKS)}. Received: {layout!r}")
    layers, plan = dict[str, LayerInfo](), _Plan(checkpoint)
    roles: dict[str, str] = {}
    unchanged: dict[str, str] = {}
    for layer, source in checkpoint.layers.items():
        info = source
        if "W" in source.tensors and not source.conv.has_d:
            info = source.folded()
        kept = {role: "" for role in info.tensors if role != "diagonal"}
        info = layers[layer] = replace(info, tensors=kept, dialect="doconv").named(layer, layout)
        for name in source.tensors.values():
            plan.drop(name)
        for role, name in info.tensors.items():
            stored = source.tensors[role] if role in source.tensors else source.tensors["W"]
            shape = info.shapes().get(role) or checkpoint.source.shapes[stored]
            if info.kind == "linear" and role == "weight":
                shape = info.to_canonical(role, _dummy(shape), checkpoint.layout).shape
            plan.add(
                name, checkpoint.source.code(stored), info.from_canonical(role, _dummy(shape), layout).shape, layer
            )
            roles[name] = role
            moved = info.kind in ("conv", "linear") and not {checkpoint.layout, layout} <= {"canonical", "torch"}
            if source.dialect == "doconv" and (role == "bias" or not moved):
                unchanged[name] = stored
    metadata = {key: value for key, value in checkpoint.source.metadata.items() if key not in (KEY, "format")}
    metadata[KEY] = describe(layers, layout, checkpoint.aliases)
    if layout == "torch":
        metadata["format"] = "pt"
    read = lru_cache(maxsize=1)(checkpoint.read)  # the tensors of a layer follow each other

    def convert(name: str, scratch: Scratch) -> np.ndarray:
        layer = plan.made[name]
        array = scratch.copy(layers[layer].from_canonical(roles[name], read(layer)[roles[name]], layout))
        checkpoint.release(layer)
        return array

    def make(name: str) -> Iterator[Part]:
        return plan.copies(unchanged[name]) if name in unchanged else iter([(0, partial(convert, name))])

    total = plan.write(path, metadata, make, progress)
    notes = list(checkpoint.notes)
    if checkpoint.layout == "torch" and KEY not in checkpoint.source.metadata and layout in ("keras", "flax"):
        notes.append("plain convolutions count as not transposed and matrices as linear layers, unless named")
    refolded = tuple(layer for layer in checkpoint.layers if not checkpoint.is_exact(layer))
    return Written((), refolded, len(plan.tensors) - len(plan.made), tuple(notes), total)


class _Plan:
    """The tensors of the output: those of the input but for what is dropped, and those that are made."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, source = checkpoint, checkpoint.source
        self.copied = {name.removeprefix(checkpoint.prefix): name for name in source.shapes}
        self.tensors = {out: (source.code(name), source.shapes[name]) for out, name in self.copied.items()}
        self.made: dict[str, str] = {}

    def drop(self, name: str | None) -> None:
        if name is not None:
            out = name.removeprefix(self.checkpoint.prefix)
            if self.copied.pop(out, None) and out not in self.made:
                del self.tensors[out]

    def add(self, name: str, code: str, shape: tuple[int, ...], layer: str) -> None:
        if name in self.made or (name in self.copied and self.copied[name] in self.checkpoint.others):
            raise CheckpointError(
                f"{self.checkpoint.label}: {layer} would be written as {name}, a name that is taken. Received: {name} twice"
            )
        self.tensors[name], self.made[name] = (code, shape), layer

    def write(
        self, path: Target, metadata: Mapping[str, str], make: Callable[[str], Iterator[Part]], progress: Progress
    ) -> int:
        """Write the file, `make` giving the parts of the tensors that are not copied, and return its size."""
        with TensorWriter(path, self.tensors, metadata) as writer:
            parts = (
                (name, *part)
                for name in writer.order
                for part in (make(name) if name in self.made else self.copies(self.copied[name]))
            )
            done = 0
            for name, offset, data in _ahead(parts):
                writer.write(name, data, offset)
                done += data.nbytes
                progress(done, writer.size)
        return writer.size

    def copies(self, stored: str) -> Iterator[Part]:
        """A tensor of the input, byte for byte."""
        source = self.checkpoint.source

        def make(chunk: memoryview, scratch: Scratch) -> np.ndarray:
            copy = scratch.copy(np.frombuffer(chunk, np.uint8))
            source.release(stored)
            return copy

        offset = 0
        for chunk in source.chunks(stored):
            yield offset, partial(make, chunk)
            offset += chunk.nbytes


class Scratch:
    """Memory that is used again and again: fresh memory for every layer would cost more than to compose it."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        if self._bytes.size < size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype).reshape(shape)

    def copy(self, array: np.ndarray) -> np.ndarray:
        copy = self.array(array.shape, array.dtype)
        copy[...] = array
        return copy


def _ahead(parts: Iterator[tuple[str, int, Make]]) -> Iterator[tuple[str, int, np.ndarray]]:
    """The parts in order, made by other threads while earlier ones are written."""
    workers = min(4, os.cpu_count() or 1)
    # When a part is begun, at most `workers` others wait to be written, so each has memory of its own.
    scratches = cycle([Scratch() for _ in range(workers + 1)])
    pending: deque[tuple[str, int, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for name, offset, make in parts:
                if len(pending) == workers:
                    first, start, future = pending.popleft()
                    yield first, start, future.result()
                pending.append((name, offset, pool.submit(make, next(scratches))))
            while pending:
                first, start, future = pending.popleft()
                yield first, start, future.result()
        finally:
            for _, _, future in pending:
                future.cancel()


def _folded_pieces(checkpoint: Checkpoint, path: str, layers: Mapping[str, LayerInfo]) -> Iterator[Part]:
    """A layer's folded kernel in the layout of the file, in parts with their byte offsets.

    A layer larger than `PIECE` comes in parts of its first axis where the layout allows: whole groups, whole input channels of
    a transposed layer, or blocks of kernels as `compose` makes them itself, so that the values are the same.
    """
    source = checkpoint.layers[path]
    conv = source.conv

    def whole(scratch: Scratch) -> np.ndarray:
        kernel = layers[path].from_canonical("weight", checkpoint.fold(path), checkpoint.layout)
        checkpoint.release(path)
        return kernel

    if not (source.has_d and checkpoint.layout in ("canonical", "torch") and source.dialect == "doconv"):
        yield 0, whole
        return
    first, second = conv.w_shape[:2]
    unit = 1 if conv.transposed else MAX_KERNELS_PER_BLOCK if conv.groups == 1 else first // conv.groups
    step = max(1, PIECE // (unit * second * conv.d_mul)) * unit
    itemsize = checkpoint.source.array(source.tensors["W"]).itemsize
    for start in range(0, first, step):
        part = slice(start, min(start + step, first))
        yield start * second * conv.taps * itemsize, partial(_fold_part, checkpoint, path, part)


def _fold_part(checkpoint: Checkpoint, path: str, part: slice, scratch: Scratch) -> np.ndarray:
    """The folded kernels of `part`, a slice of the first axis of `W` that the rows of `D` allow."""
    source = checkpoint.layers[path]
    conv, names = source.conv, source.tensors
    count, second = part.stop - part.start, conv.w_shape[1]
    rows = slice(None)
    if conv.transposed:
        rows = part
        piece = replace(conv, in_channels=count, out_channels=second, groups=1)
    elif conv.groups == 1:
        piece = replace(conv, out_channels=count)
    else:
        shared = conv.out_channels // conv.groups
        rows = slice(part.start // shared * second, part.stop // shared * second)
        piece = replace(conv, in_channels=rows.stop - rows.start, out_channels=count, groups=count // shared)
    W, D = checkpoint.source.array(names["W"])[part], checkpoint.source.array(names["D_delta"])[rows]
    kernel = checkpoint.compose(path, W, D, piece, scratch.array(piece.kernel_shape, W.dtype))
    checkpoint.release(path)
    return kernel


def _dummy(shape: tuple[int, ...]) -> np.ndarray:
    """An array of a shape that holds no memory, to see what shape a layout gives it."""
    return np.broadcast_to(np.zeros((), np.float32), shape)
