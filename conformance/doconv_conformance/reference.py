"""What a case should give, and how far a right answer may be from it.

Nothing here is picked by hand. For a sum of products computed in any order with unit roundoff `u`, fused multiply-add or not,

    |error| <= gamma(n) * a,     gamma(n) = n * u / (1 - n * u)

where `n` is the longest chain of roundings and `a` the same sum over absolute values (`doconv_core` on absolute values, in
float64). Where the composed kernel and the result are rounded to a lower precision, each such rounding adds its own `u`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from doconv_conformance import integers
from doconv_conformance.cases import DTYPES, LOW_PRECISION, Case
from doconv_core.composition import compose, compose_vjp, spread_tiles, start_from_kernel
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
TF32_ROUNDOFF = 2.0**-11
ALGORITHMS = ("direct", "tf32", "winograd", "fft")
# Largest row sums of the transforms of F(4, 3), input times output: what a rounding error is multiplied by on one axis.
WINOGRAD_GROWTH = 10 * 19


@dataclass(frozen=True)
class Numerics:
    """What a port says of its arithmetic.

    Attributes:
        algorithm: "direct" (every output is one sum of products), "tf32", "winograd" or "fft".
        accumulator: the type in which sums of products are formed, for each type of the activations.
        reduction: the type in which plain sums (the gradient of the bias) are formed, where that is another one.
    """

    algorithm: str = "direct"
    accumulator: Mapping[str, str] = field(default_factory=dict)
    reduction: Mapping[str, str] = field(default_factory=dict)

    def unit_roundoff(self, dtype: str) -> float:
        """Of the accumulator for activations of `dtype`."""
        return UNIT_ROUNDOFF[self.accumulator.get(dtype, "float32" if dtype in LOW_PRECISION else dtype)]

    def of_reductions(self) -> Numerics:
        """The same arithmetic for plain sums."""
        return replace(self, accumulator={**self.accumulator, **self.reduction})


@dataclass(frozen=True)
class Expected:
    """One output of one case.

    Attributes:
        value: the right one, float64.
        bound: how far off an element may be; infinite where any finite value is right.
        scale: `u * a`, the unit in which `r` is measured.
        dtype: the type the output must have.
    """

    value: np.ndarray
    bound: np.ndarray
    scale: np.ndarray
    dtype: np.dtype


def gamma(n: float, u: float) -> float:
    """Higham's bound on `n` roundings; infinite where it is not meant (`n * u >= 1`)."""
    return n * u / (1 - n * u) if n * u < 1 else math.inf


def expected(case: Case, operation: str, numerics: Numerics | None = None) -> dict[str, Expected]:
    """The outputs of `operation`, each with the bound that follows from the case and the port's arithmetic."""
    numerics = numerics or Numerics()
    if operation == "initialise":
        return _initialised(case)
    model = _Model(case, numerics)
    if operation == "compose":
        outputs = {"weight": model.weight()}
    elif operation == "forward":
        outputs = {"y": model.y()}
    elif operation == "fold":
        outputs = {"weight": model.weight(), "y": model.y()} | ({"bias": _given(case, "bias")} if case.bias else {})
    else:
        outputs = model.gradients()
    if case.exact:
        for name, value in integers.expected(case, operation).items():
            outputs[name] = Expected(value, outputs[name].bound, outputs[name].scale, outputs[name].dtype)
    return outputs


