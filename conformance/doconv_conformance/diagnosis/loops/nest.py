"""Loops whose bounds and addresses are text, evaluated on open meshes.

A nest joins some flat arrays: for every value of its indices that is inside, the product of all arrays but one, each at its
address, is added to that one at its own. So the same text is a convolution, the gradient of its input and that of its kernel.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np

from doconv_core.geometry import ConvGeometry

# Terms that are held at once; of more the loop over the first channel goes in blocks.
MOST_TERMS = 2**20
AXES = ("first", "last")
FUNCTIONS: dict[str, Any] = {
    "__builtins__": {}, "min": np.minimum, "max": np.maximum, "abs": np.abs,
    "up": lambda a, b: -(-a // b), "cut": lambda a, b: a // b + ((a < 0) & (a % b != 0)),
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """`name = text`.

    Attributes:
        name: of the value.
        text: an expression of sizes, indices and earlier lines.
        over: "": once; "axes": for each axis, of that axis's numbers; "fold": from `at` = 0 on, an axis after the other.
        when: the padding mode, or the kind of layer, that it is the line of; "" for any.
    """

    name: str
    text: str
    over: str = ""
    when: str = ""


@dataclass(frozen=True, eq=False)
class Nest:
    """A program.

    Attributes:
        name: of the nest.
        loops: index and size of each loop.
        of_axes: the indices that are loops over every axis.
        lines: in the order in which they are evaluated.
        inside: the lines, conditions for each axis, that must hold.
        arrays: the number of elements of each array; array `x` is at line `x_at`.
    """

    name: str
    loops: Mapping[str, str]
    of_axes: frozenset[str]
    lines: tuple[Line, ...]
    inside: tuple[str, ...]
    arrays: Mapping[str, str]

    def line(self, name: str, when: Sequence[str] = ()) -> Line:
        """The line of that name which holds then."""
        return next(line for line in self.lines if line.name == name and line.when in ("", *when))


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of a nest.

    Attributes:
        nest: which.
        name: of the line or, for a range, of the loop.
        text: the line's new text, or the loop's new size; "" where only some of the values count.
        axes: "first" or "last" where it is made on that axis only.
        seen: the lines that see the new value; all where it is empty.
        when: as of the line.
        over: the indices that `keep` counts through, the innermost last.
        keep: `(number, count) -> mask` of the values that count.
        stops: an array at whose first 0 the loops `over` end.
        last: whether a later product takes the place of an earlier one, the loops in the order of `over`.
        beyond: what is read outside of an array.
    """

    nest: str
    name: str
    text: str = ""
    axes: str = ""
    seen: tuple[str, ...] = ()
    when: str = ""
    over: tuple[str, ...] = ()
    keep: Callable[[np.ndarray, Any], np.ndarray] | None = None
    stops: str = ""
    last: bool = False
    beyond: float = np.nan


@dataclass(frozen=True)
class Sizes:
    """A geometry with a batch and the sizes of the input, where there is one."""

    geometry: ConvGeometry
    batch: int = 1
    x: tuple[int, ...] = ()

    @property
    def when(self) -> tuple[str, ...]:
        """What a line may be the line of."""
        return self.geometry.padding_mode, "transposed" if self.geometry.transposed else "plain"


@lru_cache(maxsize=2**12)
def compiled(text: str) -> tuple[CodeType, frozenset[str]]:
    """An expression and the names in it."""
    tree = ast.parse(text, mode="eval")
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return compile(tree, "<expression>", "eval"), names


def numbers(sizes: Sizes) -> tuple[dict[str, int], list[dict[str, int]]]:
    """The sizes by name, and those of each axis: with a suffix, those of another axis."""
    g = sizes.geometry
    a, b = (g.in_channels, g.out_channels) if g.transposed else (g.out_channels, g.in_channels)
    whole = {
        "N": sizes.batch, "A": a, "B": b, "A_G": a // g.groups, "B_G": b // g.groups, "G": g.groups, "K": g.taps,
        "S": g.d_mul, "T": g.d_mul // g.taps, "C_in": g.in_channels, "C_out": g.out_channels,
    }  # fmt: skip
    low, high = zip(*g.padding, strict=True)
    options = {"kernel": g.kernel_size, "stride": g.stride, "dilation": g.dilation, "low": low, "high": high}
    if sizes.x:
        y = g.output_size(sizes.x)
        big, small = (y, sizes.x) if g.transposed else (sizes.x, y)
        whole |= {"Q": int(np.prod(big)), "R": int(np.prod(small)), "V": int(np.prod(y))}
        options |= {"X": big, "P": small, "Y": y}
    rank, axes = g.spatial_rank, list[dict[str, int]]()
    for axis in range(rank):
        others = {"": axis, "_first": 0, "_last": rank - 1, "_before": max(axis - 1, 0), "_after": min(axis + 1, rank - 1),
                  "_across": rank - 1 - axis}  # fmt: skip
        axes.append({name + end: values[at] for name, values in options.items() for end, at in others.items()})
    return whole, axes


