"""Which layers of a model are selected: what `where` is to `overparameterize` in every backend."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

L = TypeVar("L")
Where = Callable[[str, Any], bool] | str | Sequence[str]


def select(found: Mapping[str, L], where: Where | None, *, aliases: Mapping[str, str] | None = None) -> dict[str, L]:
    """The layers that `where` selects, in the order of `found`.

    Args:
        found: layers by path.
        where: a predicate of path and layer, or a glob pattern of paths ("layer1.*" takes everything below layer1), or several
            patterns; None selects all.
        aliases: further paths of layers that a model uses in more than one place, each with its path in `found`.

    Raises:
        TypeError: `where` is none of these.
        ValueError: nothing is selected, or a pattern matches nothing.
    """
    if where is None:
        return dict(found)
    unused: list[object]
    if callable(where):
        wanted = {path for path, layer in found.items() if where(path, layer)}
        unused = [] if wanted else [where]
    else:
        patterns = [where] if isinstance(where, str) else where
        if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
            raise TypeError(f"`where` must be a predicate, a glob pattern or several. Received: {where!r}")
        paths = dict(zip(found, found, strict=True)) | dict(aliases or {})
        hits = {
            pattern: {path for name, path in paths.items() if fnmatch.fnmatchcase(name, pattern)}
            for pattern in patterns
        }
        wanted = set[str]().union(*hits.values())
        unused = [pattern for pattern, matched in hits.items() if not matched] if patterns else [where]
    if unused:
        raise ValueError(f"`where` selects no convolution. Received: {unused[0]!r}; the paths are {', '.join(found)}")
    return {path: layer for path, layer in found.items() if path in wanted}
