"""The reference convolution and transposed convolution over one to three spatial axes, and their gradients.

Both are a loop over the taps of the kernel. Tap `k` meets the padded input at the positions `dilation * k + stride * p`, one
for each output position `p`:

    convolution   y[n, o, p]  =  b[o] + sum over c, k of  weight[o, c, k] * x[n, c, stride * p + dilation * k - low]
    transposed    y[n, o, stride * p + dilation * k - low]  +=  weight[i, o, k] * x[n, i, p]

so a convolution *gathers* and a transposed convolution *scatters* over the same positions, and each is the other's input
gradient. Everything is computed in float64 and rounded once to the result's dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import DTypeLike

from doconv_core.checks import check_tensor, float_dtype
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad, pad_vjp


def convolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    geometry: ConvGeometry,
    *,
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """The plain (or transposed) convolution that `geometry` describes, by the composed kernel.

    Args:
        x: `(N, C_in, *space)`, any float dtype.
        weight: `geometry.kernel_shape`: `(C_out, C_in/G, *kernel_size)`, transposed `(C_in, C_out/G, *kernel_size)`.
        bias: `(C_out,)` or None.
        geometry: the convolution.
        dtype: of the result; by default that of `x`.

    Returns:
        `(N, C_out, *geometry.output_size(space))`.

    Raises:
        TypeError: a tensor that is not a floating point array, or another `dtype`.
        ValueError: a shape that is not the geometry's, or an input too small for the kernel.
    """
    size, dtype = _check(x, weight, geometry), float_dtype(dtype, x.dtype)
    if bias is not None:
        check_tensor("bias", bias, (geometry.out_channels,), geometry)
    if geometry.transposed:
        full = _scatter(x, weight, geometry, _full_size(x.shape[2:], geometry))
        y = _window(full, (low for low, _ in geometry.padding), size)
    else:
        y = _gather(pad(_wide(x), geometry.padding, geometry.padding_mode), weight, geometry, size)
    if bias is not None:
        y += _wide(bias).reshape(-1, *[1] * geometry.spatial_rank)
    return y.astype(dtype)


def convolve_vjp(
    x: np.ndarray,
    weight: np.ndarray,
    grad_y: np.ndarray,
    geometry: ConvGeometry,
    *,
    dtype: DTypeLike | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `convolve`: from `dL/dy` to `(dL/dx, dL/dweight, dL/dbias)`.

    Args:
        x: as in `convolve`.
        weight: as in `convolve`.
        grad_y: of the output's shape.
        geometry: the convolution.
        dtype: of the results; by default each has that of `x`.

    Returns:
        Arrays of the shapes of `x`, `weight` and `(C_out,)`.

    Raises:
        TypeError, ValueError: as in `convolve`.
    """
    size, dtype = _check(x, weight, geometry), float_dtype(dtype, x.dtype)
    check_tensor("grad_y", grad_y, (len(x), geometry.out_channels, *size), geometry)
    if geometry.transposed:
        full = _window(_wide(grad_y), (-low for low, _ in geometry.padding), _full_size(x.shape[2:], geometry))
        grad_x = _gather(full, weight, geometry, x.shape[2:])
        grad_weight = _weight_gradient(full, x, geometry)
    else:
        padded = pad(_wide(x), geometry.padding, geometry.padding_mode)
        grad_padded = _scatter(grad_y, weight, geometry, padded.shape[2:])
        grad_x = pad_vjp(grad_padded, geometry.padding, geometry.padding_mode)
        grad_weight = _weight_gradient(padded, grad_y, geometry)
    grad_bias = _wide(grad_y).sum(axis=(0, *range(2, grad_y.ndim)))
    return grad_x.astype(dtype), grad_weight.astype(dtype), grad_bias.astype(dtype)


