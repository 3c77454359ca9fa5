"""DO-Conv as loops: the text of the README, with every array flat.

The convolution is written once for layers of both kinds: its *big* side is `x` of a plain and `y` of a transposed one, with `B`
channels `b` and sizes `X`; its *small* side has `A` channels `a` and sizes `P`; `c` counts the channels of a group of the big
side. So a plain layer gathers for `y` and scatters for `grad_x`, a transposed one the other way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from doconv_conformance.diagnosis.loops.nest import Edit, Line, Nest, Sizes, value
from doconv_core.geometry import ConvGeometry

CONVOLUTION = Nest(
    "convolution",
    {"n": "N", "a": "A", "p": "P", "c": "B_G", "k": "kernel"},
    frozenset("pk"),
    (
        Line("b", "a // A_G * B_G + c"),
        Line("q", "p * stride + k * dilation - low", "axes"),
        Line("begins", "q >= 0", "axes", "zeros"),
        Line("ends", "q < X", "axes", "zeros"),
        Line("m", "q", "axes", "zeros"),
        Line("m", "min(max(q, 0), X - 1)", "axes", "replicate"),
        Line("m", "q % X", "axes", "circular"),
        Line("m", "X - 1 - abs(X - 1 - abs(q))", "axes", "reflect"),
        Line("tap", "at * kernel + k", "fold"),
        Line("inner", "at * X + m", "fold"),
        Line("outer", "at * P + p", "fold"),
        Line("kernel_at", "(a * B_G + c) * K + tap"),
        Line("big_at", "(n * B + b) * Q + inner"),
        Line("small_at", "(n * A + a) * R + outer"),
    ),
    ("begins", "ends"),
    {"kernel": "A * B_G * K", "big": "N * B * Q", "small": "N * A * R"},
)
IDENTITY = Nest(
    "identity",
    {"a": "A", "c": "B_G", "k": "K", "t": "T"},
    frozenset(),
    (
        Line("s", "t * K + k"),
        Line("W_at", "(a * B_G + c) * S + s"),
        Line("weight_at", "(a * B_G + c) * K + k"),
    ),
    (),
    {"W": "A * B_G * S", "weight": "A * B_G * K"},
)
DELTA = Nest(
    "delta",
    {"a": "A", "c": "B_G", "k": "K", "s": "S"},
    frozenset(),
    (
        Line("i", "a // A_G * B_G + c", when="plain"),
        Line("i", "a", when="transposed"),
        Line("D_at", "(i * K + k) * S + s"),
        Line("W_at", "(a * B_G + c) * S + s"),
        Line("weight_at", "(a * B_G + c) * K + k"),
    ),
    (),
    {"D": "C_in * K * S", "W": "A * B_G * S", "weight": "A * B_G * K"},
)
BIAS = Nest(
    "bias",
    {"n": "N", "a": "C_out", "p": "Y"},
    frozenset("p"),
    (
        Line("outer", "at * Y + p", "fold"),
        Line("y_at", "(n * C_out + a) * V + outer"),
        Line("bias_at", "a"),
    ),
    (),
    {"bias": "C_out", "y": "N * C_out * V"},
)
# Edits of this are made in both sums of the composition.
BOTH = "composition"
NESTS = {nest.name: nest for nest in (CONVOLUTION, IDENTITY, DELTA, BIAS)}


@dataclass(frozen=True, eq=False)
class Planted:
    """An edit where it is made.

    Attributes:
        edit: the change.
        steps: that have it; "plain:grad_x" is that of layers that are not transposed.
        step: in which it was found.
        kind: of the layer in which it was found, "plain" or "transposed".
    """

    edit: Edit
    steps: frozenset[str]
    step: str
    kind: str


def composed(
    edits: Sequence[Edit], g: ConvGeometry, W: np.ndarray, D: np.ndarray | None, block: slice = slice(None)
) -> np.ndarray:
    """`W'`, `(*W's channels, K)`, or what the first channels in a block contribute to it."""
    found = value(IDENTITY, of(edits, IDENTITY), Sizes(g), {"W": W}, "weight", block)
    if D is not None:
        found = found + value(DELTA, of(edits, DELTA), Sizes(g), {"W": W, "D": D}, "weight", block)
    return found.reshape(*g.w_shape[:2], g.taps)


def grad_W(edits: Sequence[Edit], g: ConvGeometry, grad_kernel: np.ndarray, D: np.ndarray | None) -> np.ndarray:
    """The gradient of `W`."""
    found = value(IDENTITY, of(edits, IDENTITY), Sizes(g), {"weight": grad_kernel}, "W")
    if D is not None:
        found = found + value(DELTA, of(edits, DELTA), Sizes(g), {"weight": grad_kernel, "D": D}, "W")
    return found.reshape(g.w_shape)


def grad_D(edits: Sequence[Edit], g: ConvGeometry, grad_kernel: np.ndarray, W: np.ndarray) -> np.ndarray:
    """The gradient of `D_delta`."""
    return value(DELTA, of(edits, DELTA), Sizes(g), {"weight": grad_kernel, "W": W}, "D").reshape(g.d_shape)


def convolved(
    step: str, edits: Sequence[Edit], g: ConvGeometry, arrays: Mapping[str, np.ndarray], x: tuple[int, ...]
) -> np.ndarray:
    """The step "forward", "grad_x" or "grad_kernel" of the convolution, of two of the arrays `x`, `kernel` and `y`.

    Args:
        step: what is asked for.
        edits: of it.
        g: its geometry.
        arrays: the other two.
        x: the shape of `x`, `(N, C_in, *space)`.
    """
    names = {"x": "small" if g.transposed else "big", "y": "big" if g.transposed else "small", "kernel": "kernel"}
    result = {"forward": "y", "grad_x": "x", "grad_kernel": "kernel"}[step]
    sizes = Sizes(g, x[0], tuple(x[2:]))
    found = value(CONVOLUTION, of(edits, CONVOLUTION), sizes, {names[name]: array for name, array in arrays.items()},
                  names[result])  # fmt: skip
    shapes = {"y": (x[0], g.out_channels, *g.output_size(sizes.x)), "x": x, "kernel": g.kernel_shape}
    return found.reshape(shapes[result])


def biased(edits: Sequence[Edit], g: ConvGeometry, bias: np.ndarray, x: tuple[int, ...]) -> np.ndarray:
    """What the bias adds to `y`."""
    sizes = Sizes(g, x[0], tuple(x[2:]))
    return value(BIAS, of(edits, BIAS), sizes, {"bias": bias}, "y").reshape(
        x[0], g.out_channels, *g.output_size(sizes.x)
    )


def grad_bias(edits: Sequence[Edit], g: ConvGeometry, grad_y: np.ndarray, x: tuple[int, ...]) -> np.ndarray:
    """The gradient of the bias."""
    return value(BIAS, of(edits, BIAS), Sizes(g, x[0], tuple(x[2:])), {"y": grad_y}, "bias")


def of(edits: Sequence[Edit], nest: Nest) -> list[Edit]:
    """Those of one nest."""
    return [edit for edit in edits if edit.nest in (nest.name, BOTH if nest in (IDENTITY, DELTA) else "")]
