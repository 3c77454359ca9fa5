"""The table of cases: what is computed, on which numbers, and which porting mistakes each case was made to catch.

It has two parts. The *first* part is what `doconv compare` asks for by default: the geometries of `GEOMETRIES`, in which
whatever could be confused differs (channels, groups, kernel axes, strides, paddings, dilations), crossed with the kinds of
numbers and the types, and of the rows of `covering.json` those that every pair of options needs. The *extended* part, which
`doconv check` asks for as well, has the rows that every triple needs, `PRECISION` (each kind of low-precision numbers in
every form of layer), `TWINS` (layers that differ in one option alone, one after the other) and `LARGE`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import ml_dtypes
import numpy as np

from doconv_conformance.cases import draws
from doconv_conformance.port import OPERATIONS
from doconv_core.composition import identity
from doconv_core.geometry import ConvGeometry

VERSION = 1
STAGES = ("compose", "forward", "groups", "dims", "transposed", "backward", "fold", "low-precision", "large")
LOW_PRECISION = ("bfloat16", "float16")
DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
# The largest magnitude a sum may reach so that integers stay exact in every order of summation.
EXACT_LIMIT = {"float64": 2**53, "float32": 2**24, "float16": 2**11, "bfloat16": 2**8}


@dataclass(frozen=True)
class Case:
    """One geometry with one set of numbers.

    Attributes:
        name: readable, unique in the table.
        family: the stage its forward belongs to: "transposed"; else "dims" if 1-D or 3-D; else "groups" or "forward".
        geometry: the convolution.
        batch: `N`.
        input_size: the spatial size of `x`.
        bias: whether there is one.
        numbers: one of `draws.NUMBERS`: "integers" are exact cases, on which every right implementation gives the same values.
        dtype: of the activations.
        param_dtype: of the parameters.
        catches: the mistakes it was made to catch, in words.
        seed: another set of numbers for the same case.
        delta: the magnitude of `D_delta`, one of `draws.DELTAS`.
        one_in: of the elements of a tensor one in so many is not zero: sums of many products stay exact.
        own: the tensors that are drawn for this case; None for all. The others are those of every case that has an `own`.
        covering: whether it is a row of `covering.json`.
        extended: whether it belongs to the extended part of the table.
    """

    name: str
    family: str
    geometry: ConvGeometry
    batch: int
    input_size: tuple[int, ...]
    bias: bool
    numbers: str
    dtype: str
    param_dtype: str
    catches: tuple[str, ...] = ()
    seed: int = 0
    delta: str = "unit"
    one_in: int = 1
    own: tuple[str, ...] | None = None
    covering: bool = False
    extended: bool = False

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def exact(self) -> bool:
        """Whether every value must be equal; else a bound decides."""
        return self.numbers in draws.EXACT

    @cached_property
    def id(self) -> str:
        """The name and a hash of everything that decides the numbers; it never changes its meaning."""
        content = {
            "version": VERSION, "geometry": self.geometry.to_json(), "batch": self.batch, "input_size": self.input_size,
            "bias": self.bias, "numbers": self.numbers, "dtype": self.dtype, "param_dtype": self.param_dtype, "seed": self.seed,
        }  # fmt: skip
        further = {
            "delta": (self.delta, "unit"),
            "one_in": (self.one_in, 1),
            "own": (self.own, None),
        }  # not always there
        content |= {name: value for name, (value, default) in further.items() if value != default}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:8]}"

    @property
    def operations(self) -> tuple[str, ...]:
        """What is asked of it: a layer's start needs no second set of numbers, its fold none that show the arithmetic only.

        Large tensors are sent as seldom as may be.
        """
        if self.large:
            return ("forward", "backward")
        if self.numbers == "floats":
            return ("forward", "backward", "fold") if self.covering else OPERATIONS
        if self.numbers == "gradients-of-bias":
            return ("backward",)
        if self.numbers.startswith("gradients"):
            return ("compose", "backward")
        if self.numbers in ("integers", "wide"):
            return OPERATIONS if self.covering else ("compose", "forward", "backward", "fold")
        return ("compose", "forward", "backward", "fold") if self.exact else ("compose", "forward", "backward")

    @property
    def large(self) -> bool:
        """Whether `W` has more than a million numbers; such cases come last."""
        return math.prod(self.geometry.w_shape) > 2**20

    def stage(self, operation: str) -> str:
        """The stage that `operation` on this case belongs to."""
        if self.large:
            return "large"
        if self.dtype in LOW_PRECISION:
            return "low-precision"
        if operation in ("compose", "backward"):
            return operation
        return self.family if operation == "forward" else "fold"

    @cached_property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """`x`, `W`, `D_delta`, `bias`, `grad_y`, `weight` (a plain kernel to start from): canonical, in their types."""
        g = self.geometry
        shapes = {
            "x": (self.batch, g.in_channels, *self.input_size),
            "W": g.w_shape,
            "D_delta": g.d_shape,
            "bias": (g.out_channels,),
            "grad_y": (self.batch, g.out_channels, *g.output_size(self.input_size)),
            "weight": g.kernel_shape,
        }
        if not g.has_d:
            del shapes["D_delta"]
        if not self.bias:
            del shapes["bias"]
        return {name: self._draw(name, shape) for name, shape in shapes.items()}

    def _draw(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        shared = self.own is not None and name not in self.own
        label = f"{'twins' if shared else self.id}/{name}/{self.seed}"
        dtype = DTYPES[self.dtype if name in ("x", "grad_y") else self.param_dtype]
        return draws.draw(
            self.numbers, label, name, shape, dtype=self.dtype, param_dtype=self.param_dtype,
            identity=identity(self.geometry), delta=self.delta, one_in=self.one_in,
        ).astype(dtype)  # fmt: skip

    def inputs(self, operation: str) -> dict[str, np.ndarray]:
        """The tensors that a port is given for `operation`."""
        names = {
            "compose": ("W", "D_delta"),
            "forward": ("x", "W", "D_delta", "bias"),
            "backward": ("x", "W", "D_delta", "bias", "grad_y"),
            "fold": ("x", "W", "D_delta", "bias"),
            "initialise": ("weight",),
        }[operation]
        return {name: self.tensors[name] for name in names if name in self.tensors}


@dataclass(frozen=True)
class Row:
    """A line of `GEOMETRIES`: the options are those of `ConvGeometry`."""

    name: str
    family: str
    input_size: tuple[int, ...]
    options: Mapping[str, object]
    batch: int = 2
    bias: bool = True
    low_precision: bool = False
    precision: tuple[str, ...] = ()
    catches: tuple[str, ...] = ()


def _row(
    name: str,
    family: str,
    input_size: tuple[int, ...],
    channels: tuple[int, int],
    kernel: tuple[int, ...],
    *,
    batch: int = 2,
    bias: bool = True,
    low_precision: bool = False,
    precision: str = "",
    catches: str = "",
    **options: object,
) -> Row:
    """A row with the options of `ConvGeometry`; `_crossed` makes its cases.

    `family` is that of `Case`; `low_precision` adds bfloat16 and float16, with parameters of float32 and of the same type;
    `precision` names the numbers of further low-precision cases; `catches` the mistakes, separated by semicolons.
    """
    sizes = {"in_channels": channels[0], "out_channels": channels[1], "kernel_size": kernel}
    mistakes = tuple(item.strip() for item in catches.split(";") if item)
    return Row(
        name, family, input_size, sizes | options, batch, bias, low_precision, tuple(precision.split()), mistakes
    )


GEOMETRIES = (
    _row("plain-3x3", "forward", (5, 6), (3, 4), (3, 3), padding=1, low_precision=True,
         precision="sums cancelling",
         catches="W or D transposed; identity missing or doubled; D taken for D_delta; kernel flipped"),
    _row("kernel-3x2", "forward", (6, 5), (2, 3), (3, 2), batch=1, low_precision=True,
         precision="residual", catches="kernel axes swapped; taps in column-major order"),
    _row("one-by-one", "forward", (4, 3), (3, 5), (1, 1), stride=(2, 1),
         catches="a D where there is none; stride ignored by a pointwise shortcut"),
    _row("one-channel", "forward", (5, 5), (1, 1), (3, 3), padding=1, bias=False,
         catches="kernel flipped; a bias where there is none"),
    _row("strides", "forward", (7, 8), (2, 3), (3, 3), stride=(2, 3), padding=((1, 1), (0, 0)), low_precision=True,
         catches="strides swapped; stride applied to the wrong side of the padding"),
    _row("padding-sides", "forward", (5, 6), (2, 3), (3, 3), padding=((0, 2), (1, 0)), low_precision=True,
         catches="padding sides swapped; padding axes swapped; asymmetric padding made symmetric"),
    _row("same-strided", "forward", (6, 7), (3, 2), (3, 4), stride=(2, 2), padding=((0, 1), (1, 2)),
         catches="SAME of another framework; off-by-one crop"),
    _row("dilation", "forward", (8, 9), (2, 3), (3, 2), dilation=(2, 3), padding=((2, 1), (0, 3)), low_precision=True,
         catches="dilations swapped; dilation ignored in one axis; stride and dilation swapped"),
    _row("reflect", "forward", (5, 6), (2, 3), (3, 3), padding=((2, 1), (1, 3)), padding_mode="reflect",
         catches="zeros or edge values in place of reflection"),
    _row("replicate", "forward", (4, 5), (2, 3), (3, 3), padding=((2, 1), (0, 3)), padding_mode="replicate",
         catches="zeros in place of edge values"),
    _row("circular", "forward", (4, 5), (2, 3), (3, 3), padding=((2, 1), (0, 3)), padding_mode="circular", stride=(1, 2),
         catches="zeros or reflection in place of wrapping; sides of the wrap swapped"),
    _row("d-mul-13", "forward", (5, 4), (2, 3), (3, 2), d_mul=13, low_precision=True,
         catches="identity not tiled; surplus columns joined to the identity; tiles interleaved"),
    _row("d-mul-8", "forward", (5, 4), (3, 2), (2, 2), d_mul=8, padding=((1, 0), (0, 1)),
         catches="identity not tiled; tiles interleaved; only the first tile summed"),
    _row("d-mul-7", "forward", (5, 4), (2, 3), (2, 2), d_mul=7,
         catches="a partial tile joined to the identity"),
    _row("groups-2", "groups", (4, 5), (4, 6), (3, 2), groups=2, padding=((1, 1), (0, 1)), low_precision=True,
         precision="residual cancelling",
         catches="interleaved groups; groups ignored; the original PyTorch and TensorFlow pairings"),
    _row("groups-2-square", "groups", (4, 4), (4, 4), (2, 2), groups=2,
         catches="the original pairings where C_in == C_out"),
    _row("groups-3", "groups", (4, 5), (6, 9), (2, 3), groups=3, stride=(1, 2),
         catches="D of the local channel used for every group; interleaved groups"),
    _row("groups-narrow", "groups", (4, 5), (8, 4), (2, 2), groups=2, d_mul=5,
         catches="C_in/G and C_out/G exchanged"),
    _row("depthwise", "groups", (5, 4), (3, 3), (3, 3), groups=3, padding=((1, 0), (1, 1)), low_precision=True,
         catches="rows of D in another order"),
    _row("depthwise-times-2", "groups", (5, 6), (3, 6), (5, 3), groups=3, padding=((2, 2), (1, 1)), stride=(2, 1),
         low_precision=True, precision="sums", catches="multiplier-major output channels"),
    _row("depthwise-times-3", "groups", (4, 6), (2, 6), (2, 3), groups=2, d_mul=12, dilation=(1, 2),
         catches="multiplier-major output channels; identity not tiled"),
    _row("depthwise-reflect", "groups", (5, 4), (3, 3), (3, 3), groups=3, padding=((2, 1), (1, 1)), padding_mode="reflect",
         catches="padding mode lost on the grouped path"),
    _row("groups-one-by-one", "groups", (3, 4), (4, 6), (1, 1), groups=2, catches="groups ignored by a pointwise shortcut"),
    _row("conv1d", "dims", (9,), (3, 4), (4,), stride=(2,), padding=((2, 1),), low_precision=True,
         precision="sums residual", catches="1-D weights taken for 2-D"),
    _row("conv1d-causal", "dims", (7,), (2, 3), (3,), padding=((4, 0),), dilation=(2,), groups=1,
         catches="causal padding on the wrong side; padding not scaled by the dilation"),
    _row("conv1d-replicate", "dims", (6,), (2, 3), (3,), padding=((1, 3),), padding_mode="replicate",
         catches="zeros or reflection in place of edge values"),
    _row("conv1d-circular", "dims", (6,), (4, 6), (4,), groups=2, padding=((3, 1),), padding_mode="circular", stride=(2,),
         catches="zeros, reflection or edge values in place of wrapping; padding mode lost on the grouped path"),
    _row("conv1d-groups", "dims", (8,), (4, 6), (3,), groups=2, d_mul=7, stride=(3,), padding=((1, 2),),
         catches="interleaved groups in 1-D"),
    _row("conv3d", "dims", (4, 3, 5), (2, 3), (2, 3, 2), stride=(1, 2, 1), padding=((1, 0), (1, 1), (0, 1)), batch=1,
         catches="3-D axes permuted; taps not in row-major order"),
    _row("conv3d-groups", "dims", (3, 4, 3), (4, 4), (3, 2, 1), groups=2, dilation=(1, 2, 1), padding=((1, 1), (0, 1), (0, 0)),
         batch=1, catches="interleaved groups in 3-D; dilations permuted"),
    _row("transposed-3x3", "transposed", (4, 3), (3, 2), (3, 3), transposed=True, padding=1, low_precision=True,
         precision="sums cancelling", catches="kernel flipped; W taken as (C_out, C_in)"),
    _row("transposed-strides", "transposed", (3, 4), (2, 3), (3, 2), transposed=True, stride=(2, 3),
         output_padding=(1, 2), padding=((1, 1), (0, 0)), catches="output padding ignored or at the low end; strides swapped"),
    _row("transposed-sides", "transposed", (4, 3), (2, 3), (4, 3), transposed=True, stride=(2, 1), padding=((2, 1), (0, 1)),
         catches="cropped at the wrong side"),
    _row("transposed-dilation", "transposed", (3, 4), (2, 3), (2, 3), transposed=True, dilation=(3, 2), stride=(1, 2),
         catches="dilation ignored or swapped"),
    _row("transposed-d-mul", "transposed", (3, 3), (3, 2), (2, 2), transposed=True, d_mul=9, stride=2,
         catches="identity not tiled in the transposed layer"),
    _row("transposed-groups", "transposed", (3, 4), (4, 6), (3, 2), transposed=True, groups=2, stride=(2, 1),
         catches="interleaved groups; D per output channel"),
    _row("transposed-1d", "transposed", (5,), (3, 2), (4,), transposed=True, stride=(3,), padding=((1, 1),),
         output_padding=(2,), catches="output padding at the low end"),
    _row("transposed-1d-sides", "transposed", (5,), (2, 3), (4,), transposed=True, stride=(3,), dilation=(2,),
         padding=((2, 0),), output_padding=(1,),
         catches="rows of output padding without bias; cropped at the wrong side; dilation ignored in the transposed layer"),
    _row("transposed-3d", "transposed", (2, 3, 2), (2, 3), (2, 1, 3), transposed=True, stride=(2, 1, 2), batch=1,
         catches="3-D axes permuted"),
)  # fmt: skip


TYPES = (("integers", "float32", "float32"), ("floats", "float32", "float32"), ("floats", "float64", "float64"))
LOW_TYPES = tuple(
    (numbers, dtype, param_dtype)
    for dtype in LOW_PRECISION
    for numbers, param_dtype in (("integers", "float32"), ("floats", "float32"), ("floats", dtype))
)

# The forms of a layer that every kind of low-precision numbers goes through. Channels come in pairs, for "products", and
# columns are even in number and fewer than two tiles, for "residual".
PRECISION = (
    _row("low-1d", "dims", (7,), (2, 4), (3,), stride=(2,), padding=((2, 1),), d_mul=4),
    _row("low-1d-groups", "dims", (6,), (4, 8), (2,), groups=2, padding=((1, 3),), padding_mode="circular"),
    _row("low-1d-transposed", "transposed", (4,), (4, 4), (3,), transposed=True, groups=2, stride=(2,), padding=((1, 0),),
         d_mul=4),
    _row("low-2d-reflect", "forward", (5, 5), (4, 2), (2, 3), stride=(2, 1), padding=((1, 0), (1, 2)), padding_mode="reflect"),
    _row("low-2d-depthwise", "groups", (4, 5), (4, 8), (2, 2), groups=4, dilation=(2, 1), padding=((1, 1), (0, 1))),
    _row("low-2d-groups", "groups", (3, 5), (4, 4), (1, 3), groups=2, d_mul=4, stride=(1, 2)),
    _row("low-2d-transposed", "transposed", (3, 2), (4, 2), (2, 3), transposed=True, stride=(2, 2), padding=((1, 0), (0, 2)),
         output_padding=(1, 0)),
    _row("low-3d", "dims", (2, 3, 3), (4, 4), (2, 2, 2), padding=((1, 0), (0, 0), (1, 0)), padding_mode="replicate"),
    _row("low-3d-groups", "dims", (4, 3, 3), (4, 4), (2, 2, 1), groups=2, stride=(2, 1, 1), padding=((0, 1), (1, 0), (0, 0))),
    _row("low-2d-channels", "forward", (3, 2), (18, 20), (2, 2), padding=((0, 1), (0, 0))),
    _row("low-1d-positions", "dims", (34,), (2, 2), (3,), padding=((0, 1),), d_mul=4),
    _row("low-3d-transposed", "transposed", (2, 2, 3), (4, 4), (1, 2, 2), transposed=True, groups=2, stride=(1, 2, 1)),
)  # fmt: skip
PRECISION_TYPES = (
    *((numbers, dtype, "") for dtype in LOW_PRECISION
      for numbers in ("residual", "cancelling", "products", "rounding", "overflow")),
    *((numbers, dtype, dtype) for dtype in LOW_PRECISION for numbers in ("gradients", "gradients-of-W")),
    *(("floats", dtype, "") for dtype in LOW_PRECISION),
    *(("totals", dtype, "float32") for dtype in LOW_PRECISION),
    ("subnormal", "float16", ""), ("subnormal-inputs", "float16", ""), ("subnormal-kernel", "float16", ""),
    ("products", "float32", "float32"), ("overflow", "float32", "float32"),
)  # fmt: skip

# So many positions that a sum over them leaves a low-precision type.
MANY_POSITIONS = (
    _row("bias-positions", "forward", (14, 15), (2, 3), (1, 2), padding=((0, 0), (1, 0)), batch=3),
    _row("bias-positions-transposed", "transposed", (160,), (2, 3), (3,), transposed=True, stride=(2,)),
)

# Layers that differ in one option alone, tensors of the same shapes or of as many elements, one after the other: what a port
# keeps from the last case is wrong in the next. Before them the first of them with numbers of its own in one tensor alone.
SAME_TENSORS = (("D_delta",), ("D_delta",), ("W",), ("x",), ("bias",), ())
TWINS = (
    _row("twin", "forward", (5, 6), (4, 4), (2, 3), catches="state that leaks from one case into the next"),
    _row("twin-no-bias", "forward", (5, 6), (4, 4), (2, 3), bias=False, catches="the bias of the case before"),
    _row("twin-stride", "forward", (5, 6), (4, 4), (2, 3), stride=(1, 2), catches="the stride of the case before"),
    _row("twin-stride-first", "forward", (5, 6), (4, 4), (2, 3), stride=(2, 1), catches="the stride of the case before"),
    _row("twin-kernel", "forward", (5, 6), (4, 4), (3, 2), catches="the kernel size of the case before"),
    _row("twin-dilation", "forward", (5, 6), (4, 4), (3, 2), dilation=(1, 2), catches="the dilation of the case before"),
    _row("twin-low", "forward", (5, 6), (4, 4), (3, 2), padding=((1, 0), (0, 0)), catches="the padding of the case before"),
    _row("twin-high", "forward", (5, 6), (4, 4), (3, 2), padding=((0, 1), (0, 0)), catches="the padding of the case before"),
    _row("twin-reflect", "forward", (5, 6), (4, 4), (3, 2), padding=((0, 1), (0, 0)), padding_mode="reflect",
         catches="the padding mode of the case before"),
    _row("twin-circular", "forward", (5, 6), (4, 4), (3, 2), padding=((0, 1), (0, 0)), padding_mode="circular",
         catches="the padding mode of the case before"),
    _row("twin-high-again", "forward", (5, 6), (4, 4), (3, 2), padding=((0, 1), (0, 0)),
         catches="what the last padding mode left beside the input"),
    _row("twin-transposed", "transposed", (5, 6), (4, 4), (3, 2), transposed=True, catches="W of a plain convolution"),
    _row("twin-1d", "dims", (30,), (4, 4), (6,), catches="the number of axes of the case before"),
    _row("twin-3d", "dims", (5, 3, 2), (4, 4), (1, 3, 2), catches="the number of axes of the case before"),
)  # fmt: skip

# Sizes that the drawn rows of `covering.json` happen not to have.
SIZES = (
    _row("taps-25", "forward", (7, 6), (2, 3), (5, 5), padding=((1, 2), (0, 3)), batch=5, catches="taps beyond a vector"),
    _row("unreached-1d", "dims", (9,), (2, 3), (3,), stride=(4,), catches="a gradient where no position reaches the input"),
    _row("taps-49", "forward", (8, 9), (3, 2), (7, 7), padding=((0, 2), (1, 0)), batch=3, catches="taps beyond a vector"),
    _row("taps-81", "forward", (10, 9), (2, 2), (9, 9), padding=((0, 1), (1, 0)), batch=1, catches="more than 64 taps"),
)  # fmt: skip

# `W` of more than 2**20 and of more than 2**23 numbers, on few positions: beyond what is computed in one piece.
LARGE = (
    _row("large", "forward", (3, 4), (384, 352), (3, 3), catches="blocks of W left out or taken twice"),
    _row("large-groups", "groups", (4, 3), (512, 544), (3, 3), groups=2, catches="blocks of W left out or taken twice"),
    _row("large-transposed", "transposed", (2, 1), (320, 416), (3, 3), transposed=True, stride=(1, 2),
         catches="blocks of W left out or taken twice"),
    _row("larger", "forward", (4, 5), (736, 720), (4, 4), batch=1, catches="blocks of W left out or taken twice"),
)  # fmt: skip


@cache
def cases(seed: int = 0) -> tuple[Case, ...]:
    """The whole table, the first part before the extended one."""
    rows = [item for row in GEOMETRIES for item in _crossed(row)]
    covering = [_covering(entry) for entry in json.loads((files(__package__) / "covering.json").read_text("utf-8"))]
    rows += [*covering, *map(_with_floats, covering)]
    for number, row in enumerate(PRECISION):
        for kind, (numbers, dtype, params) in enumerate(PRECISION_TYPES):
            params = params or (dtype, "float32")[(number + kind // 2) % 2]
            rows.append(_case(row, numbers, dtype, params, extended=True))
    rows += [_case(row, "gradients-of-bias", dtype, params, extended=True)
             for row in MANY_POSITIONS for dtype in LOW_PRECISION for params in ("float32", dtype)]  # fmt: skip
    twin = _case(TWINS[0], "integers", "float32", "float32", extended=True)
    rows += [replace(twin, name=f"same-{n}-{''.join(own) or 'tensors'}-exact-float32", own=own)
             for n, own in enumerate(SAME_TENSORS)]  # fmt: skip
    rows += [_case(row, "integers", "float32", "float32", extended=True) for row in (*TWINS, *SIZES, *LARGE)]
    parts = sorted(rows, key=lambda case: case.extended)
    return tuple(replace(case, seed=seed) for case in parts) if seed else tuple(parts)


def _crossed(row: Row) -> list[Case]:
    """A geometry with its numbers, in float32, float64 and, where marked, low precision."""
    further = [(numbers, dtype, params) for numbers in row.precision for dtype in LOW_PRECISION
               for params in ("float32", *([dtype] if numbers != "sums" else []))]  # fmt: skip
    return [_case(row, *item) for item in (*TYPES, *(LOW_TYPES if row.low_precision else ()), *further)]


def _case(row: Row, numbers: str, dtype: str, param_dtype: str, *, extended: bool = False) -> Case:
    kind = {"integers": "exact", "floats": "float"}.get(numbers, numbers)
    name = f"{row.name}-{kind}-{dtype}" + (f"-{param_dtype}" if param_dtype != dtype else "")
    # Elsewhere it may be added after the rounding.
    bias = row.bias and numbers in ("integers", "floats", "gradients-of-bias")
    catches = (draws.CATCHES[numbers],) if numbers in draws.CATCHES else row.catches
    # Copies in the padding add up, forward or backward, in whatever type the framework has there.
    copies = numbers not in (*draws.SINGLE, *draws.ROUNDED_ONCE)
    options = row.options if copies else {**row.options, "padding_mode": "zeros"}
    geometry = ConvGeometry(**options)  # type: ignore[arg-type]  # checked by ConvGeometry itself
    return Case(name, row.family, geometry, row.batch, row.input_size, bias, numbers, dtype, param_dtype, catches,
                extended=extended)  # fmt: skip


def _covering(entry: Mapping[str, Any]) -> Case:
    """A row of `covering.json`."""
    values = dict(entry) | {
        "geometry": ConvGeometry.from_json(entry["geometry"]),
        "input_size": tuple(entry["input_size"]),
    }
    return Case(**values, family=family(values["geometry"]), catches=("two or three options that go wrong together",),
                covering=True)  # fmt: skip


def _with_floats(case: Case) -> Case:
    """The same layer on dense float32 numbers: exact ones of low precision or with a tiny `D_delta` are thin."""
    name = case.name.replace(f"exact-{case.dtype}", "float-float32").removesuffix(f"-{case.param_dtype}")
    return replace(case, name=name, numbers="floats", dtype="float32", param_dtype="float32", delta="unit", one_in=1,
                   extended=True)  # fmt: skip


def family(geometry: ConvGeometry) -> str:
    """The stage that the forward of a case of `covering.json` belongs to."""
    if geometry.transposed:
        return "transposed"
    if geometry.spatial_rank != 2:
        return "dims"
    return "groups" if geometry.groups > 1 else "forward"


def _in_first_part(case: Case, operation: str) -> bool:
    """Of the rows of `covering.json` the layer and its gradients: each further operation costs a compilation in some ports."""
    return not case.extended and not (case.covering and operation not in ("forward", "backward"))


def select(
    stage: str | None = None, case: str | None = None, seed: int = 0, *, extended: bool = False
) -> list[tuple[Case, str]]:
    """`(case, operation)` pairs in the order of the stages.

    Args:
        stage: one of `STAGES`, or None for all.
        case: an id, or the beginning of one, of either part.
        seed: of the numbers.
        extended: whether the extended part of the table is asked for, too.

    Raises:
        ValueError: an unknown stage, or a case that is not in the table.
    """
    if stage is not None and stage not in STAGES:
        raise ValueError(f"stage must be one of {', '.join(STAGES)}. Received: {stage!r}")
    chosen = [item for item in cases(seed) if case is None or item.id.startswith(case)]
    if not chosen:
        raise ValueError(f"no case begins with that. Received: {case!r}")
    extended = extended or case is not None or stage == "large"
    pairs = [(item, operation) for operation in OPERATIONS for item in chosen
             if operation in item.operations and (extended or _in_first_part(item, operation))]  # fmt: skip
    pairs = [pair for pair in pairs if stage in (None, pair[0].stage(pair[1]))]
    return sorted(pairs, key=lambda pair: STAGES.index(pair[0].stage(pair[1])))
