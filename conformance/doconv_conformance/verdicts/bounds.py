"""What a case should give, and how far a right answer may be from it.

Nothing here is picked by hand. For a sum of products computed in any order with unit roundoff `u`, fused multiply-add or not,

    |error| <= gamma(n) * a,     gamma(n) = n * u / (1 - n * u)

where `n` is the longest chain of roundings and `a` the same sum over absolute values (Higham, Accuracy and Stability of
Numerical Algorithms, section 3.1). `a` is `doconv_core` on absolute values, in float64, whose own roundings (`gamma` again, of
float64) belong to the bound. Where the composed kernel and the result are rounded to a lower precision, each such rounding adds
its own `u`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from doconv_conformance.cases.draws import KNOWN, ROUNDED_ONCE
from doconv_conformance.cases.table import DTYPES, LOW_PRECISION, Case
from doconv_conformance.verdicts import integers
from doconv_core.blocked import compose_blocked, compose_vjp_blocked
from doconv_core.composition import spread_tiles, start_from_kernel
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
TF32_ROUNDOFF = 2.0**-11
ALGORITHMS = ("direct", "tf32", "winograd", "fft")
# F(4, 3) of Lavin and Gray (arXiv 1509.09308): the largest row sums of the absolute transforms of the input, the kernel and
# the output, whose product multiplies a rounding error on one axis (Barabasz et al., arXiv 1803.10986), and their lengths,
# which add up to the roundings of one axis.
WINOGRAD_GROWTH, WINOGRAD_CHAIN = 10 * 1 * 19, 6 + 3 + 6
# Roundings of one level of an FFT, in units of its gamma: gamma_4 * sqrt(2) + u (Higham, section 24.1), rounded up.
FFT_LEVEL = 7
NEITHER: tuple[np.ndarray | None, np.ndarray | None] = (None, None)  # of `Output.rounded` and `Output.once`


@dataclass(frozen=True)
class Numerics:
    """What a port says of its arithmetic.

    Attributes:
        algorithm: "direct" (every output is one sum of products), "tf32", "winograd" or "fft".
        accumulator: the type in which sums of products are formed, for each type of the activations.
        reduction: the type in which plain sums (the gradient of the bias) are formed, where that is another one.
        scatter: likewise for sums whose products are spread out and added to the result (a transposed convolution, and the
            input gradient of a convolution), which some libraries do after each product of matrices was rounded.
        kernel_gradient: likewise for the gradients of the parameters, which some libraries add up image by image in the type.
    """

    algorithm: str = "direct"
    accumulator: Mapping[str, str] = field(default_factory=dict)
    reduction: Mapping[str, str] = field(default_factory=dict)
    scatter: Mapping[str, str] = field(default_factory=dict)
    kernel_gradient: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, declared: Mapping[str, Any]) -> Numerics:
        """What a port's hello says under `numerics`; what it does not say is at its default."""
        names = ("algorithm", "accumulator", "reduction", "scatter", "kernel_gradient")
        return cls(**{name: declared[name] for name in names if name in declared})

    def unit_roundoff(self, dtype: str) -> float:
        """Of the accumulator for activations of `dtype`."""
        return UNIT_ROUNDOFF[self.accumulator.get(dtype, "float32" if dtype in LOW_PRECISION else dtype)]

    def forming(self, sums: str) -> Numerics:
        """The same arithmetic for one kind: "products", "scatter", "kernel_gradient", "reduction" or "composition"."""
        if sums == "composition":  # is at least float32 in every port
            narrow = [dtype for dtype in LOW_PRECISION if self.unit_roundoff(dtype) > UNIT_ROUNDOFF["float32"]]
            return replace(self, accumulator={**self.accumulator, **dict.fromkeys(narrow, "float32")})
        kinds = {"scatter": self.scatter, "reduction": self.reduction, "kernel_gradient": self.kernel_gradient}
        other = kinds.get(sums, {})
        return replace(self, accumulator={**self.accumulator, **other}) if other else self