class Mesh:
    """The values of a nest's indices and lines at some sizes."""

    def __init__(self, nest: Nest, sizes: Sizes, edits: Sequence[Edit] = (), block: slice = slice(None)) -> None:
        self.nest, self.sizes = nest, sizes
        self.rank = sizes.geometry.spatial_rank
        self.whole, self.axes = numbers(sizes)
        self.dims = [name for index in nest.loops for name in self._dims(index)]
        counts = self._counts(edits)
        self.counts = counts
        self.shape = tuple(len(range(count)[block]) if name == "a" else count for name, count in counts.items())
        self.values: dict[str, Any] = {}
        for at, (name, count) in enumerate(counts.items()):
            index = np.arange(count)[block] if name == "a" else np.arange(count)
            self.values[name] = index.reshape([-1 if other == at else 1 for other in range(len(counts))])
        self.right: dict[str, Any] = {}
        for line in self._lines():
            self.right[line.name] = self._line(line, line.text, self.right)

    def _dims(self, index: str) -> list[str]:
        return [f"{index}{axis}" for axis in range(self.rank)] if index in self.nest.of_axes else [index]

    def _counts(self, edits: Sequence[Edit]) -> dict[str, int]:
        counts = {}
        for index, size in self.nest.loops.items():
            for axis, name in enumerate(self._dims(index)):
                mine = [edit for edit in edits if edit.name == index and edit.text and self._is_on(edit, axis)]
                text = mine[0].text if mine else size
                env = {**self.whole, **(self.axes[axis] if index in self.nest.of_axes else {})}
                counts[name] = max(0, int(eval(compiled(text)[0], FUNCTIONS, env)))
        return counts

    def _is_on(self, edit: Edit, axis: int) -> bool:
        return edit.axes == "" or axis == {"first": 0, "last": self.rank - 1}[edit.axes]

    def _lines(self) -> list[Line]:
        return [line for line in self.nest.lines if line.when in ("", *self.sizes.when)]

    def _line(self, line: Line, text: str, values: Mapping[str, Any], only: str = "") -> Any:
        """A line's value with a text; on the axes that are not `only`, its own."""
        if not line.over:
            return eval(compiled(text)[0], FUNCTIONS, {**self.whole, **self.values, **values})
        found, at = [], np.zeros((1,) * len(self.shape), np.int64)
        for axis in range(self.rank):
            said = text if not only or axis == {"first": 0, "last": self.rank - 1}[only] else line.text
            env = {**self.whole, **self.values, **self.axes[axis], "at": at}
            env |= {name: value[axis] if isinstance(value, list) else value for name, value in values.items()}
            env |= {index: self.values[f"{index}{axis}"] for index in self.nest.of_axes}
            at = eval(compiled(said)[0], FUNCTIONS, env)
            found.append(at)
        return found if line.over == "axes" else at

    def edited(self, edits: Sequence[Edit]) -> dict[str, Any]:
        """The values of the lines with the edits."""
        texts = {edit.name: edit for edit in edits if edit.text and edit.name not in self.nest.loops}
        values, dirty = dict(self.right), set[str]()
        for line in self._lines():
            edit = texts.get(line.name)
            own = edit is not None and edit.when in ("", line.when)
            if not own and not compiled(line.text)[1] & dirty:
                continue
            hidden = {name for name, other in texts.items() if other.seen and line.name not in other.seen}
            seen = {name: self.right[name] if name in hidden else value for name, value in values.items()}
            text = edit.text if own and edit is not None else line.text
            values[line.name] = self._line(line, text, seen, edit.axes if own and edit is not None else "")
            dirty.add(line.name)
        return values

    def inside(self, values: Mapping[str, Any], edits: Sequence[Edit]) -> np.ndarray | None:
        """Where a product is made; None where it is everywhere."""
        conditions = [
            value for name in self.nest.inside if name in values
            for value in (values[name] if isinstance(values[name], list) else [values[name]])
        ]  # fmt: skip
        holds: np.ndarray | None = None
        for condition in conditions:
            holds = condition if holds is None else holds & condition
        for edit in edits:
            if edit.keep is not None:
                kept = self._kept(edit, values)
                holds = kept if holds is None else holds & kept
        return holds

    def _kept(self, edit: Edit, values: Mapping[str, Any]) -> np.ndarray:
        assert edit.keep is not None
        if edit.name == "valid":  # of the positions that a tap meets inside
            axis = 0 if edit.axes == "first" else self.rank - 1
            inside = np.ones(1, bool)
            for name in self.nest.inside:
                if name in values:
                    inside = inside & values[name][axis]
            along = self.dims.index(f"{edit.over[0]}{axis}")
            inside = np.broadcast_to(inside, [max(a, b) if at == along else a for at, (a, b) in
                                              enumerate(zip(inside.shape, self.shape, strict=True))])  # fmt: skip
            return edit.keep(np.cumsum(inside, along) - 1, inside.sum(along, keepdims=True))
        names = [name for index in edit.over for name in self._dims(index)]
        if edit.axes:
            names = [f"{edit.over[0]}{0 if edit.axes == 'first' else self.rank - 1}"]
        number, count = np.zeros((1,) * len(self.shape), np.int64), 1
        for name in names:
            number = number * self.counts[name] + self.values[name]
            count *= self.counts[name]
        return edit.keep(number, count)


