"""Which convolutions of a model are selected."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeVar

from doconv_core import selection
from doconv_core.selection import Where

L = TypeVar("L")
log = logging.getLogger("doconv")

__all__ = ["Where", "log", "select"]


def select(found: Mapping[str, L], where: Where | None) -> dict[str, L]:
    """The layers that `where` selects: a predicate of path and layer, or a glob pattern of paths, or several.

    Raises:
        TypeError: `where` is none of these.
        ValueError: there is no convolution, none is selected, or a pattern matches none.
    """
    if not found:
        raise ValueError("the model has no convolution. Received: a model without one")
    return selection.select(found, where)
