"""The composed kernel in PyTorch.

    W' = W E^T + D_delta o W        (Cao et al., arXiv 2006.12030; residual form, see `doconv_core.composition`)

One small product for each input channel, of `D`, `(K, S)`, with the `C_out/G` kernels that read the channel. In the order of a
convolution's weight it runs along the taps of a kernel. Where these are few and the kernels many, a matrix library is several
times faster along the kernels, and that pays for the transposes there and back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Few taps, many kernels.
FEW, MANY = 16, 16
# A CPU composes this many numbers of `W` at a time: they stay in its cache, and no large temporary is allocated.
BLOCK = 2**18
# From 32 MB on, an array comes afresh from the system each time: one less is faster, for all that the product is slower then.
LARGE = 2**23


def compose(W: Tensor, D_delta: Tensor | None, groups: int = 1, *, transposed: bool = False) -> Tensor:
    """The composed kernel, taps flattened.

    Args:
        W: `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`.
        D_delta: `(C_in, K, S)`, or None for a kernel of one tap.
        groups: `G`.
        transposed: whether `W` belongs to a transposed convolution.

    Returns:
        `(*W.shape[:2], K)` in the dtype of `W`, whatever autocast says. bfloat16 and float16 are composed in float32 and
        rounded once.
    """
    if D_delta is None:
        return W
    if _autocasts(W):
        with torch.autocast(W.device.type, enabled=False):
            return compose(W, D_delta, groups, transposed=transposed)
    if W.dtype in (torch.bfloat16, torch.float16):
        return compose(W.float(), D_delta.float(), groups, transposed=transposed).to(W.dtype)
    if transposed:  # every input channel is a group, and C_out/G kernels read it
        return compose(W.flatten(0, 1).unsqueeze(1), D_delta, len(D_delta)).view(*W.shape[:2], -1)
    if _looked_into() or type(W) not in (Tensor, torch.nn.Parameter):
        by_channel = W.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # (C_in, C_out/G, S)
        product = (by_channel @ D_delta.transpose(1, 2)).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return _sum_tiles(W, D_delta.shape[1]) + product
    return _Compose.apply(W, D_delta, groups)


def _looked_into() -> bool:
    """Whether an export, a trace or a function transform needs the composition in operations that it knows."""
    # `torch.compile` takes what this returns for an object: asked whether it `is None`, it would say no.
    transformed = not isinstance(torch._C._functorch.peek_interpreter_stack(), type(None))
    dual = torch.autograd.forward_ad._current_level >= 0
    return transformed or dual or torch.compiler.is_exporting() or torch.jit.is_tracing()


class _Compose(torch.autograd.Function):
    """`compose` that keeps nothing but `W` and `D` for its gradients."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, D: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(W, D)
        W, D = W.detach(), D.detach()
        ctx.groups, ctx.along_kernels, ctx.rows = groups, *_plan(W, D, groups)
        if not ctx.rows:
            return _composed(W, D, groups, ctx.along_kernels)
        composed = W.new_empty(*W.shape[:2], D.shape[1])
        for block in _blocks(len(W), ctx.rows):
            composed[block] = _composed(W[block], D, groups, ctx.along_kernels)
        return composed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if _autocasts(grad):
            with torch.autocast(grad.device.type, enabled=False):
                return _Compose.backward(ctx, grad)
        W, D = ctx.saved_tensors
        if not torch.is_grad_enabled():
            W, D = W.detach(), D.detach()
        needs, grad = ctx.needs_input_grad, grad.contiguous()
        if not ctx.rows:
            return *_gradients(W, D, grad, ctx.groups, ctx.along_kernels, needs), None
        grad_W, grad_D = torch.empty_like(W) if needs[0] else None, None
        for block in _blocks(len(W), ctx.rows):
            part, more = _gradients(W[block], D, grad[block], ctx.groups, ctx.along_kernels, needs)
            if grad_W is not None and part is not None:
                grad_W[block] = part
            grad_D = more if grad_D is None or more is None else grad_D + more
        return grad_W, grad_D, None


