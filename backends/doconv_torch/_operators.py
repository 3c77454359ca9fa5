"""The composition as two operators that a compiler calls and does not look into: on a CPU, the eager products.

Of the formula's own operations a compiler chooses how memory lies. On a CPU it lays convolutions channels last, and gives the
batched product a composed kernel's gradient in an order that this one copies matrix by matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from doconv_torch import _taps
from doconv_torch._products import composed_eagerly, products_for, without_autocast


@torch.library.custom_op("doconv::compose", mutates_args=())
def compose(W: Tensor, D: Tensor, groups: int) -> Tensor:
    """See `doconv_torch._taps.composed`; contiguous."""
    with without_autocast(W):
        return composed_eagerly(W, D, groups).contiguous()


@torch.library.custom_op("doconv::compose_gradients", mutates_args=())
def compose_gradients(
    W: Tensor, D: Tensor, grad: Tensor, groups: int, needs_W: bool, needs_D: bool
) -> tuple[Tensor, Tensor]:
    """See `doconv_torch._taps.gradients`; contiguous, and empty where not needed."""
    with without_autocast(W):
        grad_W, grad_D = products_for(W, D).gradients(W, D, grad, groups, (needs_W, needs_D))
        return tuple(W.new_empty(0) if part is None else part.contiguous() for part in (grad_W, grad_D))  # type: ignore[return-value]


@compose.register_fake
def _(W: Tensor, D: Tensor, groups: int) -> Tensor:
    return W.new_empty(*W.shape[:2], D.shape[1])


@compose_gradients.register_fake
def _(W: Tensor, D: Tensor, grad: Tensor, groups: int, needs_W: bool, needs_D: bool) -> tuple[Tensor, Tensor]:
    return W.new_empty(W.shape if needs_W else 0), W.new_empty(D.shape if needs_D else 0)


def gradients(
    W: Tensor, D: Tensor, grad: Tensor, groups: int, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """See `doconv_torch._taps.gradients`."""
    if torch.is_grad_enabled():  # a graph of its own
        return _taps.gradients(W, D, grad, groups, needs)
    grad_W, grad_D = compose_gradients(W, D, grad, groups, *needs[:2])
    return grad_W if needs[0] else None, grad_D if needs[1] else None


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.groups = inputs[2]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    W, D = ctx.saved_tensors
    return *gradients(W, D, grad, ctx.groups, ctx.needs_input_grad), None


compose.register_autograd(_differentiate, setup_context=_keep)
