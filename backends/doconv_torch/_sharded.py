"""Models whose parameters come and go, and wrappers that keep a list of them: known by name, as not every PyTorch has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

FLAT = "FullyShardedDataParallel"  # FSDP1, which keeps its own copy of the parameters
FSDP = ("FSDPModule", FLAT)


def is_wrapped(module: nn.Module, names: Sequence[str]) -> bool:
    """Whether a module's class, or one that it is derived from, has one of `names`."""
    return any(cls.__name__ in names for cls in type(module).__mro__)


def is_sharded(parameter: Any) -> bool:
    """Whether a parameter is one process's part of a whole."""
    return type(parameter).__name__ == "DTensor" or hasattr(parameter, "_fsdp_flattened")
