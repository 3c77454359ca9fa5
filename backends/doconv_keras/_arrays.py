"""Tensors and variables to NumPy."""

from __future__ import annotations

from typing import Any

import keras
import ml_dtypes
import numpy as np


def to_numpy(value: Any) -> np.ndarray:
    """A copy of the values of a tensor, a variable or an array, in the type that it says it has.

    Keras's own conversion makes TensorFlow warn of NumPy 2's `copy` argument, gives float32 for bfloat16 on the torch backend,
    and a float64 variable of the numpy backend can hold float32. For arrays of JAX's that are spread over processes each of
    them must ask.
    """
    if isinstance(value, np.ndarray):
        return value.copy()
    dtype = keras.backend.standardize_dtype(value.dtype)
    value = value.value if isinstance(value, keras.Variable) else value
    if not getattr(value, "is_fully_addressable", True):
        split = value.sharding
        whole_everywhere = type(split)(split.mesh, type(split.spec)())
        value = keras.distribution.distribute_tensor(value, whole_everywhere)
    array = value.numpy() if keras.backend.backend() == "tensorflow" else keras.ops.convert_to_numpy(value)
    return np.array(array, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
