"""Where a failure begins: the smallest geometry that still fails, and for each size the largest that is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from doconv_conformance.cases.table import Case
from doconv_core.geometry import ConvGeometry

MOST_STEPS = 40


def shrunk(case: Case, fails: Callable[[Case], bool]) -> tuple[Case, list[str]]:
    """The smallest case found, and in words what is right just below it.

    Args:
        case: one that fails.
        fails: whether another one does, on numbers of its own.
    """
    steps, below = 0, dict[str, str]()
    improved = True
    while improved and steps < MOST_STEPS:
        improved = False
        for name, smaller, words in _smaller(case):
            steps += 1
            if fails(smaller):
                case, improved = smaller, True
                below.clear()
                break
            below[name] = words
            if steps >= MOST_STEPS:
                break
    return case, list(below.values())


def _smaller(case: Case) -> Iterator[tuple[str, Case, str]]:
    """Each way to make a case smaller by one step: by half first, then by one."""
    g = case.geometry
    for size in _less(case.batch):
        yield "N", replace(case, batch=size), f"N = {case.batch} fails, {size} is right"
    for axis, length in enumerate(case.input_size):
        for size in _less(length):
            sizes = (*case.input_size[:axis], size, *case.input_size[axis + 1 :])
            if (changed := _valid(case, {}, input_size=sizes)) is not None:
                yield f"axis {axis}", changed, f"an input of {length} along axis {axis} fails, {size} is right"
    for name, words in (("in_channels", "C_in"), ("out_channels", "C_out")):
        of_group = getattr(g, name) // g.groups
        for size in _less(of_group):
            if (changed := _valid(case, {name: size * g.groups})) is not None:
                yield name, changed, f"{words}/G = {of_group} fails, {size} is right"
    for groups in _less(g.groups):
        sizes_ = {
            "groups": groups,
            **{name: getattr(g, name) // g.groups * groups for name in ("in_channels", "out_channels")},
        }
        if (changed := _valid(case, sizes_)) is not None:
            yield "G", changed, f"G = {g.groups} fails, {groups} is right"


def _less(size: int) -> Iterator[int]:
    yield from dict.fromkeys(smaller for smaller in (size // 2, size - 1) if smaller >= 1)


def _valid(case: Case, sizes: dict[str, int], **fields: Any) -> Case | None:
    try:
        geometry = ConvGeometry.from_json(case.geometry.to_json() | sizes)
        changed = replace(case, geometry=geometry, **fields)
        geometry.output_size(changed.input_size)
    except ValueError:
        return None
    return changed
