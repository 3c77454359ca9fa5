"""A checkpoint opened: its layers, and their tensors in canonical form, one at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from doconv_core.blocked import compose_blocked
from doconv_core.checkpoint._files import CODES, CheckpointError, TensorFile
from doconv_core.checkpoint._layers import LayerInfo, layer_from_json
from doconv_core.checkpoint._original import PREFIX, read_arrays
from doconv_core.checkpoint._recognise import Hints, Notes, recognise_tf, recognise_torch
from doconv_core.composition import DIALECTS, dialect_rows, identity, start_from_kernel
from doconv_core.geometry import ConvGeometry
from doconv_core.layouts import FRAMEWORKS

VERSION = 1
KEY = "doconv"  # of the file's metadata


class Source(Protocol):
    """Where tensors come from: a `TensorFile`, or arrays in memory."""

    @property
    def metadata(self) -> dict[str, str]: ...
    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...
    def code(self, name: str) -> str: ...
    def array(self, name: str) -> np.ndarray: ...
    def chunks(self, name: str) -> Iterator[memoryview]: ...
    def release(self, name: str) -> None: ...


class Arrays:
    """Arrays in memory, or anything that indexes to them by name, as a `Source`.

    Raises:
        CheckpointError: an array of a type that the format lacks.
    """

    def __init__(self, label: str, arrays: Mapping[str, Any]) -> None:
        self._arrays, self.metadata = arrays, dict[str, str]()
        self.shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        for name, array in arrays.items():
            if np.dtype(array.dtype) not in CODES:
                raise CheckpointError(f"{label}: {name} has a type that the format lacks. Received: {array.dtype}")

    def code(self, name: str) -> str:
        return CODES[np.dtype(self._arrays[name].dtype)]

    def array(self, name: str) -> np.ndarray:
        return np.asarray(self._arrays[name])

    def chunks(self, name: str) -> Iterator[memoryview]:
        yield np.ascontiguousarray(self.array(name)).reshape(-1).view(np.uint8).data

    def release(self, name: str) -> None: ...


class Checkpoint:
    """The layers of a checkpoint; their tensors are read when they are asked for.

    Args:
        source: the tensors.
        label: what errors call it: the path of the file.
        dialect: None for files of this project; "original-torch" or "original-tf" for the authors'.
        hints: what a file without this project's metadata leaves open.

    Attributes:
        layout: how the source stores its layers: "canonical", "torch", "keras" or "flax".
        layers: every layer by path.
        aliases: further paths of layers that a model shares.
        others: the names of the tensors that belong to no layer.
        prefix: what `DataParallel` put before every name of an authors' file; paths of layers are without it.
        notes: what was assumed, in sentences.

    Raises:
        CheckpointError: the tensors do not make up what the metadata or the names say.
        ValueError: an unknown dialect.
    """

    def __init__(self, source: Source, label: str, *, dialect: str | None = None, hints: Hints | None = None) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}. Received: {dialect!r}")
        self.source, self.label = source, label
        notes: Notes = {}
        self.prefix = ""
        self.layers: dict[str, LayerInfo] = {}
        self.aliases: dict[str, str] = {}
        dialect = None if dialect == "doconv" else dialect
        if dialect is None and KEY in source.metadata:
            self._declared(source.metadata[KEY])
        else:
            hints, names = hints or Hints(), source.shapes
            self.layout = "keras" if dialect == "original-tf" else "torch"
            if dialect == "original-torch" and names and all(name.startswith(PREFIX) for name in names):
                self.prefix = PREFIX
            shapes = {name.removeprefix(self.prefix): shape for name, shape in names.items()}
            if dialect == "original-tf":
                found = recognise_tf(label, shapes, hints, notes)
            else:
                found = recognise_torch(label, shapes, dialect, hints, notes)
            for path, info in found.items():
                tensors = {role: self.prefix + name for role, name in info.tensors.items()}
                self.layers[path] = replace(info, tensors=tensors)
        self.notes = [f"{note}: {_some(paths)}" for note, paths in notes.items()]
        used = {name for info in self.layers.values() for name in info.tensors.values()}
        self.others = tuple(name for name in source.shapes if name not in used)
        for path, info in self.layers.items():
            self._check(path, info)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(self.source, TensorFile):
            self.source.__exit__()

    def read(self, path: str) -> dict[str, np.ndarray]:
        """A layer's canonical tensors by role: `W` and `D_delta`, or `weight`; `bias` and the like.

        A kernel of one tap is a plain `weight`. Rows of `D` are put in this project's order; where the authors' pairing has no
        such order (`is_exact`), the layer is folded and over-parameterized afresh: the same function.
        """
        info = self.layers[path]
        arrays = {role: self._canonical(info, role) for role in info.tensors if role != "diagonal"}
        if info.kind != "conv" or "W" not in arrays:
            return arrays
        conv = info.conv
        if not conv.has_d:
            return {"weight": arrays.pop("W").reshape(conv.kernel_shape)} | arrays
        if info.dialect != "doconv":
            self._check_diagonal(info)
            order = row_order(info.dialect, conv)
            if order is not None:
                arrays["D_delta"] = arrays["D_delta"][order]
            else:
                W, D_delta = start_from_kernel(self.fold(path), conv, np.random.default_rng(0))
                assert D_delta is not None
                arrays |= {"W": W, "D_delta": D_delta}
        return arrays

    def is_exact(self, path: str) -> bool:
        """Whether `read` gives a layer's own `W` and `D`: true of all but the authors' PyTorch layers with some groups."""
        info = self.layers[path]
        return info.dialect == "doconv" or row_order(info.dialect, info.conv) is not None

    def fold(self, path: str) -> np.ndarray:
        """The composed kernel of a DO-Conv layer, canonical: by `doconv_core.compose`, in float64 and rounded once.

        Raises:
            CheckpointError: `W` or `D` has a value that is not finite, which would spread over the kernel, or they have not
                one type.
        """
        info = self.layers[path]
        self._check_diagonal(info)
        D_delta = self._canonical(info, "D_delta") if info.has_d else None
        return self.compose(path, self._canonical(info, "W"), D_delta, info.conv)

    def compose(
        self,
        path: str,
        W: np.ndarray,
        D_delta: np.ndarray | None,
        conv: ConvGeometry,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """`doconv_core.compose` for a layer or a part of it; errors name the file and the tensor."""
        info = self.layers[path]
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                kernel = compose_blocked(W, D_delta, conv, dialect=info.dialect, out=out)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{self.label}: {path}: {error}") from None
        if np.isfinite(kernel).all():
            return kernel
        for role, array in (("W", W), ("D_delta", D_delta)):
            if array is not None and not np.isfinite(array).all():
                index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
                raise CheckpointError(
                    f"{self.label}: {info.tensors[role]} has a value that is not finite, which folding would spread. "
                    f"Received: {array[index]}"
                )
        raise CheckpointError(
            f"{self.label}: {path} folds to values beyond its type. Received: {info.tensors['W']} of dtype {W.dtype}"
        )

    def release(self, path: str) -> None:
        """Give the memory of a layer's tensors back to the system; they are read again where they are used again."""
        for name in self.layers[path].tensors.values():
            self.source.release(name)

    def _canonical(self, info: LayerInfo, role: str) -> np.ndarray:
        return info.to_canonical(role, self.source.array(info.tensors[role]), self.layout)

    def _check_diagonal(self, info: LayerInfo) -> None:
        """The authors' files store `E`, which takes no part in training: `D` beside it is `D_delta`."""
        name = info.tensors.get("diagonal")
        if name and not (self.source.array(name) == identity(info.conv)).all():
            raise CheckpointError(f"{self.label}: {name} must be the identity. Received: other values")

    def _declared(self, text: str) -> None:
        try:
            declared = json.loads(text)
            version = declared["version"]
            if version > VERSION:
                raise CheckpointError(
                    f"{self.label} has format version {version}, later than {VERSION}: a newer doconv reads it. "
                    f"Received: version {version}"
                )
            self.layout = declared["layout"]
            if self.layout not in FRAMEWORKS:
                raise ValueError(f"layout must be one of {', '.join(FRAMEWORKS)}. Received: {self.layout!r}")
            self.aliases = dict(declared.get("aliases", {}))
            self.layers = {
                path: layer_from_json(path, values, self.source.shapes, self.layout)
                for path, values in declared["layers"].items()
            }
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{self.label}: unreadable metadata {KEY!r}: {type(error).__name__}: {error}"
            ) from None

    def _check(self, path: str, info: LayerInfo) -> None:
        """Every tensor that the layer needs is there and has its shape."""
        try:
            wanted = info.shapes()
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{self.label}: {path}: {error}") from None
        needed: tuple[str, ...] = ("weight",) if info.kind in ("linear", "embedding") else ()
        if info.kind == "conv":
            do_layer = "d_mul" in info.geometry and info.conv.has_d
            needed = ("W", "D_delta") if do_layer else ("weight",) if "W" not in info.tensors else ("W",)
        for role in needed:
            if role not in info.tensors:
                name = info.names((role,), path, self.layout)[role]
                raise CheckpointError(
                    f"{self.label}: {name} is missing. Received: of {path} only "
                    f"{', '.join(info.tensors.values()) or 'its metadata'}"
                )
        for role, shape in wanted.items():
            name = info.tensors[role]
            stored = self.source.shapes[name]
            dummy = np.broadcast_to(np.zeros((), np.float32), shape)
            if info.dialect == "original-tf" and role in ("W", "D_delta"):
                dummy = np.moveaxis(dummy, (0, 1, 2), (2, 1, 0) if role == "W" else (2, 0, 1))
            else:
                dummy = info.from_canonical(role, dummy, self.layout)
            if stored != dummy.shape:
                raise CheckpointError(f"{self.label}: {name} must have shape {dummy.shape}. Received: {stored}")


