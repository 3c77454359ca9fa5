"""Checks that every function of the core makes on its arrays before it starts."""

from __future__ import annotations

from contextlib import suppress

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from doconv_core.geometry import ConvGeometry

FLOAT_DTYPES = tuple(np.dtype(t) for t in (ml_dtypes.bfloat16, np.float16, np.float32, np.float64))


def check_tensor(name: str, tensor: np.ndarray, shape: tuple[int | None, ...], geometry: ConvGeometry) -> None:
    """Raise unless `tensor` is a float array of `shape`, in which None stands for any size.

    Raises:
        TypeError: not a NumPy array, or not of a floating point dtype (bfloat16 is one).
        ValueError: another shape.
    """
    if not isinstance(tensor, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, not {type(tensor).__name__}. Received: {geometry.describe()}")
    if tensor.dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"{name} must be bfloat16, float16, float32 or float64. Received: {name} of dtype {tensor.dtype}, "
            f"{geometry.describe()}"
        )
    if len(shape) != tensor.ndim or any(want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        comma = "," if len(shape) == 1 else ""
        raise ValueError(
            f"{name} must have shape ({wanted}{comma}). Received: {name} of shape {tensor.shape}, {geometry.describe()}"
        )


def float_dtype(dtype: DTypeLike | None, default: np.dtype | None = None) -> np.dtype:
    """The dtype of a result: `dtype`, or `default` where it is None.

    Raises:
        TypeError: it is none of those that the core computes for. An integer, a bool or a string would cut results off.
    """
    wanted = default if dtype is None else dtype
    with suppress(TypeError):
        if wanted is not None and (found := np.dtype(wanted)) in FLOAT_DTYPES:
            return found
    raise TypeError(f"dtype must be bfloat16, float16, float32 or float64. Received: dtype={wanted!r}")
