"""The composed kernel in pure JAX, without Flax.

    W' = (E + D_delta) ∘ W        (Cao et al., arXiv 2006.12030; computed as `W E^T + D_delta ∘ W`, see `doconv_core`)

`kernel` is `W` in Flax's layout: `(*kernel_size, C_in/G, C_out)` at `S == K`, else `(S, C_in/G, C_out)`. `D` stores `D_delta`
as `(*kernel_size, S, C_in)`. The number of groups follows from the shapes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from doconv_core.checks import FLOAT_DTYPES
from doconv_core.geometry import depth_multiplier
from doconv_flax._sharding import channel_axis, d_names, explicit_sharding, plain_names, sharding_beside, w_names

# Where loops beat products on a CPU: at most this many pairs of tap and column (3x3 with `S` up to 12), from this size of `W`.
# Smaller ones gain nothing and take XLA longer to compile.
LOOP_PAIRS, LOOP_SIZE = 108, 2**18


def compose(kernel: jax.Array, D: jax.Array | None, *, transpose_kernel: bool = False) -> jax.Array:
    """The composed kernel.

    Args:
        kernel: `(*kernel_size, C_in/G, C_out)` where `S == K`, else `(S, C_in/G, C_out)`; of a transposed convolution with
            `transpose_kernel`, `(..., C_out, C_in)`.
        D: `(*kernel_size, S, C_in)`, or None for a kernel of one tap.
        transpose_kernel: whether the input channels are the last axis of `kernel`.

    Returns:
        `(*kernel_size, C_in/G, C_out)` in the dtype of `kernel`; bfloat16 and float16 are composed in float32 and rounded once.

    Raises:
        TypeError: `kernel` is not of a floating point dtype.
        ValueError: the shapes of `kernel` and `D` do not belong together.
    """
    if D is None:
        return kernel
    check_dtype(kernel)
    local = kernel.shape[-1 if transpose_kernel else -2]
    if math.prod(kernel.shape[:-2]) != D.shape[-2] or D.shape[-1] % local:
        raise ValueError(f"kernel and D do not belong together. Received: shapes {kernel.shape} and {D.shape}")
    sharding = explicit_sharding(kernel)
    if sharding is None:
        return _compose(kernel, D, transpose_kernel=transpose_kernel)
    names = tuple(sharding.spec)
    names = names if kernel.shape[:-2] == D.shape[:-2] else plain_names(names, kernel.ndim, D.ndim - 2)
    whole = NamedSharding(sharding.mesh, PartitionSpec(*names))
    return _compose_as(kernel, D, whole, transpose_kernel=transpose_kernel)


@partial(jax.jit, static_argnums=2, static_argnames="transpose_kernel")  # eager JAX 0.8 can't say how a part is split
def _compose_as(kernel: jax.Array, D: jax.Array, whole: NamedSharding, *, transpose_kernel: bool) -> jax.Array:
    """Composed with the sharding `whole`; what lies between is XLA's to split."""
    function = partial(_compose, transpose_kernel=transpose_kernel)
    return jax.sharding.auto_axes(function, axes=whole.mesh.explicit_axes, out_sharding=whole)(kernel, D)


def _compose(kernel: jax.Array, D: jax.Array, *, transpose_kernel: bool) -> jax.Array:
    dtype = jnp.float32 if jnp.finfo(kernel.dtype).bits < 32 else kernel.dtype  # promotion may be strict
    W, delta = kernel.astype(dtype), D.astype(dtype)
    pairs = math.prod(D.shape[:-2]) * D.shape[-2]
    if not transpose_kernel and kernel.shape[-2] == D.shape[-1] and pairs <= LOOP_PAIRS and kernel.size >= LOOP_SIZE:
        composed = _by_loops(W, delta)
    else:
        composed = _plain(W, delta) + _residual(W, delta, transpose_kernel)
    return composed.astype(kernel.dtype)


def _plain(W: jax.Array, delta: jax.Array) -> jax.Array:
    """`W E^T`: the sum of the whole tiles of `W`, `(*kernel_size, C_in/G, C_out)`."""
    kernel_size, multiplier, ends = delta.shape[:-2], delta.shape[-2], W.shape[-2:]
    taps = math.prod(kernel_size)
    if multiplier == taps:
        return W
    tiles = multiplier // taps
    return W[: tiles * taps].reshape(tiles, *kernel_size, *ends).sum(0)


