"""The composed kernel in Keras's operations.

    W' = (E + D_delta) ∘ W, computed as W E^T + D_delta ∘ W        (Cao et al., arXiv 2006.12030; see `doconv_core.composition`)

One product for each input channel; the identity is never built. The number of groups follows from the shapes. The product is
the operator's, not `keras.ops.matmul`, which gives float32 for float64 on Keras's torch and numpy backends.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

ON_JAX = keras.backend.backend() == "jax"
if ON_JAX:
    from doconv_keras import _compose_jax


def compose(W: Any, D: Any, *, transposed: bool = False) -> Any:
    """The composed kernel.

    Args:
        W: `(*kernel_size, C_in/G, C_out)` where `S == K`, else `(S, C_in/G, C_out)`; of a transposed convolution
            `(..., C_out, C_in)`; of a depthwise one `(..., C_in, multiplier)`.
        D: `(*kernel_size, S, C_in)`, of the dtype of `W`.
        transposed: whether the input channels are the last axis of `W`.

    Returns:
        `(*kernel_size, *W.shape[-2:])` in the dtype of `W`; bfloat16 and float16 are composed in float32 and rounded once.
    """
    dtype = keras.backend.standardize_dtype(W.dtype)
    if dtype in ("bfloat16", "float16"):
        return ops.cast(compose(ops.cast(W, "float32"), ops.cast(D, "float32"), transposed=transposed), dtype)
    if ON_JAX and not transposed and _compose_jax.takes(W, D):
        return _compose_jax.by_loops(W, D)
    kernel_size, (multiplier, in_channels) = D.shape[:-2], D.shape[-2:]
    taps, (first, second) = math.prod(kernel_size), W.shape[-2:]
    W = ops.reshape(W, (multiplier, first, second))
    tiles = multiplier // taps
    plain = W if multiplier == taps else ops.sum(
        ops.reshape(W[: tiles * taps], (tiles, taps, first, second)), axis=0)  # fmt: skip
    delta = ops.reshape(D, (taps, multiplier, in_channels))
    if transposed:  # W is (S, C_out, C_in)
        residual = ops.transpose(ops.transpose(delta, (2, 0, 1)) @ ops.transpose(W, (2, 0, 1)), (1, 2, 0))
    else:
        groups = in_channels // first
        grouped = ops.transpose(ops.reshape(W, (multiplier, first, groups, second // groups)), (2, 1, 0, 3))
        if groups > 1 and ON_JAX:  # small products: XLA takes half as long for the einsum
            product = ops.einsum("ksgc,gcso->gcko", ops.reshape(delta, (taps, multiplier, groups, first)), grouped)
        else:
            product = ops.transpose(delta, (2, 0, 1)) @ ops.reshape(
                grouped, (in_channels, multiplier, second // groups)
            )
            product = ops.reshape(product, (groups, first, taps, second // groups))
        residual = ops.reshape(ops.transpose(product, (2, 1, 0, 3)), (taps, first, second))
    return ops.reshape(plain + residual, (*kernel_size, first, second))
