"""Tensors and variables to NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def to_numpy(value: Any) -> np.ndarray:
    """A copy of the values of a tensor, a variable or an array.

    A variable by its own method: `keras.ops.convert_to_numpy` of a TensorFlow variable warns of NumPy 2's `copy` argument.
    """
    return value.numpy() if isinstance(value, keras.Variable) else keras.ops.convert_to_numpy(value)
