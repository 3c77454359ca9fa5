"""The composed kernel in pure JAX, without Flax.

    W' = W E^T + D_delta o W        (Cao et al., arXiv 2006.12030; residual form, see `doconv_core.composition`)

`kernel` is `W` in Flax's layout: `(*kernel_size, C_in/G, C_out)` at `S == K`, else `(S, C_in/G, C_out)`. `D` holds `D_delta` as
`(*kernel_size, S, C_in)`. The number of groups follows from the shapes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from doconv_core.geometry import depth_multiplier


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
        ValueError: the shapes of `kernel` and `D` do not belong together.
    """
    if D is None:
        return kernel
    kernel_size, (multiplier, in_channels) = D.shape[:-2], D.shape[-2:]
    taps = math.prod(kernel_size)
    first, second = kernel.shape[-2:]
    local = second if transpose_kernel else first
    if math.prod(kernel.shape[:-2]) != multiplier or in_channels % local:
        raise ValueError(f"kernel and D do not belong together. Received: shapes {kernel.shape} and {D.shape}")
    dtype = jnp.float32 if jnp.finfo(kernel.dtype).bits < 32 else kernel.dtype  # promotion may be strict
    groups = in_channels // local
    W = kernel.reshape(multiplier, first, second).astype(dtype)
    delta = D.reshape(taps, multiplier, in_channels).astype(dtype)
    tiles = multiplier // taps
    plain = W if multiplier == taps else W[: tiles * taps].reshape(tiles, taps, first, second).sum(0)
    # One matrix product for each input channel, the kernels that share it along the last axis: on a CPU, XLA takes twice as
    # long for the einsum that says the same. With groups the products are small, and it is the other way round.
    if transpose_kernel:
        product = jnp.matmul(delta.transpose(2, 0, 1), W.transpose(2, 0, 1), precision="highest")
        residual = product.transpose(1, 2, 0)
    else:
        grouped = W.reshape(multiplier, local, groups, second // groups).transpose(2, 1, 0, 3)
        delta = delta.reshape(taps, multiplier, groups, local)
        if groups == 1:
            product = jnp.matmul(delta.transpose(2, 3, 0, 1), grouped, precision="highest")
        else:
            product = jnp.einsum("ksgc,gcso->gcko", delta, grouped, precision="highest")
        residual = product.transpose(2, 1, 0, 3).reshape(taps, first, second)
    return (plain + residual).reshape(*kernel_size, first, second).astype(kernel.dtype)


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
) -> tuple[jax.Array, jax.Array | None]:
    """`(W, D)` of a layer that starts as the plain convolution with `kernel`: composed, they equal it bit for bit.

    Args:
        kernel: `(*kernel_size, C_in/G, C_out)`, or several layers stacked, `(*stacked, *kernel_size, C_in/G, C_out)`.
        in_channels: `C_in`.
        d_mul: `None` means the number of taps.
        key: draws the columns of `W` that the identity does not reach (`S` no multiple of `K`), LeCun normal as Flax's own
            default; without it they are zeros, and no gradient ever reaches them.
        spatial: the number of spatial axes; `None` means that no layers are stacked.

    Returns:
        `W` `(*stacked, *kernel_size, C_in/G, C_out)` or `(*stacked, S, C_in/G, C_out)`, and `D`
        `(*stacked, *kernel_size, S, C_in)` of zeros, or None for a kernel of one tap. NumPy arrays for a NumPy array.

    Raises:
        TypeError, ValueError: `d_mul` is not an integer, or below the number of taps.
    """
    xp = np if isinstance(kernel, np.ndarray) else jnp
    stacked = kernel.ndim - 2 - (kernel.ndim - 2 if spatial is None else spatial)
    stack, kernel_size, channels = kernel.shape[:stacked], kernel.shape[stacked:-2], kernel.shape[-2:]
    taps = math.prod(kernel_size)
    shape = w_shape(kernel.shape[stacked:], kernel_size, d_mul)
    if taps == 1:
        return kernel, None
    D = xp.zeros((*stack, *d_shape(shape, kernel_size, in_channels)), kernel.dtype)
    if shape == kernel.shape[stacked:]:
        return kernel, D
    whole = (*stack, *shape)
    if shape[0] % taps and key is not None:
        draw = jax.nn.initializers.lecun_normal(batch_axis=tuple(range(stacked)))
        W = xp.asarray(draw(key, whole, jnp.float32)).astype(kernel.dtype)
    else:
        W = xp.zeros(whole, kernel.dtype)
    tiles = shape[0] - shape[0] % taps
    rest = xp.zeros((*stack, tiles - taps, *channels), kernel.dtype)
    return xp.concatenate([kernel.reshape(*stack, taps, *channels), rest, W[..., tiles:, :, :]], -3), D
