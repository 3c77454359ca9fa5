"""The map of a convolution, measured: which input element meets which weight for every output element.

`x` holds one impulse an image, `W` numbers that make every entry of the composed kernel another integer. So each value of the
output says which entry of the kernel met the impulse. The same is done for the gradient of `x`, with the impulses in `grad_y`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import numpy as np

from doconv_conformance.cases.table import LOW_PRECISION, Case
from doconv_conformance.diagnosis import moves
from doconv_conformance.diagnosis.asking import Ask, Question
from doconv_conformance.diagnosis.options import Rule
from doconv_conformance.diagnosis.planted import Options, inside, relations, run
from doconv_conformance.diagnosis.readings import combinations_of
from doconv_conformance.faults.faulty_port import Fault
from doconv_core.geometry import ConvGeometry

LARGEST_W = 2**18
MOST_IMPULSES = 600
# So many options may differ on top of as many moves of elements.
MOST_RULES = {0: 3, 1: 1, 2: 0}
Fits = list[tuple[Fault, ...]]


@dataclass(frozen=True)
class Meetings:
    """What met what, a row of each array for each product: indices of the output, of the input and of the kernel.

    Attributes:
        geometry: of the convolution.
        y: `(products, 1 + rank)`: channel and position.
        x: likewise.
        w: `(products, 2 + rank)`: an index of the composed kernel.
        y_size: spatial size of the output that came.
        x_size: of the input.
        unread: how many values of the output are no entry of the kernel.
        right: whether every value is as what is known makes it.
    """

    geometry: ConvGeometry
    y: np.ndarray
    x: np.ndarray
    w: np.ndarray
    y_size: tuple[int, ...]
    x_size: tuple[int, ...]
    unread: int
    right: bool = False


def measure(ask: Ask, case: Case, known: Sequence[Fault], backward: bool = False) -> Meetings | None:
    """The map of `forward`, or that of the gradient of `x` seen from the same side; None where it cannot be measured.

    In low precision it cannot: the types hold too few different numbers.
    """
    geometry, x_size = case.geometry, case.input_size
    if case.dtype in LOW_PRECISION:
        return None
    found = coded_kernel(geometry, known)
    if found is None:
        return None
    tensors, kernel = found
    if case.bias:  # a zero: with a bias another path may be taken
        tensors["bias"] = np.zeros(geometry.out_channels)
    y_size = geometry.output_size(x_size)
    sizes = (geometry.out_channels, *y_size) if backward else (geometry.in_channels, *x_size)
    count = int(np.prod(sizes))
    if count > MOST_IMPULSES:
        return None
    impulses = np.eye(count).reshape(count, *sizes)
    if backward:
        tensors = {**tensors, "grad_y": impulses, "x": np.zeros((count, geometry.in_channels, *x_size))}
        name, operation = "grad_x", "backward"
    else:
        tensors, name, operation = {**tensors, "x": impulses}, "y", "forward"
    question = Question(geometry, tensors, case.dtype, case.param_dtype)
    answer = ask(operation, question)
    if answer is None or name not in answer or answer[name].shape[:1] != (count,) or answer[name].ndim != impulses.ndim:
        return None
    right = run(known, geometry, operation, question.inputs(operation))
    is_right = right is not None and np.array_equal(answer[name], right[name])
    return replace(_read(answer[name].astype(np.float64), kernel, geometry, sizes, backward), right=is_right)


def coded_kernel(geometry: ConvGeometry, known: Sequence[Fault]) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """`W` and `D_delta` whose composed kernel, with what is known planted, has no two equal entries; and that kernel."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        tensors = {"W": rng.integers(1, LARGEST_W, geometry.w_shape).astype(np.float64)}
        if geometry.has_d:
            tensors["D_delta"] = rng.integers(-1, 2, geometry.d_shape).astype(np.float64)
        question = Question(geometry, tensors)
        composed = run(known, geometry, "compose", question.inputs("compose"))
        if composed is None:
            return None
        kernel = composed["weight"].astype(np.float64)
        if len(np.unique(np.abs(kernel[kernel != 0]))) == np.count_nonzero(kernel) > 0:
            return tensors, kernel
    return None


