"""Every single edit of the layer's loops, the plainest first: by Python's syntax tree for expressions, by number for ranges."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from doconv_conformance.diagnosis.loops.layer import BOTH, CONVOLUTION, DELTA
from doconv_conformance.diagnosis.loops.nest import Edit, Line, Nest, compiled

# `(number, count) -> mask`. A lambda that remembers a variable by a default has no type that mypy could infer.
Keep = Any
CHANNELS = ("A", "B", "A_G", "B_G", "G")
SIZES = {
    "convolution": ("N", *CHANNELS, "K", "Q", "R"),
    "identity": (*CHANNELS, "K", "S", "T"),
    "delta": (*CHANNELS, "K", "S", "T"),
    "bias": ("N", "C_in", "C_out", "V"),
}
OF_AXES = {
    "X": ("P", "kernel"), "P": ("X", "kernel"), "kernel": ("stride", "dilation"), "stride": ("dilation",),
    "dilation": ("stride",), "low": ("high",), "Y": (),
}  # fmt: skip
OTHER_AXES = {
    "": ("first", "last", "before", "after", "across"),
    "first": ("after", "last"),
    "last": ("before", "first"),
}
WIDTHS = tuple(2**power for power in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16, 20, 22, 24))
# The lines that may see a new position alone: where it is read, or whether it is inside.
PARTS = {"q": (("m",), ("begins", "ends"))}


def edits(nest: Nest, when: tuple[str, ...]) -> Iterator[Edit]:
    """Every edit of a nest that can act where the padding mode and the kind of layer are these."""
    for line in nest.lines:
        if line.when in ("", *when):
            yield from _of_line(nest, line)
    if nest is CONVOLUTION and "zeros" in when:
        yield from _of_limits()
    for index, size in nest.loops.items():
        for text in _texts(size, nest.name, (), index in nest.of_axes):
            yield Edit(nest.name, index, text)
    yield from _ranges(nest)


def of_both_sums() -> Iterator[Edit]:
    """Edits of what the two sums of the composition share: the addresses of `W` and of `W'`."""
    for edit in edits(DELTA, ()):
        if edit.name in ("W_at", "weight_at") and "i" not in compiled(edit.text)[1]:
            yield replace(edit, nest=BOTH)


def _of_line(nest: Nest, line: Line) -> Iterator[Edit]:
    indices = (
        tuple(index for index in nest.loops if index not in nest.of_axes) if not line.over else tuple(nest.of_axes)
    )
    for axes in ("", "first", "last") if line.over else ("",):
        for text in _texts(line.text, nest.name, (*indices, *_before(nest, line)), bool(line.over), axes):
            found = Edit(nest.name, line.name, text, axes, when=line.when)
            yield found
            for seen in PARTS.get(line.name, ()):
                yield replace(found, seen=seen)


def _before(nest: Nest, line: Line) -> tuple[str, ...]:
    """The earlier lines that may be taken in place of an index."""
    return tuple(other for other in ("b", "i") if any(item.name == other for item in nest.lines) and line.name != other
                 and not line.over)  # fmt: skip


def _of_limits() -> Iterator[Edit]:
    """Whether a position is inside, as loops have it that run from the first to the last position that is."""
    limits = {
        "begins": ("p >= -((k * dilation - low) // stride)", "p >= {}"),
        "ends": ("p <= (X - 1 + low - k * dilation) // stride", "p <= {}"),
    }
    for name, (text, _) in limits.items():
        for axes in ("", "first", "last"):
            for changed in _texts(text, "convolution", ("p", "k"), True, axes):
                yield Edit("convolution", name, changed, axes, when="zeros")


@lru_cache(maxsize=2**10)
def _texts(text: str, nest: str, indices: tuple[str, ...], of_axes: bool, axes: str = "") -> tuple[str, ...]:
    """Every other expression that one edit makes of this one."""
    found: list[tuple[int, str]] = []
    count = sum(1 for _ in ast.walk(ast.parse(text, mode="eval")))
    for at in range(count):
        tree = ast.parse(text, mode="eval")
        node = list(ast.walk(tree))[at]
        for rank, other in _instead(node, nest, indices, of_axes, axes):
            found.append((rank, ast.unparse(_replaced(ast.parse(text, mode="eval"), at, other))))
    whole = ast.unparse(ast.parse(text, mode="eval").body)
    if not isinstance(ast.parse(text, mode="eval").body, ast.Compare):
        found += [(5, f"{whole} + 1"), (5, f"{whole} - 1")]
        if not of_axes and indices:
            found += [(6, f"({whole}) % {width}") for width in WIDTHS]
    found.sort(key=lambda item: item[0])
    return tuple(dict.fromkeys(changed for _, changed in found if changed != whole))


def _replaced(tree: ast.Expression, at: int, other: str) -> ast.AST:
    """The tree with the expression `other` for its node number `at`."""
    old, new = list(ast.walk(tree))[at], ast.parse(other, mode="eval").body

    class Change(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return new if node is old else self.generic_visit(node)

    return Change().visit(tree)


def _instead(node: ast.AST, nest: str, indices: tuple[str, ...], of_axes: bool, axes: str) -> Iterator[tuple[int, str]]:
    """What may stand for a part of an expression, with how far-fetched it is."""
    if isinstance(node, ast.Name):
        yield from _for_name(node.id, nest, indices, of_axes, axes)
    elif isinstance(node, ast.Constant):
        yield from ((5, f"{node.value + 1}"), (5, f"{node.value - 1}"))  # type: ignore[operator]
    elif isinstance(node, ast.Call):
        yield from ((4, ast.unparse(argument)) for argument in node.args)
    elif isinstance(node, ast.UnaryOp):
        yield 4, ast.unparse(node.operand)
    elif isinstance(node, ast.Compare):
        left, right = ast.unparse(node.left), ast.unparse(node.comparators[0])
        stricter = {ast.GtE: ">", ast.Lt: "<=", ast.LtE: "<"}[type(node.ops[0])]
        yield from ((3, f"{left} {stricter} {right}"), (4, "q == q" if "q" in left else "p == p"))
    elif isinstance(node, ast.BinOp):
        yield from _for_operation(node)


def _for_name(name: str, nest: str, indices: tuple[str, ...], of_axes: bool, axes: str) -> Iterator[tuple[int, str]]:
    base = name.split("_")[0]
    if of_axes and base in OF_AXES and name == base:
        yield from ((1, f"{base}_{other}") for other in OTHER_AXES[axes])
        yield from ((2, other) for other in OF_AXES[base])
    elif name in SIZES[nest]:
        yield from ((1, other) for other in SIZES[nest] if other != name)
    elif name in indices:
        yield from ((2, other) for other in indices if other != name)
        if of_axes:
            length = {"p": "P", "k": "kernel"}[name]
            yield 3, f"({length} - 1 - {name})"
            return
        lengths = {"n": "N", "a": "A", "c": "B_G", "k": "K", "s": "S", "t": "T"}
        if nest == "bias":
            lengths["a"] = "C_out"
        if name not in lengths:
            return
        mine = lengths[name]
        yield from (
            (3, f"({mine} - 1 - {name})"),
            (3, f"({name} // 2)"),
            (3, f"({name} - {name} % 2)"),
            (3, f"({name} % 2)"),
        )
        for other in indices:  # two loops in one, taken apart in the other order
            if other != name and other in lengths:
                yield 7, f"(({other} * {mine} + {name}) // {lengths[other]})"
                yield 7, f"(({name} * {lengths[other]} + {other}) % {mine})"


def _for_operation(node: ast.BinOp) -> Iterator[tuple[int, str]]:
    left, right = (f"({ast.unparse(side)})" for side in (node.left, node.right))
    kind = type(node.op)
    if kind in (ast.FloorDiv, ast.Mod):
        other = {ast.FloorDiv: "%", ast.Mod: "//"}[kind]
        yield 2, f"{left} {other} {right}"
        if kind is ast.FloorDiv:
            yield from ((3, f"up({left}, {right})"), (3, f"cut({left}, {right})"))
    elif kind in (ast.Add, ast.Sub):
        yield 3, f"{left} {'-' if kind is ast.Add else '+'} {right}"
    yield 4, left
    yield 4, f"-{right}" if kind is ast.Sub else right


def _keeps() -> Iterator[tuple[str, Keep]]:
    """Which of the values of an index count, in words for what is done to "the loop over ..."."""
    yield "ends {} one early", lambda at, n: at < n - 1
    yield "begins {} at 1", lambda at, n: at > 0
    yield "keeps only the last of {}, as where each is assigned, not added", lambda at, n: at == n - 1
    yield "keeps only the first of {}", lambda at, n: at == 0
    yield "ends {} one early where there are several", lambda at, n: (at < n - 1) | (n == 1)
    yield "goes through {} in steps of 2", lambda at, n: at % 2 == 0
    yield "leaves out the even numbers in {}", lambda at, n: at % 2 == 1
    for width in (2, 4, 8, 16):
        said = f"leaves out of {{}} what is beyond the last multiple of {width}"
        yield from ((said, _whole(width, 0)), (f"{said}, where there are {width} or more", _whole(width, 1)))
    for width in (3, 4, 8):
        rest = width - 1
        said = f"leaves out the last of {{}} where {rest} are left beyond a multiple of {width}"
        yield said, lambda at, n, width=width: (at < n - 1) | (n % width != width - 1)
    for width in (2, 4, 8):
        said = f"leaves out the last of {{}} where there is no multiple of {width}"
        yield said, lambda at, n, width=width: (at < n - 1) | (n % width == 0)
    for width in (4, 8, 16, 32, 64, 128, 256, 512):
        yield f"ends {{}} at {width}", lambda at, n, width=width: at < width


def _whole(width: int, least: int) -> Keep:
    return lambda at, n: (at < n // width * width) | ((n < width) & bool(least))


COUNTED: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "convolution": (
        (("c",), ""), (("a",), ""), (("n",), ""), (("k",), ""), (("k",), "first"), (("k",), "last"), (("p",), ""),
        (("p",), "first"), (("p",), "last"), (("n", "p"), ""), (("c", "k"), ""),
    ),
    "identity": ((("t",), ""), (("k",), ""), (("c",), ""), (("a",), "")),
    "delta": ((("s",), ""), (("k",), ""), (("c",), ""), (("a",), ""), (("k", "s"), "")),
    "bias": ((("n",), ""), (("p",), ""), (("p",), "first"), (("p",), "last"), (("n", "p"), ""), (("a",), "")),
}  # fmt: skip
STOPS: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "convolution": (
        (("k",), ""), (("k",), "last"), (("c", "k"), ""), (("c",), ""), (("p",), ""), (("p",), "last"), (("n", "p"), ""),
    ),
    "identity": ((("t",), ""), (("k",), "")),
    "delta": ((("s",), ""), (("k",), ""), (("c",), ""), (("a",), "")),
    "bias": ((("p",), ""), (("p",), "last"), (("n", "p"), "")),
}  # fmt: skip
ORDERS = {
    "convolution": ("nacpk", "nackp", "napck", "ncapk", "ncakp"), "identity": (), "delta": ("acks", "cask"),
    "bias": (),
}  # fmt: skip
KEEPS = tuple(_keeps())


@cache
def _ranges(nest: Nest) -> tuple[Edit, ...]:
    found = list[Edit]()
    for over, axes in COUNTED[nest.name]:
        found += [Edit(nest.name, words, over=over, axes=axes, keep=keep) for words, keep in KEEPS]
    if nest is CONVOLUTION:
        for axes in ("last", "first"):
            found += [Edit(nest.name, "valid", over=("p",), axes=axes, keep=keep) for _, keep in KEEPS]
    for over, axes in STOPS[nest.name]:
        found += [Edit(nest.name, "stops", over=over, axes=axes, stops=array) for array in nest.arrays]
    found += [Edit(nest.name, "assigned", over=tuple(order), last=True) for order in ORDERS[nest.name]]
    return tuple(found)


def keep_words(keep: Callable[..., Any]) -> str:
    """What a range does to its loop, which `{}` stands for."""
    return next(words for words, other in KEEPS if other is keep)
