"""`compose` and `compose_vjp` for large kernels: the same numbers by matrix products, in memory that stays small.

The formula in `composition.py` gathers one row of `D` for every kernel, `(C_out, C_in/G, K, S)`. Here each row of `D`
multiplies all the kernels that it composes, where they lie in memory. Files are folded and large cases checked by these.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import DTypeLike

from doconv_core.checks import check_tensor, float_dtype
from doconv_core.composition import check_dialect, check_parameters, spread_tiles, sum_tiles
from doconv_core.geometry import ConvGeometry

MAX_W_PER_BLOCK = 2**16  # numbers of `W`: their float64 copy stays in a processor's cache
MAX_KERNELS_PER_BLOCK = 512  # of one row of `D`


def compose_blocked(
    W: np.ndarray,
    D_delta: np.ndarray | None,
    geometry: ConvGeometry,
    *,
    dialect: str = "doconv",
    dtype: DTypeLike | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The composed kernel, block by block: `composition.compose` with less than 2 MiB of temporaries.

    Args, returns and raises as `compose`, and

    Args:
        out: a contiguous array of `geometry.kernel_shape` that takes the result, and decides its dtype.
    """
    check_parameters(W, D_delta, geometry)
    check_dialect(dialect, geometry)
    if out is None:
        out = np.empty(geometry.kernel_shape, float_dtype(dtype, W.dtype))
    check_tensor("out", out, geometry.kernel_shape, geometry)
    if not out.flags.c_contiguous:
        raise ValueError(f"out must be contiguous. Received: strides {out.strides}, {geometry.describe()}")
    weight = out.reshape(*W.shape[:2], geometry.taps)
    if D_delta is None:
        weight[...] = W
        return out
    w, composed = _by_row(W, geometry, dialect), _by_row(weight, geometry, dialect)
    d = _rows_of(D_delta, geometry, dialect)
    steps = _block_shape(w.shape[:3], geometry.d_mul)
    buffers = [np.empty(math.prod(steps) * columns) for columns in (geometry.d_mul, geometry.taps)]
    for corner in product(*(range(0, size, step) for size, step in zip(w.shape[:3], steps, strict=True))):
        block = tuple(slice(first, first + step) for first, step in zip(corner, steps, strict=True))
        wide, kernel = (_buffer_like(view[block], buffer) for view, buffer in zip((w, composed), buffers, strict=True))
        wide[...] = w[block]
        np.matmul(wide, d[block[:2]].mT.astype(np.float64, order="C"), out=kernel)
        np.add(kernel, sum_tiles(wide, geometry), out=composed[block], casting="same_kind")  # in float64, rounded once
    return out


def compose_vjp_blocked(
    W: np.ndarray,
    D_delta: np.ndarray | None,
    grad_weight: np.ndarray,
    geometry: ConvGeometry,
    *,
    dtype: DTypeLike | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Gradients of the composed kernel by one product for each row of `D`: `composition.compose_vjp` without its gather.

    Args, returns and raises as `compose_vjp`.
    """
    check_parameters(W, D_delta, geometry)
    check_tensor("grad_weight", grad_weight, geometry.kernel_shape, geometry)
    dtype = float_dtype(dtype, W.dtype)
    g = grad_weight.astype(np.float64).reshape(*W.shape[:2], geometry.taps)
    grad_W = spread_tiles(g, geometry)
    if D_delta is None:
        return grad_W.astype(dtype), None
    by_row = _by_row(g, geometry)
    _by_row(grad_W, geometry)[...] += by_row @ _rows_of(D_delta, geometry).astype(np.float64)
    grad_D = by_row.mT @ _by_row(W, geometry).astype(np.float64)
    return grad_W.astype(dtype), grad_D.reshape(geometry.d_shape).astype(dtype)


def _by_row(kernels: np.ndarray, geometry: ConvGeometry, dialect: str = "doconv") -> np.ndarray:
    """`W` or `W'` as a view `(A, B, C_out/G, columns)`: the kernels that row `(a, b)` of `_rows_of` composes.

    With four channels, two groups and four outputs, row `(1, 0)`, channel 2, composes the kernels of outputs 2 and 3 at their
    local channel 0. Transposed kernels stand by input channel already. The authors' PyTorch file reads the same numbers as
    `(C_out/G, C_in)`.
    """
    if geometry.transposed:
        return kernels[np.newaxis]
    out_per_group = geometry.out_channels // geometry.groups
    if dialect == "original-torch":
        return kernels.reshape(1, out_per_group, geometry.in_channels, -1).swapaxes(1, 2)
    return kernels.reshape(geometry.groups, out_per_group, -1, kernels.shape[-1]).swapaxes(1, 2)


def _rows_of(D_delta: np.ndarray, geometry: ConvGeometry, dialect: str = "doconv") -> np.ndarray:
    """`D_delta` as a view `(A, B, K, S)` that goes with `_by_row`; `dialect_rows` says the same in numbers."""
    if geometry.transposed or dialect == "original-torch":
        return D_delta[np.newaxis]
    if dialect == "original-tf":
        return D_delta.reshape(-1, geometry.groups, *D_delta.shape[1:]).swapaxes(0, 1)
    return D_delta.reshape(geometry.groups, -1, *D_delta.shape[1:])


def _block_shape(sizes: tuple[int, ...], columns: int) -> tuple[int, int, int]:
    """How much of the axes of `_by_row` one block takes: whole kernels first, then rows."""
    kernels = min(sizes[2], MAX_KERNELS_PER_BLOCK)
    inner = min(sizes[1], max(1, MAX_W_PER_BLOCK // (kernels * columns)))
    outer = min(sizes[0], max(1, MAX_W_PER_BLOCK // (inner * kernels * columns)))
    return outer, inner, kernels


def _buffer_like(block: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """The start of `buffer`, shaped as `block` but in the memory order of `W`: copies run along several kernels' columns."""
    outer, inner, kernels, columns = block.shape
    return buffer[: block.size].reshape(outer, kernels, inner, columns).swapaxes(1, 2)
