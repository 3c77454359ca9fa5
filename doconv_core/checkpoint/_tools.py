"""Files to files, tensor by tensor: fold, and convert to another layout."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from doconv_core.blocked import MAX_KERNELS_PER_BLOCK
from doconv_core.checkpoint._checkpoint import Checkpoint
from doconv_core.checkpoint._format import CheckpointError
from doconv_core.checkpoint._layers import LayerInfo
from doconv_core.checkpoint._metadata import KEY, describe
from doconv_core.checkpoint._shards import INDEX, ShardedFile, ShardedWriter
from doconv_core.checkpoint._writer import TensorWriter
from doconv_core.layouts import FRAMEWORKS

OVER_ROLES = ("W", "D_delta", "diagonal")  # of a layer, what its fold takes away
PIECE = 2**22  # elements of W that are composed between two writes
Target = str | os.PathLike[str]
Progress = Callable[[int, int], None]
Make = Callable[["Scratch"], np.ndarray]
Part = tuple[int, Make]  # where in a tensor's bytes, and what makes them
Parts = Callable[[], Iterator[Part]]


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


def fold_file(checkpoint: Checkpoint, path: Target, *, names: str = "plain", progress: Progress = silent) -> Written:
    """Write a checkpoint with every DO-Conv layer folded into its plain convolution; all else byte for byte, metadata kept.

    The output has the input's layout: of a PyTorch state dict it is the state dict of the plain model. A layer is read,
    composed in float64, rounded once and written before the next is looked at. Where `path` is an index
    (`*.safetensors.index.json`), so is the input, and each tensor stays in the file of the same number.

    Args:
        checkpoint: the input.
        path: the output, replaced once it is complete.
        names: what a folded kernel is called: "plain", as the plain model calls it, or "W", as the authors' folded models do.
        progress: called after each write with the bytes written and their total.

    Raises:
        CheckpointError: a value that is not finite, two tensors of one name, or `names` that the layout does not have.
        ValueError: other `names`.
        OSError: as `TensorWriter`.
    """
    if names not in ("plain", "W"):
        raise ValueError(f"names must be 'plain' or 'W'. Received: {names!r}")
    declared = KEY in checkpoint.source.metadata
    if names == "W" and (declared or checkpoint.layout != "torch"):
        raise CheckpointError(
            f"only a PyTorch state dict without this project's metadata can keep the name W. Received: {checkpoint.label}"
        )
    layers, plan = dict(checkpoint.layers), Plan(checkpoint)
    over = [layer for layer, info in layers.items() if "W" in info.tensors]
    for layer in over:
        source = checkpoint.layers[layer]
        called = plan.drop(*(source.tensors[role] for role in OVER_ROLES if role in source.tensors))
        info = source.folded()
        info.tensors["weight"] = called if names == "W" else _folded_name(called)
        layers[layer] = info
        plan.add(layer, info, "weight", checkpoint.layout, partial(_folded_pieces, checkpoint, layer, info))
    metadata = dict(checkpoint.source.metadata)
    if declared or checkpoint.layout != "torch":
        _rename(plan, layers)
        if all(info.tensors == info.names(info.tensors, layer, checkpoint.layout) for layer, info in layers.items()):
            metadata[KEY] = describe(layers, checkpoint.layout, checkpoint.aliases)
    total = plan.write(path, metadata, progress)
    return Written(tuple(over), (), len(plan.entries) - len(over), tuple(checkpoint.notes), total)


def convert_file(checkpoint: Checkpoint, path: Target, layout: str, *, progress: Progress = silent) -> Written:
    """Write a checkpoint in another layout: "canonical", "torch", "keras" or "flax". Tensors of no layer are passed on.

    Nothing is folded, but a layer of the authors' PyTorch file whose pairing with `D` has no counterpart here is folded and
    over-parameterized afresh (`Checkpoint.read`). A kernel of one tap becomes a plain convolution.

    Args:
        checkpoint: the input.
        path: the output, replaced once it is complete; an index as in `fold_file`.
        layout: of the output.
        progress: called after each write with the bytes written and their total.

    Raises:
        CheckpointError: two tensors of one name, or a layer that the layout cannot hold.
        ValueError: an unknown layout.
        OSError: as `TensorWriter`.
    """
    if layout not in FRAMEWORKS:
        raise ValueError(f"layout must be one of {', '.join(FRAMEWORKS)}. Received: {layout!r}")
    plan, read = Plan(checkpoint), lru_cache(maxsize=1)(checkpoint.read)  # the tensors of a layer follow each other
    layers: dict[str, LayerInfo] = {}

    def convert(layer: str, role: str, scratch: Scratch) -> np.ndarray:
        array = scratch.copy(layers[layer].from_canonical(role, read(layer)[role], layout))
        checkpoint.release(layer)
        return array

    for layer, source in checkpoint.layers.items():
        info = layers[layer] = _converted(layer, source, layout)
        plan.drop(*source.tensors.values())
        for role in info.tensors:
            keeps = _keeps_bytes(source, role, checkpoint.layout, layout)
            parts = None if keeps else partial(_whole, partial(convert, layer, role))
            plan.add(layer, info, role, layout, parts)
    made = sum(len(info.tensors) for info in layers.values())
    metadata = {key: value for key, value in checkpoint.source.metadata.items() if key not in (KEY, "format")}
    metadata[KEY] = describe(layers, layout, checkpoint.aliases)
    if layout == "torch":
        metadata["format"] = "pt"
    total = plan.write(path, metadata, progress)
    notes = list(checkpoint.notes)
    if checkpoint.layout == "torch" and KEY not in checkpoint.source.metadata and layout in ("keras", "flax"):
        notes.append("plain convolutions count as not transposed and matrices as linear layers, unless named")
    refolded = tuple(layer for layer in checkpoint.layers if not checkpoint.is_exact(layer))
    return Written((), refolded, len(plan.entries) - made, tuple(notes), total)


@dataclass(frozen=True)
class Entry:
    """One tensor of the output: its type and shape, the tensor of the input that it comes from, and what makes its bytes."""

    code: str
    shape: tuple[int, ...]
    origin: str
    parts: Parts
    is_made: bool = False


class Plan:
    """The tensors of the output: those of the input under the plain model's names, but for what is dropped and what is made.

    Attributes:
        entries: the tensors by name.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint, source = checkpoint, checkpoint.source
        self.entries = {
            checkpoint.names[stored]: Entry(source.code(stored), shape, stored, partial(self.copies, stored))
            for stored, shape in source.shapes.items()
        }

    def drop(self, *stored: str) -> str:
        """Leave tensors of the input out; returns the first one's name."""
        names = [self.checkpoint.names[name] for name in stored]
        for name in names:
            self.entries.pop(name, None)
        return names[0] if names else ""

    def add(self, layer: str, info: LayerInfo, role: str, layout: str, parts: Parts | None) -> None:
        """Put in a tensor of a layer, which is to be `info` in `layout`: by `parts`, or a copy of the input's."""
        source, stored = self.checkpoint.layers[layer], self.checkpoint.source
        origin = source.tensors.get(role) or source.tensors["W"]
        if info.kind == "conv":
            canonical = info.shapes()[role]
        else:  # at most a transpose, which is its own inverse
            canonical = source.stored_shape(role, stored.shapes[origin], self.checkpoint.layout)
        try:
            shape = info.stored_shape(role, canonical, layout)
        except ValueError as error:
            raise CheckpointError(f"{self.checkpoint.label}: {layer} cannot be written as {layout}: {error}") from None
        parts = parts or partial(self.copies, origin)
        self.put(layer, info.tensors[role], Entry(stored.code(origin), shape, origin, parts, True))

    def put(self, layer: str, name: str, entry: Entry) -> None:
        """Put a tensor of a layer in, which may have the name of one that the same layer has in the input."""
        old = self.entries.get(name)
        if old is not None and (old.is_made or old.origin not in self.checkpoint.layers[layer].tensors.values()):
            raise CheckpointError(
                f"{self.checkpoint.label}: {layer} would be written as {name}, a name that is taken. Received: {name} twice"
            )
        self.entries[name] = entry

    def write(self, path: Target, metadata: Mapping[str, str], progress: Progress) -> int:
        """Write the file or files, and return their size.

        Each part is written by the thread that made it, while it is in the processor's cache; one writes while others compose.
        """
        threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1) + 1)
        with self._writer(path, metadata) as writer, threads:
            scratch, done = Scratch(), 0

            def put(part: tuple[str, int, Make]) -> int:
                name, offset, make = part
                data = make(scratch)
                writer.write(name, data, offset)
                return data.nbytes

            parts = ((name, *part) for name in writer.order for part in self.entries[name].parts())
            # A pipe takes nothing out of order, and a small file is not worth the threads.
            in_order = writer.is_stream or writer.size < PIECE
            for count in (map if in_order else threads.map)(put, parts):  # an error cancels what has not begun
                done += count
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

    def _writer(self, path: Target, metadata: Mapping[str, str]) -> TensorWriter | ShardedWriter:
        tensors = {name: (entry.code, entry.shape) for name, entry in self.entries.items()}
        source = self.checkpoint.source
        if not os.fspath(path).endswith(INDEX):
            return TensorWriter(path, tensors, metadata)
        if not isinstance(source, ShardedFile):
            raise CheckpointError(f"{self.checkpoint.label} is one file, so is the output. Received: {path}")
        shard_of = {name: source.shard_of[entry.origin] for name, entry in self.entries.items()}
        return ShardedWriter(path, tensors, metadata, shard_of, source.index_metadata)


