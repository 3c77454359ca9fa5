"""Which convolutions of a model are meant."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

L = TypeVar("L")
Where = Callable[[str, Any], bool] | str | Sequence[str]
log = logging.getLogger("doconv")


def select(found: Mapping[str, L], where: Where | None) -> dict[str, L]:
    """The layers that `where` selects: a predicate of path and layer, or a glob pattern of paths, or several.

    Raises:
        ValueError: there is no convolution, or none is selected.
    """
    if not found:
        raise ValueError("the model has no convolution. Received: a model without one")
    selected = {path: layer for path, layer in found.items() if _matches(where, path, layer)}
    if not selected:
        raise ValueError(f"`where` selects no convolution. Received: {where!r}; the paths are {', '.join(found)}")
    return selected


def _matches(where: Where | None, path: str, layer: object) -> bool:
    if where is None:
        return True
    if callable(where):
        return bool(where(path, layer))
    patterns = [where] if isinstance(where, str) else where
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
