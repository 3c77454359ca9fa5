"""A checkpoint opened: its layers, and their tensors in canonical form, one at a time."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from doconv_core.blocked import compose_blocked
from doconv_core.checkpoint._format import BITS, CheckpointError, some
from doconv_core.checkpoint._hints import Hints
from doconv_core.checkpoint._layers import LayerInfo
from doconv_core.checkpoint._metadata import KEY, read_metadata
from doconv_core.checkpoint._nested import find_average
from doconv_core.checkpoint._recognise import recognise
from doconv_core.checkpoint._sources import Source, open_source
from doconv_core.composition import DIALECTS, dialect_rows, identity, start_from_kernel
from doconv_core.geometry import ConvGeometry

T = TypeVar("T")
SHARD = re.compile(r"-\d{5}-of-\d{5}(\.safetensors|\.bin)$")


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
        names: what the plain model calls each tensor of the source: its name without what wrappers put before it.
        prefix: what was dropped from the names that have it; paths of layers are without it.
        outer: what wrappers put before all names and was dropped before `prefix`, where the user gave that without it.

    Raises:
        CheckpointError: the tensors do not make up what the metadata or the names say, hints match nothing, or a dialect
            is given for what this project's layers wrote.
        ValueError: an unknown dialect.
        TypeError: hints of another type.
    """

    def __init__(self, source: Source, label: str, *, dialect: str | None = None, hints: Hints | None = None) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}. Received: {dialect!r}")
        if not isinstance(hints, Hints | None):
            raise TypeError(f"hints must be Hints. Received: {type(hints).__name__}")
        self.source, self.label = source, label
        self._notes: dict[str, list[str]] = {}
        if dialect in (None, "doconv") and KEY in source.metadata:
            self._declare(hints or Hints())
        else:
            self._recognise(None if dialect == "doconv" else dialect, hints or Hints())
        used = {name for info in self.layers.values() for name in info.tensors.values()}
        self.others = tuple(name for name in source.shapes if name not in used)
        for path, info in self.layers.items():
            self._check(path, info)

    def _declare(self, hints: Hints) -> None:
        options = ("kernel_sizes", "transposed", "like", "exclude", "prefix")
        if unused := [name for name in options if getattr(hints, name)]:
            raise CheckpointError(
                f"{self.label}: the file says itself what its layers are, hints have no effect on it. "
                f"Received: {', '.join(unused)}"
            )
        declared = read_metadata(self.label, self.source.metadata[KEY], self.source.shapes)
        self.layout, self.layers, self.aliases = declared
        self.names: Mapping[str, str] = {name: name for name in self.source.shapes}
        self.prefix = self.outer = ""

    def _recognise(self, dialect: str | None, hints: Hints) -> None:
        if noted := getattr(self.source, "noted", None):
            if dialect is not None:
                raise CheckpointError(
                    f"{self.label}: the layers of this project wrote it, which no dialect is for: its models take it by "
                    f"load_state_dict. Received: {dialect}"
                )
            known = {path: note.kernel_size for path, note in noted.items()}
            turned = [path for path, note in noted.items() if note.transposed]
            hints = replace(hints, known=known, known_transposed=turned)
        self.layout, self.layers, reading = recognise(self.label, self.source.shapes, dialect, hints)
        plain, self._notes, self.aliases = reading.plain, reading.notes, {}
        self.names, self.prefix, self.outer = plain.names, plain.prefix, plain.outer

    @property
    def notes(self) -> list[str]:
        """What was assumed, in sentences."""
        named = {note: [path or "the layer" for path in paths] for note, paths in self._notes.items()}
        return [f"{note}: {some(paths, 5)}" if paths else note for note, paths in named.items()]

    def add_notes(self, *notes: str) -> None:
        """Say more of what was assumed, before the rest."""
        self._notes = {note: [] for note in notes} | self._notes

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self.source.close()

    @np.errstate(all="ignore")
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
        arrays["D_delta"] = self._delta(path, info, arrays["D_delta"]).astype(arrays["D_delta"].dtype, copy=False)
        if info.dialect != "doconv":
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

    @np.errstate(all="ignore")  # what is not finite is named by an error
    def fold(self, path: str) -> np.ndarray:
        """The composed kernel of a DO-Conv layer, canonical: by `doconv_core.compose`, in float64 and rounded once.

        Raises:
            CheckpointError: `W` or `D` has a value that is not finite, which would spread over the kernel, or they have not
                one type.
        """
        info = self.layers[path]
        W, stored = self._canonical(info, "W"), self._canonical(info, "D_delta") if info.has_d else None
        if stored is None or stored.dtype != W.dtype:
            return self.compose(path, W, stored, info.conv)  # which says so of two types
        D_delta = self._delta(path, info, stored)
        if D_delta.dtype == W.dtype:
            return self.compose(path, W, D_delta, info.conv)
        return self.compose(path, W.astype(np.float64), D_delta, info.conv, np.empty(info.conv.kernel_shape, W.dtype))

    def parameters(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """`W` and `D_delta` of an over-parameterized layer as the file pairs them, canonical shapes."""
        info = self.layers[path]
        return self._canonical(info, "W"), self._delta(path, info, self._canonical(info, "D_delta"))

    @np.errstate(all="ignore")
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
        kernel = self._ask(path, compose_blocked, W, D_delta, conv, dialect=info.dialect, out=out)
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

    def itemsize(self, name: str) -> int:
        """The bytes of one value of a tensor of the source."""
        return BITS[self.source.code(name)] // 8

    def release(self, path: str) -> None:
        """Give the memory of a layer's tensors back to the system; they are read again where they are used again."""
        for name in self.layers[path].tensors.values():
            self.source.release(name)

    def _canonical(self, info: LayerInfo, role: str) -> np.ndarray:
        return info.to_canonical(role, self.source.array(info.tensors[role]), self.layout)

    @np.errstate(all="ignore")  # what is not finite stays so
    def _delta(self, path: str, info: LayerInfo, delta: np.ndarray) -> np.ndarray:
        """`D_delta` of `delta` as it is stored. The authors' files store `E` beside it, which takes no part in training unless
        somebody unfroze it: their layer computes with `D + D_diag`, so what it has become is added here, in float64.
        """
        if "diagonal" not in info.tensors:
            return delta
        diagonal = self._canonical(info, "diagonal")
        for role, array in (("D_delta", delta), ("diagonal", diagonal)):
            if np.iscomplexobj(array):  # a sum in float64 would lose half of it
                raise CheckpointError(
                    f"{self.label}: {info.tensors[role]} must be of real numbers. Received: {array.dtype}"
                )
        trained = diagonal.astype(np.float64) - identity(info.conv)
        if not trained.any():
            return delta
        paths = self._notes.setdefault("D_diag is not the identity, it was trained: read as D + D_diag", [])
        if path not in paths:
            paths.append(path)
        return delta.astype(np.float64) + trained

    def _ask(self, path: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """What a function says of a layer; its errors name the file and the layer."""
        try:
            return function(*args, **options)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{self.label}: {path}: {error}") from None

    def _check(self, path: str, info: LayerInfo) -> None:
        """Every tensor that the layer needs is there and has its shape."""
        wanted = self._ask(path, info.shapes)
        needed: tuple[str, ...] = ("weight",) if info.kind in ("linear", "embedding") else ()
        if info.kind == "conv":
            if "d_mul" in info.geometry and info.conv.has_d:
                needed = ("W", "D_delta")
            else:
                needed = ("W",) if "W" in info.tensors else ("weight",)
        for role in needed:
            if role not in info.tensors:
                name = info.names((role,), path, self.layout)[role]
                raise CheckpointError(
                    f"{self.label}: {name} is missing. Received: of {path} only "
                    f"{', '.join(info.tensors.values()) or 'its metadata'}"
                )
        for role, shape in wanted.items():
            if info.form and role != "bias":  # recognised by these shapes
                continue
            name = info.tensors[role]
            stored = self.source.shapes[name]
            expected = shape
            if math.prod(shape) == math.prod(stored):  # else the metadata may ask for any amount of memory
                expected = self._ask(path, info.stored_shape, role, shape, self.layout)
            if stored != expected:
                raise CheckpointError(f"{self.label}: {name} must have shape {expected}. Received: {stored}")


def open_checkpoint(
    path: str | os.PathLike[str], *, dialect: str | None = None, hints: Hints | None = None, ema: bool = False
) -> Checkpoint:
    """Open a file: safetensors of any kind, the index of several, NumPy's `.npz`, or the authors' TensorFlow `.h5`.

    Args:
        path: the file.
        dialect: None for files of this project, "original-torch" or "original-tf" for the authors'.
        hints: what a file without this project's metadata leaves open.
        ema: whether to take the average of the weights that the file has beside them (`find_average`).

    Raises:
        CheckpointError: the file cannot be read, or its tensors do not make up what it says.
        ImportError: an `.h5` file, and h5py is not installed.
        OSError: it cannot be opened.
    """
    source = open_source(Path(path))
    try:
        with naming_the_index(path):
            chosen, notes = find_average(source, str(path)) if ema else (source, [])
            checkpoint = Checkpoint(chosen, str(path), dialect=dialect, hints=hints)
        checkpoint.add_notes(*notes)
        return checkpoint
    except BaseException:
        source.close()
        raise


@contextmanager
def naming_the_index(path: str | os.PathLike[str]) -> Iterator[None]:
    """What is wrong with a file may be that it is one of several, whose layers lie in more than one: say so."""
    try:
        yield
    except CheckpointError as error:
        if shard := SHARD.search(os.fspath(path)):
            raise CheckpointError(
                f"{error}; it is one of several files: open their index (*{shard[1]}.index.json)"
            ) from None
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
