"""The kernels of all layers of a model composed at the start of its forward pass, by one operation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from doconv_torch._compose import PLAIN, transformed
from doconv_torch._compose_all import Spec, compose_all
from doconv_torch._kept import KEPT, MADE, Made
from doconv_torch._layers import DOConvMixin, M, check_module
from doconv_torch._recompute import recomputes
from doconv_torch._sharded import FSDP, is_wrapped


class _Passes(threading.local):
    """The forward passes that a thread is in: the module, and what was made for its layers."""

    def __init__(self) -> None:
        self.stack: list[tuple[nn.Module, list[tuple[nn.Module, Made]]]] = []


_passes = _Passes()


def compose_together(model: M, *, enabled: bool = True) -> M:
    """Compose the kernels of all DO layers at the start of each forward pass of `model`, by one operation; in place.

        model = compose_together(overparameterize(model))

    Outputs and gradients stay the same but for rounding. A composition is a few small products, so that a small network and a
    GPU spend their time on calls, not on arithmetic: here all layers are one node of autograd and, on a CUDA device with
    Triton, a few launches in all, the cast to autocast's type included (float32 parameters; a layer's `weight` is of that type
    inside the pass).

    - Call it on the module that is called: its forward pass is what begins and ends. It takes the layers that the model has
      then; call it again after a change, and wrap the model (DistributedDataParallel, `torch.compile`) afterwards.
      DistributedDataParallel gets all `W.grad` and `D.grad` at the end of the backward pass.
    - What can't be composed with the others composes for itself, as without `compose_together`: sharded layers (FSDP), layers
      inside `composed_once` or `recompute_kernels`, layers under another autocast than the model's, layers called outside of
      the model's forward pass; everything under `torch.compile` (whose graph has no such calls), export, `torch.func`.
    - A layer that a pass does not use costs a composition, and gets no gradient.
    - Activation checkpointing keeps the kernels of the layers inside until the next forward pass.

    Args:
        model: a module, or a single layer.
        enabled: False takes it back.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a module.
        ValueError: it has no DO-Conv layer of more than one tap.
    """
    check_module(model)
    for hooks, kind in ((model._forward_pre_hooks, _Before), (model._forward_hooks, _After)):
        for key in [key for key, known in hooks.items() if isinstance(known, kind)]:
            del hooks[key]
            model._forward_hooks_always_called.pop(key, None)
    if enabled:
        layers = list(_layers(model))
        if not layers:
            raise ValueError(f"the model has no DO-Conv layer of more than one tap. Received: {type(model).__name__}")
        model.register_forward_pre_hook(_Before(layers))
        model.register_forward_hook(_After(), always_call=True)
    return model


class _Before:
    """The hook that begins a pass. An object: a copy of the model has one with its own layers."""

    def __init__(self, layers: list[DOConvMixin]) -> None:
        self.layers = layers

    def __call__(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        made: list[tuple[nn.Module, Made]] = []
        _passes.stack.append((module, made))
        if recomputes() or transformed() or torch.jit.is_tracing():
            return
        thread = threading.get_ident()
        shared: dict[tuple[int, int, Spec], list[DOConvMixin]] = {}
        for layer in self.layers:
            if _is_free(layer, thread):
                shared.setdefault((id(layer.W), id(layer.D), Spec.of(layer)), []).append(layer)
        if not shared:
            return
        pairs = [_parameters(same[0]) for same in shared.values()]
        kernels = compose_all([spec for _, _, spec in shared], [parameter for pair in pairs for parameter in pair])
        for kernel, pair, same in zip(kernels, pairs, shared.values(), strict=True):
            for layer in same:
                one = Made(kernel, *pair)
                MADE.setdefault(layer, {})[thread] = one
                made.append((layer, one))


class _After:
    """The hook that ends a pass, also after an error."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not _passes.stack or _passes.stack[-1][0] is not module:
            return
        thread = threading.get_ident()
        for layer, made in _passes.stack.pop()[1]:
            made.open = False
            if not made.again:
                MADE.get(layer, {}).pop(thread, None)


def _parameters(layer: DOConvMixin) -> tuple[Tensor, Tensor]:
    assert layer.D is not None
    return layer.W, layer.D


def _layers(module: nn.Module) -> Iterator[DOConvMixin]:
    """The layers of more than one tap; not below what is sharded or compiled by itself."""
    seen, stack = set(), [module]
    while stack:
        module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if isinstance(module, DOConvMixin) and module.D is not None:
            yield module
        stack += [child for child in module._modules.values() if child is not None and not _apart(child)]


def _apart(module: nn.Module) -> bool:
    compiled = module._compiled_call_impl is not None or isinstance(module, torch._dynamo.OptimizedModule)
    return compiled or is_wrapped(module, FSDP)


def _is_free(layer: DOConvMixin, thread: int) -> bool:
    """Whether a layer can be composed now: it may have been folded, sharded, or taken by another pass."""
    if not isinstance(layer, DOConvMixin) or (KEPT and layer in KEPT):
        return False
    W, D = layer.W, layer.D
    if D is None or type(W) not in PLAIN or type(D) not in PLAIN:
        return False
    if not W.data_ptr():  # FSDP frees memory between passes
        return False
    made = MADE.get(layer)
    return made is None or thread not in made or not made[thread].open