@lru_cache(maxsize=512)
def _mesh(nest: Nest, sizes: Sizes) -> Mesh:
    return Mesh(nest, sizes)


def value(
    nest: Nest, edits: Sequence[Edit], sizes: Sizes, arrays: Mapping[str, np.ndarray], result: str,
    block: slice = slice(None),
) -> np.ndarray:  # fmt: skip
    """The array `result`, flat, in float64, of the other ones; of the loop over `a` only a block where one is given.

    Raises:
        ValueError: an order that is not kept in blocks is asked of more terms than are held at once.
    """
    whole, flat = numbers(sizes)[0], {name: np.asarray(array, np.float64).ravel() for name, array in arrays.items()}
    total = np.zeros(int(eval(compiled(nest.arrays[result])[0], FUNCTIONS, whole)))
    channels = range(int(eval(compiled(nest.loops["a"])[0], FUNCTIONS, whole)))[block]
    terms = _terms(nest, sizes)
    if terms <= MOST_TERMS and block == slice(None):
        changes_loops = any(edit.name in nest.loops and edit.text for edit in edits)
        _add(total, Mesh(nest, sizes, edits) if changes_loops else _mesh(nest, sizes), edits, flat, result)
        return total
    if any(edit.last or edit.stops or "a" in (edit.name, *edit.over) for edit in edits):
        raise ValueError("too many terms")
    step = max(1, whole["A"] * MOST_TERMS // terms)
    for start in channels[::step]:
        _add(total, Mesh(nest, sizes, edits, slice(start, min(start + step, channels.stop))), edits, flat, result)
    return total


def _terms(nest: Nest, sizes: Sizes) -> int:
    whole, axes = numbers(sizes)
    count = 1
    for index, size in nest.loops.items():
        for axis in axes if index in nest.of_axes else [{}]:
            count *= int(eval(compiled(size)[0], FUNCTIONS, {**whole, **axis}))
    return count


def _add(total: np.ndarray, mesh: Mesh, edits: Sequence[Edit], flat: Mapping[str, np.ndarray], result: str) -> None:
    values = mesh.edited(edits)
    inside = mesh.inside(values, edits)
    inside = np.ones(mesh.shape, bool) if inside is None else np.broadcast_to(inside, mesh.shape)
    beyond = edits[0].beyond if edits else np.nan
    product: Any = 1.0
    reads = {name: _read(flat[name], values[f"{name}_at"], beyond) for name in mesh.nest.arrays if name != result}
    for read in reads.values():
        product = product * read
    for edit in edits:
        if edit.stops and edit.stops in reads:
            inside = inside & _before_zero(mesh, edit, reads[edit.stops], inside)
    at = np.broadcast_to(values[f"{result}_at"], mesh.shape)
    keep = inside & (at >= 0) & (at < len(total))
    product = np.broadcast_to(product, mesh.shape)
    for edit in edits:
        if edit.last:
            dims = [mesh.dims.index(name) for name in _order(mesh, edit)]
            order = np.arange(keep.size).reshape([mesh.shape[dim] for dim in dims]).transpose(np.argsort(dims))
            latest = np.full(len(total), -1)
            np.maximum.at(latest, at[keep], order[keep])
            keep = keep & (latest[np.where(keep, at, 0)] == order)
    if keep.all():
        total += np.bincount(at.ravel(), product.ravel(), len(total))
    else:
        total += np.bincount(at[keep], product[keep], len(total))


def _order(mesh: Mesh, edit: Edit) -> list[str]:
    return [name for index in edit.over for name in mesh._dims(index)]


def _before_zero(mesh: Mesh, edit: Edit, read: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Where no product before, in the loops `over`, had a zero of the array."""
    going = np.broadcast_to(read != 0, mesh.shape) | ~inside
    last = [mesh.dims.index(name) for name in _order(mesh, edit)]
    order = [at for at in range(len(mesh.dims)) if at not in last] + last
    moved = going.transpose(order)
    left = np.logical_and.accumulate(moved.reshape(*moved.shape[: len(order) - len(last)], -1), axis=-1)
    return left.reshape(moved.shape).transpose(np.argsort(order))


def _read(flat: np.ndarray, at: np.ndarray, beyond: float) -> np.ndarray:
    if at.size == 0 or (at.min() >= 0 and at.max() < len(flat)):
        return flat[at]
    outside = (at < 0) | (at >= len(flat))
    return np.where(outside, beyond, flat[np.clip(at, 0, len(flat) - 1)])
