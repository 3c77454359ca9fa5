"""Composition of `D` and `W` into the kernel of an ordinary convolution, its gradients, its twin and its start.

    W'[o, c, k] = sum_s D[i, k, s] * W[o, c, s]        i = (o // (C_out/G)) * (C_in/G) + c,   D = E + D_delta

Cao et al., "DO-Conv: Depthwise Over-parameterized Convolutional Layer" (arXiv 2006.12030, section 3). `E` is the identity
tiled over the `S` columns. It never has to be built: `W E^T` adds up the tiles of `W`, and what is trained is `D_delta`, so
that `1 + delta` is never rounded.

A porter reads this file first. Every function computes in float64, whatever float type comes in, and rounds once at the end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike

from doconv_core.checks import check_tensor, float_dtype
from doconv_core.convolution import convolve
from doconv_core.geometry import ConvGeometry

DIALECTS = ("doconv", "original-torch", "original-tf")


def compose(
    W: np.ndarray,
    D_delta: np.ndarray | None,
    geometry: ConvGeometry,
    *,
    dialect: str = "doconv",
    dtype: DTypeLike | None = None,
) -> np.ndarray:
    """The composed kernel `W' = W E^T + D_delta ∘ W`, as the formula says; `blocked.compose_blocked` is for large kernels.

    Args:
        W: `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`. Any float dtype, bfloat16 included.
        D_delta: `(C_in, K, S)`, or None where the kernel has one tap.
        geometry: the convolution.
        dialect: whose pairing of kernels with rows of `D`; anything but "doconv" is for reading old checkpoints.
        dtype: of the result; by default that of `W`.

    Returns:
        `geometry.kernel_shape`. Equal to `W` where `S == K` and `D_delta` is zero.

    Raises:
        TypeError: a tensor that is not a floating point array, or another `dtype`.
        ValueError: a shape that is not the geometry's, an unknown dialect, `D_delta` given or missing against `has_d`.
    """
    check_parameters(W, D_delta, geometry)
    dtype = float_dtype(dtype, W.dtype)
    w, i = W.astype(np.float64), dialect_rows(dialect, geometry)
    kernel = sum_tiles(w, geometry)
    if D_delta is not None:
        kernel = kernel + np.einsum("ocks,ocs->ock", D_delta.astype(np.float64)[i], w)
    return kernel.reshape(geometry.kernel_shape).astype(dtype)


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
    check_parameters(W, D_delta, geometry)
    check_tensor("grad_weight", grad_weight, geometry.kernel_shape, geometry)
    dtype = float_dtype(dtype, W.dtype)
    g, i = grad_weight.astype(np.float64).reshape(*W.shape[:2], geometry.taps), geometry.rows
    grad_W = spread_tiles(g, geometry)
    if D_delta is None:
        return grad_W.astype(dtype), None
    grad_W += np.einsum("ocks,ock->ocs", D_delta.astype(np.float64)[i], g)
    grad_D = np.zeros(D_delta.shape)
    np.add.at(grad_D, i, np.einsum("ock,ocs->ocks", g, W.astype(np.float64)))
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
    check_parameters(W, D_delta, geometry)
    dtype = float_dtype(dtype, x.dtype)
    D = np.broadcast_to(identity(geometry), geometry.d_shape)
    if D_delta is not None:
        D = D + D_delta.astype(np.float64)
    channels, groups = geometry.in_channels, geometry.groups
    depthwise = replace(geometry, out_channels=channels * geometry.d_mul, groups=channels, d_mul=geometry.taps)
    kernel = np.moveaxis(D, 2, 1).reshape(depthwise.kernel_shape)
    features = convolve(x.astype(np.float64), kernel, None, depthwise)
    features = features.reshape(len(x), groups, channels // groups, geometry.d_mul, *features.shape[2:])
    grouped = W.astype(np.float64).reshape(groups, -1, *W.shape[1:])
    mixed = np.einsum(f"ngcs...,{'gcos' if geometry.transposed else 'gocs'}->ngo...", features, grouped)
    return mixed.reshape(len(x), geometry.out_channels, *features.shape[4:]).astype(dtype)


def start(
    geometry: ConvGeometry, rng: np.random.Generator, dtype: DTypeLike = np.float32
) -> tuple[np.ndarray, np.ndarray | None]:
    """A fresh layer: `(W, D_delta)` with `W` uniform in `+-1/sqrt(fan_in)`, `fan_in = (C_in/G) * S`, and `D_delta` zeros.

    The bound is PyTorch's for a kernel of `S` taps (`kaiming_uniform_` with `a = sqrt(5)`); each backend uses its own
    framework's initialiser in the same way.

    Raises:
        TypeError: a `dtype` that is not a floating point one.
    """
    bound = (geometry.w_shape[1] * geometry.d_mul) ** -0.5
    dtype = float_dtype(dtype)
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
    check_dialect(dialect, geometry)
    if dialect == "doconv":
        return geometry.rows
    o, c = np.indices(geometry.w_shape[:2])
    if dialect == "original-torch":
        return o % geometry.groups * (geometry.in_channels // geometry.groups) + c
    return c * geometry.groups + o // (geometry.out_channels // geometry.groups)


def check_dialect(dialect: str, geometry: ConvGeometry) -> None:
    """Raise as `dialect_rows` says unless the dialect has a pairing for this geometry."""
    if dialect not in DIALECTS:
        raise ValueError(f"dialect must be one of {', '.join(DIALECTS)}. Received: {dialect!r}")
    if dialect != "doconv" and geometry.transposed:
        raise ValueError(
            f"the original files have no transposed convolution. Received: {dialect!r}, {geometry.describe()}"
        )


def check_parameters(W: np.ndarray, D_delta: np.ndarray | None, geometry: ConvGeometry) -> None:
    """Raise as `compose` says unless `W` and `D_delta` are the geometry's."""
    check_tensor("W", W, geometry.w_shape, geometry)
    if geometry.has_d != (D_delta is not None):
        rule = "given" if geometry.has_d else "None: a kernel of one tap has no D"
        received = "None" if D_delta is None else f"shape {D_delta.shape}"
        raise ValueError(f"D_delta must be {rule}. Received: {received}, {geometry.describe()}")
    if D_delta is not None:
        check_tensor("D_delta", D_delta, geometry.d_shape, geometry)
        if W.dtype != D_delta.dtype:
            dtypes = ", ".join(sorted(map(str, (W.dtype, D_delta.dtype))))
            raise TypeError(f"W and D_delta must have the same dtype. Received: {dtypes}")
