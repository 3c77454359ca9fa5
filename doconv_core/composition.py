"""Composition of `D` and `W` into the kernel of an ordinary convolution, its gradients, its twin and its start.

    W'[o, c, k] = sum_s D[i, k, s] * W[o, c, s]        i = (o // (C_out/G)) * (C_in/G) + c,   D = E + D_delta

Cao et al., "DO-Conv: Depthwise Over-parameterized Convolutional Layer" (arXiv 2006.12030, section 3). `E` is the identity
tiled over the `S` columns. It never has to be built: `W E^T` adds up the tiles of `W`, and what is trained is `D_delta`, so
that `1 + delta` is never rounded.

A porter reads this file first. Every function computes in float64, whatever float type comes in, and rounds once at the end.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import DTypeLike

from doconv_core.checks import check_one_dtype, check_tensor
from doconv_core.convolution import convolve
from doconv_core.geometry import ConvGeometry

DIALECTS = ("doconv", "original-torch", "original-tf")
BLOCK = 2**16  # elements of W that are composed at a time, and of them
KERNELS = 512  # kernels of one row of D


def compose(
    W: np.ndarray,
    D_delta: np.ndarray | None,
    geometry: ConvGeometry,
    *,
    dialect: str = "doconv",
    dtype: DTypeLike | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The composed kernel `W' = W E^T + D_delta o W`.

    Args:
        W: `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`. Any float dtype, bfloat16 included.
        D_delta: `(C_in, K, S)`, or None where the kernel has one tap.
        geometry: the convolution.
        dialect: whose pairing of kernels with rows of `D`; anything but "doconv" is for reading old checkpoints.
        dtype: of the result; by default that of `W`.
        out: a contiguous array of `geometry.kernel_shape` that takes the result, and decides its dtype.

    Returns:
        `geometry.kernel_shape`. Equal to `W` where `S == K` and `D_delta` is zero.

    Raises:
        TypeError: a tensor that is not a floating point array.
        ValueError: a shape that is not the geometry's, an unknown dialect, `D_delta` given or missing against `has_d`.
    """
    W, D_delta = _check_parameters(W, D_delta, geometry)
    _check_dialect(dialect, geometry)
    if out is None:
        out = np.empty(geometry.kernel_shape, dtype or W.dtype)
    weight = out.reshape(*W.shape[:2], geometry.taps, copy=False)
    if D_delta is None:
        weight[...] = W
        return out
    # One small product for each row of D. Blocks keep the float64 copies in the processor's cache, and change no product.
    w, d = _by_row(W, geometry, dialect), _rows_of(D_delta, geometry, dialect)
    composed = _by_row(weight, geometry, dialect)
    kernels = min(w.shape[2], KERNELS)
    inner = min(w.shape[1], max(1, BLOCK // (kernels * geometry.d_mul)))
    outer = min(len(w), max(1, BLOCK // (inner * kernels * geometry.d_mul)))
    steps = (outer, inner, kernels)
    buffers = [np.empty(math.prod(steps) * columns) for columns in (geometry.d_mul, geometry.taps)]
    for corner in product(*(range(0, size, step) for size, step in zip(w.shape[:3], steps, strict=True))):
        block = tuple(slice(first, first + step) for first, step in zip(corner, steps, strict=True))
        # In the order of W in memory, kernels before rows, so that copies run along more than one kernel's columns.
        wide, kernel = (
            buffer[: view[block].size].reshape(view[block].swapaxes(1, 2).shape).swapaxes(1, 2)
            for buffer, view in zip(buffers, (w, composed), strict=True)
        )
        wide[...] = w[block]
        np.matmul(wide, d[block[:2]].mT.astype(np.float64, order="C"), out=kernel)
        kernel += sum_tiles(wide, geometry)
        composed[block] = kernel
    return out


def _by_row(kernels: np.ndarray, geometry: ConvGeometry, dialect: str) -> np.ndarray:
    """`W` or `W'` as a view `(A, B, C_out/G, columns)`: the kernels that row `(a, b)` of `_rows_of` composes.

    Transposed kernels stand by input channel already; the others by output channel `(G, C_out/G)` and local input channel.
    The authors' PyTorch file reads the same numbers as `(C_out/G, C_in)`.
    """
    if geometry.transposed:
        return kernels[np.newaxis]
    shared = geometry.out_channels // geometry.groups
    if dialect == "original-torch":
        return kernels.reshape(1, shared, geometry.in_channels, -1).swapaxes(1, 2)
    return kernels.reshape(geometry.groups, shared, -1, kernels.shape[-1]).swapaxes(1, 2)


def _rows_of(D_delta: np.ndarray, geometry: ConvGeometry, dialect: str) -> np.ndarray:
    """`D_delta` as a view `(A, B, K, S)` that goes with `_by_row`; `dialect_rows` says the same in numbers."""
    if geometry.transposed or dialect == "original-torch":
        return D_delta[np.newaxis]
    if dialect == "original-tf":
        return D_delta.reshape(-1, geometry.groups, *D_delta.shape[1:]).swapaxes(0, 1)
    return D_delta.reshape(geometry.groups, -1, *D_delta.shape[1:])


def compose_vjp(
    W: np.ndarray,
    D_delta: np.ndarray | None,
    grad_weight: np.ndarray,
    geometry: ConvGeometry,
    *,
    dtype: DTypeLike | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Gradients of `compose`: from `g = dL/dW'` to `(dL/dW, dL/dD_delta)`.

        dL/dW[o, c, s]       = (g E)[o, c, s] + sum_k D_delta[i, k, s] * g[o, c, k]
        dL/dD_delta[i, k, s] = sum over the (o, c) that map to i of  g[o, c, k] * W[o, c, s]

    Args:
        W: as in `compose`.
        D_delta: as in `compose`.
        grad_weight: of shape `geometry.kernel_shape`.
        geometry: the convolution.
        dtype: of the results; by default that of `W`.

    Returns:
        Arrays of the shapes of `W` and `D_delta`; None for the second where the kernel has one tap.

    Raises:
        TypeError, ValueError: as in `compose`.
    """
    W, D_delta = _check_parameters(W, D_delta, geometry)
    check_tensor("grad_weight", grad_weight, geometry.kernel_shape, geometry)
    dtype = dtype or W.dtype
    g = grad_weight.astype(np.float64).reshape(*W.shape[:2], geometry.taps)
    grad_W = spread_tiles(g, geometry)
    if D_delta is None:
        return grad_W.astype(dtype), None
    rows = geometry.rows
    grad_W += np.einsum("abks,abk->abs", D_delta.astype(np.float64)[rows], g, optimize=True)
    products = np.einsum("abk,abs->abks", g, W.astype(np.float64))
    grad_D = np.zeros(D_delta.shape)
    np.add.at(grad_D, rows, products)
    return grad_W.astype(dtype), grad_D.astype(dtype)


def sum_tiles(W: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """`W E^T`: add up the whole tiles of `K` columns, `(..., S)` to `(..., K)`; surplus columns take no part."""
    taps = geometry.taps
    if geometry.d_mul == taps:
        return W
    tiles = geometry.d_mul // taps
    return W[..., : tiles * taps].reshape(*W.shape[:-1], tiles, taps).sum(axis=-2)


def spread_tiles(g: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """`g E`, the transpose of `sum_tiles`: `(..., K)` to `(..., S)`, zeros in the surplus columns."""
    tiles, surplus = divmod(geometry.d_mul, geometry.taps)
    spread = np.concatenate([g] * tiles, axis=-1)
    return np.pad(spread, [(0, 0)] * (g.ndim - 1) + [(0, surplus)])


def identity(geometry: ConvGeometry) -> np.ndarray:
    """`E`, `(K, S)` float64: `E[k, s] = 1` where `s < K * (S // K)` and `s % K == k`. For reading and testing."""
    return sum_tiles(np.eye(geometry.d_mul), geometry).T


def compose_features(
    x: np.ndarray,
    W: np.ndarray,
    D_delta: np.ndarray | None,
    geometry: ConvGeometry,
    *,
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """Feature composition: the same function of `x` as convolving by the composed kernel, computed the other way.

    A depthwise convolution of `x` by `D` gives `C_in * S` features (stride, padding and dilation happen there), a grouped 1x1
    convolution by `W` mixes them. That both ways agree is what defines which row of `D` belongs to which kernel.

    Args:
        x: `(N, C_in, *space)`.
        W: as in `compose`.
        D_delta: as in `compose`.
        geometry: the convolution.
        dtype: of the result; by default that of `x`.

    Returns:
        `(N, C_out, *output space)`, without bias.

    Raises:
        TypeError, ValueError: as in `compose` and `convolve`.
    """
    W, D_delta = _check_parameters(W, D_delta, geometry)
    D = (
        np.zeros((geometry.in_channels, geometry.taps, geometry.d_mul))
        if D_delta is None
        else D_delta.astype(np.float64)
    )
    D = D + identity(geometry)
    channels, groups = geometry.in_channels, geometry.groups
    depthwise = ConvGeometry(
        in_channels=channels, out_channels=channels * geometry.d_mul, kernel_size=geometry.kernel_size,
        stride=geometry.stride, padding=geometry.padding, dilation=geometry.dilation, groups=channels,
        transposed=geometry.transposed, output_padding=geometry.output_padding, padding_mode=geometry.padding_mode,
    )  # fmt: skip
    kernel = np.moveaxis(D, 2, 1).reshape(depthwise.kernel_shape)
    features = convolve(x.astype(np.float64), kernel, None, depthwise)
    features = features.reshape(len(x), groups, channels // groups, geometry.d_mul, *features.shape[2:])
    if geometry.transposed:
        mixed = np.einsum("ngcs...,gcos->ngo...", features, W.astype(np.float64).reshape(groups, -1, *W.shape[1:]))
    else:
        mixed = np.einsum("ngcs...,gocs->ngo...", features, W.astype(np.float64).reshape(groups, -1, *W.shape[1:]))
    return mixed.reshape(len(x), geometry.out_channels, *features.shape[4:]).astype(dtype or x.dtype)


def start(
    geometry: ConvGeometry, rng: np.random.Generator, dtype: DTypeLike = np.float32
) -> tuple[np.ndarray, np.ndarray | None]:
    """A fresh layer: `(W, D_delta)` with `W` uniform in `+-1/sqrt(fan_in)`, `fan_in = (C_in/G) * S`, and `D_delta` zeros.

    The bound is PyTorch's for a kernel of `S` taps (`kaiming_uniform_` with `a = sqrt(5)`); each backend uses its own
    framework's initialiser in the same way.
    """
    bound = (geometry.w_shape[1] * geometry.d_mul) ** -0.5
    W = rng.uniform(-bound, bound, geometry.w_shape).astype(dtype)
    return W, np.zeros(geometry.d_shape, dtype) if geometry.has_d else None


def start_from_kernel(
    weight: np.ndarray, geometry: ConvGeometry, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """`(W, D_delta)` of a layer that starts as the plain convolution with kernel `weight`: `W' == weight`, value for value.

    `W[..., :K]` is the kernel, the other tiles and `D_delta` are zeros. Surplus columns (`S` no multiple of `K`) meet a zero
    column of `E`: with `D_delta` zero they do not change the function, and were they zero too no gradient would ever reach
    them or their column of `D`. With `rng` they start uniform in `+-1/sqrt(fan_in)`, without it at zero.

    Args:
        weight: `geometry.kernel_shape`.
        geometry: the convolution.
        rng: draws the surplus columns.

    Returns:
        Arrays of `weight`'s dtype; None for the second where the kernel has one tap.

    Raises:
        TypeError: `weight` is not a floating point array.
        ValueError: its shape is not the geometry's.
    """
    check_tensor("weight", weight, geometry.kernel_shape, geometry)
    W = np.zeros(geometry.w_shape, weight.dtype)
    W[..., : geometry.taps] = weight.reshape(*weight.shape[:2], geometry.taps)
    surplus = geometry.d_mul % geometry.taps
    if surplus and rng is not None:
        W[..., -surplus:] = start(geometry, rng, weight.dtype)[0][..., -surplus:]
    return W, np.zeros(geometry.d_shape, weight.dtype) if geometry.has_d else None


def dialect_rows(dialect: str, geometry: ConvGeometry) -> np.ndarray:
    """The row of `D` that composes each kernel: integers of the shape of the first two axes of `W`.

    "doconv" is `geometry.rows`. The authors' own files pair `(o, c)` differently where `1 < G`, and are read here so that their
    checkpoints can be folded exactly:

    - "original-torch": `(o % G) * (C_in/G) + c`
    - "original-tf": `c * G + o // (C_out/G)`

    With four channels, two groups, four outputs, the rows of channel `c = 0` are 0 0 2 2 in doconv, 0 2 0 2 in the PyTorch file
    and 0 0 1 1 in the TensorFlow file.

    Raises:
        ValueError: an unknown dialect, or an original one for a transposed convolution, which the authors did not publish.
    """
    _check_dialect(dialect, geometry)
    if dialect == "doconv":
        return geometry.rows
    o, c = np.indices(geometry.w_shape[:2])
    if dialect == "original-torch":
        return o % geometry.groups * (geometry.in_channels // geometry.groups) + c
    return c * geometry.groups + o // (geometry.out_channels // geometry.groups)


def _check_dialect(dialect: str, geometry: ConvGeometry) -> None:
    if dialect not in DIALECTS:
        raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}. Received: {dialect!r}")
    if dialect != "doconv" and geometry.transposed:
        raise ValueError(
            f"the original files have no transposed convolution. Received: {dialect!r}, {geometry.describe()}"
        )


def _check_parameters(
    W: np.ndarray, D_delta: np.ndarray | None, geometry: ConvGeometry
) -> tuple[np.ndarray, np.ndarray | None]:
    check_tensor("W", W, geometry.w_shape, geometry)
    if geometry.has_d != (D_delta is not None):
        raise ValueError(
            f"D_delta must be {'given' if geometry.has_d else 'None: a kernel of one tap has no D'}. "
            f"Received: {'None' if D_delta is None else f'shape {D_delta.shape}'}, {geometry.describe()}"
        )
    if D_delta is not None:
        check_tensor("D_delta", D_delta, geometry.d_shape, geometry)
        check_one_dtype(W, D_delta)
    return W, D_delta
