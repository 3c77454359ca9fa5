"""The shape of one over-parameterized convolution, and every check on it.

`ConvGeometry` is what the core, the conformance suite and the checkpoints mean by "a convolution". It is canonical: every
per-axis option is written out, padding is one explicit `(low, high)` pair per axis. What a framework calls "same" or "causal"
becomes such pairs in `ConvGeometry.from_layer`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from doconv_core.framework_padding import Axis, resolve

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

Sizes = int | Sequence[int]
Pairs = int | Sequence[int] | Sequence[Sequence[int]]


def depth_multiplier(kernel_size: Sequence[int], d_mul: int | None = None, *, received: str | None = None) -> int:
    """The depth multiplier `S` that `d_mul` asks for on a kernel of `kernel_size`.

    `K = prod(kernel_size)` is the default. A kernel of one tap has no `D`, so `S` is 1 there whatever was asked (the paper's
    convention).

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul < K`.
    """
    taps = math.prod(kernel_size)
    received = received or f"kernel_size={tuple(kernel_size)}, d_mul={d_mul!r}"
    if d_mul is None:
        return taps
    multiplier = _integer("d_mul", d_mul, received)
    if multiplier < 1:
        raise ValueError(f"d_mul must be positive. Received: {received}")
    if taps == 1:
        return 1
    if multiplier < taps:
        raise ValueError(
            f"d_mul must be at least {taps}, the number of taps of the kernel: with a smaller one the composed kernel could "
            f"not express every kernel, and the layer would start as the zero function. Received: {received}"
        )
    return multiplier


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """Sizes and options of one convolution over `(N, C_in, *space)`, one to three spatial axes.

    Args:
        in_channels: `C_in`.
        out_channels: `C_out`.
        kernel_size: one integer per axis; its length is the number of spatial axes.
        stride: one integer, or one per axis.
        padding: one integer, one per axis, or one `(low, high)` pair per axis. A transposed convolution drops that many rows
            from either end of the full output; negative values are allowed there and append rows of zeros (plus bias).
        dilation: one integer, or one per axis.
        groups: `G`, a divisor of both channel counts.
        transposed: the weight is `(C_in, C_out/G, *kernel_size)` and the operation is the input gradient of the convolution.
        output_padding: transposed only: rows kept (or appended) at the high end of each axis.
        padding_mode: what is outside the input: "zeros", "reflect" (1234 -> 32 1234 32), "replicate" (11 1234 44) or
            "circular" (34 1234 12).
        d_mul: the depth multiplier `S >= K`; `None` means `K`. Always an integer once constructed.

    Raises:
        TypeError: a value that is not an integer (or a sequence of them) where one is needed.
        ValueError: sizes below their minimum, channels that `groups` does not divide, sequences whose length is not that of
            `kernel_size`, `d_mul` below the number of taps, an unknown `padding_mode`.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] = 1  # type: ignore[assignment]  # one integer stands for all axes
    padding: tuple[tuple[int, int], ...] = 0  # type: ignore[assignment]
    dilation: tuple[int, ...] = 1  # type: ignore[assignment]
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = 0  # type: ignore[assignment]
    padding_mode: str = "zeros"
    d_mul: int = None  # type: ignore[assignment]  # None stands for K

    def __post_init__(self) -> None:
        received = self.describe()
        if not isinstance(self.kernel_size, Sequence):
            raise TypeError(f"kernel_size must be a sequence of integers, one per axis. Received: {received}")
        rank = len(self.kernel_size)
        if rank not in (1, 2, 3):
            raise ValueError(f"kernel_size must have 1, 2 or 3 axes. Received: {received}")

        def store(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in ("in_channels", "out_channels", "groups"):
            store(name, _integer(name, getattr(self, name), received, 1))
        for name, least in (("kernel_size", 1), ("stride", 1), ("dilation", 1), ("output_padding", 0)):
            store(name, _per_axis(name, getattr(self, name), rank, received, least))
        store("padding", _padding_pairs(self.padding, rank, received))
        self._check_options(received)
        store("d_mul", depth_multiplier(self.kernel_size, self.d_mul, received=received))

    def _check_options(self, received: str) -> None:
        """Raise unless the options, in canonical form, go together."""
        if not isinstance(self.transposed, bool):
            raise TypeError(f"transposed must be True or False. Received: {received}")
        plain = not self.transposed
        rules = {
            "in_channels must be divisible by groups": self.in_channels % self.groups == 0,
            "out_channels must be divisible by groups": self.out_channels % self.groups == 0,
            f"padding_mode must be one of {', '.join(PADDING_MODES)}": self.padding_mode in PADDING_MODES,
            "a transposed convolution has padding_mode='zeros' only": plain or self.padding_mode == "zeros",
            "output_padding belongs to a transposed convolution": self.transposed or not any(self.output_padding),
            "padding must not be negative": self.transposed or min(map(min, self.padding)) >= 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"{rule}. Received: {received}")

    @classmethod
    def from_layer(
        cls,
        framework: str,
        *,
        padding: str | Pairs,
        input_size: Sequence[int],
        kernel_size: Sequence[int],
        stride: Sizes = 1,
        dilation: Sizes = 1,
        transposed: bool = False,
        output_padding: Sizes | None = None,
        **options: Any,
    ) -> ConvGeometry:
        """The geometry of a framework's layer, its `padding` ("same", "causal", ...) resolved into explicit pairs.

        Size 6, kernel 3, stride 2 and "same" are the pair (0, 1) in TensorFlow, Keras and Flax. PyTorch has no "same" with a
        stride; its models say padding=1, the pair (1, 1).

        Args:
            framework: "torch", "keras" or "flax".
            padding: what the layer is given, see `doconv_core.framework_padding.resolve`.
            input_size: spatial size of the input.
            kernel_size: as in `ConvGeometry`.
            stride: as in `ConvGeometry`.
            dilation: as in `ConvGeometry`.
            transposed: as in `ConvGeometry`.
            output_padding: of a transposed layer of PyTorch or Keras.
            options: everything else that `ConvGeometry` takes.

        Raises:
            TypeError, ValueError: as `ConvGeometry`; or the framework's layer has no such padding.
        """
        rank = len(kernel_size)
        received = (
            f"kernel_size={tuple(kernel_size)}, stride={stride!r}, dilation={dilation!r}, input_size={input_size!r}"
        )
        input_size, strides, dilations = (
            _per_axis(name, value, rank, received, 1)
            for name, value in (("input_size", input_size), ("stride", stride), ("dilation", dilation))
        )
        extras: Sequence[int | None] = [None] * rank
        if output_padding is not None:
            extras = _per_axis("output_padding", output_padding, rank, received, 0)
        axes = [Axis(*axis) for axis in zip(input_size, kernel_size, strides, dilations, extras, strict=True)]
        resolved = resolve(framework, padding, axes, transposed=transposed)
        return cls(
            kernel_size=tuple(kernel_size),
            stride=strides,
            dilation=dilations,
            transposed=transposed,
            **options | resolved,
        )

    @property
    def spatial_rank(self) -> int:
        """Number of spatial axes: 1, 2 or 3."""
        return len(self.kernel_size)

    @property
    def taps(self) -> int:
        """`K`, the number of taps of one kernel."""
        return math.prod(self.kernel_size)

    @property
    def has_d(self) -> bool:
        """False for a kernel of one tap: there is no `D`, the layer is the plain convolution."""
        return self.taps > 1

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Canonical shape of the composed kernel, the plain convolution's weight."""
        return (*self._channel_shape, *self.kernel_size)

    @property
    def w_shape(self) -> tuple[int, int, int]:
        """Canonical shape of `W`: `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`."""
        return (*self._channel_shape, self.d_mul)

    @property
    def d_shape(self) -> tuple[int, int, int]:
        """Canonical shape of `D_delta`: `(C_in, K, S)`. Not meant where `has_d` is False."""
        return (self.in_channels, self.taps, self.d_mul)

    @property
    def _channel_shape(self) -> tuple[int, int]:
        first, second = (
            (self.in_channels, self.out_channels) if self.transposed else (self.out_channels, self.in_channels)
        )
        return first, second // self.groups

    @cached_property
    def rows(self) -> np.ndarray:
        """Which row of `D` composes each kernel: integers of the shape of the first two axes of `W`.

        `i(o, c) = (o // (C_out/G)) * (C_in/G) + c`, the real input channel that output channel `o` reads through its local
        channel `c`. The first axis of a transposed kernel is that input channel already.

        With four channels, two groups and four outputs: `[[0, 1], [0, 1], [2, 3], [2, 3]]`.
        """
        first, second = np.indices(self._channel_shape)
        if self.transposed:
            return first
        return first // (self.out_channels // self.groups) * second.shape[1] + second

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output for an input of spatial size `input_size`.

        Raises:
            ValueError: the number of axes is wrong, the input is smaller than the kernel, or the padding mode cannot pad it.
        """
        if len(input_size) != self.spatial_rank:
            raise ValueError(
                f"the input must have {self.spatial_rank} spatial axes. Received: input_size={tuple(input_size)}, "
                f"{self.describe()}"
            )
        sizes = []
        for axis, size in enumerate(input_size):
            low, high = self.padding[axis]
            span = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            if self.transposed:
                out = (size - 1) * self.stride[axis] + span - low - high + self.output_padding[axis]
            else:
                limit = {"reflect": size - 1, "circular": size}.get(self.padding_mode)
                if limit is not None and max(low, high) > limit:
                    raise ValueError(
                        f"{self.padding_mode} padding of axis {axis} can be at most {limit}. Received: "
                        f"input_size={tuple(input_size)}, {self.describe()}"
                    )
                out = (size + low + high - span) // self.stride[axis] + 1
            if size < 1 or out < 1:
                raise ValueError(
                    f"the output of axis {axis} would have size {out}. Received: input_size={tuple(input_size)}, "
                    f"{self.describe()}"
                )
            sizes.append(out)
        return tuple(sizes)

    def describe(self) -> str:
        """`in_channels=4, out_channels=6, ...`: every option that is not at its default, for the end of an error."""
        shown = []
        for field in fields(self):
            value = getattr(self, field.name)
            always = field.name in ("in_channels", "out_channels", "kernel_size", "groups")
            if always or not _is_default(value, field.default):
                shown.append(f"{field.name}={value!r}")
        return ", ".join(shown)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, integers and strings: what checkpoints and the conformance protocol carry."""
        return {name: _as_lists(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ConvGeometry:
        """The inverse of `to_json`.

        Raises:
            ValueError: an option that does not exist, or one that is missing.
        """
        known = {field.name for field in fields(cls)}
        required = {"in_channels", "out_channels", "kernel_size"}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown geometry options {unknown}. Received: {values}")
        if missing := sorted(required - set(values)):
            raise ValueError(f"missing geometry options {missing}. Received: {values}")
        return cls(**values)


def _integer(name: str, value: object, received: str, least: int | None = None) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}. Received: {received}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}. Received: {received}")
    return number


def _per_axis(name: str, value: object, rank: int, received: str, least: int | None = None) -> tuple[int, ...]:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * rank
    if len(values) != rank:
        raise ValueError(f"{name} must be one integer, or {rank}: one per axis. Received: {received}")
    return tuple(_integer(name, item, received, least) for item in values)


def _padding_pairs(value: object, rank: int, received: str) -> tuple[tuple[int, int], ...]:
    if isinstance(value, str):
        raise TypeError(f"padding must be explicit here; ConvGeometry.from_layer resolves names. Received: {received}")
    values = value if isinstance(value, Sequence) else (value,) * rank
    if len(values) != rank:
        raise ValueError(f"padding must be one integer, or {rank} integers or (low, high) pairs. Received: {received}")
    pairs = []
    for item in values:
        ends = item if isinstance(item, Sequence) and not isinstance(item, str) else (item, item)
        if len(ends) != 2:
            raise ValueError(f"padding of an axis must be an integer or a (low, high) pair. Received: {received}")
        low, high = (_integer("padding", end, received) for end in ends)
        pairs.append((low, high))
    return tuple(pairs)


def _is_default(value: object, default: object) -> bool:
    """Whether `value` is a field's default, or that default written out for every axis."""
    if isinstance(value, tuple):
        return all(_is_default(item, default) for item in value)
    return value == default and type(value) is type(default)


def _as_lists(value: object) -> object:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value