def open_checkpoint(
    path: str | os.PathLike[str], *, dialect: str | None = None, hints: Hints | None = None
) -> Checkpoint:
    """Open a file: safetensors of any kind, or the authors' TensorFlow weights as `.h5` or `.npz`.

    Args:
        path: the file.
        dialect: None for files of this project, "original-torch" or "original-tf" for the authors'.
        hints: what a file without this project's metadata leaves open.

    Raises:
        CheckpointError: the file cannot be read, or its tensors do not make up what it says.
        ImportError: an `.h5` file, and h5py is not installed.
        OSError: it cannot be opened.
    """
    path = Path(path)
    if path.suffix in (".h5", ".hdf5", ".npz"):
        return Checkpoint(Arrays(str(path), read_arrays(path)), str(path), dialect=dialect, hints=hints)
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".tar"):
        raise CheckpointError(
            f"{path} is a pickle, which only PyTorch reads: load it with doconv_torch.load_original, or save its state dict "
            f"as safetensors. Received: {path.name}"
        )
    file = TensorFile(path)
    try:
        return Checkpoint(file, str(path), dialect=dialect, hints=hints)
    except BaseException:
        file.__exit__()
        raise


def row_order(dialect: str, conv: ConvGeometry) -> np.ndarray | None:
    """The rows of a dialect's `D` in this project's order, or None where its pairing has no such order.

    `D[row_order]` composes by `geometry.rows` what `D` composes by `dialect_rows`: integers `(C_in,)`. The authors' TensorFlow
    pairing always has one. Their PyTorch pairing has one with one group, or with as many groups as output channels.
    """
    rows, ours = dialect_rows(dialect, conv), conv.rows
    order = np.zeros(conv.in_channels, np.intp)
    order[ours] = rows
    return order if (order[ours] == rows).all() else None


def _some(paths: list[str], shown: int = 5) -> str:
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join(paths[:shown]) + more


def describe(layers: Mapping[str, LayerInfo], layout: str, aliases: Mapping[str, str]) -> str:
    """The value of the metadata's key "doconv"."""
    known: dict[str, Any] = {"version": VERSION, "layout": layout}
    known["layers"] = {path: info.to_json() for path, info in layers.items()}
    if aliases:
        known["aliases"] = dict(aliases)
    return json.dumps(known, separators=(",", ":"))
