"""Where a failure begins: the smallest geometry that still fails, and for each size the largest that is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from doconv_conformance.cases.table import Case
from doconv_core.geometry import ConvGeometry

MOST_STEPS = 40


@dataclass(frozen=True)
class Below:
    """What is right just below the smallest case that fails: `holds` for cases that are as small in that."""

    words: str
    holds: Any  # `case -> bool`: a lambda that remembers a size by a default has no type that mypy could infer


def shrunk(case: Case, fails: Callable[[Case], bool]) -> tuple[Case, list[Below]]:
    """The smallest case found, and what is right just below it.

    Args:
        case: one that fails.
        fails: whether another one does, on numbers of its own.
    """
    steps, below = 0, dict[str, Below]()
    improved = True
    while improved and steps < MOST_STEPS:
        improved = False
        for name, smaller, side in _smaller(case):
            steps += 1
            if fails(smaller):
                case, improved = smaller, True
                below.clear()
                break
            below[name] = side
            if steps >= MOST_STEPS:
                break
    return case, list(below.values())


def _smaller(case: Case) -> Iterator[tuple[str, Case, Below]]:
    """Each way to make a case smaller by one step: by half first, then by one."""
    g = case.geometry
    for size in _less(case.batch):
        right = Below(f"N = {case.batch} fails, {size} is right", lambda other, size=size: other.batch <= size)
        yield "N", replace(case, batch=size), right
    for axis, length in enumerate(case.input_size):
        for size in _less(length):
            sizes = (*case.input_size[:axis], size, *case.input_size[axis + 1 :])
            if (changed := _valid(case, {}, input_size=sizes)) is not None:
                right = Below(
                    f"an input of {length} along axis {axis} fails, {size} is right",
                    lambda other, axis=axis, size=size: len(other.input_size) > axis and other.input_size[axis] <= size,
                )
                yield f"axis {axis}", changed, right
    for name, words in (("in_channels", "C_in"), ("out_channels", "C_out")):
        of_group = getattr(g, name) // g.groups
        for size in _less(of_group):
            if (changed := _valid(case, {name: size * g.groups})) is not None:
                right = Below(
                    f"{words}/G = {of_group} fails, {size} is right",
                    lambda other, name=name, size=size: getattr(other.geometry, name) // other.geometry.groups <= size,
                )
                yield name, changed, right
    for groups in _less(g.groups):
        sizes_ = {
            "groups": groups,
            **{name: getattr(g, name) // g.groups * groups for name in ("in_channels", "out_channels")},
        }
        if (changed := _valid(case, sizes_)) is not None:
            right = Below(
                f"G = {g.groups} fails, {groups} is right", lambda other, groups=groups: other.geometry.groups <= groups
            )
            yield "G", changed, right


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