def _gather(padded: np.ndarray, weight: np.ndarray, geometry: ConvGeometry, size: Sequence[int]) -> np.ndarray:
    """`(N, weight's second axis * G, *padded)` to `(N, weight's first axis, *size)`."""
    batch, groups = len(padded), geometry.groups
    y = np.zeros((batch, groups, weight.shape[0] // groups, int(np.prod(size))))
    for tap, positions in _taps(weight, geometry, size):
        y += tap @ padded[positions].reshape(batch, groups, -1, y.shape[-1])
    return y.reshape(batch, weight.shape[0], *size)


def _scatter(x: np.ndarray, weight: np.ndarray, geometry: ConvGeometry, full: Sequence[int]) -> np.ndarray:
    """The transpose of `_gather`: `(N, weight's first axis, *size)` to `(N, weight's second axis * G, *full)`."""
    batch, groups, size = len(x), geometry.groups, x.shape[2:]
    y = np.zeros((batch, groups * weight.shape[1], *full))
    grouped = _wide(x).reshape(batch, groups, weight.shape[0] // groups, -1)
    for tap, positions in _taps(weight, geometry, size):
        y[positions] += (np.swapaxes(tap, 1, 2) @ grouped).reshape(batch, -1, *size)
    return y


def _weight_gradient(padded: np.ndarray, grad: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """For every tap, what `_gather` multiplied it by, times the gradient of what that product was added to."""
    batch, groups, size = len(padded), geometry.groups, grad.shape[2:]
    gradient = np.zeros(geometry.kernel_shape)
    grouped = _wide(grad).reshape(batch, groups, grad.shape[1] // groups, -1)
    for tap, positions in _taps(gradient, geometry, size):
        seen = padded[positions].reshape(batch, groups, -1, grouped.shape[-1])
        tap += (grouped @ np.swapaxes(seen, 2, 3)).sum(axis=0)
    return gradient


def _taps(weight: np.ndarray, geometry: ConvGeometry, size: Sequence[int]) -> Iterator[tuple[np.ndarray, tuple]]:
    """For each tap: its `(G, first/G, second)` matrix (a view of a float64 `weight`), and the positions it meets."""
    grouped = _wide(weight).reshape(geometry.groups, -1, *weight.shape[1:])
    for tap in np.ndindex(*geometry.kernel_size):
        positions = [
            slice(dilation * k, dilation * k + stride * (count - 1) + 1, stride)
            for k, count, stride, dilation in zip(tap, size, geometry.stride, geometry.dilation, strict=True)
        ]
        yield grouped[(..., *tap)], (slice(None), slice(None), *positions)


def _full_size(size: Sequence[int], geometry: ConvGeometry) -> list[int]:
    """Spatial size of a transposed convolution's output before its padding is cropped."""
    axes = zip(size, geometry.stride, geometry.dilation, geometry.kernel_size, strict=True)
    return [stride * (count - 1) + dilation * (kernel - 1) + 1 for count, stride, dilation, kernel in axes]


def _window(array: np.ndarray, start: Iterable[int], size: Sequence[int]) -> np.ndarray:
    """The `size` positions of the spatial axes from `start` on; positions that `array` does not have are zeros.

    The transpose is the window of the size of `array` from `-start` on.
    """
    window = np.zeros((*array.shape[:2], *size))
    inside, there = [slice(None)] * 2, [slice(None)] * 2
    for first, wanted, available in zip(start, size, array.shape[2:], strict=True):
        low = max(first, 0)
        high = max(low, min(first + wanted, available))
        inside.append(slice(low - first, high - first))
        there.append(slice(low, high))
    window[tuple(inside)] = array[tuple(there)]
    return window


def _check(x: np.ndarray, weight: np.ndarray, geometry: ConvGeometry) -> tuple[int, ...]:
    check_tensor("x", x, (None, geometry.in_channels, *[None] * geometry.spatial_rank), geometry)
    check_tensor("weight", weight, geometry.kernel_shape, geometry)
    return geometry.output_size(x.shape[2:])


def _wide(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float64, copy=False)
