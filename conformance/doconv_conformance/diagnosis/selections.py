"""Parts of a tensor in plain words, and what was done to them: "has zeros for y at the last output channel".

Nothing is listed by cause. What a port gave is compared with what it should have given, and the plainest part that holds all
that is wrong, with one relation that holds everywhere in it, is the finding. Parts are conditions on one or two indices, so
they mean the same on every geometry, and a claim can be checked there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha1
from itertools import combinations
from typing import Any

import numpy as np

from doconv_conformance.diagnosis.moves import AXES, TENSORS
from doconv_conformance.faults.faulty_port import Fault
from doconv_core.geometry import ConvGeometry

MOST_FITS = 6
# An offset is a number that was added, not what a rounding left, where it is more of the largest value.
NO_ROUNDING = 2.0**-20
# What is beyond a limit is so by more than this part of it.
BEYOND = 2.0**-7
MOST_LISTED = 8
# A part of more than this is no place; a second condition must leave out so much more.
SMALL, LONGER = 0.8, 0.05
# In fewer cases any place may be the same by accident.
LEAST_SAMPLES = 3
# Where a number is named it may be one of the few cases only.
NUMBERED, WIDE, ACCIDENT = "^{}| from | below ", "multiple of (8|16|32)", 0.3
# `(values, size) -> mask`. A lambda that remembers a variable by a default has no type that mypy could infer.
Holds = Any
KERNELS = ("kernel", "conv_kernel", "grad_x_kernel", "grad_kernel", "out_weight")
ACTIVATIONS = {"x": "input", "y": "output", "bare": "output", "grad_x": "input", "out_y": "output"}
WORDS = {
    **TENSORS,
    "out_weight": "the folded weight",
    "out_bias": "the folded bias",
    "out_y": "the folded layer's output",
}


@dataclass(frozen=True)
class Condition:
    """A part of the values of an index, the same on every size; `{}` in the words is the index's name."""

    words: str
    holds: Holds


@dataclass(frozen=True)
class Axis:
    """One index of a tensor's elements.

    Attributes:
        name: of the index, singular.
        at: its value at each element, an array that broadcasts to the tensor.
        size: how many values it has.
        parts: the parts of it that have words; those of `conditions` where there are none.
    """

    name: str
    at: np.ndarray
    size: int
    parts: tuple[Condition, ...] = ()