@dataclass(frozen=True)
class Expected:
    """One output of one case.

    Attributes:
        value: the right one, float64.
        bound: how far off an element may be; infinite where any finite value is right.
        scale: `u * a`, the unit in which `r` is measured.
        dtype: the type the output must have.
        alive: the entries of the last axis that must not be zero throughout, or None: columns that would never be trained.
    """

    value: np.ndarray
    bound: np.ndarray
    scale: np.ndarray
    dtype: np.dtype
    alive: np.ndarray | None = None

    def allowed(self, exact: bool) -> np.ndarray:
        """How far off an element may be where values must be equal, or not."""
        return np.where(np.isinf(self.bound), np.inf, 0.0) if exact else self.bound


def gamma(n: float, u: float) -> float:
    """Higham's bound on `n` roundings; infinite where it is not meant (`n * u >= 1`)."""
    return n * u / (1 - n * u) if n * u < 1 else math.inf


def expected(case: Case, operation: str, numerics: Numerics | None = None) -> dict[str, Expected]:
    """The outputs of `operation`, each with the bound that follows from the case and the port's arithmetic."""
    return {name: output.within(numerics or Numerics()) for name, output in _remembered(case, operation).items()}


@dataclass(frozen=True)
class Output:
    """An output before anything is known of a port's arithmetic.

    Attributes:
        value: the right one.
        scale: the same sum over absolute values.
        chain: the longest chain of roundings, `n` of `gamma`.
        dtype: of the result.
        unit: the type whose roundoff `r` is measured in.
        cast: the types that a factor (the composed kernel or its gradient) is rounded to on the way.
        added: `|value|` before a bias, where there is one: a layer that adds it to the finished result rounds twice.
        norms: of the two factors of the convolution, for algorithms with a bound by norms only; with its size and rank.
        once: the bound where the accumulator forms every sum exactly, for cases made so or without a sum; None elsewhere.
        rounded: the value there, where every sum is rounded once, to nearest and ties to even; None where it is `value`.
        sums: what they are, as in `Numerics.forming`.
        alive: as in `Expected`.
    """

    value: np.ndarray
    scale: np.ndarray
    chain: int
    dtype: str
    unit: str
    cast: frozenset[str] = frozenset()
    added: np.ndarray | None = None
    norms: tuple[float, int, int] | None = None
    once: np.ndarray | None = None
    rounded: np.ndarray | None = None
    sums: str = "products"
    alive: np.ndarray | None = None

    def within(self, numerics: Numerics) -> Expected:
        """With the bound for a port's arithmetic."""
        unit = UNIT_ROUNDOFF[self.unit] * self.scale
        bound = self._bound(numerics.forming(self.sums))
        if numerics.algorithm in ("winograd", "fft"):
            # What others add to a result near the largest number decides there.
            bound = np.where(np.isinf(self.value), np.inf, bound)
        value = self.rounded if bound is self.once and self.rounded is not None else self.value
        return Expected(value, bound, unit, DTYPES[self.dtype], self.alive)

    def _bound(self, numerics: Numerics) -> np.ndarray:
        """How far off the sums may be, then how far off their rounding to the type of the result."""
        types = {self.dtype, *self.cast}
        u = max(numerics.unit_roundoff(name) for name in types)
        wide = UNIT_ROUNDOFF["float32" if self.unit in LOW_PRECISION else "float64"]
        sums_are_exact = numerics.algorithm in ("direct", "tf32") and u <= wide
        if self.once is not None and (sums_are_exact or not self.chain):
            return self.once
        # Rounding to a type adds nothing where the sum was formed in that type already.
        lower = {name: UNIT_ROUNDOFF[name] for name in types if UNIT_ROUNDOFF[name] > numerics.unit_roundoff(name)}
        growth = self._growth(numerics, u, lower)
        bound = np.multiply(growth, self.scale, out=np.zeros(self.scale.shape), where=self.scale > 0)  # inf * 0 is 0
        bound = bound + self._by_norms(numerics, u)
        if self.dtype not in lower:  # below the smallest normal number each rounding is as far off as at that number
            return bound + self.chain * UNIT_ROUNDOFF[self.dtype] * _smallest_normal(self.dtype)
        return self._rounded(bound, lower[self.dtype])

    def _growth(self, numerics: Numerics, u: float, lower: Mapping[str, float]) -> float:
        """`gamma(chain)` of the accumulator, of factors that are rounded before, and of the reference's own float64.

        For the output of a bfloat16 layer accumulated in float32: the chain's `gamma` of float32, and the kernel cast to
        bfloat16 once, `(1 + gamma) * (1 + 2**-8) - 1`.
        """
        growth = gamma(self.chain, u)
        for name in self.cast & lower.keys():
            growth = (1 + growth) * (1 + lower[name]) - 1
        if numerics.algorithm == "tf32" and self.norms and self.unit == "float32":
            growth = (1 + growth) * (1 + TF32_ROUNDOFF) ** 2 - 1
        return growth + gamma(self.chain, UNIT_ROUNDOFF["float64"])

    def _by_norms(self, numerics: Numerics, u: float) -> float:
        """What fast algorithms add to every element alike: a bound on whole factors, not on single products."""
        if self.norms is None:
            return 0.0
        product, size, rank = self.norms
        if numerics.algorithm == "winograd":
            return gamma(self.chain + rank * WINOGRAD_CHAIN, u) * WINOGRAD_GROWTH**rank * product
        if numerics.algorithm == "fft":  # two transforms forward and one back
            return gamma(self.chain + 3 * FFT_LEVEL * math.log2(max(size, 2)), u) * product
        return 0.0

    def _rounded(self, bound: np.ndarray, u: float) -> np.ndarray:
        """The bound of a sum that is rounded to a type of roundoff `u`; twice where a bias is added to the finished sum."""
        if self.added is not None:
            bound = bound + u * (self.added + bound)
        finite = np.where(np.isinf(self.value), 0.0, np.abs(self.value))
        return bound + u * (np.maximum(finite, _smallest_normal(self.dtype)) + bound)


