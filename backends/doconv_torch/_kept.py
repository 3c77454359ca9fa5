"""The kernels that `composed_once` keeps, where the layers look for theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

# Kept outside the layers, so that a copy, a pickle or a replica of a layer composes for itself.
KEPT: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()


def kept_kernel(layer: Any, compose: Callable[[], Tensor]) -> Tensor:
    """The kernel of a layer: composed, or inside `composed_once` kept."""
    kept = KEPT.get(layer) if not torch.compiler.is_compiling() and KEPT else None
    return compose() if kept is None else kept.kernel(layer.W, layer.D, compose)


class Kept:
    """One kernel, of one layer or of those that share `W` and `D`.

    Outside of DistributedDataParallel it is a leaf that collects `dL/dW'` until the end. A forward pass whose gradients DDP
    reduces needs `W` and `D` in its graph: DDP looks for them there (`find_unused_parameters`), and counts that their
    gradients come in this backward pass (`static_graph`). The kernel passes then on to them what was collected.
    """

    def __init__(self, path: str) -> None:
        self.path, self.thread = path, threading.get_ident()
        self.ended = False
        self._leaf: Tensor | None = None
        self._lock = threading.Lock()
        self._reduces = False

    def kernel(self, W: Tensor, D: Tensor, compose: Callable[[], Tensor]) -> Tensor:
        with self._lock:
            if self._leaf is None:
                # Outside of the hooks of activation checkpointing, which composes no second time.
                with torch.inference_mode(False), torch.enable_grad(), saved_tensors_hooks(_same, _same):
                    self._composed = compose()
                    leaf = self._composed.detach()
                    if self._composed.requires_grad:
                        leaf.requires_grad_().register_hook(self._refuse_after_the_end)
                self._state, self._leaf = _state(W, D), leaf
        self.check(W, D)
        if self._is_reduced() and self._leaf.requires_grad and torch.is_grad_enabled():
            return _PassOn.apply(self, W, D)
        return self._leaf

    def check(self, W: Any, D: Any) -> None:
        if self._leaf is not None and (state := _state(W, D)) != self._state:
            raise RuntimeError(
                f"the parameters of {self.path} changed inside composed_once, after they were composed: change them after "
                f"it, and compose again. Received: (identity, version, type, memory) {state}, composed from {self._state}"
            )

    def collected(self) -> tuple[Tensor, Tensor] | None:
        """The composed kernel and the gradient that no pass has passed on, if there is one."""
        if self._leaf is None or self._leaf.grad is None:
            return None
        return self._composed, self._leaf.grad

    def pass_on(self, grad: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
        """The gradients of `parameters`, of `grad` and of all that was collected before."""
        self._refuse_after_the_end(grad)
        with self._lock:
            assert self._leaf is not None
            if self._leaf.grad is not None:
                grad, self._leaf.grad = grad + self._leaf.grad, None
        return torch.autograd.grad(self._composed, parameters, grad, retain_graph=True)

    def leaf(self) -> Tensor:
        assert self._leaf is not None
        return self._leaf

    def _is_reduced(self) -> bool:
        """Whether DDP reduces the gradients of this forward pass, or of the one that a checkpoint recomputes."""
        ddp = DistributedDataParallel._active_ddp_module
        if ddp is not None:
            self._reduces = ddp.require_backward_grad_sync
        return self._reduces and (ddp is not None or torch._C._current_graph_task_id() != -1)

    def _refuse_after_the_end(self, grad: Tensor) -> None:
        if self.ended:
            raise RuntimeError(
                "a backward pass reached a kernel whose composed_once has ended: run it inside, where its gradient is "
                f"passed on. Received: the kernel of {self.path}"
            )


class _PassOn(torch.autograd.Function):
    """A kept kernel in a graph that leads on to `W` and `D`."""

    @staticmethod
    def forward(ctx: Any, kept: Kept, W: Tensor, D: Tensor) -> Tensor:
        ctx.kept, ctx.parameters = kept, (W, D)
        return kept.leaf().detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        wanted = [parameter for parameter, needs in zip(ctx.parameters, needed, strict=True) if needs]
        grads = iter(ctx.kept.pass_on(grad, wanted))
        return None, *(next(grads) if needs else None for needs in needed)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _state(*parameters: Any) -> list[tuple[Any, ...]]:
    """What changes when a parameter is replaced, written to, or given another type or memory."""
    return [
        (id(p), 0 if p.is_inference() else p._version, p.dtype, p.data_ptr()) if isinstance(p, Tensor) else (id(p),)
        for p in parameters
    ]
