"""Which layers of a model `overparameterize` converts, with which depth multiplier, and what they are in words."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from doconv_core.geometry import depth_multiplier

L = TypeVar("L")
Where = Callable[[str, Any], bool] | str | Sequence[str]


def select(
    found: Mapping[str, L],
    where: Where | None,
    *,
    aliases: Mapping[str, str] | None = None,
    model: str = "a model without one",
) -> dict[str, L]:
    """The layers that `where` selects, in the order of `found`.

    Args:
        found: layers by path.
        where: a predicate of path and layer, or a glob pattern of paths ("layer1.*" takes everything below layer1), or several
            patterns; None selects all.
        aliases: further paths of layers that a model uses in more than one place, each with its path in `found`.
        model: what the error calls a model without a convolution.

    Raises:
        TypeError: `where` is none of these.
        ValueError: there is no convolution, nothing is selected, or a pattern matches nothing.
    """
    if not found:
        raise ValueError(f"the model has no convolution. Received: {model}")
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
            pattern: {path for name, path in paths.items() if pattern == name or fnmatch.fnmatchcase(name, pattern)}
            for pattern in patterns
        }
        wanted = set[str]().union(*hits.values())
        unused = [pattern for pattern, matched in hits.items() if not matched] if patterns else [where]
    if unused:
        raise ValueError(f"`where` selects no convolution. Received: {unused[0]!r}; the paths are {', '.join(found)}")
    return {path: layer for path, layer in found.items() if path in wanted}


def depth_multipliers(
    selected: Mapping[str, L],
    d_mul: int | None,
    *,
    is_plain: Callable[[str, L], bool],
    describe: Callable[[str, L], str],
    show: Callable[[L], str] | None = None,
) -> dict[str, int]:
    """The depth multiplier of every selected layer that can be over-parameterized.

    Args:
        selected: layers by path, with a `kernel_size`; what `select` returns.
        d_mul: of every layer; None is each kernel's number of taps.
        is_plain: whether a layer has more than one tap and no `D` yet.
        describe: whether a layer is over-parameterized, or why it cannot be, in words; for the error where none is left.
        show: a layer's options, for the error where `d_mul` is too small; by default its kernel size.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is too small for a kernel, or no layer is left.
    """
    chosen = {}
    for path, layer in selected.items():
        if is_plain(path, layer):
            size = tuple(layer.kernel_size)  # type: ignore[attr-defined]
            shown = show(layer) if show else f"kernel_size={size}"
            received = f"{path or 'the layer'}: {shown}, d_mul={d_mul!r}"
            chosen[path] = depth_multiplier(size, d_mul, received=received)
    if not chosen:
        words = listed({path: describe(path, layer) for path, layer in selected.items()})
        raise ValueError(f"nothing is left to over-parameterize. Received: {words}")
    return chosen


def listed(words: Mapping[str, str]) -> str:
    """What there is to say of layers by path, for an error; a single layer has no path."""
    return "; ".join(f"{path or 'the layer'}: {said}" for path, said in words.items() if said)


def describe_convolution(
    name: str, kernel_size: Sequence[int], d_mul: int | None, *, reason: str = "", stacked: Sequence[int] = ()
) -> str:
    """A convolution in words: its class and size; its `d_mul` if it has a `D`, else, if there is one, why it stays plain."""
    words = f"{name} {'x'.join(map(str, kernel_size))}"
    if d_mul is not None:
        words += f", d_mul={d_mul}"
    if stacked:
        words += f", {math.prod(stacked)} layers stacked"
    if d_mul is not None:
        return words
    reason = reason or ("a kernel of one tap has no D" if math.prod(kernel_size) == 1 else "")
    return f"plain {words}: {reason}" if reason else f"plain {words}"
