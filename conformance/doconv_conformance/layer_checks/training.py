"""Ten steps of gradient descent on one layer, and how far a right layer may be from the core's own ten steps.

A step of `Training` is that of the loss `0.5 * sum((y - target)**2)` on the step's own data, for every parameter:

    w = compose(W, D_delta)      y = conv(x, w) + bias      r = y - target
    g = dL/dw = x * r            parameter -= learning_rate * gradient, the gradients of W, D_delta and bias from g and r

`expected` runs it in NumPy (float64) and carries a bound along. Nothing in it is picked by hand. Every stage above is a
sum of products `f(a, b)` of two quantities, and `F` is the same sum over absolute values. The core computes `f` from its own
`a, b`, the layer from `a', b'` that are off by at most `ea, eb`, each in any order and with its own unit roundoff, `v` and
`u`. With a longest chain of `n` roundings, the two results differ by at most

    F(ea, |b| + eb) + F(|a|, eb)                                    what the stage does with the difference it is handed
    + (gamma(n, u) + gamma(n, v)) * F(|a| + ea, |b| + eb)           what both add to it (`|a'| <= |a| + ea`)

The first line is `F(|a| + ea, |b| + eb) - F(|a|, |b|)`, which bounds the difference of any bilinear `f`, written without
the subtraction. All terms are non-negative, so the bound itself is computed to a relative error far below `2**-20`, by which it
is widened. The bounds of one step's parameters are the next step's `ea, eb`; they start from zero, as both sides start from the
same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from doconv_conformance.cases import generator
from doconv_conformance.cases.table import DTYPES
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Expected, gamma
from doconv_core.composition import compose, compose_vjp
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry

STEPS = 10
LEARNING_RATE = 2.0**-10  # a power of two: the same number in every type


@dataclass(frozen=True)
class Training:
    """A layer, its start and ten batches; all numbers are exact in float32 and canonical in layout.

    Attributes:
        name: of the family.
        geometry: the layer, with a `D` and without padding, so that every framework can say it.
        input_size: spatial size of the input.
        batch: `N`.
    """

    name: str
    geometry: ConvGeometry
    input_size: tuple[int, ...]
    batch: int = 2

    @cached_property
    def start(self) -> Mapping[str, np.ndarray]:
        """`W`, `D_delta` and `bias`, float64: in [-1, 1), [-1/4, 1/4) and [-1, 1)."""
        g = self.geometry
        shapes = {"W": g.w_shape, "D_delta": g.d_shape, "bias": (g.out_channels,)}
        scales = {"W": 1.0, "D_delta": 0.25, "bias": 1.0}
        return {name: self._draw(name, shape) * scales[name] for name, shape in shapes.items()}

    @cached_property
    def x(self) -> np.ndarray:
        """The inputs of the steps, `(STEPS, N, C_in, *space)`, float64."""
        return self._draw("x", (STEPS, self.batch, self.geometry.in_channels, *self.input_size))

    @cached_property
    def target(self) -> np.ndarray:
        """The wanted outputs of the steps, `(STEPS, N, C_out, *output space)`, float64."""
        g = self.geometry
        return self._draw("target", (STEPS, self.batch, g.out_channels, *g.output_size(self.input_size)))

    def _draw(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return generator.floats(f"training/{self.name}/{name}", shape)


def _training(
    name: str, channels: tuple[int, int], kernel: tuple[int, ...], size: tuple[int, ...], **options: object
) -> Training:
    geometry = ConvGeometry(in_channels=channels[0], out_channels=channels[1], kernel_size=kernel, **options)  # type: ignore[arg-type]
    return Training(name, geometry, size)


TRAININGS = (
    _training("conv", (3, 4), (3, 2), (5, 6), stride=(2, 1)),
    _training("grouped", (4, 6), (2, 3), (4, 5), groups=2),
    _training("depthwise", (3, 6), (3, 3), (5, 4), groups=3),
    _training("transposed", (3, 2), (3, 2), (3, 4), transposed=True, stride=(2, 1)),
    _training("conv1d", (3, 4), (4,), (9,), dilation=(2,)),
    _training("conv3d", (2, 3), (2, 1, 3), (3, 2, 4)),
    _training("d-mul", (2, 3), (2, 3), (4, 4), d_mul=14),
)


class Carried(NamedTuple):
    """A quantity of the core, and how far the layer's may be from it."""

    value: np.ndarray
    bound: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """The largest magnitude that the layer's may have."""
        return np.abs(self.value) + self.bound


