"""Tensors and variables to NumPy."""

from __future__ import annotations

from typing import Any

import keras
import ml_dtypes
import numpy as np


def to_numpy(value: Any) -> np.ndarray:
    """A copy of the values of a tensor, a variable or an array, in their own type.

    `keras.ops.convert_to_numpy` makes TensorFlow warn of NumPy 2's `copy` argument, and gives float32 for bfloat16 on Keras's
    torch backend.
    """
    if not isinstance(value, np.ndarray):
        dtype = keras.backend.standardize_dtype(value.dtype)
        value = value.value if isinstance(value, keras.Variable) else value
        value = value.numpy() if keras.backend.backend() == "tensorflow" else keras.ops.convert_to_numpy(value)
        value = value.astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else value
    return np.array(value)