def _read(
    values: np.ndarray, kernel: np.ndarray, geometry: ConvGeometry, sizes: Sequence[int], backward: bool
) -> Meetings:
    """Look every value up among the entries of the kernel; sums of two are taken apart."""
    codes = kernel.ravel()
    order = np.argsort(codes)
    hit = np.argwhere(values)
    at = values[tuple(hit.T)]
    place = np.clip(np.searchsorted(codes[order], at), 0, len(codes) - 1)
    known = codes[order][place] == at
    first = np.where(known, order[place], -1)
    indices, where = [first[known]], [hit[known]]
    unread = 0
    sums = None
    for row, value in zip(hit[~known], at[~known], strict=True):
        if sums is None:
            sums = _pair_sums(codes)
        if (pair := sums.get(value)) is None:
            unread += 1
            continue
        indices.append(np.array(pair))
        where.append(np.stack([row, row]))
    w_flat, hits = np.concatenate(indices), np.concatenate(where)
    other = np.stack(np.unravel_index(hits[:, 0], sizes), -1) if len(hits) else np.zeros((0, len(sizes)), int)
    w = np.stack(np.unravel_index(w_flat, kernel.shape), -1) if len(hits) else np.zeros((0, kernel.ndim), int)
    y, x = (other, hits[:, 1:]) if backward else (hits[:, 1:], other)
    y_size, x_size = (tuple(sizes[1:]), values.shape[2:]) if backward else (values.shape[2:], tuple(sizes[1:]))
    return Meetings(geometry, y, x, w, tuple(y_size), tuple(x_size), unread)


def _pair_sums(codes: np.ndarray) -> dict[float, tuple[int, int]]:
    if len(codes) > 400:
        return {}
    first, second = np.triu_indices(len(codes))
    return dict(
        zip((codes[first] + codes[second]).tolist(), zip(first.tolist(), second.tolist(), strict=True), strict=True)
    )


def fits(meetings: Meetings, hook: str = "options", where: str = "") -> Fits:
    """Sets of faults that give exactly the measured map: moves of `x`, `y` and the kernel, and other options.

    Args:
        meetings: the map.
        hook: "options", or "options_grad_x" for the map of a gradient that is not the forward's.
        where: words for the part that the hook is of.
    """
    if meetings.unread or not len(meetings.y):
        return []
    kernel_hook = "conv_kernel" if hook == "options" else "grad_x_kernel"
    found: Fits = []
    least = 99
    for alike, seen in _views(meetings, kernel_hook, forward=hook == "options"):
        if len(alike[0]) > least or not _channels_are_right(seen):
            continue
        tables = _tables(seen)
        if tables is None:
            continue
        for rules in _rules(seen, tables, MOST_RULES[len(alike[0])]):
            changes = len(alike[0]) + len(rules)
            if changes > least:
                break
            least = changes
            found += [(*moved, *(rule.fault(hook, where) for rule in rules)) for moved in alike]
    return [fit for fit in found if len(fit) == least]


def _views(meetings: Meetings, kernel_hook: str, forward: bool) -> Iterator[tuple[Fits, Meetings]]:
    """The map as it looks before one or two moves, and the moves that are alike in that."""
    g = meetings.geometry
    shapes = {
        "w": g.kernel_shape,
        "x": (1, g.in_channels, *meetings.x_size),
        "y": (1, g.out_channels, *meetings.y_size),
    }
    faults = {"w": moves.of_kernel(kernel_hook)}
    if forward:
        faults |= {"x": moves.of_activations("x"), "y": (*moves.of_activations("bare"), *moves.of_activations("y"))}
    single: dict[str, dict[bytes, tuple[np.ndarray, list[Fault]]]] = {}
    for side, of_side in faults.items():
        single[side] = {}
        for fault in of_side:
            table = _undone(fault, shapes[side], g, side)
            if table is not None:  # several moves may be the same at this geometry
                single[side].setdefault(table.tobytes(), (table, []))[1].append(fault)
    yield [()], meetings
    for side, items in single.items():
        for table, alike in items.values():
            yield [(fault,) for fault in alike], _seen(meetings, {side: table}, shapes)
    for one, other in combinations(single, 2):
        for table, alike in single[one].values():
            for other_table, others in single[other].values():
                yield list(product(alike, others)), _seen(meetings, {one: table, other: other_table}, shapes)


def _undone(fault: Fault, shape: tuple[int, ...], g: ConvGeometry, side: str) -> np.ndarray | None:
    """For each element its place without the move; None where the move loses or repeats elements, or does nothing."""
    if not fault.where(g):
        return None
    numbers = np.arange(1.0, np.prod(shape) + 1)
    try:
        (change,) = fault.hooks.values()
        moved = np.asarray(change(numbers.reshape(shape), g)).ravel()
    except (ValueError, IndexError, TypeError):
        return None
    if moved.shape != numbers.shape or not np.array_equal(np.sort(moved), numbers) or np.array_equal(moved, numbers):
        return None
    places = moved.astype(np.int64) - 1
    return places if side == "y" else np.argsort(places)


