"""Compose once for many passes: inference loops, and micro-batches whose gradients are accumulated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from doconv_torch._kept import KEPT, Kept
from doconv_torch._layers import DOConvMixin

M = TypeVar("M", bound=nn.Module)


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
    own: dict[nn.Module, Kept] = {}
    shared: dict[tuple[Any, ...], Kept] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, DOConvMixin) and layer.D is not None and layer not in KEPT:
            key = (id(layer.W), id(layer.D), layer.groups, layer.kernel_size)
            own[layer] = shared.setdefault(key, Kept(path or type(layer).__name__))
    KEPT.update(own)
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
