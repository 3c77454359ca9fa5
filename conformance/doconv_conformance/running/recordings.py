"""Recorded activations: a file with one array per layer, what the layer was given, channels first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from doconv_core.checkpoint import Checkpoint, open_source
from doconv_core.geometry import ConvGeometry

if TYPE_CHECKING:
    from doconv_core.checkpoint._sources import Source

SUFFIXES = (".safetensors", ".npz")
FLOATS = ("F64", "F32", "F16", "BF16")
AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


@dataclass(frozen=True)
class Recordings:
    """A file of recorded activations.

    Attributes:
        source: the file.
        names: its array for each over-parameterized layer that has one, by the layer's path.
        unused: names of arrays for layers that have no `D`.
    """

    source: Source
    names: dict[str, str]
    unused: tuple[str, ...]

    def array(self, path: str) -> np.ndarray:
        """The recording of a layer: `(N, C_in, *space)`."""
        return self.source.array(self.names[path])


def open_recordings(file: Path, checkpoint: Checkpoint) -> Recordings:
    """Open a file whose arrays are named as the layers of a checkpoint, with dots or slashes.

    Args:
        file: `.safetensors` or `.npz`.
        checkpoint: the model's.

    Raises:
        ValueError: another kind of file, a name that is no layer's, two arrays for one layer, an array of integers, of another
            shape than the layer reads, or with values that are not finite. `CheckpointError` is one: the file cannot be read.
        OSError: the file cannot be opened.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"recorded activations are read from {' or '.join(SUFFIXES)}. Received: {file.name}")
    source, names, unused = open_source(file), dict[str, str](), list[str]()
    for name in source.shapes:
        path = _path(name, checkpoint)
        if path not in checkpoint.layers:
            listed = ", ".join(over_parameterized(checkpoint)[:8])
            raise ValueError(f"{file}: no layer has the name of an array; the layers are {listed}. Received: {name}")
        if not checkpoint.layers[path].has_d:
            unused.append(name)
            continue
        if path in names:
            raise ValueError(f"{file}: two arrays are for one layer. Received: {names[path]} and {name}")
        names[path] = name
        if source.code(name) not in FLOATS:
            raise ValueError(f"{file}: {name} must be of a floating point type. Received: {source.code(name)}")
        _check_shape(f"{file}: {name}", source.shapes[name], checkpoint.layers[path].conv)
        if not np.isfinite(source.array(name)).all():
            raise ValueError(f"{file}: {name} has a value that is not finite")
    return Recordings(source, names, tuple(unused))


def over_parameterized(checkpoint: Checkpoint) -> list[str]:
    """The paths of the layers with `D`."""
    return [path for path, info in checkpoint.layers.items() if info.has_d]


def _path(name: str, checkpoint: Checkpoint) -> str:
    """The layer's path: dots for slashes, without the prefix that was dropped from the file's names, not an alias."""
    path = name.replace("/", ".")
    if path not in checkpoint.layers:
        path = path.removeprefix(checkpoint.prefix)
    return checkpoint.aliases.get(path, path)


def _check_shape(what: str, shape: tuple[int, ...], geometry: ConvGeometry) -> None:
    channels, rank = geometry.in_channels, geometry.spatial_rank
    if len(shape) != rank + 2 or shape[1] != channels or not shape[0]:
        last = len(shape) == rank + 2 and shape[-1] == channels
        hint = "; its channels come last: move them to the second axis" if last else ""
        raise ValueError(f"{what} must have shape (N, {channels}, {AXES[rank]}){hint}. Received: {shape}")
    try:
        geometry.output_size(shape[2:])
    except ValueError as error:
        raise ValueError(f"{what} is too small for the layer: {error}") from None
