"""An optimizer that was built before `overparameterize` or `fold` holds parameters that no layer has: its step raises.

Without this the step would do nothing, and the model would train its biases only. PyTorch calls one hook before the step of
every optimizer; it looks parameters up in a table of those that were replaced, and costs nothing while there are none.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakIdKeyDictionary

# From a parameter to the one that took its place, its name, and the verb that did it.
_replaced: WeakIdKeyDictionary = WeakIdKeyDictionary()
_hooks: list[Any] = []


def replaced(old: nn.Parameter, new: nn.Parameter, name: str, verb: str) -> None:
    """Remember that `new` took the place of `old`."""
    _replaced[old] = weakref.ref(new), name, verb
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_refuse_stale))


@torch.compiler.disable
def _refuse_stale(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if not _replaced:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = {id(parameter) for parameter in parameters}
    for new, name, verb in (_replaced[parameter] for parameter in parameters if parameter in _replaced):
        if id(new()) not in held:
            raise RuntimeError(
                f"the optimizer was built before `{verb}`, and holds {name}, which the model no longer has: build it after. "
                f"Received: {type(optimizer).__name__}"
            )