def _seen(meetings: Meetings, tables: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> Meetings:
    changed = {}
    for side, table in tables.items():
        index = getattr(meetings, side)
        shape = shapes[side] if side == "w" else shapes[side][1:]
        flat = table[np.ravel_multi_index(tuple(index.T), shape)]
        changed[side] = np.stack(np.unravel_index(flat, shape), -1)
    return Meetings(
        meetings.geometry, changed.get("y", meetings.y), changed.get("x", meetings.x), changed.get("w", meetings.w),
        meetings.y_size, meetings.x_size, 0,
    )  # fmt: skip


def _channels_are_right(seen: Meetings) -> bool:
    g = seen.geometry
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    o, i, a, b = seen.y[:, 0], seen.x[:, 0], seen.w[:, 0], seen.w[:, 1]
    if g.transposed:
        return bool(((a == i) & (b == o % out_group) & (i // in_group == o // out_group)).all())
    return bool(((a == o) & (i == o // out_group * in_group + b)).all())


def _tables(seen: Meetings) -> list[np.ndarray] | None:
    """For each axis which positions meet at which tap; None where the axes do not act apart."""
    g, tables = seen.geometry, []
    for axis in range(g.spatial_rank):
        table = np.zeros((seen.y_size[axis], seen.x_size[axis], g.kernel_size[axis]))
        table[seen.y[:, 1 + axis], seen.x[:, 1 + axis], seen.w[:, 2 + axis]] = 1
        tables.append(table)
    pairs = g.in_channels * g.out_channels // g.groups
    return tables if pairs * np.prod([table.sum() for table in tables]) == len(seen.y) else None


def _rules(seen: Meetings, tables: Sequence[np.ndarray], most: int) -> Iterator[tuple[Rule, ...]]:
    """At most so many rules that give the tables, the fewest first; nothing in a tuple where what was asked does."""
    g = seen.geometry
    if _gives(Options.of(g), seen, tables):
        yield ()
        return
    if not most:
        return
    least = most
    steps = [_steps(table, g.transposed) for table in tables]
    for options, sets in combinations_of(g, tuple(steps)):
        if len(sets[0]) > most:
            return
        if _gives(options, seen, tables):
            for rules in sets:
                if len(rules) <= least:
                    least = len(rules)
                    yield rules


def _steps(table: np.ndarray, transposed: bool) -> tuple[frozenset[int], frozenset[int]]:
    """Strides and dilations that an axis shows: steps of the larger side per step of the smaller, and per tap."""
    p, q, k = np.nonzero(table)
    smaller, larger = (q, p) if transposed else (p, q)
    meets: dict[tuple[int, int], list[int]] = {}
    for one, other, tap in zip(smaller.tolist(), larger.tolist(), k.tolist(), strict=True):
        meets.setdefault((one, tap), []).append(other)
    strides, dilations = set(), set()
    for (one, tap), others in meets.items():
        strides |= {b - a for a in others for b in meets.get((one + 1, tap), ())}
        dilations |= {b - a for a in others for b in meets.get((one, tap + 1), ())}
    return frozenset(strides), frozenset(dilations)


def _gives(options: Options, seen: Meetings, tables: Sequence[np.ndarray]) -> bool:
    try:
        given = relations(options, seen.geometry, seen.x_size)
    except ValueError:
        return False
    return all(
        one.shape == other.shape and np.array_equal(one > 0, other > 0)
        for one, other in zip(given, tables, strict=True)
    )


def facts(meetings: Meetings, what: str = "y") -> list[str]:
    """In words: the first output element that is made of other products than it should, and along which axis what is wrong."""
    g = meetings.geometry
    if meetings.right:
        return []
    right = _right(meetings)
    got = set(
        zip(
            map(tuple, meetings.y.tolist()),
            map(tuple, meetings.x.tolist()),
            map(tuple, meetings.w.tolist()),
            strict=True,
        )
    )
    lines = []
    wrong = sorted({item[0] for item in got ^ right})
    lines += _channel_facts(got, right)
    lines += _axis_facts(meetings)
    for key in wrong[:1]:
        name = f"{what}[n,{','.join(map(str, key))}]"
        for words, items in (("is made of", got - right), ("lacks", right - got)):
            mine = sorted(item for item in items if item[0] == key)[:4]
            if mine:
                shown = ", ".join(f"x[n,{','.join(map(str, x))}] * W'[{','.join(map(str, w))}]" for _, x, w in mine)
                lines.append(f"{name} {words} {shown}{', ...' if len([i for i in items if i[0] == key]) > 4 else ''}")
    if meetings.unread:
        lines.append(f"{meetings.unread} values are neither an entry of the kernel nor a sum of two")
    lines.append(f"measured by impulses at {g.describe()}")
    return lines


def _right(meetings: Meetings) -> set[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    g = meetings.geometry
    tables = relations(Options.of(g), g, meetings.x_size)
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    spatial: list[tuple[Any, ...]] = [()]
    for table in tables:
        spatial = [(*before, at) for before in spatial for at in map(tuple, np.argwhere(table).tolist())]
    found = set()
    for group in range(g.groups):
        for c in range(in_group):
            for oc in range(out_group):
                o, i = group * out_group + oc, group * in_group + c
                head = (i, oc) if g.transposed else (o, c)
                for at in spatial:
                    p, q, k = zip(*at, strict=True)
                    found.add(((o, *p), (i, *q), (*head, *k)))
    return found


def _channel_facts(got: set[Any], right: set[Any]) -> list[str]:
    """Which input channels an output channel reads, where they are others than were asked for."""
    read, asked = dict[int, set[int]](), dict[int, set[int]]()
    for items, channels in ((got, read), (right, asked)):
        for y, x, _ in items:
            channels.setdefault(y[0], set()).add(x[0])
    wrong = [o for o in sorted(asked) if read.get(o, set()) != asked[o]]
    shown = [
        f"output channel {o} reads input channels {sorted(read.get(o, set()))} (asked for {sorted(asked[o])})"
        for o in wrong
    ]
    return ["; ".join(shown[:3])] if shown else []


def _outside(meetings: Meetings, axis: int) -> list[str]:
    """Which elements are read for the positions outside of the input, where all inside are right."""
    g = meetings.geometry
    if g.transposed:
        return []
    size, read = meetings.x_size[axis], dict[int, set[int]]()
    low = g.padding[axis][0]
    for p, q, k in zip(meetings.y[:, 1 + axis], meetings.x[:, 1 + axis], meetings.w[:, 2 + axis], strict=True):
        read.setdefault(int(g.stride[axis] * p + g.dilation[axis] * k - low), set()).add(int(q))
    if any(at in read and read[at] != {at} for at in range(size)):
        return []
    asked = {at: inside(at, size, g.padding_mode) for at in range(-low, size + g.padding[axis][1])}
    wrong = [
        f"{at} reads {' and '.join(map(str, sorted(read[at]))) if at in read else 'nothing'} (asked for "
        f"{'nothing' if asked[at] is None else asked[at]})"
        for at in asked
        if not 0 <= at < size
        and read.get(at, set()) != ({asked[at]} - {None})
        and (at in read or asked[at] is not None)
    ]
    return [f"along axis {axis} of {size} elements, position {', '.join(wrong[:4])}"] if wrong else []


def _axis_facts(meetings: Meetings) -> list[str]:
    """Along each axis a line through what was measured: input position = stride * p + dilation * k - low."""
    g, lines = meetings.geometry, []
    for axis in range(g.spatial_rank):
        p, q, k = meetings.y[:, 1 + axis], meetings.x[:, 1 + axis], meetings.w[:, 2 + axis]
        one, other = (q, p) if g.transposed else (p, q)
        matrix = np.stack([one, k, np.ones_like(k)], -1).astype(np.float64)
        if len(np.unique(one)) < 2 or (g.kernel_size[axis] > 1 and len(np.unique(k)) < 2):
            continue
        solved, *_ = np.linalg.lstsq(matrix, other.astype(np.float64), rcond=None)
        stride, dilation, shift = (round(float(number)) for number in solved)
        asked = g.stride[axis], g.dilation[axis] if g.kernel_size[axis] > 1 else dilation, -g.padding[axis][0]
        if np.array_equal(matrix @ [stride, dilation, shift], other) and (stride, dilation, shift) != asked:
            to, of = ("output", "input") if g.transposed else ("input", "output")
            lines.append(
                f"along axis {axis}, {to} position = {stride} * {of} position + {dilation} * tap + {shift}; asked for "
                f"{asked[0]}, {asked[1]} and {asked[2]}"
            )
        lines += _outside(meetings, axis)
        if meetings.y_size[axis] != g.output_size(meetings.x_size)[axis]:
            lines.append(
                f"along axis {axis} the output has {meetings.y_size[axis]} positions; asked for "
                f"{g.output_size(meetings.x_size)[axis]}"
            )
    return lines
