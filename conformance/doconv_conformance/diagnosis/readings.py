"""How a port may read a whole geometry: one misread option, on every axis or on some, or several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import combinations, product

from doconv_conformance.diagnosis.options import (
    Rule,
    dilations,
    modes,
    output_paddings,
    overlaps,
    paddings,
    sizes,
    strides,
)
from doconv_conformance.diagnosis.planted import Options
from doconv_core.geometry import ConvGeometry

# On which axes a rule may hold only: `(geometry, axis) -> bool`.
ON_AXES: dict[str, Callable[[ConvGeometry, int], bool]] = {
    "on the first axis": lambda g, axis: axis == 0,
    "on the last axis": lambda g, axis: axis == g.spatial_rank - 1,
    "on every axis but the first": lambda g, axis: axis > 0,
    "on every axis but the last": lambda g, axis: axis < g.spatial_rank - 1,
    "on axes where the kernel is even": lambda g, axis: g.kernel_size[axis] % 2 == 0,
    "on axes where the kernel is odd and longer than 1": lambda g, axis: (
        g.kernel_size[axis] % 2 == 1 < g.kernel_size[axis]
    ),
    "on axes with a stride": lambda g, axis: g.stride[axis] > 1,
    "on axes with a dilation": lambda g, axis: g.dilation[axis] > 1,
    "on axes without a stride": lambda g, axis: g.stride[axis] == 1,
    "on axes without a dilation": lambda g, axis: g.dilation[axis] == 1,
    "on axes whose two ends are padded differently": lambda g, axis: g.padding[axis][0] != g.padding[axis][1],
}
PER_AXIS = ("stride", "dilation", "low", "high", "output_padding")


def _with_size_kept(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The same misreadings where elements are read, with the right size of the output."""
    kept = (
        Rule(
            rule.field,
            f"{rule.name}-size-kept",
            f"{rule.words} where it reads, with the right size of the output",
            lambda o, g, rule=rule: replace(rule.change(o, g), keeps_size=True),
        )
        for rule in rules
    )
    return (*rules, *kept)


def families(g: ConvGeometry) -> list[tuple[Rule, ...]]:
    """The options that a geometry has, each with its rules."""
    found = [_with_size_kept(strides()), _with_size_kept(dilations()), _with_size_kept(paddings()), sizes()]
    if g.transposed:
        found += [output_paddings(), overlaps()]
    if g.padding_mode != "zeros":
        found.append(modes())
    return found


def on_axes(rules: Sequence[Rule]) -> list[Rule]:
    """The same rules, each on some axes only."""

    def of(rule: Rule, where: str, holds: Callable[[ConvGeometry, int], bool]) -> Rule:
        def change(o: Options, g: ConvGeometry) -> Options:
            changed = rule.change(o, g)
            mixed = {
                name: tuple(new if holds(g, axis) else old for axis, (old, new) in enumerate(zip(*pair, strict=True)))
                for name in PER_AXIS
                if (pair := (getattr(o, name), getattr(changed, name)))
            }
            return replace(changed, **mixed)

        words = f"{rule.words.split(' (')[0]} {where}"
        return Rule(rule.field, f"{rule.name}-{where.replace(' ', '-')}", words, change)

    return [of(rule, where, holds) for rule in rules for where, holds in ON_AXES.items()]


@cache
def _on_some_axes() -> tuple[Rule, ...]:
    return _with_size_kept(on_axes([*strides(), *dilations(), *paddings()]))


@lru_cache(maxsize=256)
def readings(g: ConvGeometry) -> tuple[tuple[Rule, ...], ...]:
    """Misreadings of one option at a geometry: the rules that give the same options together, those of every axis first."""
    asked, found = Options.of(g), dict[Options, list[Rule]]()
    for rule in (*(rule for family in families(g) for rule in family), *_on_some_axes()):
        try:
            changed = rule.change(asked, g)
        except (ValueError, ZeroDivisionError, IndexError):
            continue
        if replace(changed, keeps_size=False) != asked:
            found.setdefault(changed, []).append(rule)
    return tuple(map(tuple, found.values()))


# So many options may be misread at once.
MOST_CHANGES = 3
Steps = tuple[frozenset[int], frozenset[int]]


@cache
def combinations_of(
    g: ConvGeometry, steps: tuple[Steps, ...] = ()
) -> tuple[tuple[Options, tuple[tuple[Rule, ...], ...]], ...]:
    """Every different reading of a geometry, fewest changes first, with all sets of rules that give it.

    Args:
        g: what was asked.
        steps: for each axis the strides and dilations that were seen; others are left out. Nothing seen excludes nothing.
    """
    asked = Options.of(g)
    by_value: list[dict[Options, list[Rule]]] = []
    for family in families(g):
        values: dict[Options, list[Rule]] = {}
        for rule in family:
            try:
                changed = rule.change(asked, g)
            except (ValueError, ZeroDivisionError, IndexError):
                continue
            if replace(changed, keeps_size=False) != asked and not _is_excluded(changed, asked, steps):
                values.setdefault(changed, []).append(rule)
        by_value.append(values)
    found: dict[Options, list[tuple[Rule, ...]]] = {}
    for count in range(1, MOST_CHANGES + 1):
        for families_ in combinations(by_value, count):
            for chosen in product(*families_):
                options = _merged(asked, chosen)
                if options == asked or not _seen(options, steps):
                    continue
                known = found.setdefault(options, [])
                if not known or len(known[0]) == count:
                    known += product(*(values[value] for values, value in zip(families_, chosen, strict=True)))
    return tuple((options, tuple(sets)) for options, sets in found.items())


def _is_excluded(changed: Options, asked: Options, steps: tuple[Steps, ...]) -> bool:
    """Whether a stride or a dilation that is changed is none of those that were seen: no other change makes up for it."""
    strides_, dilations_ = changed.stride != asked.stride, changed.dilation != asked.dilation
    of_changed = tuple(
        (seen if strides_ else frozenset(), of_taps if dilations_ else frozenset()) for seen, of_taps in steps
    )
    return not _seen(changed, of_changed)


def _merged(asked: Options, chosen: Sequence[Options]) -> Options:
    """What each of them changes: they change different fields, but for the low ends."""
    values = {name: getattr(asked, name) for name in asked.__dataclass_fields__}
    for options in chosen:
        for name, value in values.items():
            other = getattr(options, name)
            if other != getattr(asked, name):
                values[name] = other if value == getattr(asked, name) else value
    return Options(**values)


def _seen(options: Options, steps: tuple[Steps, ...]) -> bool:
    return all(
        (not strides or stride in strides) and (not dilations or dilation in dilations)
        for (strides, dilations), stride, dilation in zip(steps, options.stride, options.dilation, strict=False)
    )
