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
# DO layers until they were warned of, with their model if it is known; the parameters of all optimizers that
# made a step, and how many steps these were.
_layers: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()
_held: WeakIdKeyDictionary = WeakIdKeyDictionary()
_steps: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()
_hooks: list[Any] = []


def note_replacement(old: nn.Parameter, new: nn.Parameter, name: str, verb: str) -> None:
    """Remember that `new` took the place of `old`."""
    _replaced[old] = weakref.ref(new), name, verb


def note_layer(layer: nn.Module, model: nn.Module | None = None) -> None:
    """Remember a DO layer, whose `W` and `D` an optimizer should hold that holds other parameters of it or of its model."""
    _layers[layer] = weakref.ref(layer if model is None else model)
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_before_step))


@torch.compiler.disable
def _before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if _replaced:
        _refuse_stale(optimizer)
    steps = _steps.get(optimizer, 0)
    if steps < 2:
        _steps[optimizer] = steps + 1
        _held.update((parameter, None) for parameter in _parameters(optimizer))
        if steps == 1:  # by now other optimizers, of other parts of the model, have made their first one
            _warn_of_left_out(optimizer)


def _refuse_stale(optimizer: torch.optim.Optimizer) -> None:
    parameters = _parameters(optimizer)
    held = {id(parameter) for parameter in parameters}
    for new, name, verb in (_replaced[parameter] for parameter in parameters if parameter in _replaced):
        if id(new()) not in held:
            raise RuntimeError(
                f"the optimizer was built before `{verb}`, and holds {name}, which the model no longer has: build it after. "
                f"Received: {type(optimizer).__name__}"
            )


def _warn_of_left_out(optimizer: torch.optim.Optimizer) -> None:
    own = {id(parameter) for parameter in _parameters(optimizer)}
    left = [layer for layer in _layers if any(_is_left_out(layer._parameters.get(name)) for name in ("W", "D"))]
    models = {id(model): model for layer in left if (model := _layers[layer]()) is not None}
    concerned = {key for key, model in models.items() if any(id(parameter) in own for parameter in model.parameters())}
    left = [layer for layer in left if id(_layers[layer]()) in concerned]
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


def _is_left_out(parameter: nn.Parameter | None) -> bool:
    return parameter is not None and parameter.requires_grad and parameter.grad is not None and parameter not in _held


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