def outputs_of(case: Case, operation: str) -> dict[str, Output]:
    """The outputs of `operation`, for any port's arithmetic; computed at every call, as layers of real models need memory."""
    if operation == "initialise":
        return _initialised(case)
    if case.large:
        return _large(case, operation)
    model = _Model(case)
    if operation == "compose":
        outputs = {"weight": model.weight()}
    elif operation == "forward":
        outputs = {"y": model.y()}
    elif operation == "fold":
        outputs = {"weight": model.weight(), "y": model.y()} | ({"bias": _given(case, "bias")} if case.bias else {})
    else:
        outputs = model.gradients()
    if case.numbers in KNOWN:
        for name, value in integers.expected(case, operation).items():
            outputs[name] = replace(outputs[name], value=value)
    return outputs


# Ports are judged by the same values; only their bounds differ.
_remembered = lru_cache(maxsize=4096)(outputs_of)


def _large(case: Case, operation: str) -> dict[str, Output]:
    """Outputs of an exact case of many numbers; `a` is everywhere that of the largest of them: quick, and no smaller."""
    g, largest = case.geometry, {name: float(np.abs(tensor).max()) for name, tensor in case.tensors.items()}
    kernel = largest["W"] * (g.d_mul // g.taps + g.d_mul * largest.get("D_delta", 0.0))
    read, written = g.taps * g.in_channels // g.groups, g.taps * g.out_channels // g.groups
    positions = case.tensors["grad_y"].size // g.out_channels
    grad_kernel = positions * largest["x"] * largest["grad_y"]
    chain = max(read, written) * _copies(g, case.input_size) + positions + g.d_mul + 2
    scales = {
        "weight": kernel,
        "y": read * largest["x"] * kernel + largest.get("bias", 0.0),
        "bias": largest.get("bias", 0.0),
        "grad_x": written * _copies(g, case.input_size) * largest["grad_y"] * kernel,
        "grad_W": grad_kernel * (1 + g.taps * largest.get("D_delta", 0.0)),
        "grad_D_delta": written * grad_kernel * largest["W"],
        "grad_bias": positions * largest["grad_y"],
    }
    outputs = {}
    for name, value in integers.expected(case, operation).items():
        dtype = case.dtype if name in ("y", "grad_x") else case.param_dtype
        scale = np.broadcast_to(scales[name], value.shape)
        outputs[name] = Output(value, scale, chain, dtype, case.dtype, frozenset({case.dtype, case.param_dtype}))
    return outputs


class _Model:
    """One case in float64, on its numbers and on their absolute values."""

    def __init__(self, case: Case) -> None:
        self.case, self.geometry = case, case.geometry
        self.tensors = {name: tensor.astype(np.float64) for name, tensor in case.tensors.items()}
        self.size = {name: np.abs(tensor) for name, tensor in self.tensors.items()}
        self.kernel = compose_blocked(self.tensors["W"], self.tensors.get("D_delta"), self.geometry)
        self.kernel_size = compose_blocked(self.size["W"], self.size.get("D_delta"), self.geometry)
        # Below the smallest normal number the rounding of the kernel is that of the smallest normal number.
        self.cast_size = self.kernel_size + _smallest_normal(case.dtype)
        self.types = frozenset({case.dtype, case.param_dtype})
        self.positions = case.tensors["grad_y"].size // case.geometry.out_channels
        self.once = case.numbers in ROUNDED_ONCE
        self.kernel_is_exact = self.once and not case.numbers.startswith("gradients")

    def weight(self) -> Output:
        """`S` products, the tiles of `W`, and the sum of both."""
        dtype = self.case.param_dtype
        rounded, once = _rounding(self.kernel, dtype) if self.once else NEITHER
        return Output(
            self.kernel,
            self.kernel_size,
            chain=self.geometry.d_mul + 2,
            dtype=dtype,
            unit=dtype,
            once=once,
            rounded=rounded,
            sums="composition",
        )

    def y(self) -> Output:
        """The convolution by the composed kernel."""
        g, t, size, dtype = self.geometry, self.tensors, self.size, self.case.dtype
        value = convolve(t["x"], self.kernel, t.get("bias"), g)
        rounded, once = _rounding(value, dtype) if self.kernel_is_exact else NEITHER
        return Output(
            value,
            convolve(size["x"], self.cast_size, size.get("bias"), g),
            chain=g.taps * g.in_channels // g.groups + g.d_mul + 2,
            dtype=dtype,
            unit=dtype,
            cast=self.types,
            added=np.abs(convolve(t["x"], self.kernel, None, g)) if self.case.bias else None,
            norms=self._norms(t["x"], self.kernel),
            once=once,
            rounded=rounded,
            sums="scatter" if g.transposed else "products",
        )

    def gradients(self) -> dict[str, Output]:
        """Of the input, of `W` and `D_delta` through the composed kernel, and of the bias."""
        g, t, size, case = self.geometry, self.tensors, self.size, self.case
        grad_x, grad_kernel, grad_bias = convolve_vjp(t["x"], self.kernel, t["grad_y"], g)
        x_scale, kernel_scale, bias_scale = convolve_vjp(size["x"], self.cast_size, size["grad_y"], g)
        outputs = {"grad_x": self._grad_x(grad_x, x_scale)}
        outputs |= self._grad_parameters(grad_kernel, kernel_scale + _smallest_normal(case.dtype))
        if case.bias:
            # It may be rounded to the activations' type first.
            off = np.abs(_rounding(grad_bias, case.dtype)[0] - grad_bias)
            rounded, once = _rounding(grad_bias, case.param_dtype, off) if self.once else NEITHER
            outputs["grad_bias"] = Output(
                grad_bias,
                bias_scale,
                chain=self.positions,
                dtype=case.param_dtype,
                unit=case.dtype,
                cast=self.types,
                once=once,
                rounded=rounded,
                sums="reduction",
            )
        return outputs

    def _grad_x(self, value: np.ndarray, scale: np.ndarray) -> Output:
        g, dtype = self.geometry, self.case.dtype
        rounded, once = _rounding(value, dtype) if self.kernel_is_exact else NEITHER
        return Output(
            value,
            scale,
            chain=g.taps * g.out_channels // g.groups + _copies(g, self.case.input_size) + g.d_mul + 2,
            dtype=dtype,
            unit=dtype,
            cast=self.types,
            norms=self._norms(self.tensors["grad_y"], self.kernel),
            once=once,
            rounded=rounded,
            sums="products" if g.transposed else "scatter",
        )

    def _grad_parameters(self, grad_kernel: np.ndarray, kernel_scale: np.ndarray) -> dict[str, Output]:
        """`compose_vjp` of the kernel's gradient: of its values, of their absolute values, and of what rounding it adds."""
        g, t, size = self.geometry, self.tensors, self.size
        grad_W, grad_D = compose_vjp_blocked(t["W"], t.get("D_delta"), grad_kernel, g)
        W_scale, D_scale = compose_vjp_blocked(size["W"], size.get("D_delta"), kernel_scale, g)
        W_error = D_error = None
        if self.once:  # the kernel's gradient is rounded to the activations' type, then composed, then rounded
            off = np.abs(_rounding(grad_kernel, self.case.dtype)[0] - grad_kernel)
            W_error, D_error = compose_vjp_blocked(size["W"], size.get("D_delta"), off, g)
        outputs = {"grad_W": self._grad_parameter(grad_W, W_scale, self.positions + g.taps + 2, W_error)}
        if grad_D is not None and D_scale is not None:
            chain = self.positions + g.out_channels // g.groups + 2
            outputs["grad_D_delta"] = self._grad_parameter(grad_D, D_scale, chain, D_error)
        return outputs

    def _grad_parameter(self, value: np.ndarray, scale: np.ndarray, chain: int, error: np.ndarray | None) -> Output:
        """`error` is how far off the sum may be before it is rounded once; None where more is rounded than that."""
        dtype = self.case.param_dtype
        rounded, once = NEITHER if error is None else _rounding(value, dtype, error)
        return Output(
            value,
            scale,
            chain,
            dtype=dtype,
            unit=self.case.dtype,
            cast=self.types,
            norms=self._norms(self.tensors["x"], self.tensors["grad_y"]),
            once=once,
            rounded=rounded,
            sums="kernel_gradient",
        )

    def _norms(self, first: np.ndarray, second: np.ndarray) -> tuple[float, int, int]:
        product = float(np.linalg.norm(first) * np.linalg.norm(second))
        return product, first.size + second.size, self.geometry.spatial_rank


def _copies(geometry: ConvGeometry, size: tuple[int, ...]) -> int:
    """How many elements of the padded input are one element of the input, at most: their gradients add up."""
    if geometry.padding_mode == "zeros":
        return 1
    axes = zip(size, geometry.padding, strict=True)
    copied = [pad(np.arange(n).reshape(1, 1, n), [ends], geometry.padding_mode) for n, ends in axes]
    return math.prod(int(np.bincount(axis.ravel()).max()) for axis in copied)


def _rounding(value: np.ndarray, dtype: str, error: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A sum that is off by `error` and rounded once to `dtype`, and how far off the result may be: not at all without error."""
    if error is None:
        error = np.zeros(value.shape)
    nearest = value.astype(DTYPES[dtype]).astype(np.float64)
    off = error + UNIT_ROUNDOFF[dtype] * (np.abs(value) + error)
    return np.where(error > 0, value, nearest), np.where(error > 0, off, 0.0)


def _smallest_normal(dtype: str) -> float:
    return float(ml_dtypes.finfo(DTYPES[dtype]).smallest_normal)


def _initialised(case: Case) -> dict[str, Output]:
    """Exact in every type: the kernel in the first tile, zeros elsewhere; the surplus columns are free, but not zero.

    Where `W`, `D_delta` and `E` all have a column of zeros, no gradient ever reaches it.
    """
    W, D_delta = start_from_kernel(case.tensors["weight"], case.geometry)
    outputs = {"weight": _given(case, "weight"), "W": _exactly(W, case.param_dtype)}
    surplus = spread_tiles(np.ones(case.geometry.taps), case.geometry) == 0
    bound = np.where(np.broadcast_to(surplus, W.shape), np.inf, 0.0)
    outputs["W"] = replace(outputs["W"], once=bound, alive=surplus)
    return outputs | ({} if D_delta is None else {"D_delta": _exactly(D_delta, case.param_dtype)})


def _given(case: Case, name: str) -> Output:
    return _exactly(case.tensors[name], case.param_dtype)


def _exactly(tensor: np.ndarray, dtype: str) -> Output:
    zeros = np.zeros(tensor.shape)
    return Output(tensor.astype(np.float64), zeros, 0, dtype, dtype, once=zeros)