def _residual(W: jax.Array, delta: jax.Array, transpose_kernel: bool = False) -> jax.Array:
    """`D_delta ∘ W`: one matrix product for each input channel, the kernels that share it along the last axis.

    On a CPU, XLA takes twice as long for the einsum that says the same; with groups the products are small, and it is the
    other way round. The kernel's own axes stay apart but for the product: XLA computes the gradient of a convolution's kernel
    as `(C_in, *kernel_size, C_out)` and transposes it, and so written, that transposition and this one cancel.
    """
    kernel_size, (multiplier, in_channels) = delta.shape[:-2], delta.shape[-2:]
    taps, (first, second) = math.prod(kernel_size), W.shape[-2:]
    if transpose_kernel or first == in_channels:
        axis, others = (-1, first) if transpose_kernel else (-2, second)
        by_channel = jnp.moveaxis(W, axis, 0).reshape(in_channels, multiplier, others)
        delta = delta.reshape(taps, multiplier, in_channels).transpose(2, 0, 1)
        product = jnp.matmul(delta, by_channel, precision="highest").reshape(in_channels, *kernel_size, others)
        return jnp.moveaxis(product, 0, axis)
    groups = in_channels // first
    grouped = W.reshape(multiplier, first, groups, second // groups).transpose(2, 1, 0, 3)
    delta = delta.reshape(taps, multiplier, groups, first)
    product = jnp.einsum("ksgc,gcso->gcko", delta, grouped, precision="highest")
    return product.transpose(2, 1, 0, 3).reshape(*kernel_size, first, second)


@jax.custom_jvp
def _by_loops(W: jax.Array, delta: jax.Array) -> jax.Array:
    """For one group: each tap a sum of scaled taps, which XLA makes one loop over `(C_in, C_out)`; nothing is transposed.

    Its derivatives: `dL/dW` is that of the products, whose transposition the convolution's own gradient cancels; `dL/dD` sums
    along the kernels where they lie, of which XLA makes a loop, too, half as long as transposing `W` for a product.
    """
    kernel_size, multiplier, ends = delta.shape[:-2], delta.shape[-2], W.shape[-2:]
    taps = math.prod(kernel_size)
    plain = _plain(W, delta).reshape(taps, *ends)
    columns, factors = W.reshape(multiplier, *ends), delta.reshape(taps, multiplier, ends[0], 1)

    def residual(tap: int) -> jax.Array:
        first, *rest = (factors[tap, s] * columns[s] for s in range(multiplier))
        return sum(rest, start=first)

    return jnp.stack([plain[tap] + residual(tap) for tap in range(taps)]).reshape(*kernel_size, *ends)


@_by_loops.defjvp
def _by_loops_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (W, delta), (dW, ddelta) = primals, tangents
    return _by_loops(W, delta), _plain(dW, delta) + _residual(dW, delta) + _as_one_sum(W, ddelta)


@jax.jit  # operation by operation, the scaled taps would take `K` times the memory of `W`
def _as_one_sum(W: jax.Array, delta: jax.Array) -> jax.Array:
    """`D_delta ∘ W` for one group, as a sum of scaled taps."""
    kernel_size, multiplier, ends = delta.shape[:-2], delta.shape[-2], W.shape[-2:]
    scaled = delta.reshape(-1, multiplier, ends[0], 1) * W.reshape(1, multiplier, *ends)
    return scaled.sum(1).reshape(*kernel_size, *ends)


def check_dtype(kernel: Any, path: str = "") -> None:
    """Raise TypeError unless the kernel of the layer at `path` is of a floating point dtype."""
    if kernel.dtype not in FLOAT_DTYPES:
        of = f" of {path!r}" if path else ""
        raise TypeError(f"the kernel{of} must be bfloat16, float16, float32 or float64. Received: {kernel.dtype}")


def w_shape(plain: tuple[int, ...], kernel_size: tuple[int, ...], d_mul: int | None) -> tuple[int, ...]:
    """Shape of `W` in Flax's layout, for the plain kernel's shape.

    Raises:
        TypeError, ValueError: `d_mul` is not an integer, or below the number of taps.
    """
    taps = math.prod(kernel_size)
    multiplier = depth_multiplier(kernel_size, d_mul, received=f"kernel shape {plain}, d_mul={d_mul!r}")
    return plain if multiplier == taps else (multiplier, *plain[-2:])


def d_shape(w: tuple[int, ...], kernel_size: tuple[int, ...], in_channels: int) -> tuple[int, ...]:
    """Shape of `D`: `(*kernel_size, S, C_in)`."""
    return (*kernel_size, math.prod(w[:-2]), in_channels)


def start_from(
    kernel: jax.Array,
    in_channels: int,
    *,
    d_mul: int | None = None,
    key: jax.Array | None = None,
    spatial: int | None = None,
    transpose_kernel: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """`(W, D)` of a layer that starts as the plain convolution with `kernel`: composed, they equal it bit for bit.

    Args:
        kernel: `(*kernel_size, C_in/G, C_out)`, or several layers stacked, `(*stacked, *kernel_size, C_in/G, C_out)`.
        in_channels: `C_in`.
        d_mul: `None` means the number of taps.
        key: draws the columns of `W` that the identity does not reach (`S` no multiple of `K`), LeCun normal as Flax's own
            default; without it they are zeros, and no gradient ever reaches them.
        spatial: the number of spatial axes; `None` means that no layers are stacked.
        transpose_kernel: whether the input channels are the last axis of `kernel`.

    Returns:
        `W` `(*stacked, *kernel_size, C_in/G, C_out)` or `(*stacked, S, C_in/G, C_out)`, and `D`
        `(*stacked, *kernel_size, S, C_in)` of zeros, or None for a kernel of one tap. NumPy arrays for a NumPy array. Both lie
        on the devices of `kernel`, split as it is; where it already is `W`, it is returned itself.

    Raises:
        TypeError, ValueError: `d_mul` is not an integer, or below the number of taps.
    """
    ndim, spatial = kernel.ndim, kernel.ndim - 2 if spatial is None else spatial
    stacked = ndim - 2 - spatial
    stack, kernel_size = kernel.shape[:stacked], kernel.shape[stacked:-2]
    shape = w_shape(kernel.shape[stacked:], kernel_size, d_mul)
    if math.prod(kernel_size) == 1:
        return kernel, None
    channels = channel_axis(kernel.shape[-2] == in_channels, transpose_kernel)
    whole = (*stack, *d_shape(shape, kernel_size, in_channels))
    if isinstance(kernel, np.ndarray):
        D: Any = np.zeros(whole, kernel.dtype)
    else:
        beside = sharding_beside(kernel, lambda names: d_names(names, ndim, stacked, spatial, channels))
        D = jnp.zeros(whole, kernel.dtype, device=beside)
    if shape == kernel.shape[stacked:]:
        return kernel, D
    widen: Any = partial(_widen, stacked=stacked, multiplier=shape[0])
    if isinstance(kernel, np.ndarray):
        return np.asarray(widen(kernel, key)), D
    sharding = sharding_beside(kernel, lambda names: w_names(names, ndim, spatial))
    if isinstance(sharding, NamedSharding):
        if sharding.mesh.explicit_axes:
            widen = jax.sharding.auto_axes(widen, axes=sharding.mesh.explicit_axes, out_sharding=sharding)
        if not isinstance(kernel, jax.core.Tracer):
            widen = jax.jit(widen, out_shardings=sharding)
    return widen(kernel, key), D


def _widen(kernel: Any, key: jax.Array | None, *, stacked: int, multiplier: int) -> jax.Array:
    """The kernel as the first columns of `W`, zeros in the other tiles, random numbers in what is left over."""
    stack, kernel_size, channels = kernel.shape[:stacked], kernel.shape[stacked:-2], kernel.shape[-2:]
    taps = math.prod(kernel_size)
    over = multiplier % taps
    rest = jnp.zeros((*stack, multiplier - taps - over, *channels), kernel.dtype)
    parts = [jnp.asarray(kernel).reshape(*stack, taps, *channels), rest]
    if over:
        surplus = jnp.zeros((*stack, over, *channels), kernel.dtype)
        if key is not None:
            draw = jax.nn.initializers.lecun_normal(batch_axis=tuple(range(stacked)))
            surplus = draw(key, (*stack, multiplier, *channels), jnp.float32)[..., -over:, :, :].astype(kernel.dtype)
        parts.append(surplus)
    return jnp.concatenate(parts, -3)
