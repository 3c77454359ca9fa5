"""Compose once for many passes: inference loops, and micro-batches whose gradients are accumulated."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
# Kept outside the layers, so that a copy, a pickle or a replica of a layer composes for itself.
_kept: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()


@contextlib.contextmanager
def composed_once(model: M) -> Iterator[M]:
    """A context in which each DO-Conv layer's kernel is composed once, at its first use.

        with composed_once(model):
            for x, y in micro_batches:
                loss(model(x), y).backward()
        optimizer.step()

    Inside, a layer's kernel is a leaf that collects `dL/dW'` over the backward passes. At the end the sum goes through the
    composition once and is added to `W.grad` and `D.grad`, with the result of the plain way but for rounding: the composition
    is linear in `dL/dW'`. Under `torch.no_grad` or `torch.inference_mode` the kernel is only kept.

    - `W.grad` and `D.grad` get nothing before the end: clip gradients and step the optimizer after it. Hooks on the two
      parameters, those of DistributedDataParallel included, run at the end; run all but the last micro-batch in `no_sync`.
    - An exception inside discards the collected gradients of the kernels; those of other parameters are there already.
    - Where contexts are nested, a layer belongs to the outermost. All threads that run the model share its kernels.
    - Layers that share `W` and `D` share the kernel. A compiled model composes at every call; copies of the model do, too.

    Args:
        model: a module, or a single layer.

    Yields:
        `model`.

    Raises:
        TypeError: `model` is not a module.
        RuntimeError: `W` or `D` changed after they were composed (found at the next use, and at the end, where no gradient is
            added then; changes through `.data` are not seen), or a loss from inside is back-propagated after the end.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module. Received: {type(model).__name__}")
    from doconv_torch._layers import DOConvMixin  # which reads `kept`

    own: dict[nn.Module, Kept] = {}
    shared: dict[tuple[Any, ...], Kept] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, DOConvMixin) and layer.D is not None and layer not in _kept:
            key = (id(layer.W), id(layer.D), layer.groups, layer.kernel_size)
            own[layer] = shared.setdefault(key, Kept(path or type(layer).__name__))
    _kept.update(own)
    try:
        yield model
        for layer, kept in own.items():
            kept.check(getattr(layer, "W", None), getattr(layer, "D", None))
        sums = [pair for kept in shared.values() if (pair := kept.collected())]
        if sums:
            torch.autograd.backward([kernel for kernel, _ in sums], [grad for _, grad in sums])
    finally:
        for layer, kept in own.items():
            _kept.pop(layer, None)
            kept.ended = True


def kept_kernel(layer: Any, compose: Callable[[], Tensor]) -> Tensor:
    """The kernel of a layer: composed, or inside `composed_once` kept."""
    kept = _kept.get(layer) if _kept and not torch.compiler.is_compiling() else None
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
                f"it, and compose anew. Received: (identity, version, memory) {state}, composed from {self._state}"
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


def _state(*parameters: Any) -> list[tuple[int, ...]]:
    """What changes when a parameter is replaced, written to, or given other memory."""
    return [
        (id(p), 0 if p.is_inference() else p._version, p.data_ptr()) if isinstance(p, Tensor) else (id(p),)
        for p in parameters
    ]