def conditions(size: int) -> Iterator[Condition]:
    """The plain parts of `size` values, the plainest first."""
    yield Condition("the last {}", lambda at, n: at == n - 1)
    yield Condition("the first {}", lambda at, n: at == 0)
    yield Condition("each {} but the first", lambda at, n: at > 0)
    yield Condition("each {} but the last", lambda at, n: at < n - 1)
    yield Condition("each odd {}", lambda at, n: at % 2 == 1)
    yield Condition("each even {}", lambda at, n: at % 2 == 0)
    yield Condition("the first and the last {}", lambda at, n: (at == 0) | (at == n - 1))
    yield Condition("each {} of the upper half", lambda at, n: at >= (n + 1) // 2)
    yield Condition("the middle {}", lambda at, n: at == n // 2)
    for width in (2, 4, 8, 16, 32):
        if size % width:
            yield Condition(
                f"each {{}} beyond the last multiple of {width}", lambda at, n, width=width: at >= n // width * width
            )
        if size > width and size % width:
            yield Condition(
                f"each {{}} beyond the last multiple of {width}, where there are {width} or more",
                lambda at, n, width=width: (at >= n // width * width) & (n > width),
            )
    for value in range(1, min(size - 1, 64)):
        yield Condition(f"{{}} {value}", lambda at, n, value=value: at == value)
        yield Condition(f"each {{}} from {value + 1} on", lambda at, n, value=value: at > value)
        yield Condition(f"each {{}} below {value + 1}", lambda at, n, value=value: at <= value)


def axes(tensor: str, shape: Sequence[int], g: ConvGeometry) -> list[Axis]:
    """The indices of a tensor, by the channels' real numbers whatever its layout; axes of space from either end."""
    found: list[Axis] = []

    def along(axis: int, values: np.ndarray, name: str) -> None:
        lengths = [1] * len(shape)
        lengths[axis] = len(values)
        found.append(Axis(name, values.reshape(lengths), int(values.max()) + 1 if len(values) else 0))

    def channels(axis: int, side: str) -> None:
        along(axis, np.arange(shape[axis]), f"{side} channel")
        if g.groups > 1 and shape[axis] % g.groups == 0:
            along(axis, np.arange(shape[axis]) % (shape[axis] // g.groups), f"{side} channel of each group")
            along(axis, np.arange(shape[axis]) // (shape[axis] // g.groups), "group")

    def space(first: int) -> None:
        for axis in range(first, len(shape)):
            along(axis, np.arange(shape[axis]), f"position of the {AXES[axis - first]} spatial axis")
        along(len(shape) - 1, np.arange(shape[-1]), "position of the last axis")

    if tensor in ACTIVATIONS:
        along(0, np.arange(shape[0]), "image")
        channels(1, ACTIVATIONS[tensor])
        if (ACTIVATIONS[tensor] == "input") != g.transposed:
            found += _reached(shape, g)
        if ACTIVATIONS[tensor] == "output" and any(g.output_padding):
            found.append(_output_padding(shape, g))
        space(2)
        found += _counted(shape)
    elif tensor in ("bias", "grad_bias", "out_bias"):
        channels(0, "output")
    elif tensor in ("D_delta", "grad_D_delta", "grad_delta_D"):
        channels(0, "input")
        along(1, np.arange(shape[1]), "tap")
        along(2, np.arange(shape[2]), "column")
        found += tiles(np.arange(shape[1])[None, :, None], np.arange(shape[2])[None, None, :], g)
    else:
        found += pairs(g, (slice(None), slice(None), *[None] * (len(shape) - 2)))
        if tensor in KERNELS:
            taps = np.arange(g.taps).reshape(1, 1, *g.kernel_size)
            found.append(Axis("tap", taps, g.taps))
            space(2)
        else:
            along(2, np.arange(shape[2]), "column")
            found += tiles(None, np.arange(shape[2])[None, None, :], g)
    return [axis for axis in found if axis.size > 1]


def _reached(shape: Sequence[int], g: ConvGeometry) -> list[Axis]:
    """Whether a tap reaches a position of the larger side, the input of a convolution or the output of a transposed one.

    Along each axis, and along all of them: 0 where one does, 1 in a gap, 2 beyond the last. Copies in the padding do not count.
    """
    rank, along = len(shape) - 2, list[np.ndarray]()
    for axis, size in enumerate(shape[2:]):
        span, (low, high) = g.dilation[axis] * (g.kernel_size[axis] - 1) + 1, g.padding[axis]
        of_input = (size + low + high - g.output_padding[axis] - span) // g.stride[axis] + 1
        count = of_input if g.transposed else g.output_size(tuple(shape[2:]))[axis]
        reached = (
            np.add.outer(g.stride[axis] * np.arange(count), g.dilation[axis] * np.arange(g.kernel_size[axis])) - low
        )
        at = np.arange(size)
        side = np.where(np.isin(at, reached), 0, np.where(at > reached.max(initial=-1), 2, 1))
        along.append(side.reshape(1, 1, *[size if at == axis else 1 for at in range(rank)]))
    whole = along[0]
    for side in along[1:]:
        whole = np.maximum(whole, side)
    names = [*(f" of the {AXES[axis]} spatial axis" for axis in range(rank)), " of the last axis", ""]
    return [
        Axis(f"reach{name or ' along all axes'}", side, 3, tuple(
            Condition(words.format(f"the positions{name}"), lambda at, n, least=least, most=most: (at >= least) & (at <= most))
            for words, least, most in REACHES
        ))
        for name, side in zip(names, [*along, along[-1], whole], strict=True)
    ]  # fmt: skip


REACHES = (
    ("{} that no tap reaches", 1, 2),
    ("{} in the gaps that no tap reaches", 1, 1),
    ("{} beyond the last that a tap reaches", 2, 2),
)


def _output_padding(shape: Sequence[int], g: ConvGeometry) -> Axis:
    """The last positions along each axis, as many as its output padding."""
    ends = [np.arange(size).reshape([-1 if at == axis else 1 for at in range(len(shape) - 2)]) >= size - more
            for axis, (size, more) in enumerate(zip(shape[2:], g.output_padding, strict=True))]  # fmt: skip
    outside = np.any(np.broadcast_arrays(*ends), axis=0)[None, None]
    parts_ = (
        Condition("the positions of output padding", lambda at, n: at == 1),
        Condition("the positions before those of output padding", lambda at, n: at == 0),
    )
    return Axis("side of output padding", outside.astype(int), 2, parts_)


def _counted(shape: Sequence[int]) -> list[Axis]:
    """Positions counted through, as a loop over blocks of them does: over space, and over the batch and space."""
    positions = np.arange(int(np.prod(shape[2:]))).reshape(1, 1, *shape[2:])
    images = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    found = [_whole_blocks(shape, width) for width in (2, 4, 8) if len(shape) > 3]
    for name, at in (
        ("position counted over space", positions),
        ("position counted over batch and space", images * positions.size + positions),
    ):
        ends = [item for item in conditions(at.size) if not re.search(NUMBERED, item.words)]
        ends += [_beyond_first(width) for width in (8, 16, 32, 64, 128, 256) if width < at.size]
        found.append(Axis(name, at, at.size, tuple(ends)))
    return found


def _beyond_first(width: int) -> Condition:
    return Condition(f"each {{}} beyond the first {width}", lambda at, n: at >= width)


def _whole_blocks(shape: Sequence[int], width: int) -> Axis:
    """Positions that are left over, along any axis, by blocks of one width along every axis."""
    rank = len(shape) - 2
    ends = [np.arange(size).reshape([-1 if at == axis else 1 for at in range(rank)]) >= size // width * width
            for axis, size in enumerate(shape[2:])]  # fmt: skip
    outside = np.any(np.broadcast_arrays(*ends), axis=0)[None, None]
    by = " x ".join([str(width)] * rank)
    parts_ = (Condition(f"the positions outside the whole blocks of {by}", lambda at, n: at == 1),)
    return Axis(f"side of blocks of {width}", outside.astype(int), 2, parts_)


def pairs(g: ConvGeometry, at: tuple[object, ...]) -> list[Axis]:
    """The channels that a kernel joins, of the first two axes of `W`, spread by the index `at` to more axes."""
    first, second = np.indices(g.w_shape[:2])
    of_group = first // (g.w_shape[0] // g.groups)
    inputs = first if g.transposed else of_group * g.w_shape[1] + second
    outputs = of_group * g.w_shape[1] + second if g.transposed else first
    found = [Axis("output channel", outputs[at], g.out_channels), Axis("input channel", inputs[at], g.in_channels)]
    if g.groups > 1:
        out_group, in_group = g.out_channels // g.groups, g.in_channels // g.groups
        found += [
            Axis("output channel of each group", (outputs % out_group)[at], out_group),
            Axis("input channel of each group", (inputs % in_group)[at], in_group),
            Axis("group", of_group[at], g.groups),
        ]
    return found


def tiles(taps: np.ndarray | None, columns: np.ndarray, g: ConvGeometry) -> list[Axis]:
    """Where a column, or a column and a tap, are against the identity."""
    whole = g.d_mul // g.taps * g.taps
    beyond = Condition("the columns beyond the whole tiles", lambda at, n: at == 1)
    inside = Condition("the whole tiles", lambda at, n: at == 0)
    found = [
        Axis("tile of K columns", columns // g.taps, -(-g.d_mul // g.taps)),
        Axis("side of the whole tiles", (columns >= whole).astype(int), 2, (beyond, inside)),
    ]
    if taps is not None:
        same = Condition("the ones of the identity", lambda at, n: at == 1)
        others = Condition("the zeros of the identity", lambda at, n: at == 0)
        ones = (columns < whole) & (columns % g.taps == taps)
        side = Axis("order of column and tap", np.sign(columns - taps) + 1, 3, ORDERS)
        found += [Axis("entry of the identity", ones.astype(int), 2, (same, others)), side]
    return found


ORDERS = (
    Condition("columns s < k", lambda at, n: at == 0),
    Condition("columns s > k", lambda at, n: at == 2),
    Condition("columns s <= k", lambda at, n: at < 2),
    Condition("columns s >= k", lambda at, n: at > 0),
)


Part = tuple[tuple[str, Condition], ...]


def mask(part: Part, found: Sequence[Axis], shape: Sequence[int]) -> np.ndarray:
    """Where a part is, to be broadcast; nowhere in a tensor that has no such index."""
    named = {axis.name: axis for axis in found}
    holds = np.ones((1,) * len(shape), bool)
    for name, condition in part:
        if name not in named:
            return np.zeros((1,) * len(shape), bool)
        holds = holds & condition.holds(named[name].at, named[name].size)
    return holds


def words(part: Part) -> str:
    """As in "the last output channel and the first image"."""
    return " at " + " and ".join(condition.words.format(name) for name, condition in part) if part else ""


def parts(found: Sequence[Axis], shape: Sequence[int], wrong: np.ndarray) -> Iterator[tuple[Part, np.ndarray]]:
    """Parts that hold all that is wrong, and where they are: everything, then one condition, then two; each place once."""
    if not wrong.any():
        return
    seen = set()
    singles = []
    everything = np.ones(shape, bool)
    yield (), everything
    for axis in found:
        for condition in axis.parts or conditions(axis.size):
            where = condition.holds(axis.at, axis.size)
            if not (wrong & ~where).any():
                singles.append(((axis.name, condition), where))
    for axis in found:
        if (listed := _listed(axis, wrong)) is not None:
            singles.append(((axis.name, listed), listed.holds(axis.at, axis.size)))
    for item, where in singles:
        whole = np.broadcast_to(where, shape)
        if not whole.all():
            yield (item,), whole
            seen.add(_digest(whole))
    for (one, first), (other, second) in combinations(singles, 2):
        if one[0] != other[0]:
            whole = np.broadcast_to(first & second, shape)
            if (key := _digest(whole)) not in seen:
                seen.add(key)
                yield (one, other), whole


def _digest(where: np.ndarray) -> bytes:
    """Of which elements: those of a large kernel, thousands of times, would fill the memory."""
    return sha1(np.packbits(where).tobytes()).digest()


def located(tensor: str, samples: Sequence[tuple[np.ndarray, np.ndarray, ConvGeometry]]) -> list[str]:
    """In words: the smallest part that holds all that is wrong of an output, the same in every sample, if there is one.

    Args:
        tensor: the output.
        samples: for each what came, what should have, and the geometry.
    """
    if len(samples) < LEAST_SAMPLES:
        return []
    shares: dict[tuple[tuple[str, str], ...], list[float]] = {}
    everything_is_zero = True
    for number, (got, right, g) in enumerate(samples):
        wrong = got.astype(np.float64) != right.astype(np.float64)
        everything_is_zero &= not got[wrong].any()
        found, present = {}, axes(tensor, right.shape, g)
        for axis in present:
            for condition in axis.parts or conditions(axis.size):
                where = np.broadcast_to(condition.holds(axis.at, axis.size), right.shape)
                if not (wrong & ~where).any():
                    found[axis.name, condition.words] = where
        if number and not shares:
            return []
        pairs_ = (
            [(one, other) for one, other in combinations(found, 2) if one[0] != other[0]] if len(found) < 40 else []
        )
        parts_: dict[tuple[tuple[str, str], ...], float] = {(one,): float(where.mean()) for one, where in found.items()}
        parts_ |= {pair: float((found[pair[0]] & found[pair[1]]).mean()) for pair in pairs_}
        if not number:
            shares = {part: [share] for part, share in parts_.items()}
            continue
        names = {axis.name for axis in present}
        left = {}
        for place, known in shares.items():  # an index with one value leaves nothing out
            there = tuple(item for item in place if item[0] in names)
            if not there or there in parts_:
                left[place] = [*known, parts_[there] if there else 1.0]
        shares = left

    def rank(part: tuple[tuple[str, str], ...]) -> float:
        numbered = sum(bool(re.search(f"{NUMBERED}|{WIDE}", words)) for _, words in part)
        return sum(shares[part]) / len(samples) + LONGER * len(part) + ACCIDENT * numbered

    ranked = sorted(shares, key=rank)
    if not ranked or rank(ranked[0]) > SMALL:
        return []
    part = " and ".join(words.format(name) for name, words in ranked[0])
    value = ", and is 0 there" if everything_is_zero else ""
    return [f"{WORDS.get(tensor, tensor)} is wrong only at {part}{value} (in {len(samples)} failing cases)"]


def _listed(axis: Axis, wrong: np.ndarray) -> Condition | None:
    """The values of an index at which something is wrong, one by one, of an axis of that size; None where they are many."""
    values = np.unique(np.broadcast_to(axis.at, wrong.shape)[wrong])
    if not 1 < len(values) <= min(MOST_LISTED, axis.size // 2) or axis.parts:
        return None
    *before, last = map(str, values.tolist())
    words = f"each {{}} among {', '.join(before)} and {last} of {axis.size}"
    return Condition(words, lambda at, n, values=values, size=axis.size: np.isin(at, values) & (n == size))


@dataclass(frozen=True)
class Relation:
    """What was done; `words` has the tensor for `{}`. `linear`: a factor, which gradients follow."""

    words: str
    change: Callable[[np.ndarray], np.ndarray]
    linear: bool = True


def relations(got: np.ndarray, right: np.ndarray, at: np.ndarray) -> Iterator[Relation]:
    """What can have been done to the right values in a part to give those that came, by the first that are wrong."""
    if not got[at].any():
        yield Relation("has zeros for {}", lambda t: 0 * t)
        return
    wrong = at & (got != right)
    usable = wrong & (right != 0)
    if usable.any():
        index = tuple(np.argwhere(usable)[0])
        factor = Fraction(float(got[index] / right[index])).limit_denominator(144)
        yield Relation(f"has {{}} times {factor}", lambda t: float(factor) * t)
    index = tuple(np.argwhere(wrong)[0])
    offset = float(got[index] - right[index])
    if abs(offset) > NO_ROUNDING * np.abs(right).max():
        yield Relation(f"has {{}} plus {offset:.6g}", lambda t: t + offset, linear=False)
    yield Relation(f"has {float(got[index]):.6g} for {{}}", lambda t: 0 * t + float(got[index]), linear=False)
    yield Relation("has the absolute values of {}", np.abs, linear=False)
    yield Relation("has 0 for negative entries of {}", lambda t: np.maximum(t, 0), linear=False)
    yield Relation("has 0 for positive entries of {}", lambda t: np.minimum(t, 0), linear=False)
    yield Relation("has {} without fractions", np.trunc, linear=False)
    low, high = float(got[at].min()), float(got[at].max())
    if not are_limits(right[at], low, high):
        return
    said = f"has {{}} limited to [{low:.6g}, {high:.6g}]"
    yield Relation(said, lambda t: np.clip(t, low, high), linear=False)


def are_limits(right: np.ndarray, low: float, high: float) -> bool:
    """Whether numbers are seen to be limits: different right values lie clearly beyond them, and some, not 0, within."""
    clear = BEYOND * max(abs(limit) for limit in (low, high) if np.isfinite(limit))
    beyond = (right > high + clear) | (right < low - clear)
    return len(np.unique(right[beyond])) > 1 and bool(right[~beyond].any())


def found_in(tensor: str, got: np.ndarray, right: np.ndarray, g: ConvGeometry) -> list[tuple[Part, Relation]]:
    """The plainest parts and relations that give `got` of `right`; none where none does."""
    got, right = got.astype(np.float64), right.astype(np.float64)
    if got.shape != right.shape or not np.isfinite(got).all():
        return []
    wrong = got != right
    if not wrong.any():
        return []
    return matching(axes(tensor, right.shape, g), got, right)


def matching(found: Sequence[Axis], got: np.ndarray, right: np.ndarray) -> list[tuple[Part, Relation]]:
    """The same for elements with any indices."""
    explained: list[tuple[Part, Relation]] = []
    fewest = 9
    for part, at in parts(found, right.shape, got != right):
        if len(part) > fewest or len(explained) == MOST_FITS:
            break
        for relation in relations(got, right, at):
            # Integers times a factor, rounded to float32 (2**-24) once or a few times; other factors differ by far more.
            if np.allclose(got[at], relation.change(right[at]), rtol=1e-6, atol=1e-6):
                explained.append((part, relation))
                fewest = len(part)
                break
    return explained


def fault(tensor: str, hook: str, part: Part, relation: Relation) -> Fault:
    """As a fault with a hook that takes the tensor first and the geometry last."""
    said = relation.words.format(WORDS[tensor]) + words(part)

    def change(value: np.ndarray, *rest: object) -> np.ndarray:
        g = rest[-1]
        assert isinstance(g, ConvGeometry)
        at = mask(part, axes(tensor, value.shape, g), value.shape)
        return np.where(at, relation.change(value.astype(np.float64)), value)

    return Fault(f"selected-{hook}-{said}", said, f"what is done to {WORDS[tensor]}{words(part)}", {hook: change})


def fits(tensor: str, got: np.ndarray, right: np.ndarray, g: ConvGeometry, hook: str = "") -> list[Fault]:
    """Faults of one output tensor, where it is wrong in a part that has plain words."""
    return [fault(tensor, hook or tensor, part, relation) for part, relation in found_in(tensor, got, right, g)]


def names_a_number(fault: Fault) -> bool:
    """Whether a part is one index or some, by number: in few cases any may be the right one by accident."""
    return fault.name.startswith("selected-") and re.search(r"(among|from|below|position|channel|image|tap|column|group"
                                                            r"|axis) \d", fault.words) is not None  # fmt: skip
