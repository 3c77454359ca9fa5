"""The composed kernel in PyTorch.

    W' = (E + D_delta) ∘ W = W E^T + D_delta ∘ W        (Cao et al., arXiv 2006.12030; see `doconv_core.composition`)

One small product for each input channel, of `D`, `(K, S)`, with the `C_out/G` kernels that read the channel: along the taps
(`_taps`) or along the kernels (`_kernels`), or by the formula (`_formula`), whichever the library beneath does faster.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from doconv_torch import _operators, _taps
from doconv_torch._products import autocasts, products_for, without_autocast

Composed = Callable[[Tensor, Tensor, int], Tensor]
PLAIN = (Tensor, Parameter)
HALF = (torch.bfloat16, torch.float16)
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the rank of a kernel


def compose(W: Tensor, D_delta: Tensor | None, groups: int = 1, *, transposed: bool = False) -> Tensor:
    """The composed kernel, taps flattened: `_checked.compose` without its checks, as the layers call it."""
    if D_delta is None:
        return W
    composed: Composed = _Compose.apply
    if _looked_into(W):
        if calls_operators(W):
            composed = _operators.compose
        elif not (_is_compiled(W) and autocasts(W)):  # under which it would trace their derivatives
            composed = _taps.composed
    return compose_by(composed, W, D_delta, groups, transposed)


def compose_by(composed: Composed, W: Tensor, D: Tensor, groups: int, transposed: bool) -> Tensor:
    """`compose`, by products that take what `canonical` gives."""
    with without_autocast(W):
        kernel = composed(*canonical(W, D, groups, transposed))
        kernel = kernel.to(W.dtype) if W.dtype in HALF else kernel
        return kernel.view(*W.shape[:2], -1) if transposed else kernel


def canonical(W: Tensor, D: Tensor, groups: int, transposed: bool) -> tuple[Tensor, Tensor, int]:
    """`W`, `D` and `G` as `_taps` and `_kernels` take them: of float32 or float64, and of a layer that is not transposed."""
    if W.dtype in HALF:
        W, D = W.float(), D.float()
    if transposed:  # every input channel is a group, and C_out/G kernels read it
        return W.flatten(0, 1).unsqueeze(1), D, len(D)
    return W, D, groups


def ordered(kernel: Tensor, channels_last: bool) -> Tensor:
    """A kernel in the memory format of its layer."""
    return kernel.contiguous(memory_format=CHANNELS_LAST[kernel.ndim]) if channels_last else kernel


def _looked_into(W: Tensor) -> bool:
    """Whether a compiler, a trace, a function transform or another kind of tensor (DTensor) needs operations that it knows."""
    return torch.compiler.is_compiling() or type(W) not in PLAIN or transformed() or torch.jit.is_tracing()


def transformed() -> bool:
    """Whether a transform of `torch.func`, or forward-mode differentiation, is on."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


# What `torch.compiler.assume_constant_result` does, which would import the compiler: asked while it traces, not traced.
transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def calls_operators(W: Tensor) -> bool:
    """Whether a compiler that is at work calls the operators of `_operators`: on a CPU, where its own order of memory costs."""
    return _is_compiled(W) and W.device.type == "cpu" and not transformed()


def _is_compiled(W: Tensor) -> bool:
    """Whether a compiler is at work, and not an export, on a plain tensor."""
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting() and type(W) in PLAIN


class _Compose(torch.autograd.Function):
    """`compose` that keeps nothing but `W` and `D` for its gradients."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, D: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(W, D)
        ctx.groups, ctx.products = groups, products_for(W, D)
        return ctx.products.composed(W, D, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        W, D = ctx.saved_tensors
        # With a graph of its own (`create_graph`) the gradient is made of operations that have derivatives.
        products = _taps if torch.is_grad_enabled() else ctx.products
        casts = autocasts(grad) or torch.compiler.is_compiling()
        with torch.autocast(grad.device.type, enabled=False) if casts else nullcontext():
            return *products.gradients(W, D, grad, ctx.groups, ctx.needs_input_grad), None
