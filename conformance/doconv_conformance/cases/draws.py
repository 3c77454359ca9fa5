"""The numbers of a case: for each kind, what they are made to show.

Exact kinds: every partial sum is exact in the type, so that every right implementation gives the same values.

- "integers": small.
- "wide": integers in float64 whose sums are not exact in float32.
- "rounding": `W'` is an integer that the type does not hold, ties among them, and one impulse an image: the rounding of
  the composed kernel to the type is what is seen.
- "overflow": products of one impulse an image go beyond the largest number of the type and become infinite.
- "subnormal", "subnormal-inputs", "subnormal-kernel": results, `x`, or `W` are multiples of the smallest number of float16.

Others:

- "floats": uniform in [-1, 1), full in the type; judged by the bound.
- "sums": positive integers whose sums are exact in float32 and not in the type: adding up in the type loses whole units.
- "totals": the same with larger integers: a few products are enough.
- "residual": `W` is 1 or -1 and `D_delta` an odd multiple of half a unit in the last place of 1, one impulse an image: `W'`
  is exact in the type and `1 + delta` is not.
- "cancelling": columns of `D` come in equal pairs and those of `W` in pairs `M + a`, `-M + b`, so that `W'` is a small integer
  and the sum that makes it is not exact in the type.
- "products": each product needs more bits than the type has, and pairs of them cancel: channels that are read come in pairs
  with nearly opposite kernels, so do channels that are written, and images with nearly opposite gradients.
- "gradients", "gradients-of-W": the gradient of the composed kernel is exact in the type, that of `D_delta`, or of `W`, is not.
- "gradients-of-bias": `grad_y` is positive; the type holds its sum over all positions, and hardly any of the sums on the way.

The last eight have exact sums in float32 ("products" of float32 in float64), and only results that the type does not hold are
rounded. Where a case says so, `D_delta` is zero, tiny or large, and of the elements of a tensor one in `one_in` is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doconv_conformance.cases import generator

CATCHES = {
    "sums": "sums of products formed in the low-precision type",
    "totals": "sums of products formed in the low-precision type, or truncated",
    "residual": "1 + delta rounded to the low-precision type",
    "cancelling": "the kernel composed in the low-precision type",
    "products": "products rounded before they are added up",
    "rounding": "the composed kernel truncated, or halves rounded away from zero",
    "overflow": "results beyond the largest number of the type that are not infinite",
    "subnormal": "results below the smallest normal number flushed to zero",
    "subnormal-inputs": "numbers below the smallest normal one read as zero",
    "subnormal-kernel": "a composed kernel below the smallest normal number flushed to zero",
    "gradients": "gradients of D_delta truncated, or formed in the low-precision type",
    "gradients-of-W": "gradients of W truncated, or formed in the low-precision type",
    "gradients-of-bias": "the gradient of the bias added up in the low-precision type",
}
EXACT = ("integers", "wide", "rounding", "overflow", "subnormal", "subnormal-inputs", "subnormal-kernel")
# Every right value is exact in its type, though sums on the way need not be in one that is declared.
KNOWN = (*EXACT, "gradients-of-bias")
# What is seen is one product.
SINGLE = ("rounding", "overflow", "subnormal")
ROUNDED_ONCE = ("sums", "totals", "residual", "cancelling", "products", "gradients", "gradients-of-W",
                "gradients-of-bias")  # fmt: skip
NUMBERS = ("floats", *EXACT, *ROUNDED_ONCE)
DELTAS = ("zero", "tiny", "unit", "large")
# Bits of the significand, the hidden one included.
DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
# What a tiny and a large `D_delta` is a multiple of, as powers of two: next to `W` the type still holds both.
TINY = {"float64": -48, "float32": -20, "float16": -8, "bfloat16": -5}
LARGE = {"float64": 20, "float32": 5, "float16": 3, "bfloat16": 2}
# The powers of two that "overflow" multiplies `x`, `W` and `grad_y` by.
OVERFLOW = {"float32": (64, 58, -40), "float16": (10, 0, 0), "bfloat16": (64, 62, -40)}


def draw(
    numbers: str,
    label: str,
    name: str,
    shape: Sequence[int],
    *,
    dtype: str,
    param_dtype: str,
    identity: np.ndarray,
    delta: str = "unit",
    one_in: int = 1,
) -> np.ndarray:
    """The tensor `name` of a case, float64, not rounded to its type yet.

    Args:
        numbers: one of `NUMBERS`.
        label: of the generator.
        name: `x`, `W`, `D_delta`, `bias`, `grad_y` or `weight`.
        shape: of the tensor.
        dtype: of the activations.
        param_dtype: of the parameters.
        identity: `E`, `(K, S)`.
        delta: the magnitude of `D_delta`, one of `DELTAS`; of integers and floats.
        one_in: of the elements of `x`, `W`, `D_delta` and `grad_y`, one in so many is kept, the others are zeros.
    """
    if one_in > 1 and name in ("x", "W", "D_delta", "grad_y"):
        whole = draw(
            numbers, label, name, shape, dtype=dtype, param_dtype=param_dtype, identity=identity, delta=delta
        )  # fmt: skip
        return _kept(label, whole, one_in)
    if numbers == "floats":
        size = {"zero": 0.0, "tiny": 2.0**-12, "unit": 1.0, "large": 2.0**6}[delta if name == "D_delta" else "unit"]
        bits = 53 if (dtype if name in ("x", "grad_y") else param_dtype) == "float64" else 24
        return size * generator.floats(label, shape, bits)
    if numbers in SHAPED and (name in ("x", "W", "D_delta", "grad_y") or numbers == "sums"):
        return SHAPED[numbers](label, name, shape, dtype, param_dtype, identity)
    if delta != "unit":
        return _scaled(label, name, shape, dtype, delta)
    if numbers == "wide":
        return generator.integers(label, shape, -511, 511)
    high = 1 if dtype in ("bfloat16", "float16") else 3
    return generator.integers(label, shape, -high, high)


def _scaled(label: str, name: str, shape: Sequence[int], dtype: str, delta: str) -> np.ndarray:
    """Integers with another `D_delta`."""
    if name == "D_delta":
        size = 0.0 if delta == "zero" else 2.0 ** (TINY if delta == "tiny" else LARGE)[dtype]
        return size * generator.integers(label, shape, -1, 1)
    high = 3 if delta == "zero" and dtype in ("float32", "float64") else 1
    return generator.integers(label, shape, -high, high)


def _kept(label: str, tensor: np.ndarray, one_in: int) -> np.ndarray:
    return np.where(generator.draws(f"{label}/kept", tensor.shape) % np.uint64(one_in) == 0, tensor, 0.0)


def _sums(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    high = 3 if dtype == "bfloat16" else 7
    return generator.integers(label, shape, 0, high // 2 if name == "D_delta" else high)


def _totals(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    high = {"x": 15, "W": 15} if dtype == "bfloat16" else {"x": 23, "W": 31}
    return generator.integers(label, shape, 0, 1 if name == "D_delta" else high.get(name, 7))


def _residual(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    if name in ("x", "grad_y"):
        return _impulses(label, shape)
    signs = 2 * generator.integers(label, shape, 0, 1) - 1
    return signs if name == "W" else signs * 2.0 ** -DIGITS[dtype]


def _cancelling(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    if name == "W":
        return _cancelling_columns(label, shape, 2.0 ** DIGITS[dtype], 2.0 if param_dtype == dtype else 1.0)
    if name == "D_delta":
        D = generator.integers(label, shape, -1, 1)
        pairs = shape[-1] // 2
        D[..., 1 : 2 * pairs : 2] = D[..., 0 : 2 * pairs : 2]
        return D - E
    high = 1 if dtype in ("bfloat16", "float16") else 3
    return generator.integers(label, shape, -high, high)


def _rounding(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    if name in ("x", "grad_y"):
        return _impulses(label, shape)
    narrow = param_dtype == dtype  # then the type holds `W`, and only `D_delta` makes `W'` longer
    if name == "D_delta":
        return (
            generator.integers(label, shape, -3, 3)
            if narrow
            else _kept(label, generator.integers(label, shape, -1, 1), 3)
        )
    high = 2 ** (DIGITS[dtype] + (0 if narrow else 2)) - 1
    return generator.integers(label, shape, -high, high)


def _overflow(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    x, W, grad_y = OVERFLOW[dtype]
    if name in ("x", "grad_y"):
        return 2.0 ** (x if name == "x" else grad_y) * _impulses(label, shape)
    if name == "D_delta":
        return _kept(label, generator.integers(label, shape, -1, 1), 3)
    high = 15 if dtype == "bfloat16" else 255
    return 2.0**W * generator.integers(label, shape, -high, high)


def _subnormal(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    if name in ("x", "grad_y"):
        return (2.0**-12 if name == "x" else 1.0) * _impulses(label, shape)
    return (2.0**-12 if name == "W" else 1.0) * generator.integers(label, shape, -3, 3)


def _subnormal_inputs(
    label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray
) -> np.ndarray:
    return (2.0**-24 if name == "x" else 1.0) * generator.integers(label, shape, -1, 1)


def _subnormal_kernel(
    label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray
) -> np.ndarray:
    return (2.0**-24 if name == "W" else 1.0) * generator.integers(label, shape, -1, 1)


def _gradients(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    return _long_parameter("W", label, name, shape, dtype)


def _gradients_of_W(
    label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray
) -> np.ndarray:
    return _long_parameter("D_delta", label, name, shape, dtype)


def _gradients_of_bias(
    label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray
) -> np.ndarray:
    if name == "x":
        return _impulses(label, shape)
    if name != "grad_y":
        return generator.integers(label, shape, -1, 1)
    tensor = generator.integers(label, shape, 1, 3)
    if dtype == "float16":  # 1 or 33: a sum in float16 loses 1 at each step once it is beyond 2**11
        tensor = np.where(tensor > 1, 33, 1)
    for channel in tensor.swapaxes(0, 1):  # as many less by one as make the sum a multiple of 16
        larger = np.argwhere(channel > 1)[: int(channel.sum()) % 16]
        channel[tuple(larger.T)] -= 1
    return tensor


def _long_parameter(long: str, label: str, name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    """One of the parameters fills the type, the other is small: float16 has no room for the products of two long ones."""
    if name in ("x", "grad_y"):
        return _kept(label, generator.integers(label, shape, -1, 1), 2)
    high = {"bfloat16": 255, "float16": 1023}[dtype] if name == long else 1
    return generator.integers(label, shape, -high, high)


def _products(label: str, name: str, shape: Sequence[int], dtype: str, param_dtype: str, E: np.ndarray) -> np.ndarray:
    """Pairs of channels, of kernels and of images; a last one without a partner stays as it is."""
    of_x, of_W = {"bfloat16": (31, 31), "float16": (31, 63), "float32": (2**11 - 1, 2**13 - 1)}[dtype]
    if name == "D_delta":
        D = _kept(label, generator.integers(label, shape, -1, 1), 3)
        return D[np.arange(len(D)) // 2 * 2]
    small = generator.integers(f"{label}/small", shape, -1, 1)
    large = generator.integers(label, shape, -(of_W if name == "W" else of_x), of_W if name == "W" else of_x)
    index = np.indices(shape[:2])
    pair = large[tuple(index // 2 * 2)]
    odd = (index % 2).reshape(2, *shape[:2], *[1] * (len(shape) - 2))
    if name == "W":  # nearly opposite along both axes
        return np.where((odd[0] + odd[1]) % 2 == 1, -pair, pair) + small
    if name == "x":  # equal along both axes
        return pair
    return np.where(odd[0] == 1, small[tuple(index // 2 * 2)] - pair, pair)  # nearly opposite images, equal channels


SHAPED = {
    "sums": _sums, "totals": _totals, "residual": _residual, "cancelling": _cancelling, "rounding": _rounding,
    "overflow": _overflow,
    "subnormal": _subnormal, "subnormal-inputs": _subnormal_inputs, "subnormal-kernel": _subnormal_kernel,
    "products": _products, "gradients": _gradients,
    "gradients-of-W": _gradients_of_W, "gradients-of-bias": _gradients_of_bias,
}  # fmt: skip


def _impulses(label: str, shape: Sequence[int]) -> np.ndarray:
    """One 1 an image, elsewhere zeros."""
    tensor = np.zeros((shape[0], int(np.prod(shape[1:]))))
    where = generator.draws(label, (shape[0],)) % np.uint64(tensor.shape[1])
    tensor[np.arange(shape[0]), where.astype(np.int64)] = 1
    return tensor.reshape(shape)


def _cancelling_columns(label: str, shape: Sequence[int], large: float, unit: float) -> np.ndarray:
    W = unit * (2 * generator.integers(label, shape, 0, 1) - 1)
    pairs = shape[-1] // 2
    W[..., 0 : 2 * pairs : 2] += large
    W[..., 1 : 2 * pairs : 2] -= large
    return W
