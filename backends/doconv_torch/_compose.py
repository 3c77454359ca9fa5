"""The composed kernel in PyTorch.

    W' = W E^T + D_delta o W        (Cao et al., arXiv 2006.12030; residual form, see `doconv_core.composition`)

One small product for each input channel, of `D`, `(K, S)`, with the `C_out/G` kernels that read the channel. In the order of a
convolution's weight it runs along the taps of a kernel. Where these are few and the kernels many, a matrix library is several
times faster along the kernels, and that pays for the transposes there and back.
"""

from __future__ import annotations

import contextlib
from functools import reduce
from typing import Any

import torch
from torch import Tensor

# Few taps, many kernels.
FEW, MANY = 16, 16
# A CPU composes this many numbers of `W` at a time: they stay in its cache, and no large temporary is allocated.
BLOCK = 2**18


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
    if transposed:  # every input channel is a group, and C_out/G kernels read it
        return compose(W.flatten(0, 1).unsqueeze(1), D_delta, len(D_delta)).view(*W.shape[:2], -1)
    if _looked_into():
        product = _by_channel(W, groups, False) @ D_delta.mT
        return _sum_tiles(W, D_delta.shape[1]) + _by_kernel(product, groups, False)
    return _Compose.apply(W, D_delta, groups)


def _looked_into() -> bool:
    """Whether a compiler, a trace or a function transform needs the composition in operations that it knows."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


class _Compose(torch.autograd.Function):
    """`compose` that keeps nothing but `W` and `D` for its gradients."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, D: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(W, D)
        ctx.groups, ctx.along_kernels, ctx.rows = groups, *_plan(W, D, groups)
        if not ctx.rows:
            return _composed(W, D, groups, ctx.along_kernels)
        return torch.cat([_composed(kernels, D, groups, ctx.along_kernels) for kernels in W.split(ctx.rows)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        W, D = ctx.saved_tensors
        options = ctx.groups, ctx.along_kernels, ctx.needs_input_grad
        grad = grad.contiguous()
        with full_precision(grad):
            if not ctx.rows:
                return *_gradients(W, D, grad, *options), None
            pairs = zip(W.split(ctx.rows), grad.split(ctx.rows), strict=True)
            parts, sums = zip(*(_gradients(kernels, D, g, *options) for kernels, g in pairs), strict=True)
            needs_W, needs_D, _ = ctx.needs_input_grad
            return torch.cat(parts) if needs_W else None, reduce(torch.add, sums) if needs_D else None, None


def _plan(W: Tensor, D: Tensor, groups: int) -> tuple[bool, int]:
    """Whether the products run along the kernels, and how many kernels are composed at a time, 0 for all of them."""
    along_kernels = len(W) >= MANY * groups and (D.shape[1] < FEW or _is_by_channel(W, groups))
    if not along_kernels or W.device.type != "cpu" or groups > 1 or W.numel() <= 4 * BLOCK or _is_by_channel(W, groups):
        return along_kernels, 0
    return along_kernels, max(MANY, BLOCK // W[0].numel())


def _composed(W: Tensor, D: Tensor, groups: int, along_kernels: bool) -> Tensor:
    """`W E^T + D o W`."""
    w = _by_channel(W, groups, along_kernels)
    square = D.shape[1] == D.shape[2]
    start = w if square else _by_channel(_sum_tiles(W, D.shape[1]), groups, along_kernels)
    return _by_kernel(_add_product(start, D, w, along_kernels), groups, along_kernels)


def _gradients(
    W: Tensor, D: Tensor, grad: Tensor, groups: int, along_kernels: bool, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """For each input channel, `dL/dW = g E + D^T g` and `dL/dD = g W^T`; in the memory order of `W`."""
    g, grad_W, grad_D = _by_channel(grad, groups, along_kernels), None, None
    if needs[0]:
        square = D.shape[1] == D.shape[2]
        start = g if square else _by_channel(_spread_tiles(grad, D.shape[2]), groups, along_kernels)
        grad_W = _add_product(start, D.mT, g, along_kernels)
        by_channel = along_kernels and _is_by_channel(W, groups)
        grad_W = grad_W.permute(2, 0, 1) if by_channel else _by_kernel(grad_W, groups, along_kernels)
    if needs[1]:
        w = _by_channel(W, groups, along_kernels)
        left, right = (g, w.mT) if along_kernels else (g.mT, w)
        grad_D = left * right if left.shape[2] == 1 else left @ right
    return grad_W, grad_D


def full_precision(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A region without autocast on the tensor's device; where it is off already, nothing that a trace would record."""
    device = tensor.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def _is_by_channel(W: Tensor, groups: int) -> bool:
    """Whether `W` has the memory order `(C_in, S, C_out)`, as `store_by_channel` gives it."""
    return groups == 1 and not W.is_contiguous() and W.permute(1, 2, 0).is_contiguous()


def _by_channel(W: Tensor, groups: int, along_kernels: bool) -> Tensor:
    """`(C_out, C_in/G, S)` to `(C_in, C_out/G, S)`, or along the kernels to contiguous `(C_in, S, C_out/G)`."""
    local, columns = W.shape[1:]
    if not along_kernels:
        if local == 1:
            return W.view(groups, -1, columns)
        return W.view(groups, -1, local, columns).transpose(1, 2).reshape(groups * local, -1, columns)
    if _is_by_channel(W, groups):
        return W.permute(1, 2, 0)
    return _transpose(W.reshape(groups, -1, local * columns)).view(groups * local, columns, -1)


def _by_kernel(w: Tensor, groups: int, along_kernels: bool) -> Tensor:
    """The inverse of `_by_channel`."""
    if along_kernels:
        channels, columns, shared = w.shape
        return _transpose(w.view(groups, -1, shared)).view(groups * shared, -1, columns)
    channels, shared, columns = w.shape
    if channels == groups:
        return w.view(-1, 1, columns)
    return w.view(groups, -1, shared, columns).transpose(1, 2).reshape(groups * shared, -1, columns).contiguous()


def _add_product(start: Tensor, D: Tensor, w: Tensor, along_kernels: bool) -> Tensor:
    """`start` plus the products, laid out as `_by_channel` does; a view of an array in the order of kernels stays one."""
    return torch.baddbmm(start, D, w) if along_kernels else start.clone().baddbmm_(w, D.mT)


def _transpose(matrices: Tensor) -> Tensor:
    """`matrices.mT`, contiguous.

    A transpose is a shuffle of channels: `rows` groups of `columns` become `columns` groups of `rows`. PyTorch's copy of a
    transposed tensor moves one number at a time, its shuffle (which has no gradient) a vector: 3 times faster on a CPU.
    """
    count, rows, columns = matrices.shape
    if matrices.device.type != "cpu" or torch.is_grad_enabled():
        return matrices.mT.contiguous()
    pixels = matrices.reshape(count, 1, 1, rows * columns).permute(0, 3, 1, 2)
    return torch.native_channel_shuffle(pixels, rows).view(count, columns, rows)


def _sum_tiles(W: Tensor, taps: int) -> Tensor:
    """`W E^T`, `(..., S)` to `(..., K)`; surplus columns take no part."""
    tiles = W.shape[-1] // taps
    return W if W.shape[-1] == taps else W[..., : tiles * taps].unflatten(-1, (tiles, taps)).sum(-2)


def _spread_tiles(g: Tensor, columns: int) -> Tensor:
    """`g E`, the transpose of `_sum_tiles`: `(..., K)` to `(..., S)`, zeros in the surplus columns."""
    tiles, surplus = divmod(columns, g.shape[-1])
    return g if g.shape[-1] == columns else torch.nn.functional.pad(g.repeat(1, 1, tiles), (0, surplus))
