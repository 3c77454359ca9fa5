"""The numbers of a case: for each kind, what they are made to show.

- "integers": small, so that every partial sum is exact in the type and every right implementation gives the same values.
- "floats": uniform in [-1, 1), full in the type; judged by the bound.
- "sums": positive integers whose sums are exact in float32 and not in the type: adding up in the type loses whole units.
- "residual": `W` is 1 or -1 and `D_delta` an odd multiple of half a unit in the last place of 1, one impulse an image: `W'`
  is exact in the type and `1 + delta` is not.
- "cancelling": columns of `D` come in equal pairs and those of `W` in pairs `M + a`, `-M + b`, so that `W'` is a small integer
  and the sum that makes it is not exact in the type.

The last three exist in low precision only. There float32 sums are exact, and only results that the type does not hold are
rounded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doconv_conformance.cases import generator

CATCHES = {
    "sums": "sums of products formed in the low-precision type",
    "residual": "1 + delta rounded to the low-precision type",
    "cancelling": "the kernel composed in the low-precision type",
}
ROUNDED_ONCE = tuple(CATCHES)
NUMBERS = ("integers", "floats", *ROUNDED_ONCE)
# Bits of the significand, the hidden one included.
DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}


def draw(
    numbers: str, label: str, name: str, shape: Sequence[int], *, dtype: str, param_dtype: str, identity: np.ndarray
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
    """
    if numbers == "floats":
        return generator.floats(
            label, shape, 53 if (dtype if name in ("x", "grad_y") else param_dtype) == "float64" else 24
        )
    if numbers == "sums":
        high = 3 if dtype == "bfloat16" else 7
        return generator.integers(label, shape, 0, high // 2 if name == "D_delta" else high)
    if numbers == "residual" and name in ("x", "grad_y"):
        return _impulses(label, shape)
    if numbers == "residual" and name in ("W", "D_delta"):
        signs = 2 * generator.integers(label, shape, 0, 1) - 1
        return signs if name == "W" else signs * 2.0 ** -DIGITS[dtype]
    if numbers == "cancelling" and name == "W":
        return _cancelling_columns(label, shape, 2.0 ** DIGITS[dtype], 2.0 if param_dtype == dtype else 1.0)
    if numbers == "cancelling" and name == "D_delta":
        D = generator.integers(label, shape, -1, 1)
        pairs = shape[-1] // 2
        D[..., 1 : 2 * pairs : 2] = D[..., 0 : 2 * pairs : 2]
        return D - identity
    high = 1 if dtype in ("bfloat16", "float16") else 3
    return generator.integers(label, shape, -high, high)


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
