"""The composition by products along the kernels: all kernels that read an input channel lie side by side.

A product with a 9 x 9 matrix runs along an axis of 9 numbers in the order of a convolution's weight, and along one of `C_out/G`
in the order `(C_in, S, C_out/G)`. Some matrix libraries are so much faster there that this pays for the transposes. For eager
CPU tensors without a graph of their own: a transpose here has no derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from doconv_torch._taps import spread_tiles, sum_tiles

# A block of kernels of about so many numbers stays in the cache; below 16 kernels a product has no length.
NUMBERS_PER_BLOCK, MIN_KERNELS_PER_BLOCK = 2**18, 16
# Up to so many blocks it is one product: a block costs a few calls of its own.
MAX_BLOCKS_IN_ONE = 4


def composed(W: Tensor, D: Tensor, groups: int) -> Tensor:
    """See `doconv_torch._taps.composed`."""
    rows = _kernels_per_block(W, groups)
    if not rows:
        return _composed(W, D, groups)
    result = W.new_empty(*W.shape[:2], D.shape[1])
    for w, part in zip(W.split(rows), result.split(rows), strict=True):
        part.copy_(_composed(w, D, 1))
    return result


def gradients(
    W: Tensor, D: Tensor, grad: Tensor, groups: int, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """See `doconv_torch._taps.gradients`."""
    rows = _kernels_per_block(W, groups)
    if not rows:
        return _gradients(W, D, grad, groups, needs)
    grad_W, grad_D = torch.empty_like(W) if needs[0] else None, torch.zeros_like(D) if needs[1] else None
    for start in range(0, len(W), rows):
        block = slice(start, start + rows)
        part, more = _gradients(W[block], D, grad[block], 1, needs)
        if grad_W is not None and part is not None:
            grad_W[block] = part
        if grad_D is not None and more is not None:
            grad_D += more
    return grad_W, grad_D


def _kernels_per_block(W: Tensor, groups: int) -> int:
    """How many kernels are composed at a time; 0 for all of them."""
    if groups > 1 or W.numel() <= MAX_BLOCKS_IN_ONE * NUMBERS_PER_BLOCK or is_by_channel(W):
        return 0
    return max(MIN_KERNELS_PER_BLOCK, NUMBERS_PER_BLOCK // W[0].numel())


def _composed(W: Tensor, D: Tensor, groups: int) -> Tensor:
    w = _side_by_side(W, groups)
    return _back(torch.baddbmm(sum_tiles(w, D.shape[1], 1), D, w), groups)


def _gradients(
    W: Tensor, D: Tensor, grad: Tensor, groups: int, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    g, grad_W, grad_D = _side_by_side(grad, groups), None, None
    if needs[0]:
        total = torch.baddbmm(spread_tiles(g, D.shape[2], 1), D.transpose(1, 2), g)
        grad_W = total.permute(2, 0, 1) if groups == 1 and is_by_channel(W) else _back(total, groups)
    if needs[1]:
        grad_D = torch.bmm(g, _side_by_side(W, groups).transpose(1, 2))
    return grad_W, grad_D


def is_by_channel(W: Tensor) -> bool:
    """Whether `W` has the memory order `(C_in, S, C_out)`, as `store_by_channel` gives it."""
    return not W.is_contiguous() and W.permute(1, 2, 0).is_contiguous()


def _side_by_side(W: Tensor, groups: int) -> Tensor:
    """`(C_out, C_in/G, S)` to contiguous `(C_in, S, C_out/G)`."""
    kernels, in_per_group, columns = W.shape
    if groups == 1 and is_by_channel(W):
        return W.permute(1, 2, 0)
    out_per_group = kernels // groups
    return _swap(W.contiguous(), groups, out_per_group).view(groups * in_per_group, columns, out_per_group)


def _back(w: Tensor, groups: int) -> Tensor:
    """The inverse of `_side_by_side`."""
    channels, columns, out_per_group = w.shape
    in_per_group = channels // groups
    return _swap(w, groups, in_per_group * columns).view(groups * out_per_group, in_per_group, columns)


def _swap(x: Tensor, count: int, rows: int) -> Tensor:
    """Contiguous `x`, `count` matrices of `rows` rows, with each matrix transposed; contiguous.

    This is a shuffle of channels: `rows` groups of `columns` become `columns` groups of `rows`. PyTorch's copy of a transposed
    tensor moves one number at a time, its shuffle of images in the memory order channels last a vector: 3 times faster.
    """
    return torch.native_channel_shuffle(x.view(count, 1, 1, -1).permute(0, 3, 1, 2), rows)
