"""The composition of large dense kernels of few taps on Keras's JAX backend: loops, which XLA fuses.

The file is read on that backend only. `doconv_flax._compose` says the same of Flax's layers.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

# At most this many pairs of tap and column (3x3 with `S` up to 12), from this size of `W`; below it products are no slower.
LOOP_PAIRS, LOOP_SIZE = 108, 2**18


def takes(W: jax.Array, D: jax.Array) -> bool:
    """Whether loops beat products, for a kernel of one group that is not transposed."""
    pairs = math.prod(D.shape[:-2]) * D.shape[-2]
    return W.shape[-2] == D.shape[-1] and pairs <= LOOP_PAIRS and W.size >= LOOP_SIZE


@jax.custom_jvp
def by_loops(W: jax.Array, delta: jax.Array) -> jax.Array:
    """`(E + D_delta) ∘ W`: each tap a sum of scaled taps, one loop over `(C_in, C_out)`; nothing is transposed.

    Args:
        W: `(*kernel_size, C_in, C_out)` where `S == K`, else `(S, C_in, C_out)`.
        delta: `(*kernel_size, S, C_in)`.

    Returns:
        `(*kernel_size, C_in, C_out)`.
    """
    kernel_size, multiplier, ends = delta.shape[:-2], delta.shape[-2], W.shape[-2:]
    taps = math.prod(kernel_size)
    columns, factors = W.reshape(multiplier, *ends), delta.reshape(taps, multiplier, ends[0], 1)
    plain = _plain(columns, taps)

    def tap(k: int) -> jax.Array:
        first, *rest = (factors[k, s] * columns[s] for s in range(multiplier))
        return plain[k] + sum(rest, start=first)

    return jnp.stack([tap(k) for k in range(taps)]).reshape(*kernel_size, *ends)


@by_loops.defjvp
def _by_loops_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Linear in both tangents: reverse mode transposes a product for `dL/dW`, and for `dL/dD` sums along the kernels."""
    (W, delta), (dW, ddelta) = primals, tangents
    kernel_size, (multiplier, in_channels), ends = delta.shape[:-2], delta.shape[-2:], W.shape[-2:]
    taps = math.prod(kernel_size)
    # The kernel's own axes stay apart beside the product: XLA transposes a convolution's gradient just so, and the two cancel.
    by_channel = jnp.moveaxis(dW, -2, 0).reshape(in_channels, multiplier, ends[1])
    matrices = delta.reshape(taps, multiplier, in_channels).transpose(2, 0, 1)
    product = jnp.matmul(matrices, by_channel, precision="highest").reshape(in_channels, *kernel_size, ends[1])
    plain = _plain(dW.reshape(multiplier, *ends), taps).reshape(*kernel_size, *ends)
    return by_loops(W, delta), plain + jnp.moveaxis(product, 0, -2) + _as_one_sum(W, ddelta)


@jax.jit  # operation by operation, the scaled taps would take `K` times the memory of `W`
def _as_one_sum(W: jax.Array, delta: jax.Array) -> jax.Array:
    """`D_delta ∘ W` as a sum of scaled taps."""
    kernel_size, multiplier, ends = delta.shape[:-2], delta.shape[-2], W.shape[-2:]
    scaled = delta.reshape(-1, multiplier, ends[0], 1) * W.reshape(1, multiplier, *ends)
    return scaled.sum(1).reshape(*kernel_size, *ends)


def _plain(columns: jax.Array, taps: int) -> jax.Array:
    """`W E^T`: `(S, C_in, C_out)` to `(K, C_in, C_out)`."""
    tiles = len(columns) // taps
    if len(columns) == taps:
        return columns
    return columns[: tiles * taps].reshape(tiles, taps, *columns.shape[1:]).sum(0)
