"""Compose once for many passes: inference loops, and micro-batches whose gradients are accumulated."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from doconv_torch._compose_all import Spec
from doconv_torch._kept import KEPT, Kept
from doconv_torch._layers import DOConvMixin, M, check_module
from doconv_torch._sharded import FSDP, is_sharded, is_wrapped

log = logging.getLogger("doconv")
_entering = threading.Lock()


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

    - `W.grad` and `D.grad` are complete at the end: clip gradients and step the optimizer after it. Hooks on the two
      parameters run at the end.
    - Under DistributedDataParallel a backward pass that reduces gradients composes them, with all that was collected before, in
      every mode (`static_graph`, `find_unused_parameters`): run all but the last micro-batch in `no_sync`.
    - An exception inside discards the collected gradients of the kernels; those of other parameters are there already.
    - Where contexts are nested, a layer belongs to the outermost. All threads that run the model inside one context share its
      kernels; two threads can't each have a context of their own over one model.
    - Layers that share `W` and `D` share the kernel. A compiled model composes at every call; copies of the model do, too, and
      layers whose parameters come and go (FSDP, parametrizations, pruning): logged as a warning by the logger "doconv".

    Args:
        model: a module, or a single layer.

    Yields:
        `model`.

    Raises:
        TypeError: `model` is not a module.
        RuntimeError: `W` or `D` changed after they were composed (found at the next use, and at the end, where no gradient is
            added then; changes through `.data` are not seen), a loss from inside is back-propagated after the end, or another
            thread is inside a context of its own.
    """
    check_module(model)
    own: dict[nn.Module, Kept] = {}
    shared: dict[tuple[Any, ...], Kept] = {}
    changing = _changing(model)
    with _entering:
        for path, layer in model.named_modules():
            if not isinstance(layer, DOConvMixin) or id(layer) in changing or layer.D is None:
                continue
            if layer not in KEPT:
                key = (id(layer.W), id(layer.D), Spec.of(layer))
                own[layer] = shared.setdefault(key, Kept(path or type(layer).__name__))
            elif KEPT[layer].thread != threading.get_ident():
                raise RuntimeError(
                    "another thread is inside a composed_once over this model, and would end it for both: enter one context "
                    f"around all threads. Received: {path or type(layer).__name__}, kept by another thread"
                )
        KEPT.update(own)
    if changing:
        log.warning("composed_once: %d layers, sharded, parametrized or pruned, compose at every call", len(changing))
    try:
        yield model
        for layer, kept in own.items():
            kept.check(getattr(layer, "W", None), getattr(layer, "D", None))
        sums = [pair for kept in shared.values() if (pair := kept.collected())]
        if sums:
            torch.autograd.backward([kernel for kernel, _ in sums], [grad for _, grad in sums])
    finally:
        for layer, kept in own.items():
            KEPT.pop(layer, None)
            kept.ended = True


def _changing(model: nn.Module) -> set[int]:
    """The DO layers whose `W` or `D` is another tensor at each pass: FSDP or a hook replaces it, or it is computed."""
    below = {id(layer) for module in model.modules() if is_wrapped(module, FSDP) for layer in module.modules()}
    return {
        id(layer)
        for layer in model.modules()
        if isinstance(layer, DOConvMixin) and (id(layer) in below or not _keeps_parameters(layer))
    }


def _keeps_parameters(layer: DOConvMixin) -> bool:
    """Whether `W` and `D` are whole Parameters of the layer's own, or None."""
    return all(name in layer._parameters and not is_sharded(layer._parameters[name]) for name in ("W", "D"))
