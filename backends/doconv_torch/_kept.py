"""Kernels that layers are given in place of composing them: kept by `composed_once`, made by `compose_together`."""

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

from doconv_torch._products import autocasts

# Both outside the layers, so that a copy, a pickle or a replica of a layer composes for itself.
KEPT: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()
MADE: WeakKeyDictionary[nn.Module, dict[int, Made]] = WeakKeyDictionary()  # by thread, of its forward pass


def kernel_of(layer: Any, compose: Callable[[], Tensor]) -> Tensor:
    """The kernel of a layer: made together with others, kept, or composed."""
    if torch.compiler.is_compiling():  # asked first, or the compiler would guard against what is in the dictionaries
        return compose()
    if MADE and (made := _made_kernel(layer)) is not None:
        return made
    kept = KEPT.get(layer) if KEPT else None
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
        return self._reduces and (ddp is not None or _in_backward())

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


class Made:
    """A layer's kernel of one forward pass, and whom it may be given to."""

    def __init__(self, kernel: Tensor, W: Tensor, D: Tensor) -> None:
        self.kernel, self.W, self.D = kernel, W, D
        self.versions = _version(W), _version(D)
        self.open = True  # the forward pass has not ended
        # A checkpoint will run the layer again in the backward pass. Not a reentrant one: its first run has no graph, and in
        # the second the layer composes for itself.
        self.again = False

    def given(self, layer: Any) -> Tensor | None:
        """The kernel, or None where the layer has to compose for itself."""
        kernel, W, D = self.kernel, self.W, self.D
        if layer.W is not W or layer.D is not D or (_version(W), _version(D)) != self.versions:
            return None
        if kernel.dtype != W.dtype and not (autocasts(W) and torch.get_autocast_dtype(W.device.type) == kernel.dtype):
            return None  # composed for another autocast
        if torch.is_grad_enabled():
            if not kernel.requires_grad and (W.requires_grad or D.requires_grad):
                return None
            if self.open and not _in_backward() and torch._C._autograd._top_saved_tensors_default_hooks(True):
                self.again = True
        return kernel


def _made_kernel(layer: Any) -> Tensor | None:
    """The kernel of a layer that is composed together with others, if this is such a pass."""
    passes = MADE.get(layer)
    if passes is None:
        return None
    made = passes.get(threading.get_ident())
    if made is not None and made.open:
        return made.given(layer)
    if _in_backward():  # which may run in a thread of its own
        for made in list(passes.values()):
            if made.again:
                return made.given(layer)
    return None


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _state(*parameters: Any) -> list[tuple[Any, ...]]:
    """What changes when a parameter is replaced, written to, or given another type or memory."""
    return [(id(p), _version(p), p.dtype, p.data_ptr()) if isinstance(p, Tensor) else (id(p),) for p in parameters]


def _version(parameter: Tensor) -> int:
    return 0 if parameter.is_inference() else parameter._version
