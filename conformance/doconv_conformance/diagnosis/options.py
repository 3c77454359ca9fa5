"""What ports make of strides, dilations, padding and modes: rules from what was asked to what was done, each with its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

from doconv_conformance.diagnosis.moves import AXES
from doconv_conformance.diagnosis.planted import Options
from doconv_conformance.faults.faulty_port import Fault
from doconv_core.geometry import ConvGeometry

# `(options, geometry) -> options`. A lambda that remembers a variable by a default has no type that mypy could infer.
Change = Any
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """One misreading of one option; `change` gives the options with it."""

    field: str
    name: str
    words: str
    change: Change

    @cache  # noqa: B019  rules are made once, and so are their faults
    def fault(self, hook: str, where: str = "") -> Fault:
        """As a fault; `where` says in which part ("in the gradient of x") where the hook is not that of the whole."""
        words = f"{self.words} {where}".strip()
        return Fault(f"{hook}-{self.name}", words, f"the {self.field} {where}".strip(), {hook: self.change})


def _of(field: str, name: str, words: str, rule: Any) -> Rule:
    def change(o: Options, g: ConvGeometry) -> Options:
        changed: Any = {field: tuple(rule(getattr(o, field), o, g))}
        return replace(o, **changed)

    return Rule(field, f"{field}-{name}", words, change)


def _numbers(field: str, plural: str, none: int) -> Iterator[Rule]:
    """Rules that strides, dilations and output paddings share."""
    yield _of(field, "exchanged", f"exchanges the {plural} of the axes", lambda v, o, g: v[::-1])
    yield _of(field, "ignored", f"ignores the {field.replace('_', ' ')}", lambda v, o, g: (none,) * len(v))
    yield _of(
        field,
        "of-first",
        f"uses the first axis's {field.replace('_', ' ')} on every axis",
        lambda v, o, g: v[:1] * len(v),
    )
    yield _of(
        field,
        "of-last",
        f"uses the last axis's {field.replace('_', ' ')} on every axis",
        lambda v, o, g: v[-1:] * len(v),
    )
    yield _of(
        field,
        "largest",
        f"uses the largest {field.replace('_', ' ')} on every axis",
        lambda v, o, g: (max(v),) * len(v),
    )
    yield _of(
        field,
        "smallest",
        f"uses the smallest {field.replace('_', ' ')} on every axis",
        lambda v, o, g: (min(v),) * len(v),
    )
    for step, words in ((1, "next"), (-1, "previous")):
        yield _of(
            field,
            f"rotated-{words}",
            f"uses the {words} axis's {field.replace('_', ' ')} on each axis in 3-D",
            lambda v, o, g, step=step: v[step:] + v[:step] if len(v) == 3 else v,
        )
    for first, second in ((0, 1), (1, 2)):
        yield _of(
            field,
            f"exchanged-{first}-{second}",
            f"exchanges the {plural} of the {AXES[first]} and the {AXES[second]} axis in 3-D",
            lambda v, o, g, at=(first, second): _swap(v, *at) if len(v) == 3 else v,
        )
    for axis in range(3):
        yield _of(
            field,
            f"ignored-{axis}",
            f"ignores the {field.replace('_', ' ')} of the {AXES[axis]} axis",
            lambda v, o, g, axis=axis: tuple(none if a == axis else x for a, x in enumerate(v)),
        )
    yield _of(
        field,
        "ignored-last",
        f"ignores the {field.replace('_', ' ')} of the last axis",
        lambda v, o, g: (*v[:-1], none),
    )
    yield _of(
        field,
        "ignored-last-two",
        f"ignores the {field.replace('_', ' ')} of the last two axes",
        lambda v, o, g: (*v[:-2], *(none,) * min(2, len(v))),
    )
    for at, of, words in ((-2, -1, "the last axis's {} on the axis before it, too"),
                          (-1, -2, "the {} of the axis before the last on the last one, too"),
                          (-1, 0, "the first axis's {} on the last one, too"),
                          (0, -1, "the last axis's {} on the first one, too"),
                          (0, 1, "the second axis's {} on the first one, too"),
                          (1, 0, "the first axis's {} on the second one, too")):  # fmt: skip
        yield _of(
            field,
            f"taken-{at}-{of}",
            f"uses {words.format(field.replace('_', ' '))}",
            lambda v, o, g, at=at, of=of: (
                [v[of] if axis == at % len(v) else x for axis, x in enumerate(v)] if len(v) > 1 else v
            ),
        )
    for more in (1, -1):
        yield _of(
            field,
            f"plus-{more}",
            f"uses the {field.replace('_', ' ')} {'plus' if more > 0 else 'minus'} 1",
            lambda v, o, g, more=more: tuple(max(none, x + more) for x in v),
        )
    yield _of(
        field,
        "plus-1-above",
        f"uses the {field.replace('_', ' ')} plus 1 where it is above {none}",
        lambda v, o, g: tuple(x + 1 if x > none else x for x in v),
    )


def _swap(values: Numbers, first: int, second: int) -> Numbers:
    changed = list(values)
    changed[first], changed[second] = changed[second], changed[first]
    return tuple(changed)


@cache
def strides() -> tuple[Rule, ...]:
    """Of the stride."""
    return (
        *_numbers("stride", "strides", 1),
        _of("stride", "dilation", "takes the dilation for the stride", lambda v, o, g: g.dilation),
        Rule(
            "stride",
            "stride-dilation-exchanged",
            "takes the stride for the dilation and the dilation for the stride",
            lambda o, g: replace(o, stride=o.dilation, dilation=o.stride),
        ),
    )


@cache
def dilations() -> tuple[Rule, ...]:
    """Of the dilation."""
    return (
        *_numbers("dilation", "dilations", 1),
        _of("dilation", "stride", "takes the stride for the dilation", lambda v, o, g: g.stride),
    )


@cache
def output_paddings() -> tuple[Rule, ...]:
    """Of the output padding of a transposed convolution."""

    def at_low_end(o: Options, g: ConvGeometry) -> Options:
        """What was kept at the high end is kept at the low end: the size stays."""
        low = tuple(a - b for a, b in zip(o.low, g.output_padding, strict=True))
        return replace(o, low=low, output_padding=(0,) * len(low))

    return (
        *_numbers("output_padding", "output paddings", 0),
        Rule("output_padding", "output_padding-low", "puts the output padding at the low end", at_low_end),
    )


@cache
def paddings() -> tuple[Rule, ...]:
    """Of the padding, both ends together: a rule from `(low, high)` of an axis, or of all axes, to other pairs."""

    def pairs(name: str, words: str, rule: Any) -> Rule:
        def change(o: Options, g: ConvGeometry) -> Options:
            low, high = zip(*rule(list(zip(o.low, o.high, strict=True)), g), strict=True)
            return replace(o, low=tuple(low), high=tuple(high))

        return Rule("padding", f"padding-{name}", words, change)

    def each(name: str, words: str, rule: Callable[[int, int], tuple[int, int]]) -> Rule:
        return pairs(name, words, lambda p, g: [rule(low, high) for low, high in p])

    def scaled(by: Callable[[ConvGeometry], Numbers], sign: int) -> Callable[..., list[tuple[int, int]]]:
        def rule(p: list[tuple[int, int]], g: ConvGeometry) -> list[tuple[int, int]]:
            return [
                (low * n, high * n) if sign > 0 else (low // n, high // n)
                for (low, high), n in zip(p, by(g), strict=True)
            ]

        return rule

    def same(p: list[tuple[int, int]], g: ConvGeometry) -> list[tuple[int, int]]:
        spans = [d * (k - 1) for d, k in zip(g.dilation, g.kernel_size, strict=True)]
        return [(span // 2, span - span // 2) for span in spans]

    found = [
        each("sides-exchanged", "exchanges the low and the high end of the padding", lambda low, high: (high, low)),
        pairs("axes-exchanged", "exchanges the padding of the axes", lambda p, g: p[::-1]),
        pairs(
            "both-exchanged",
            "has the list of paddings in reverse order: last axis first, high end first",
            lambda p, g: [(high, low) for low, high in p[::-1]],
        ),
        pairs("ignored", "ignores the padding", lambda p, g: [(0, 0)] * len(p)),
        each("low-ignored", "ignores the padding at the low end", lambda low, high: (0, high)),
        each("high-ignored", "ignores the padding at the high end", lambda low, high: (low, 0)),
        each("low-twice", "uses the low padding at both ends", lambda low, high: (low, low)),
        each("high-twice", "uses the high padding at both ends", lambda low, high: (high, high)),
        each("low-only", "puts the whole padding at the low end", lambda low, high: (low + high, 0)),
        each("high-only", "puts the whole padding at the high end", lambda low, high: (0, low + high)),
        each(
            "symmetric",
            "halves the padding, the larger half at the high end",
            lambda low, high: ((low + high) // 2, (low + high + 1) // 2),
        ),
        each(
            "symmetric-low",
            "halves the padding, the larger half at the low end",
            lambda low, high: ((low + high + 1) // 2, (low + high) // 2),
        ),
        each(
            "largest", "uses the larger of low and high padding at both ends", lambda low, high: (max(low, high),) * 2
        ),
        each(
            "smallest", "uses the smaller of low and high padding at both ends", lambda low, high: (min(low, high),) * 2
        ),
        each(
            "early",
            "starts one element too early (low padding one too large, high one too small)",
            lambda low, high: (low + 1, high - 1),
        ),
        each(
            "late",
            "starts one element too late (low padding one too small, high one too large)",
            lambda low, high: (low - 1, high + 1),
        ),
        each(
            "late-padded",
            "starts one element too late where there is low padding",
            lambda low, high: (low - 1, high + 1) if low else (low, high),
        ),
        each(
            "early-padded",
            "starts one element too early where there is high padding",
            lambda low, high: (low + 1, high - 1) if high else (low, high),
        ),
        each("low-plus", "pads one more at the low end", lambda low, high: (low + 1, high)),
        each("high-plus", "pads one more at the high end", lambda low, high: (low, high + 1)),
        each("low-minus", "pads one less at the low end", lambda low, high: (low - 1, high) if low else (low, high)),
        each("high-minus", "pads one less at the high end", lambda low, high: (low, high - 1) if high else (low, high)),
        each("plus", "pads one more at both ends", lambda low, high: (low + 1, high + 1)),
        each(
            "minus",
            "pads one less at both ends where there is padding",
            lambda low, high: (max(low - 1, 0), max(high - 1, 0)),
        ),
        each("doubled", "pads twice as much", lambda low, high: (2 * low, 2 * high)),
        pairs("of-first", "uses the first axis's padding on every axis", lambda p, g: [p[0]] * len(p)),
        pairs("of-last", "uses the last axis's padding on every axis", lambda p, g: [p[-1]] * len(p)),
        pairs("low-of-first", "uses the first axis's low padding everywhere", lambda p, g: [(p[0][0],) * 2] * len(p)),
        pairs(
            "rotated",
            "uses the next axis's padding on each axis in 3-D",
            lambda p, g: p[1:] + p[:1] if len(p) == 3 else p,
        ),
        pairs(
            "rotated-back",
            "uses the previous axis's padding on each axis in 3-D",
            lambda p, g: p[-1:] + p[:-1] if len(p) == 3 else p,
        ),
        pairs(
            "exchanged-0-1",
            "exchanges the padding of the first and the second axis in 3-D",
            lambda p, g: [p[1], p[0], *p[2:]] if len(p) == 3 else p,
        ),
        pairs(
            "exchanged-1-2",
            "exchanges the padding of the second and the third axis in 3-D",
            lambda p, g: [p[0], p[2], p[1]] if len(p) == 3 else p,
        ),
        pairs(
            "low-of-last-first",
            "takes the last axis's low padding for the first axis",
            lambda p, g: [(p[-1][0], p[0][1]), *p[1:]],
        ),
        pairs(
            "low-of-first-last",
            "takes the first axis's low padding for the last axis",
            lambda p, g: [*p[:-1], (p[0][0], p[-1][1])],
        ),
        pairs("undilated", "divides the padding by the dilation", scaled(lambda g: g.dilation, -1)),
        pairs("dilated", "multiplies the padding by the dilation", scaled(lambda g: g.dilation, 1)),
        pairs("unstrided", "divides the padding by the stride", scaled(lambda g: g.stride, -1)),
        pairs("strided", "multiplies the padding by the stride", scaled(lambda g: g.stride, 1)),
        pairs("same", "pads to keep the size (SAME) whatever was asked", same),
        pairs(
            "as-correlation",
            "crops by dilation * (kernel - 1) - padding",
            lambda p, g: [
                (d * (k - 1) - low, d * (k - 1) - high)
                for (low, high), d, k in zip(p, g.dilation, g.kernel_size, strict=True)
            ],
        ),
    ]
    for axes, words in ((3, ""), (2, " of the last two axes")):

        def undilated(p: list[tuple[int, int]], g: ConvGeometry, axes: int = axes) -> list[tuple[int, int]]:
            more = [(d - 1) * (k - 1) for d, k in zip(g.dilation, g.kernel_size, strict=True)]
            kept = max(len(more) - axes, 0)
            return [*p[:kept], *((low + n, high - n) for (low, high), n in zip(p[kept:], more[kept:], strict=True))]

        found.append(
            pairs(
                f"undilated-{axes}",
                f"places the kernel{words} by its taps alone, (dilation - 1) * (kernel - 1) too early",
                undilated,
            )
        )
    for axis in range(3):
        found.append(
            pairs(
                f"sides-exchanged-{axis}",
                f"exchanges the low and the high end of the padding of the {AXES[axis]} axis",
                lambda p, g, axis=axis: [(high, low) if a == axis else (low, high) for a, (low, high) in enumerate(p)],
            )
        )
        found.append(
            pairs(
                f"ignored-{axis}",
                f"ignores the padding of the {AXES[axis]} axis",
                lambda p, g, axis=axis: [(0, 0) if a == axis else pair for a, pair in enumerate(p)],
            )
        )
    found.append(pairs("ignored-last", "ignores the padding of the last axis", lambda p, g: [*p[:-1], (0, 0)]))
    # The output keeps its size: what is padded too little at one end is made up for at the other, or cut.
    found.append(each("shifted-to-low", "moves all low padding to the high end", lambda low, high: (0, high + low)))
    return tuple(found)


PADDED_WITH = {
    "zeros": "zeros",
    "replicate": "the edge repeated",
    "reflect": "the reflection",
    "circular": "the wrap around",
    "symmetric": "the reflection with the edge repeated",
}


@cache
def modes() -> tuple[Rule, ...]:
    """Of the padding mode."""
    names = PADDED_WITH | {
        "modulo-1": "a wrap around by one element less than the axis has",
        "modulo+1": "a wrap around by one element more than the axis has",
    }
    found = [
        Rule(
            "padding mode",
            f"mode-{name}",
            f"pads with {words} whatever the mode",
            lambda o, g, name=name: replace(o, mode=name),
        )
        for name, words in names.items()
    ]
    for end, other in (("low", "high"), ("high", "low")):
        found.append(
            Rule(
                "padding mode",
                f"mode-{end}-only",
                f"pads by the mode at the {end} end and with zeros at the {other} end",
                lambda o, g, end=end: o if o.mode == "zeros" else replace(o, mode=f"{o.mode}-{end}"),
            )
        )
    for asked, name in product(("reflect", "replicate", "circular"), names):
        if name != asked:
            found.append(
                Rule(
                    "padding mode",
                    f"mode-{asked}-as-{name}",
                    f"pads with {names[name]} where the mode is {asked}",
                    lambda o, g, asked=asked, name=name: replace(o, mode=name if o.mode == asked else o.mode),
                )
            )
    return tuple(found)


@cache
def modes_of_ends() -> tuple[Rule, ...]:
    """Of one padding mode, at one end or along some axes only."""
    axes: dict[str, Callable[[int, int], bool]] = {
        "": lambda axis, rank: True,
        " along the first axis": lambda axis, rank: axis == 0,
        " along the last axis": lambda axis, rank: axis == rank - 1,
        " along every axis but the first": lambda axis, rank: axis > 0,
        " along every axis but the last": lambda axis, rank: axis < rank - 1,
    }

    def changed(o: Options, g: ConvGeometry, asked: str, mode: str, where: Callable[[int, int], bool]) -> Options:
        if g.padding_mode == "zeros" or asked not in ("", g.padding_mode):
            return o
        mode = mode.replace("asked", g.padding_mode)
        rank = g.spatial_rank
        return replace(o, mode=tuple(mode if where(axis, rank) else g.padding_mode for axis in range(rank)))

    found = []
    for asked, (said, where) in product(("", "reflect", "replicate", "circular"), axes.items()):
        kinds = {way: (way, words) for way, words in PADDED_WITH.items() if said and way != asked}
        for way, words in PADDED_WITH.items():
            if way != asked and (way != "zeros" or said):  # zeros at one end of every axis are among `modes`
                kinds[f"low-{way}"] = f"{way}|asked", f"{words} at the low end"
                kinds[f"high-{way}"] = f"asked|{way}", f"{words} at the high end"
        for end, mode in (("low", "absolute|asked"), ("high", "asked|absolute")):
            kinds[f"absolute-{end}"] = mode, f"what is at |q| modulo the size for position q at the {end} end"
        kinds["below-size"] = "asked-below-size", "zeros at an end where the padding is as long as the axis"
        if asked == "circular":
            kinds["by-high"] = (
                "circular-by-high",
                "a wrap around shifted by the high padding where the low one is meant",
            )
        for name, (mode, words) in kinds.items():
            of_mode = f"where the mode is {asked}" if asked else "whatever the mode"
            found.append(
                Rule(
                    "padding of every end and axis",
                    f"mode-{asked}-{name}{said.replace(' ', '-')}",
                    f"pads with {words}{said}, {of_mode}",
                    lambda o, g, asked=asked, mode=mode, where=where: changed(o, g, asked, mode, where),
                )
            )
    return tuple(found)


@cache
def sizes() -> tuple[Rule, ...]:
    """Of the size of the output."""
    return (
        Rule(
            "size of the output",
            "size-ceil",
            "rounds the size of the output up, beyond the padding",
            lambda o, g: replace(o, size="ceil"),
        ),
        Rule(
            "size of the output",
            "size-undilated",
            "computes the size of the output without the dilation",
            lambda o, g: replace(o, size="undilated"),
        ),
    )


@cache
def overlaps() -> tuple[Rule, ...]:
    """Of taps that reach the same output position of a transposed convolution."""

    def rule(which: str) -> Rule:
        words = f"keeps only the share of the {which} tap where several taps reach one output position: it assigns, not adds"
        return Rule("sum over the taps", f"overlap-{which}", words, lambda o, g: replace(o, overlap=which))

    return rule("last"), rule("first")