class _Model:
    """One case in float64, on its numbers and on their absolute values."""

    def __init__(self, case: Case, numerics: Numerics) -> None:
        self.case, self.numerics, self.geometry = case, numerics, case.geometry
        self.tensors = {name: tensor.astype(np.float64) for name, tensor in case.tensors.items()}
        self.size = {name: np.abs(tensor) for name, tensor in self.tensors.items()}
        self.kernel = compose(self.tensors["W"], self.tensors.get("D_delta"), self.geometry)
        self.kernel_size = compose(self.size["W"], self.size.get("D_delta"), self.geometry)

    def weight(self) -> Expected:
        """`S` products, the tiles of `W`, and the sum of both."""
        chain = self.geometry.d_mul + 2
        return self._expected(self.kernel, self.kernel_size, chain, self.case.param_dtype, kernel_cast=False)

    def y(self) -> Expected:
        g, t, size = self.geometry, self.tensors, self.size
        value = convolve(t["x"], self.kernel, t.get("bias"), g)
        scale = convolve(size["x"], self.kernel_size, size.get("bias"), g)
        chain = g.taps * g.in_channels // g.groups + g.d_mul + 2
        return self._expected(value, scale, chain, self.case.dtype, norms=(size["x"], self.kernel_size))

    def gradients(self) -> dict[str, Expected]:
        g, t, size, case = self.geometry, self.tensors, self.size, self.case
        positions = t["grad_y"].size // g.out_channels
        grad_x, grad_kernel, grad_bias = convolve_vjp(t["x"], self.kernel, t["grad_y"], g)
        x_scale, kernel_scale, bias_scale = convolve_vjp(size["x"], self.kernel_size, size["grad_y"], g)
        grad_W, grad_D = compose_vjp(t["W"], t.get("D_delta"), grad_kernel, g)
        W_scale, D_scale = compose_vjp(size["W"], size.get("D_delta"), kernel_scale, g)

        copies = 1 if g.padding_mode == "zeros" else 3**g.spatial_rank  # padded copies of one element add up
        chain = g.taps * g.out_channels // g.groups + copies + g.d_mul + 2
        outputs = {
            "grad_x": self._expected(grad_x, x_scale, chain, case.dtype, norms=(size["grad_y"], self.kernel_size)),
            "grad_W": self._expected(grad_W, W_scale, positions + g.taps + 2, case.param_dtype,
                                     norms=(size["x"], size["grad_y"])),
        }  # fmt: skip
        if grad_D is not None and D_scale is not None:
            shared = g.out_channels // g.groups
            outputs["grad_D_delta"] = self._expected(
                grad_D, D_scale, positions + shared + 2, case.param_dtype, norms=(size["x"], size["grad_y"])
            )
        if case.bias:
            model = _Model(case, self.numerics.of_reductions())
            outputs["grad_bias"] = model._expected(grad_bias, bias_scale, positions, case.param_dtype)
        return outputs

    def _expected(
        self,
        value: np.ndarray,
        scale: np.ndarray,
        chain: int,
        dtype: str,
        *,
        kernel_cast: bool = True,
        norms: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Expected:
        """The bound of a sum whose longest chain of roundings is `chain`, rounded to `dtype` at the end.

        Args:
            value: the right one.
            scale: the same sum over absolute values.
            chain: `n` of `gamma`.
            dtype: of the result.
            kernel_cast: whether a factor (composed kernel or its gradient) is rounded to the types on the way.
            norms: the absolute values of the two factors of the convolution, for algorithms with a bound by norms only.
        """
        types = {dtype, self.case.dtype, self.case.param_dtype} if kernel_cast else {dtype}
        u = max(self.numerics.unit_roundoff(name) for name in types)
        growth = gamma(chain, u)
        if kernel_cast:
            for name in types:
                growth = (1 + growth) * (1 + self._cast(name)) - 1
        if self.numerics.algorithm == "tf32" and norms and self.case.dtype == "float32":
            growth = (1 + growth) * (1 + TF32_ROUNDOFF) ** 2 - 1
        bound = growth * scale
        if norms and self.numerics.algorithm in ("winograd", "fft"):
            product = float(np.linalg.norm(norms[0]) * np.linalg.norm(norms[1]))
            if self.numerics.algorithm == "winograd":
                bound = bound + growth * WINOGRAD_GROWTH**self.geometry.spatial_rank * product
            else:
                bound = bound + gamma(chain + 6 * math.log2(max(value.size, 2)), u) * product
        bound = bound + self._cast(dtype) * (np.abs(value) + bound)
        unit = UNIT_ROUNDOFF[self.case.dtype if kernel_cast else dtype]
        return Expected(value, bound, unit * scale, DTYPES[dtype])

    def _cast(self, dtype: str) -> float:
        """What rounding a sum to `dtype` adds; nothing where it was formed in that type already."""
        u = UNIT_ROUNDOFF[dtype]
        return u if u > self.numerics.unit_roundoff(dtype) else 0.0


def _initialised(case: Case) -> dict[str, Expected]:
    """Exact in every type: the kernel in the first tile, zeros elsewhere; the surplus columns are free."""
    W, D_delta = start_from_kernel(case.tensors["weight"], case.geometry)
    outputs = {"weight": _exactly(case.tensors["weight"]), "W": _exactly(W)}
    outputs["W"].bound[..., _surplus(case.geometry)] = np.inf
    return outputs | ({} if D_delta is None else {"D_delta": _exactly(D_delta)})


def _surplus(geometry: ConvGeometry) -> np.ndarray:
    """The columns of `W` that no row of `E` reads."""
    return spread_tiles(np.ones(geometry.taps), geometry) == 0


def _given(case: Case, name: str) -> Expected:
    return _exactly(case.tensors[name])


def _exactly(tensor: np.ndarray) -> Expected:
    return Expected(tensor.astype(np.float64), np.zeros(tensor.shape), np.zeros(tensor.shape), tensor.dtype)
