"""What the step of an optimizer shows: parameters that no layer has any more, and layers whose `W` and `D` nobody trains.

An optimizer that was built before `overparameterize` or `fold` would do nothing, and the model would train its biases only:
its step raises. A loop that collects parameters by `isinstance(module.weight, nn.Parameter)` leaves out `W` and `D`: the second
step warns. PyTorch calls one hook before the step of every optimizer; after the second one it costs a look-up.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakIdKeyDictionary

# From a parameter to the one that took its place, its name, and the verb that did it.
_replaced: WeakIdKeyDictionary = WeakIdKeyDictionary()
# DO layers until they were warned of, with their model if it is known and the ids of those of their parameters that were in
# an optimizer's step (a weak reference would keep `torch.utils.swap_tensors` from them); how many steps an optimizer made.
_layers: weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref[nn.Module], set[int]]] = weakref.WeakKeyDictionary()
_steps: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()
_hooks: list[Any] = []


def note_replacement(old: nn.Parameter, new: nn.Parameter, name: str, verb: str) -> None:
    """Remember that `new` took the place of `old`."""
    _replaced[old] = weakref.ref(new), name, verb


def note_layer(layer: nn.Module, model: nn.Module | None = None) -> None:
    """Remember a DO layer, whose `W` and `D` an optimizer should hold that holds other parameters of it or of its model."""
    _layers[layer] = weakref.ref(layer if model is None else model), set()
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_before_step))


@torch.compiler.disable
def _before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if _replaced:
        _refuse_stale(optimizer)
    steps = _steps.get(optimizer, 0)
    if steps < 2:
        _steps[optimizer] = steps + 1
        own = {id(parameter) for parameter in _parameters(optimizer)}
        for layer, (_, held) in _layers.items():
            held |= own.intersection(map(id, layer._parameters.values()))
        if steps == 1:  # by now other optimizers, of other parts of the model, have made their first one
            _warn_of_left_out(optimizer, own)


def _refuse_stale(optimizer: torch.optim.Optimizer) -> None:
    parameters = _parameters(optimizer)
    held = {id(parameter) for parameter in parameters}
    for new, name, verb in (_replaced[parameter] for parameter in parameters if parameter in _replaced):
        if id(new()) not in held:
            raise RuntimeError(
                f"the optimizer was built before `{verb}`, and holds {name}, which the model no longer has: build it after. "
                f"Received: {type(optimizer).__name__}"
            )


def _warn_of_left_out(optimizer: torch.optim.Optimizer, own: set[int]) -> None:
    left = [
        layer
        for layer, (known, held) in _layers.items()
        if any(
            p is not None and p.requires_grad and p.grad is not None and id(p) not in held
            for p in map(layer._parameters.get, ("W", "D"))
        )
        and (model := known()) is not None
        and not own.isdisjoint(map(id, model.parameters()))
    ]
    if left:
        for layer in left:
            del _layers[layer]
        shown = ", ".join(map(str, left[:3])) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        warnings.warn(
            "W or D of DO layers have gradients, and no optimizer that has made a step holds them. Their `weight` is computed "
            "and is not a Parameter: give the optimizer `model.parameters()`, or W and D by name, or freeze them by "
            f"requires_grad_(False). Received: {type(optimizer).__name__} without those of {shown}",
            UserWarning,
            stacklevel=5,
        )


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
