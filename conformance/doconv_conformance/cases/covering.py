"""What the table covers: the options of a case, what does not go together, and the class that a case has of each.

A *factor* is an option with a few *levels*. The table has every pair of levels of any two factors in at least one exact case,
and every triple among the structural factors, except what `IMPOSSIBLE` says cannot be: a covering array of mixed strength.
`maintenance.covering_array` makes the rows that the cases written by hand lack; a test counts what is uncovered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doconv_conformance.cases.table import Case
    from doconv_core.geometry import ConvGeometry

Levels = Mapping[str, str]

STRUCTURAL = {
    "rank": ("1", "2", "3"),
    "transposed": ("no", "yes"),
    "groups": ("one", "some", "depthwise", "multiplied"),  # multiplied: depthwise with several outputs for each input
    "kernel": ("one tap", "odd", "even", "unequal"),  # equal axes of odd or of even length, or axes that differ
    "stride": ("1", "equal", "unequal"),
    "dilation": ("1", "equal", "unequal"),
    "padding": (
        "none",
        "symmetric",
        "asymmetric",
        "one end",
    ),  # symmetric on every axis; one end: only low or only high
    "mode": ("zeros", "reflect", "replicate", "circular"),
    "output padding": ("none", "equal", "unequal"),
    "columns": ("K", "tiles", "surplus", "tiles and surplus"),  # S: K, a multiple of it, below 2 K, above
}
FACTORS = STRUCTURAL | {
    "channels": ("fewer out", "equal", "more out"),
    "reach": ("plain", "remainder", "beyond", "gaps", "single"),
    "size": ("small", "channels", "positions", "taps"),
    "batch": ("1", "2", "more"),
    "bias": ("no", "yes"),
    "delta": ("zero", "tiny", "unit", "large"),
    "types": (
        "float64/float64", "float32/float32", "float16/float32", "float16/float16", "bfloat16/float32", "bfloat16/bfloat16",
    ),
}  # fmt: skip
# Levels that no case has together.
IMPOSSIBLE: tuple[Mapping[str, tuple[str, ...]], ...] = (
    {"transposed": ("yes",), "mode": ("reflect", "replicate", "circular")},
    {"transposed": ("no",), "output padding": ("equal", "unequal")},
    {"stride": ("1",), "output padding": ("equal", "unequal")},  # below the stride, as every framework wants it
    {"rank": ("1",), "kernel": ("unequal",)},
    {"rank": ("1",), "stride": ("unequal",)},
    {"rank": ("1",), "dilation": ("unequal",)},
    {"rank": ("1",), "output padding": ("unequal",)},
    {"kernel": ("one tap",), "columns": ("tiles", "surplus", "tiles and surplus")},
    {"kernel": ("one tap",), "delta": ("zero", "tiny", "large")},  # there is no D
    {"kernel": ("one tap",), "size": ("taps",)},
    {"groups": ("depthwise",), "channels": ("fewer out", "more out")},
    {"groups": ("multiplied",), "channels": ("fewer out", "equal")},
    # What can be out of reach, see `reach`.
    {"transposed": ("yes",), "reach": ("remainder", "beyond")},
    {"stride": ("1",), "reach": ("remainder", "gaps")},
    {"padding": ("none",), "reach": ("beyond",)},
    {"kernel": ("one tap",), "stride": ("equal", "unequal"), "reach": ("plain", "remainder", "beyond")},
    {"kernel": ("one tap",), "padding": ("symmetric", "asymmetric", "one end"), "transposed": ("no",),
     "reach": ("plain", "remainder")},
    {"size": ("positions",), "reach": ("single",)},
    {"rank": ("3",), "kernel": ("odd",), "size": ("small", "positions")},  # 3x3x3 are many taps
)  # fmt: skip
# The numbers from which a case counts as large, and where nothing is large, as small.
MANY_CHANNELS, MANY_POSITIONS, MANY_TAPS = 16, 18, 25


def levels(case: Case) -> dict[str, str]:
    """The level that a case has of every factor."""
    g = case.geometry
    return {
        "rank": str(g.spatial_rank),
        "transposed": "yes" if g.transposed else "no",
        "groups": _groups(g),
        "kernel": _kernel(g),
        "stride": _each_axis(g.stride, 1),
        "dilation": _each_axis(g.dilation, 1),
        "padding": _padding(g),
        "mode": g.padding_mode,
        "output padding": {"0": "none"}.get(level := _each_axis(g.output_padding, 0), level),
        "columns": _columns(g),
        "channels": {-1: "fewer out", 0: "equal", 1: "more out"}[
            (g.out_channels > g.in_channels) - (g.out_channels < g.in_channels)
        ],
        "reach": reach(g, case.input_size),
        "size": _size(g, case.input_size),
        "batch": str(case.batch) if case.batch < 3 else "more",
        "bias": "yes" if case.bias else "no",
        "delta": case.delta,
        "types": f"{case.dtype}/{case.param_dtype}",
    }


def reach(g: ConvGeometry, input_size: tuple[int, ...]) -> str:
    """How the kernel meets the input, by the first of these that holds on any axis.

    - "single": one position of the output (of the input of a transposed convolution);
    - "gaps": a stride larger than the kernel's span, which skips elements (leaves outputs with nothing but bias);
    - "beyond": padding of at least the span, so that some outputs see nothing but padding;
    - "remainder": elements at the high end that no position reaches.
    """
    span = [d * (k - 1) + 1 for d, k in zip(g.dilation, g.kernel_size, strict=True)]
    if min(input_size if g.transposed else g.output_size(input_size)) == 1:
        return "single"
    if any(stride > length for stride, length in zip(g.stride, span, strict=True)):
        return "gaps"
    if g.transposed:
        return "plain"
    axes = list(zip(input_size, g.padding, span, g.stride, strict=True))
    if any(max(ends) >= length for _, ends, length, _ in axes):
        return "beyond"
    return "remainder" if any((n + sum(ends) - length) % step for n, ends, length, step in axes) else "plain"


def tuples(assignment: Levels) -> Iterator[tuple[tuple[str, str], ...]]:
    """Every pair, and every triple among the structural factors, that a case of these levels covers.

    Where `D_delta` is zero, half of the mathematics is out of sight: only the pairs with that zero count.
    """
    for strength, names in ((2, FACTORS), (3, STRUCTURAL)):
        for chosen in combinations(names, strength):
            if assignment["delta"] != "zero" or "delta" in chosen:
                yield tuple((name, assignment[name]) for name in chosen)


def allows(assignment: Levels) -> bool:
    """Whether nothing of a partial assignment is listed as impossible."""
    return not any(all(assignment.get(name) in bad for name, bad in rule.items()) for rule in IMPOSSIBLE)


def _groups(g: ConvGeometry) -> str:
    if g.groups == 1:
        return "one"
    if g.groups < g.in_channels:
        return "some"
    return "depthwise" if g.out_channels == g.in_channels else "multiplied"


def _kernel(g: ConvGeometry) -> str:
    if g.taps == 1:
        return "one tap"
    if len(set(g.kernel_size)) > 1:
        return "unequal"
    return "odd" if g.kernel_size[0] % 2 else "even"


def _each_axis(values: tuple[int, ...], default: int) -> str:
    if set(values) == {default}:
        return str(default)
    return "equal" if len(set(values)) == 1 else "unequal"


def _padding(g: ConvGeometry) -> str:
    if not any(map(any, g.padding)):
        return "none"
    if all(low == high for low, high in g.padding):
        return "symmetric"
    lows, highs = zip(*g.padding, strict=True)
    return "asymmetric" if any(lows) and any(highs) else "one end"


def _columns(g: ConvGeometry) -> str:
    if g.d_mul == g.taps:
        return "K"
    if g.d_mul % g.taps == 0:
        return "tiles"
    return "surplus" if g.d_mul < 2 * g.taps else "tiles and surplus"


def _size(g: ConvGeometry, input_size: tuple[int, ...]) -> str:
    if max(g.in_channels, g.out_channels) >= MANY_CHANNELS:
        return "channels"
    if g.taps >= MANY_TAPS:
        return "taps"
    return "positions" if max(*input_size, *g.output_size(input_size)) >= MANY_POSITIONS else "small"
