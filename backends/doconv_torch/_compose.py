"""The composed kernel in PyTorch.

    W' = W E^T + D_delta o W        (Cao et al., arXiv 2006.12030; residual form, see `doconv_core.composition`)

One batched product over the input channels; the identity is never built, and autograd saves nothing but the parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor


def compose(W: Tensor, D_delta: Tensor | None, groups: int = 1, *, transposed: bool = False) -> Tensor:
    """The composed kernel, taps flattened.

    Args:
        W: `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`.
        D_delta: `(C_in, K, S)`, or None for a kernel of one tap.
        groups: `G`.
        transposed: whether `W` belongs to a transposed convolution.

    Returns:
        `(*W.shape[:2], K)` in the dtype of `W`. bfloat16 and float16 are composed in float32 and rounded once.
    """
    if D_delta is None:
        return W
    if W.dtype in (torch.bfloat16, torch.float16):
        return compose(W.float(), D_delta.float(), groups, transposed=transposed).to(W.dtype)
    taps, multiplier = D_delta.shape[1:]
    tiles = multiplier // taps
    plain = W if multiplier == taps else W[..., : tiles * taps].unflatten(-1, (tiles, taps)).sum(-2)
    if transposed:  # the first axis of W is the input channel
        return plain + torch.bmm(W, D_delta.mT)
    first, second = W.shape[:2]
    # The rows of D in order are (group, local input channel); each multiplies the C_out/G kernels of its group.
    by_channel = W.unflatten(0, (groups, first // groups)).transpose(1, 2).flatten(0, 1)  # (C_in, C_out/G, S)
    residual = torch.bmm(by_channel, D_delta.mT)  # (C_in, C_out/G, K)
    return plain + residual.unflatten(0, (groups, second)).transpose(1, 2).flatten(0, 1)