class Scratch(threading.local):
    """Memory that each thread uses again and again: fresh memory for every layer would cost more than to compose it."""

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


def _folded_name(name: str) -> str:
    """The name of a folded kernel: `conv.weight` for `conv.W`; Keras and Flax call both alike."""
    return f"{name[:-1]}weight" if name.endswith("W") else name


def _rename(plan: Plan, layers: dict[str, LayerInfo]) -> None:
    """Give tensors of plain layers the names of the layout, where the authors have others (`depthwise_kernel`)."""
    layout, dotted = plan.checkpoint.layout, all("/" not in name for name in plan.entries)
    for layer, info in layers.items():
        called = info.named(layer, layout)
        if info.tensors == called.tensors or not dotted or info.kind != "conv" or not info.depthwise:
            continue
        layers[layer] = called
        for role, stored in info.tensors.items():
            entry = plan.entries.pop(plan.checkpoint.names.get(stored, stored))
            plan.put(layer, called.tensors[role], replace(entry, is_made=True))


def _converted(layer: str, source: LayerInfo, layout: str) -> LayerInfo:
    """A layer as `layout` names it."""
    info = source.folded() if "W" in source.tensors and not source.conv.has_d else source
    kept = {role: "" for role in info.tensors if role != "diagonal"}
    return replace(info, tensors=kept, dialect="doconv", form="").named(layer, layout)


