"""The kernels that `composed_once` keeps, where the layers look for theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# Kept outside the layers, so that a copy, a pickle or a replica of a layer composes for itself.
KEPT: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()


def kept_kernel(layer: Any, compose: Callable[[], Tensor]) -> Tensor:
    """The kernel of a layer: composed, or inside `composed_once` kept."""
    kept = KEPT.get(layer) if not torch.compiler.is_compiling() and KEPT else None
    return compose() if kept is None else kept.kernel(layer.W, layer.D, compose)


class Kept:
    """One kernel, of one layer or of those that share `W` and `D`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.ended = False
        self._leaf: Tensor | None = None
        self._lock = threading.Lock()

    def kernel(self, W: Tensor, D: Tensor, compose: Callable[[], Tensor]) -> Tensor:
        with self._lock:
            if self._leaf is None:
                with torch.inference_mode(False), torch.enable_grad():
                    self._composed = compose()
                    leaf = self._composed.detach()
                    if self._composed.requires_grad:
                        leaf.requires_grad_().register_hook(self._refuse_after_the_end)
                self._state, self._leaf = _state(W, D), leaf
        self.check(W, D)
        return self._leaf

    def check(self, W: Any, D: Any) -> None:
        if self._leaf is not None and (state := _state(W, D)) != self._state:
            raise RuntimeError(
                f"the parameters of {self.path} changed inside composed_once, after they were composed: change them after "
                f"it, and compose anew. Received: (identity, version, type, memory) {state}, composed from {self._state}"
            )

    def collected(self) -> tuple[Tensor, Tensor] | None:
        """The composed kernel and its gradient, if there is one."""
        if self._leaf is None or self._leaf.grad is None:
            return None
        return self._composed, self._leaf.grad

    def _refuse_after_the_end(self, grad: Tensor) -> None:
        if self.ended:
            raise RuntimeError(
                "a backward pass reached a kernel whose composed_once has ended: run it inside, where its gradient is "
                f"passed on. Received: the kernel of {self.path}"
            )


def _state(*parameters: Any) -> list[tuple[Any, ...]]:
    """What changes when a parameter is replaced, written to, or given another type or memory."""
    return [
        (id(p), 0 if p.is_inference() else p._version, p.dtype, p.data_ptr()) if isinstance(p, Tensor) else (id(p),)
        for p in parameters
    ]