def _plan(W: Tensor, D: Tensor, groups: int) -> tuple[bool, int]:
    """Whether the products run along the kernels, and how many kernels are composed at a time, 0 for all of them."""
    local, by_channel = W.shape[1], _is_by_channel(W, groups)
    few, many = D.shape[1] < FEW, len(W) >= MANY * groups
    along_kernels = by_channel or (local > 1 and (few or (groups > 1 and many)))
    whole = by_channel or groups > 1 or not along_kernels or W.numel() <= 4 * BLOCK
    if whole or W.device.type != "cpu" or torch.compiler.is_compiling():
        return along_kernels, 0
    return along_kernels, max(MANY, BLOCK // W[0].numel())


def _blocks(count: int, rows: int) -> list[slice]:
    return [slice(start, start + rows) for start in range(0, count, rows)]


def _composed(W: Tensor, D: Tensor, groups: int, along_kernels: bool) -> Tensor:
    """`W E^T + D o W`."""
    w = _by_channel(W, groups, along_kernels)
    return _plus_product(W, w, _sum_tiles(W, D.shape[1]), D, groups, along_kernels)


def _gradients(
    W: Tensor, D: Tensor, grad: Tensor, groups: int, along_kernels: bool, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """For each input channel, `dL/dW = g E + D^T g` and `dL/dD = g W^T`; in the memory order of `W`."""
    g, grad_W, grad_D = _by_channel(grad, groups, along_kernels), None, None
    if needs[0]:
        plain, stays = _spread_tiles(grad, D.shape[2]), _is_by_channel(W, groups)
        grad_W = _plus_product(grad, g, plain, D.mT, groups, along_kernels, stays)
    if needs[1]:
        w = _by_channel(W, groups, along_kernels)
        left, right = (g, w.mT) if along_kernels else (g.mT, w)
        grad_D = left * right if left.shape[2] == 1 else torch.bmm(left, right)
    return grad_W, grad_D


def _plus_product(
    x: Tensor, by_channel: Tensor, plain: Tensor, D: Tensor, groups: int, along_kernels: bool, stays: bool = False
) -> Tensor:
    """`plain + D o x`, in the order of kernels.

    Args:
        x: `W`, or a gradient.
        by_channel: `x` as `_by_channel` orders it.
        plain: `x E^T`; `x` itself where `E` is the identity.
        D: `(C_in, K, S)`, or transposed.
        groups: `G`.
        along_kernels: how `by_channel` lies.
        stays: whether the result keeps the memory order `(C_in, S, C_out)` of a product along the kernels.
    """
    if groups == 1 and not along_kernels:
        if plain.numel() < LARGE:
            return plain + torch.bmm(by_channel, D.mT).transpose(0, 1)
        return plain.clone().transpose(0, 1).baddbmm_(by_channel, D.mT).transpose(0, 1)
    start = by_channel if plain is x else _by_channel(plain, groups, along_kernels)
    if not along_kernels:
        return _by_kernel(torch.baddbmm(start, by_channel, D.mT), groups, False)
    total = torch.baddbmm(start, D, by_channel)
    return total.permute(2, 0, 1) if stays else _by_kernel(total, groups, True)


def _autocasts(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device."""
    if not torch._C._is_any_autocast_enabled():  # quick
        return False
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _is_by_channel(W: Tensor, groups: int) -> bool:
    """Whether `W` has the memory order `(C_in, S, C_out)`, as `store_by_channel` gives it."""
    return groups == 1 and not W.is_contiguous() and W.permute(1, 2, 0).is_contiguous()


def _by_channel(W: Tensor, groups: int, along_kernels: bool) -> Tensor:
    """`(C_out, C_in/G, S)` to `(C_in, C_out/G, S)`, or along the kernels to contiguous `(C_in, S, C_out/G)`."""
    kernels, local, columns = W.shape
    channels, shared = groups * local, kernels // groups
    if along_kernels:
        if _is_by_channel(W, groups):
            return W.permute(1, 2, 0)
        return _swap(W.contiguous(), groups, shared, 1, (channels, columns, shared))
    if groups == 1:
        return W.transpose(0, 1)
    if local == 1:
        return W.reshape(channels, shared, columns)
    return _swap(W.contiguous(), groups, shared, columns, (channels, shared, columns))


def _by_kernel(w: Tensor, groups: int, along_kernels: bool) -> Tensor:
    """The inverse of `_by_channel`; not of a view, which it gives along the taps of one group."""
    channels = len(w)
    columns, shared = w.shape[1:] if along_kernels else w.shape[:0:-1]
    local = channels // groups
    if along_kernels:
        return _swap(w, groups, local * columns, 1, (groups * shared, local, columns))
    if local == 1:
        return w.view(groups * shared, 1, columns)
    return _swap(w, groups, local, columns, (groups * shared, local, columns))


def _swap(x: Tensor, count: int, rows: int, numbers: int, shape: tuple[int, ...]) -> Tensor:
    """Contiguous `x`, read as `(count, rows, columns, numbers)`, with rows and columns swapped; contiguous, as `shape`.

    This is a shuffle of channels: `rows` groups of `columns` become `columns` groups of `rows`. PyTorch's copy of a transposed
    tensor moves one number at a time, its shuffle (which has no gradient) a vector: 3 times faster on a CPU.
    """
    size = x.numel() // (count * numbers)
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x.reshape(count, rows, -1, numbers).transpose(1, 2).contiguous().view(shape)
    # Numbers alone go by vectors in the memory order channels last.
    images = x.view(count, 1, 1, size).permute(0, 3, 1, 2) if numbers == 1 else x.view(count, size, numbers, 1)
    return torch.native_channel_shuffle(images, rows).view(shape)


def _sum_tiles(W: Tensor, taps: int) -> Tensor:
    """`W E^T`, `(..., S)` to `(..., K)`; surplus columns take no part."""
    tiles = W.shape[-1] // taps
    return W if W.shape[-1] == taps else W[..., : tiles * taps].unflatten(-1, (tiles, taps)).sum(-2)


def _spread_tiles(g: Tensor, columns: int) -> Tensor:
    """`g E`, the transpose of `_sum_tiles`: `(..., K)` to `(..., S)`, zeros in the surplus columns."""
    taps = g.shape[-1]
    if taps == columns:
        return g
    return torch.nn.functional.pad(g.repeat(1, 1, columns // taps), (0, columns % taps))