def _keeps_bytes(source: LayerInfo, role: str, before: str, after: str) -> bool:
    """Whether a tensor has the same bytes in both layouts."""
    if source.dialect != "doconv" or (role == "D_delta" and "diagonal" in source.tensors):
        return False
    return source.is_canonical(role, before) and source.is_canonical(role, after)


def _whole(make: Make) -> Iterator[Part]:
    """A tensor in one part."""
    yield 0, make


def _folded_pieces(checkpoint: Checkpoint, path: str, info: LayerInfo) -> Iterator[Part]:
    """A layer's folded kernel in the layout of the file, in parts with their byte offsets; `info` is the folded layer.

    A layer larger than `PIECE` comes in parts of its first axis where the layout allows: whole groups, whole input channels of
    a transposed layer, or blocks of kernels as `compose` makes them itself, so that the values are the same.
    """
    source = checkpoint.layers[path]
    conv = source.conv

    def whole(scratch: Scratch) -> np.ndarray:
        kernel = info.from_canonical("weight", checkpoint.fold(path), checkpoint.layout)
        checkpoint.release(path)
        return kernel

    if not source.has_d or not _keeps_bytes(source, "D_delta", checkpoint.layout, "canonical"):
        yield 0, whole
        return
    first, second = conv.w_shape[:2]
    per_group = 1 if conv.transposed else first // conv.groups
    unit = MAX_KERNELS_PER_BLOCK if per_group == first else per_group
    step = max(1, PIECE // (unit * second * conv.d_mul)) * unit
    itemsize = checkpoint.itemsize(source.tensors["W"])
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
