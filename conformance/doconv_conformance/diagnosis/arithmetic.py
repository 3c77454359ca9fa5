"""The arithmetic, measured by sums that are made for it: how many digits are kept where.

Asked of kernels of one tap, where the layer is `y = sum over c of W[o, c] x[c]` and there is no `D_delta`:

- `(1 + 2^-j) * 1 + 1 * (-1)` is `2^-j` unless a factor is rounded to `j` digits: before the products, for no sum loses it.
- `1 + 2^-j` alone is lost in the result, too.
- `2^m + 1 - 2^m` is 1 unless the sum is formed in `m` digits.
- `(1 + 2^-j)^2 - (1 + 2^(1-j))` is `2^-2j` unless the product is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from doconv_conformance.cases.draws import DIGITS
from doconv_conformance.cases.table import LOW_PRECISION
from doconv_conformance.diagnosis.asking import Ask, Question
from doconv_core.geometry import ConvGeometry

TYPES = {24: "float32", 11: "float16", 8: "bfloat16", 53: "float64"}
# Of sums in which roundings between blocks are looked for.
LENGTHS = (300, 217)
TINY = {"float64": 2.0**-1060, "float32": 2.0**-140, "float16": 2.0**-20, "bfloat16": 2.0**-130}


@dataclass(frozen=True)
class Arithmetic:
    """Digits that are kept, of one pair of types; None where it could not be measured.

    Attributes:
        dtype: of the activations.
        x: of the input; kernel: of the kernel; result: of the output; sums: in which sums are formed.
        product: whether products are kept whole before they are added.
        rounding: "nearest", "towards zero", "away from zero" or "half away" of the result.
        saturates: whether what overflows becomes the largest number.
        flushes: whether numbers below the smallest normal become zero.
        block: after how many products the sum is rounded to the type, where it is.
    """

    dtype: str
    x: int | None
    kernel: int | None
    result: int | None
    sums: int | None
    product: bool | None
    rounding: str | None
    saturates: bool | None
    flushes: bool | None
    block: int | None = None

    def facts(self) -> list[str]:
        """What is not as it should be, in words."""
        own, lines = DIGITS[self.dtype], []
        if self.x is not None and self.x < own:
            lines.append(f"x is rounded to {_type(self.x)} before it is multiplied")
        if self.kernel is not None and self.kernel < own:
            lines.append(f"the kernel is rounded to {_type(self.kernel)} before it is multiplied")
        if self.result is not None and self.result < own and (self.x or own) >= own:
            lines.append(f"the result is rounded to {_type(self.result)}")
        if self.sums is not None and self.sums < max(own, 24):
            lines.append(f"sums are formed in {_type(self.sums)}")
        if self.product is False and own < 24 <= (self.sums or 24):  # of longer types a product is rounded by right
            lines.append("products are rounded before they are added")
        if self.rounding not in (None, "nearest"):
            lines.append(f"results are rounded {self.rounding}")
        if self.saturates:
            lines.append("what overflows becomes the largest number in place of infinity")
        if self.flushes and (self.x or own) >= own:
            lines.append("numbers below the smallest normal one become zero")
        return [f"{self.dtype}: {line}" for line in lines]


def _type(digits: int) -> str:
    return (
        f"{digits} digits"
        + (f", those of {TYPES[digits]}" if digits in TYPES else "")
        + (" or TF32" if digits == 11 else "")
    )


def measure(ask: Ask, dtype: str, param_dtype: str, rank: int) -> Arithmetic | None:
    """Of one pair of types; None where the port does not answer on kernels of one tap."""
    probe = _Probe(ask, dtype, param_dtype, rank)
    if probe([[1.0, 1.0]], [1.0, 1.0]) is None:
        return None
    own, of_parameters = DIGITS[dtype], min(DIGITS[param_dtype], DIGITS[dtype])
    unit = 2.0 ** (1 - own)
    powers = range(1, own)
    x = probe([[1 + 2.0**-j, 1.0] for j in powers], [1.0, -1.0])
    kernel = [probe([[1.0, -1.0]], [1 + 2.0**-j, 1.0]) for j in range(1, of_parameters)]
    result = probe([[1 + 2.0**-j, 0.0] for j in powers], [1.0, 1.0])
    high = min(40 if dtype == "float64" else 30, 14 if dtype == "float16" else 60)
    orders = [
        probe([[2.0**m, 1.0, -(2.0**m)] for m in range(1, high)], [1.0] * 3),
        probe([[1.0, 2.0**m, -(2.0**m)] for m in range(1, high)], [1.0] * 3),
    ]
    sums = [_kept(order, [1.0] * (high - 1)) for order in orders if order is not None]
    half = own // 2 + 1
    product = (
        probe([[1 + 2.0**-half, -(1 + 2.0 ** (1 - half))]], [1 + 2.0**-half, 1.0])
        if DIGITS[param_dtype] >= own
        else None
    )
    near = probe([[1.0, 0.75 * unit], [1.0, 0.25 * unit], [1.0, 0.5 * unit], [1.0, 1.5 * unit]], [1.0, 1.0])
    large = float(np.ldexp(1.0, 15)) if dtype == "float16" else None
    over = probe([[large, large]], [1.0, 1.0]) if large else None
    tiny = probe([[TINY[dtype], 0.0]], [1.0, 1.0])
    least = min(sums, default=None)
    return Arithmetic(
        dtype,
        None if x is None else 1 + _kept(x, [2.0**-j for j in powers]),
        _digits_of_kernel(kernel, own, of_parameters),
        None if result is None else 1 + _kept(result, [1 + 2.0**-j for j in powers]),
        None if least is None or least == high - 1 else least + 1,
        None if product is None else bool(product[0] == 2.0 ** (-2 * half)),
        None if near is None else _rounding(near, unit),
        None if over is None else bool(np.isfinite(over[0])),
        None if tiny is None else bool(tiny[0] == 0),
        _blocks(probe, own) if dtype in LOW_PRECISION else None,
    )


def _blocks(probe: _Probe, own: int) -> int | None:
    """After how many products a sum is rounded to the type: `2^own + 1 - 2^own`, the 1 at every place, by sums of two lengths.

    What comes before the last rounding is lost, what comes after it is not.
    """
    fitting = set(range(2, min(LENGTHS)))
    for length in LENGTHS:
        x = np.zeros((length - 2, length))
        x[:, 0], x[:, -1] = 2.0**own, -(2.0**own)
        x[np.arange(length - 2), np.arange(1, length - 1)] = 1
        got = probe(x.tolist(), [1.0] * length)
        if got is None or set(got.tolist()) != {0.0, 1.0}:
            return None
        last = 1 + int(np.flatnonzero(got)[0])
        fitting &= {size for size in fitting if (length - 1) // size * size == last}
    return max(fitting, default=None)


def _digits_of_kernel(answers: Sequence[np.ndarray | None], own: int, of_parameters: int) -> int | None:
    """As many as the type of the parameters shows; all where it has fewer than that of the activations."""
    known = [answer for answer in answers if answer is not None]
    if len(known) < len(answers) or not known:
        return None
    kept = 1 + _kept(np.concatenate(known), [2.0**-j for j in range(1, of_parameters)])
    return own if kept >= of_parameters else kept


def _kept(got: np.ndarray, want: Sequence[float]) -> int:
    """How many of the first answers are right."""
    wrong = np.flatnonzero(got != np.asarray(want))
    return int(wrong[0]) if len(wrong) else len(want)


def _rounding(near: np.ndarray, unit: float) -> str:
    steps = tuple(float(value) for value in (near - 1) / unit)
    known = {
        (1, 0, 0, 2): "nearest",
        (0, 0, 0, 1): "towards zero",
        (1, 1, 1, 2): "away from zero",
        (1, 0, 1, 2): "to nearest, halves away from zero",
    }
    return known.get(steps, "nearest")  # type: ignore[arg-type]


class _Probe:
    """`y` of a kernel of one tap, one number an image."""

    def __init__(self, ask: Ask, dtype: str, param_dtype: str, rank: int) -> None:
        self.ask, self.types, self.rank = ask, (dtype, param_dtype), rank

    def __call__(self, x: Sequence[Sequence[float]], kernel: Sequence[float]) -> np.ndarray | None:
        channels = len(kernel)
        g = ConvGeometry(in_channels=channels, out_channels=1, kernel_size=(1,) * self.rank)
        tensors = {
            "x": np.asarray(x, np.float64).reshape(len(x), channels, *(1,) * self.rank),
            "W": np.asarray(kernel, np.float64).reshape(g.w_shape),
        }
        answer = self.ask("forward", Question(g, tensors, *self.types))
        if answer is None or "y" not in answer or answer["y"].size != len(x):
            return None
        return answer["y"].astype(np.float64).ravel()


def sums_lose(ask: Ask, kind: str, dtype: str, param_dtype: str, digits: int, rank: int) -> bool | None:
    """Whether `2^m + 1 - 2^m` is not 1 in one kind of sums, with `m` just beyond `digits`; None where it cannot be measured.

    Args:
        ask: the port.
        kind: "accumulator" (products, over channels), "scatter" (the gradient of `x`, over output channels),
            "kernel_gradient" (that of `W`, over images) or "reduction" (that of the bias, over images).
        dtype: of the activations.
        param_dtype: of the parameters.
        digits: of the type in question.
        rank: number of spatial axes.
    """
    large = 2.0 ** (digits + 1)
    if dtype == "float16" and digits + 1 > 15:
        return None
    lost = []
    for terms in ([large, 1.0, -large], [1.0, large, -large]):
        got = _summed(ask, kind, np.array(terms), dtype, param_dtype, rank)
        if got is None:
            return None
        lost.append(got != 1.0)
    return any(lost)


def _summed(ask: Ask, kind: str, terms: np.ndarray, dtype: str, param_dtype: str, rank: int) -> float | None:
    one = (1,) * rank
    sizes = {"accumulator": (3, 1, 1), "scatter": (1, 3, 1), "kernel_gradient": (1, 1, 3), "reduction": (1, 1, 3)}
    c_in, c_out, batch = sizes[kind]
    g = ConvGeometry(in_channels=c_in, out_channels=c_out, kernel_size=one)
    tensors = {
        "x": np.ones((batch, c_in, *one)),
        "W": np.ones(g.w_shape),
        "grad_y": np.ones((batch, c_out, *one)),
        "bias": np.zeros(c_out),
    }
    place = {"accumulator": "x", "scatter": "grad_y", "kernel_gradient": "x", "reduction": "grad_y"}[kind]
    tensors[place] = terms.reshape(tensors[place].shape)
    operation, output = {
        "accumulator": ("forward", "y"),
        "scatter": ("backward", "grad_x"),
        "kernel_gradient": ("backward", "grad_W"),
        "reduction": ("backward", "grad_bias"),
    }[kind]
    answer = ask(operation, Question(g, tensors, dtype, param_dtype))
    if answer is None or output not in answer or answer[output].size != 1:
        return None
    return float(answer[output].astype(np.float64).ravel()[0])