def expected(training: Training, dtype: str = "float64") -> dict[str, Expected]:
    """`W`, `D_delta` and `bias` after the ten steps of a layer that computes in `dtype`, each with its bound.

    Args:
        training: the layer and its data.
        dtype: "float64" or "float32"; products are summed in that type, directly.

    Returns:
        What `judge` compares a layer's own parameters with, `exact=False`; `scale` is not given.
    """
    parameters = {name: Carried(value, np.zeros(value.shape)) for name, value in training.start.items()}
    for x, target in zip(training.x, training.target, strict=True):
        gradients = _gradients(parameters, x, target, training.geometry, UNIT_ROUNDOFF[dtype])
        parameters = {name: _descend(old, gradients[name], UNIT_ROUNDOFF[dtype]) for name, old in parameters.items()}
    return {
        name: Expected(value, bound, np.zeros(value.shape), DTYPES[dtype])
        for name, (value, bound) in parameters.items()
    }


def _gradients(
    parameters: Mapping[str, Carried], x: np.ndarray, target: np.ndarray, g: ConvGeometry, u: float
) -> dict[str, Carried]:
    W, D, bias = (parameters[name] for name in ("W", "D_delta", "bias"))
    ax, rows, matrix = np.abs(x), g.rows, (*g.w_shape[:2], g.taps)

    residual = np.einsum("abks,abs->abk", D.bound[rows], np.abs(W.value)).reshape(g.kernel_shape)
    kernel = Carried(
        compose(W.value, D.value, g),
        compose(W.bound, D.size, g) + residual + _rounding(g.d_mul + 2, u) * compose(W.size, D.size, g),
    )
    chain = g.taps * g.in_channels // g.groups + 1
    y = Carried(
        convolve(x, kernel.value, bias.value, g),
        convolve(ax, kernel.bound, bias.bound, g) + _rounding(chain, u) * convolve(ax, kernel.size, bias.size, g),
    )
    # One rounding for the difference, two for the factors 2 and 1/2 that a framework may spell out.
    r = Carried(y.value - target, y.bound + _rounding(3, u) * (y.size + np.abs(target)))

    positions = target.size // g.out_channels
    _, *values = convolve_vjp(x, kernel.value, r.value, g)
    _, *bounds = convolve_vjp(ax, kernel.size, r.bound, g)
    _, *sizes = convolve_vjp(ax, kernel.size, r.size, g)
    grad_kernel, grad_bias = (
        Carried(value, bound + _rounding(positions, u) * size)
        for value, bound, size in zip(values, bounds, sizes, strict=True)
    )

    grad_W, grad_D = _compose_vjp(W.value, D.value, grad_kernel.value, g)
    through_W, through_D = _compose_vjp(W.size, D.size, grad_kernel.bound, g)
    size_W, size_D = _compose_vjp(W.size, D.size, grad_kernel.size, g)
    _, from_W = _compose_vjp(W.bound, D.value, np.abs(grad_kernel.value), g)
    from_D = np.einsum("abks,abk->abs", D.bound[rows], np.abs(grad_kernel.value).reshape(matrix))
    return {
        "W": Carried(grad_W, through_W + from_D + _rounding(g.taps + 2, u) * size_W),
        "D_delta": Carried(grad_D, through_D + from_W + _rounding(g.out_channels // g.groups + 1, u) * size_D),
        "bias": grad_bias,
    }


def _compose_vjp(W: np.ndarray, D: np.ndarray, g: np.ndarray, geometry: ConvGeometry) -> tuple[np.ndarray, np.ndarray]:
    grad_W, grad_D = compose_vjp(W, D, g, geometry)
    assert grad_D is not None, "a layer of `TRAININGS` has a D"
    return grad_W, grad_D


def _descend(old: Carried, gradient: Carried, u: float) -> Carried:
    return Carried(
        old.value - LEARNING_RATE * gradient.value,
        old.bound + LEARNING_RATE * gradient.bound + _rounding(2, u) * (old.size + LEARNING_RATE * gradient.size),
    )


def _rounding(n: int, u: float) -> float:
    """What the layer and the core add to a sum of magnitude one, widened by the roundings of the bound itself."""
    return (gamma(n, u) + gamma(n, UNIT_ROUNDOFF["float64"])) * (1 + 2.0**-20)
