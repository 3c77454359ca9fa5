"""Tensors and variables to NumPy."""

from __future__ import annotations

from typing import Any

import keras
import ml_dtypes
import numpy as np


def to_numpy(value: Any) -> np.ndarray:
    """A copy of the values of a tensor, a variable or an array, in their own type.

    A variable by its own method: `keras.ops.convert_to_numpy` of a TensorFlow variable warns of NumPy 2's `copy` argument.
    On Keras's torch backend bfloat16 arrives as float32, value for value, and is named again.
    """
    if isinstance(value, np.ndarray):
        return value.copy()
    array = value.numpy() if isinstance(value, keras.Variable) else keras.ops.convert_to_numpy(value)
    return array.astype(ml_dtypes.bfloat16) if keras.backend.standardize_dtype(value.dtype) == "bfloat16" else array
