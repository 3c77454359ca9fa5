"""What a checkpoint holds, layer by layer: kinds of layers, roles of their tensors, and each framework's names for them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from doconv_core.geometry import ConvGeometry
from doconv_core.layouts import FRAMEWORKS, Layout

# What a tensor is to a layer, canonically, and its name in each framework. `W` and `weight` of a convolution never meet.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "conv": {
        "W": ("W", "W", "kernel", "kernel"),
        "D_delta": ("D_delta", "D", "D", "D"),
        "weight": ("weight", "weight", "kernel", "kernel"),
        "bias": ("bias", "bias", "bias", "bias"),
    },
    "linear": {
        "weight": ("weight", "weight", "kernel", "kernel"),
        "bias": ("bias", "bias", "bias", "bias"),
    },
    "embedding": {"weight": ("weight", "weight", "embeddings", "embedding")},
    "batch_norm": {
        "weight": ("weight", "weight", "gamma", "scale"),
        "bias": ("bias", "bias", "beta", "bias"),
        "running_mean": ("running_mean", "running_mean", "moving_mean", "mean"),
        "running_var": ("running_var", "running_var", "moving_variance", "var"),
        "num_batches_tracked": ("num_batches_tracked",) * 4,
    },
    "norm": {
        "weight": ("weight", "weight", "gamma", "scale"),
        "bias": ("bias", "bias", "beta", "bias"),
    },
}
# The tensors of a convolution whose axes a layout orders, and what `Layout` calls them.
OVER = {"W": "w", "D_delta": "d", "diagonal": "d", "weight": "kernel"}
OPTIONAL = ("num_batches_tracked",)  # PyTorch's alone
# Options of a convolution that say what its numbers mean; padding is left out, as a layer before it may do the padding.
COMPARED = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups", "transposed", "d_mul", "norm")


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a checkpoint.

    Attributes:
        kind: a key of `NAMES`: "conv" (transposed ones too), "linear", "embedding", "batch_norm" or "norm" (layer norm, group
            norm and their like: a scale and a shift a channel).
        tensors: the name in the file of each role.
        geometry: what is known of a convolution, as in `ConvGeometry.to_json`; padding, for example, may be missing. Of a
            "norm", which one it is: "layer", "group" (and `groups`), "instance" or "rms".
        epsilon: of a normalisation, where known.
        depthwise: the Keras layer is a `DepthwiseConv`.
        transpose_kernel: Flax's option of that name.
        dialect: of `D`'s rows, see `doconv_core.dialect_rows`.
        guessed: options in `geometry` that the file does not say and that only stand for the right shapes.
        form: how the authors store `W` and `D` where that is no layout: "tf" for `(S, C_in/G, C_out)` and `(K, S, C_in)`,
            "mxnet" for the plain kernel's shape and `(K, S, C_in)`.
    """

    kind: str
    tensors: dict[str, str]
    geometry: dict[str, Any] = field(default_factory=dict)
    epsilon: float | None = None
    depthwise: bool = False
    transpose_kernel: bool = False
    dialect: str = "doconv"
    guessed: tuple[str, ...] = ()
    form: str = ""

    @classmethod
    def of_kind(cls, kind: str, epsilon: float | None = None, groups: int | None = None) -> LayerInfo:
        """A layer that is no convolution, its tensors not named yet; a `kind` that is none of `NAMES` is which norm it is."""
        if kind in NAMES:
            return cls(kind, {}, epsilon=epsilon)
        return cls("norm", {}, {"norm": kind} | ({} if groups is None else {"groups": groups}), epsilon)

    @property
    def conv(self) -> ConvGeometry:
        """The convolution, as far as known.

        Raises:
            ValueError: sizes are missing or do not belong together.
        """
        return ConvGeometry.from_json(self.geometry)

    @property
    def has_d(self) -> bool:
        return "D_delta" in self.tensors

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The canonical shapes that the geometry asks for; empty for the other kinds."""
        if self.kind != "conv":
            return {}
        conv = self.conv
        wanted = {
            "W": conv.w_shape, "D_delta": conv.d_shape, "diagonal": conv.d_shape, "weight": conv.kernel_shape,
            "bias": (conv.out_channels,),
        }  # fmt: skip
        return {role: wanted[role] for role in self.tensors if role in wanted}

    def from_canonical(self, role: str, array: np.ndarray, layout: str) -> np.ndarray:
        """A canonical tensor as `layout` stores it, a view where that is possible; nothing is written in a `form`."""
        return self._ordered(role, array, layout, "from_canonical")

    def to_canonical(self, role: str, array: np.ndarray, layout: str) -> np.ndarray:
        """The inverse of `from_canonical`; also of the authors' `form`."""
        if self.form and role in OVER:
            return _from_form(self.form, role, array)
        return self._ordered(role, array, layout, "to_canonical")

    def is_canonical(self, role: str, layout: str) -> bool:
        """Whether `layout` has the axes of a tensor in canonical order; a `form` of the authors' aside."""
        return layout in ("canonical", "torch") or role == "bias" or self.kind not in ("conv", "linear")

    def stored_shape(self, role: str, shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
        """The shape that a canonical tensor of `shape` has in `layout`."""
        if self.kind != "conv":
            return shape if self.is_canonical(role, layout) else shape[::-1]
        return self.from_canonical(role, np.broadcast_to(np.zeros((), np.float32), shape), layout).shape

    def named(self, path: str, layout: str) -> LayerInfo:
        """The same layer, its tensors named as `layout` names them below `path`."""
        return replace(self, tensors=self.names(self.tensors, path, layout))

    def names(self, roles: Iterable[str], path: str, layout: str) -> dict[str, str]:
        """What `layout` calls the tensors of `roles` below `path`."""
        leaves = names_of(self.kind, layout)
        return {role: join(path, leaves[role]) for role in roles}

    def leaves(self, layout: str) -> dict[str, str]:
        """What `layout` calls the tensors that such a layer may have, by role: a convolution has `W` and `D`, or `weight`."""
        leaves = names_of(self.kind, layout)
        over = "d_mul" in self.geometry and math.prod(self.geometry.get("kernel_size", ())) > 1
        absent = ("weight",) if over else ("W", "D_delta")
        return {role: leaf for role, leaf in leaves.items() if self.kind != "conv" or role not in absent}

    def folded(self) -> LayerInfo:
        """The plain convolution of a DO-Conv layer; the name of `weight` is to be given by `named`."""
        tensors = {"weight": ""} | {role: name for role, name in self.tensors.items() if role == "bias"}
        geometry = {option: value for option, value in self.geometry.items() if option != "d_mul"}
        return replace(self, tensors=tensors, geometry=geometry, dialect="doconv", form="")

    def to_json(self) -> dict[str, Any]:
        """For the metadata of a file: `kind`, and what is not at its default."""
        known: dict[str, Any] = {"kind": self.kind}
        if self.geometry:
            known["geometry"] = self.geometry
        if self.epsilon is not None:
            known["epsilon"] = self.epsilon
        for option in ("depthwise", "transpose_kernel"):
            if getattr(self, option):
                known[option] = True
        if self.guessed:
            known["guessed"] = list(self.guessed)
        return known

    def _ordered(self, role: str, array: np.ndarray, framework: str, direction: str) -> np.ndarray:
        if self.is_canonical(role, framework):
            return array
        if self.kind == "linear":
            return array.T
        depthwise = self.depthwise and framework == "keras"
        layout = Layout(framework, self.conv, depthwise=depthwise, transpose_kernel=self.transpose_kernel)
        return getattr(layout, f"{OVER[role]}_{direction}")(array)


def names_of(kind: str, layout: str) -> dict[str, str]:
    """What `layout` calls the tensors of a kind of layers, by role."""
    return {role: row[FRAMEWORKS.index(layout)] for role, row in NAMES[kind].items()}


def _from_form(form: str, role: str, array: np.ndarray) -> np.ndarray:
    if role == "W":
        return array.reshape(*array.shape[:2], -1) if form == "mxnet" else array.T
    return array if role == "weight" else np.moveaxis(array, -1, 0)


def join(path: str, name: str) -> str:
    """`conv1` and `weight` as `conv1.weight`; a single layer has the path ""."""
    return f"{path}.{name}" if path else name


def split(name: str) -> tuple[str, str]:
    """The inverse of `join`."""
    path, _, leaf = name.rpartition(".")
    return path, leaf
