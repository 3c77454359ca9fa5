"""Padding by `(low, high)` pairs, and its adjoint. What frameworks call such pairs is in `framework_padding.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Pair = tuple[int, int]


def pad(x: np.ndarray, padding: Sequence[Pair], mode: str) -> np.ndarray:
    """Pad the spatial axes of `(N, C, *space)` by `(low, high)` an axis, in one of `geometry.PADDING_MODES`."""
    numpy_mode = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    return np.pad(x, [(0, 0), (0, 0), *padding], mode=numpy_mode)  # type: ignore[call-overload]


def pad_vjp(grad: np.ndarray, padding: Sequence[Pair], mode: str) -> np.ndarray:
    """The gradient of `pad` for its input: every padded element adds to the element it was copied from."""
    for axis, (low, high) in enumerate(padding, start=2):
        size = grad.shape[axis] - low - high
        grad = np.moveaxis(grad, axis, 0)
        inner = grad[low : low + size].copy()
        if mode != "zeros":
            source = pad(np.arange(size).reshape(1, 1, size), [(low, high)], mode).ravel()
            outside = np.r_[:low, low + size : low + size + high]
            np.add.at(inner, source[outside], grad[outside])
        grad = np.moveaxis(inner, 0, axis)
    return grad
