"""The arithmetic, measured by sums that are made for it: how many digits are kept where.

Asked of kernels of one tap, where the layer is `y = sum over c of W[o, c] x[c]` and there is no `D_delta`:

- `(1 + 2^-j) * 1 + 1 * (-1)` is `2^-j` unless a factor is rounded to `j` digits: before the products, for no sum loses it.
- `1 + 2^-j` alone is lost in the result, too.
- `2^m + 1 - 2^m` is 1 unless the sum is formed in `m` digits.
- `(1 + 2^-j)^2 - (1 + 2^(1-j))` is `2^-2j` unless the product is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from doconv_conformance.cases.draws import DIGITS
from doconv_conformance.cases.table import DTYPES, LOW_PRECISION
from doconv_conformance.diagnosis.asking import Ask, Question
from doconv_conformance.faults.faulty_port import Fault, FaultyPort
from doconv_conformance.faults.precision import rounded_to_bits
from doconv_conformance.port import Tensors
from doconv_core.composition import compose, sum_tiles
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
        factors: digits of the factors in the gradients, by the gradient and the factor, where they are fewer than the type's.
        bias: digits of the bias, where they are fewer than the type's.
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
    factors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    bias: int | None = None
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
        for (gradient, factor), digits in self.factors.items():
            lines.append(f"{factor} is rounded to {_type(digits)} before it is multiplied in {gradient}")
        if self.bias is not None:
            lines.append(f"the bias is rounded to {_type(self.bias)} before it is added")
        return [f"{self.dtype}: {line}" for line in lines]

    def factor(self, part: str, name: str) -> int:
        """Digits that a factor keeps in one part: "y", "grad_x" or "grad_kernel"."""
        own = DIGITS[self.dtype]
        found = self.factors.get((part, name), own) if part != "y" else self.x if name == "x" else self.kernel
        return own if found is None else found


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
        _of_gradients(ask, dtype, param_dtype, rank),
        _of_bias(ask, dtype, param_dtype, rank),
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


def _of_bias(ask: Ask, dtype: str, param_dtype: str, rank: int) -> int | None:
    """Digits of the bias: `(1 + 2^-j) + 1 * (-1)`, an output channel for each."""
    powers = 2.0 ** -np.arange(1.0, min(DIGITS[dtype], DIGITS[param_dtype]))
    g = ConvGeometry(in_channels=1, out_channels=len(powers), kernel_size=(1,) * rank)
    tensors = {"x": -np.ones((1, 1, *(1,) * rank)), "W": np.ones(g.w_shape), "bias": 1 + powers}
    answer = ask("forward", Question(g, tensors, dtype, param_dtype))
    if answer is None or "y" not in answer or answer["y"].size != len(powers):
        return None
    kept = 1 + _kept(answer["y"].astype(np.float64).ravel(), powers.tolist())
    return kept if kept <= len(powers) else None


def _of_gradients(ask: Ask, dtype: str, param_dtype: str, rank: int) -> dict[tuple[str, str], int]:
    """Digits of the factors in the gradients, of kernels of one tap: where each falls short of the type's.

    `grad_x = W^T grad_y` and `grad_W = sum over images of grad_y x`: a factor `1 + 2^-j`, from which 1 is taken again.
    """
    own, found = DIGITS[dtype], dict[tuple[str, str], int]()
    most = min(own, DIGITS[param_dtype])
    for part, name in (("grad_x", "kernel"), ("grad_x", "grad_y"), ("grad_kernel", "x"), ("grad_kernel", "grad_y")):
        powers = 2.0 ** -np.arange(1.0, most if name == "kernel" or part == "grad_kernel" else own)
        count, some = len(powers), np.stack([1 + powers, np.ones(len(powers))])
        signs = np.array([1.0, -1.0])
        if name == "kernel":  # grad_x[c] = sum over o of W[o, c] grad_y[o]
            got = _gradient(ask, "grad_x", np.zeros((1, count)), some, signs[None], (dtype, param_dtype, rank))
        elif part == "grad_x":
            got = _gradient(
                ask, "grad_x", np.zeros((count, 1)), np.ones((2, 1)), some.T * signs, (dtype, param_dtype, rank)
            )
        elif name == "x":  # grad_W[o, c] = sum over images of grad_y[n, o] x[n, c]
            got = _gradient(ask, "grad_W", some, np.ones((1, count)), signs[:, None], (dtype, param_dtype, rank))
        else:
            got = _gradient(ask, "grad_W", signs[:, None], np.ones((count, 1)), some, (dtype, param_dtype, rank))
        if got is not None and 1 + (kept := _kept(got, powers.tolist())) <= count:
            found[part, name] = 1 + kept
    return found


def _gradient(
    ask: Ask, output: str, x: np.ndarray, W: np.ndarray, grad_y: np.ndarray, types: tuple[str, str, int]
) -> np.ndarray | None:
    """A gradient of a kernel of one tap, `x` `(N, C_in)`, `W` `(C_out, C_in)`, `grad_y` `(N, C_out)`, flat."""
    dtype, param_dtype, rank = types
    ones = (1,) * rank
    g = ConvGeometry(in_channels=W.shape[1], out_channels=W.shape[0], kernel_size=ones)
    tensors = {
        "x": x.reshape(*x.shape, *ones),
        "W": W.reshape(g.w_shape),
        "grad_y": grad_y.reshape(*grad_y.shape, *ones),
    }
    answer = ask("backward", Question(g, tensors, dtype, param_dtype))
    if answer is None or output not in answer:
        return None
    return answer[output].astype(np.float64).ravel()


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


def faults(found: Arithmetic) -> list[Fault]:
    """What was measured, as faults to be checked on the rows."""
    own, dtype = DIGITS[found.dtype], found.dtype
    kind, made = DTYPES[dtype], list[Fault]()

    def add(name: str, words: str, look_at: str, **hooks: Any) -> None:
        made.append(Fault(name, words, look_at, hooks))

    for parts, where in PARTS.items():
        digits = {(part, name): found.factor(part, name) for part in parts for name in FACTORS[part]}
        low = {key: value for key, value in digits.items() if value < own}
        if not low or {part for part, _ in low} != set(parts):
            continue
        names = [name for name in ("x", "kernel", "grad_y") if any(key[1] == name for key in low)]
        *before, last = ({"kernel": "the kernel"}.get(name, name) for name in names)
        said = " and ".join(filter(None, (", ".join(before), last)))
        words = f"rounds {said} of {dtype} convolutions to {_type(min(low.values()))}{where}"
        add("-".join(("rounded", *names, *parts)), words, "the precision settings of convolutions, or a cast",
            factors=_factors(low, dtype))  # fmt: skip
    if found.bias is not None and found.dtype in ("float32", "float64"):
        of_bias = found.bias
        add("bias-rounded", f"rounds the bias of {dtype} convolutions to {_type(of_bias)}", "a cast of the bias",
            read=lambda name, tensor: (
                rounded_to_bits(tensor, of_bias).astype(tensor.dtype) if name == "bias" and tensor.dtype == kind else tensor
            ))  # fmt: skip
    if (found.result or own) < own and found.factor("y", "x") >= own:
        digits_ = found.result or own
        add("result-rounded", f"rounds {dtype} results to {_type(digits_)}", ROUNDING,
            result=lambda y, kernel, inputs, g: rounded_to_bits(y, digits_) if inputs["x"].dtype == kind else y)  # fmt: skip
    if found.rounding not in (None, "nearest"):
        how = str(found.rounding)
        add("directed", f"rounds to {dtype} {how.removeprefix('to nearest, ')}", ROUNDING,
            cast=lambda tensor, to: (_directed(tensor.astype(np.float64), own, how) if to == kind else tensor).astype(to),
        )  # fmt: skip
        add("result-directed", f"rounds {dtype} results {how}", ROUNDING,
            result=lambda y, kernel, inputs, g: _directed(y, own, how) if inputs["x"].dtype == kind else y)  # fmt: skip
    if found.product is False and own < 24 <= (found.sums or 24):
        add("products-rounded", f"rounds each product of {dtype} convolutions to {dtype} before it is added",
            "the type of the products", accumulate=_accumulating(dtype, True, 0))  # fmt: skip
    if found.block:
        add("sums-rounded", f"rounds sums of products of {dtype} to {dtype} after each {found.block} products",
            "the type of the sums between blocks", accumulate=_accumulating(dtype, False, found.block))  # fmt: skip
    if found.saturates:
        limit = float(ml_dtypes.finfo(kind).max)
        add("saturates", f"has {dtype} results that overflow become the largest number", ROUNDING,
            cast=lambda tensor, to: (np.clip(tensor, -limit, limit) if to == kind else tensor).astype(to))  # fmt: skip
    if found.flushes and found.factor("y", "x") >= own:
        made += _flushing(dtype)
    return made


def _accumulating(dtype: str, rounds_products: bool, block: int) -> Callable[..., np.ndarray]:
    """The sum of products, each rounded to the type, or the sum after so many of them."""
    kind = DTYPES[dtype]

    def rounded(tensor: np.ndarray) -> np.ndarray:
        return tensor.astype(kind).astype(np.float64)

    def accumulate(products: Iterable[np.ndarray], of: str) -> np.ndarray:
        total = np.zeros(())
        for number, product in enumerate(products, 1):
            total = total + (rounded(product) if rounds_products and of == dtype else product)
            total = rounded(total) if block and number % block == 0 and of == dtype else total
        return total

    return accumulate


ROUNDING = "the type and the rounding of the results"
FACTORS = {"y": ("x", "kernel"), "grad_x": ("kernel", "grad_y"), "grad_kernel": ("x", "grad_y")}
PARTS = {
    ("y", "grad_x", "grad_kernel"): "",
    ("y", "grad_x"): ", in y and in the gradient of x",
    ("y", "grad_kernel"): ", in y and in the gradients of the parameters",
    ("grad_x", "grad_kernel"): ", in the gradients",
    ("y",): ", in y",
    ("grad_x",): ", in the gradient of x",
    ("grad_kernel",): ", in the gradients of the parameters",
}


def _factors(digits: Mapping[tuple[str, str], int], dtype: str) -> Callable[..., np.ndarray]:
    def change(part: str, name: str, tensor: np.ndarray, of: str) -> np.ndarray:
        return rounded_to_bits(tensor, digits[part, name]) if of == dtype and (part, name) in digits else tensor

    return change


def _flushing(dtype: str) -> list[Fault]:
    """Numbers below the smallest normal one taken for zero: where they are read, where they are written, or both."""
    kind, least = DTYPES[dtype], float(ml_dtypes.finfo(DTYPES[dtype]).tiny)

    def flushed(tensor: np.ndarray) -> np.ndarray:
        small = np.abs(tensor.astype(np.float64)) < least
        return np.where(small, np.zeros((), tensor.dtype), tensor) if tensor.dtype == kind else tensor

    read = {
        "read": lambda name, tensor: flushed(tensor),
        "used": lambda kernel, inputs, g: flushed(kernel),
    }
    written = {"cast": lambda tensor, to: flushed(tensor.astype(to))}
    look_at = "a mode of the processor or the library: flush to zero, denormals are zero"
    words = f"takes {dtype} numbers below the smallest normal one for zero"
    return [
        Fault("flushes-read-and-written", words, look_at, {**read, **written}),
        Fault("flushes-read", f"{words} where it reads them", look_at, read),
        Fault("flushes-written", f"{words} where it writes them", look_at, written),
    ]


def _directed(y: np.ndarray, digits: int, rounding: str) -> np.ndarray:
    fraction, exponent = np.frexp(y)
    scaled = fraction * 2.0**digits
    rounded = {
        "towards zero": np.trunc(scaled),
        "away from zero": np.sign(scaled) * np.ceil(np.abs(scaled)),
        "to nearest, halves away from zero": np.sign(scaled) * np.floor(np.abs(scaled) + 0.5),
    }[rounding]
    return np.ldexp(rounded, exponent - digits)


@cache
def short_factors(dtype: str) -> tuple[Fault, ...]:
    """Factors rounded to the shorter types, which only some of the paths of a port may do."""

    def of(names: tuple[str, ...], digits: int) -> Fault:
        said = " and ".join("the kernel" if name == "kernel" else name for name in names)
        factors = _factors({(part, name): digits for part in FACTORS for name in names}, dtype)
        words = f"rounds {said} of {dtype} convolutions to {_type(digits)}"
        look_at = "the precision settings of convolutions, or a cast"
        return Fault(f"rounded-{'-'.join(names)}-{digits}", words, look_at, {"factors": factors})

    shorter = [digits for digits in (11, 8) if digits < DIGITS[dtype]]
    return tuple(of(names, digits) for digits in shorter for names in (("x", "kernel"), ("x",), ("kernel",)))


@cache
def composition_sums() -> tuple[Fault, ...]:
    """`D_delta * W` added up column by column in a low-precision type of the parameters, with its products rounded or not."""

    def of(products: bool, identity_first: bool) -> Fault:
        def composed(port: FaultyPort, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
            W, D = inputs["W"], inputs.get("D_delta")
            if D is None or str(W.dtype) not in LOW_PRECISION:
                return compose(W, D, g)
            wide, rows = W.astype(np.float64), D.astype(np.float64)[g.rows]
            tiles = sum_tiles(wide, g)
            total = (tiles if identity_first else np.zeros(tiles.shape)).astype(W.dtype)
            for s in range(g.d_mul):
                part = rows[..., s] * wide[..., s, None]
                part = part.astype(W.dtype).astype(np.float64) if products else part
                total = (total.astype(np.float64) + part).astype(W.dtype)
            if not identity_first:
                total = (total.astype(np.float64) + tiles).astype(W.dtype)
            return total.reshape(g.kernel_shape)

        rounded = ", and rounds each product to it" if products else ""
        first = ", the identity's part first" if identity_first else ", apart from the identity's part"
        words = f"adds up D_delta * W in the low-precision type of the parameters{rounded}{first}"
        return Fault(f"composition-sums-{products}-{identity_first}", words,
                     "the type of the composition's sums: at least float32", {"compose": composed})  # fmt: skip

    return tuple(of(products, first) for products in (True, False) for first in (False, True))


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
