"""Edits in plain words: what was written, beside what is right, in the README's symbols."""

from __future__ import annotations

import ast
import re

from doconv_conformance.diagnosis.loops.edits import keep_words
from doconv_conformance.diagnosis.loops.layer import BOTH, NESTS
from doconv_conformance.diagnosis.loops.nest import Edit

SYMBOLS = {
    "plain": {"A": "C_out", "B": "C_in", "A_G": "C_out/G", "B_G": "C_in/G", "a": "o", "b": "i", "c": "c"},
    "transposed": {"A": "C_in", "B": "C_out", "A_G": "C_in/G", "B_G": "C_out/G", "a": "i", "b": "o", "c": "oc"},
}
PLAIN = {
    "T": "floor(S/K)", "Q": "positions", "R": "positions of y", "V": "positions", "kernel": "kernel size", "low": "low padding",
    "high": "high padding", "tap": "k", "inner": "position", "outer": "position", "m": "position", "at": "number so far",
    "q": "q", "P": "output size", "X": "size", "Y": "size",
}  # fmt: skip
ENDS = {"first": "the first axis's {}", "last": "the last axis's {}", "before": "the {} of the axis before",
        "after": "the {} of the axis after", "across": "the {} of the axes in reverse order"}  # fmt: skip
# Powers of two from here on are said as such.
LONG = 2**10
PRECEDENCE = {ast.Add: 1, ast.Sub: 1, ast.Mult: 2, ast.FloorDiv: 9, ast.Mod: 2}
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Mod: "mod"}
COMPARED = {ast.GtE: ">=", ast.Gt: ">", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "="}
MEANING = {
    "b": "the channel of {big}", "i": "the row of D_delta", "q": "the position in {big}", "tap": "the number of a tap",
    "s": "the column of W",
    "inner": "the position in {big}, counted in memory", "outer": "the position in {small}, counted in memory",
}  # fmt: skip
ARRAYS = {
    # step, kind: small, big, kernel
    ("forward", "plain"): ("y", "x", "W'"), ("forward", "transposed"): ("x", "y", "W'"),
    ("grad_x", "plain"): ("grad_y", "grad_x", "W'"), ("grad_x", "transposed"): ("grad_x", "grad_y", "W'"),
    ("grad_kernel", "plain"): ("grad_y", "x", "the gradient of W'"),
    ("grad_kernel", "transposed"): ("x", "grad_y", "the gradient of W'"),
}  # fmt: skip
GRADIENTS = {"grad_x": "grad_x", "grad_kernel": "the gradient of W'", "grad_W": "grad_W", "grad_D": "grad_D_delta",
             "grad_bias": "grad_bias"}  # fmt: skip
RESULTS = {"forward": {"plain": "small", "transposed": "big"}, "grad_x": {"plain": "big", "transposed": "small"},
           "grad_kernel": {"plain": "kernel", "transposed": "kernel"}}  # fmt: skip


def words(edit: Edit, step: str, kind: str) -> str:
    """As a clause that completes "a port that ...".

    Args:
        edit: what is written otherwise.
        step: the result in which it was found: "compose", "forward", "grad_x", "grad_kernel", "grad_W", "grad_D", "grad_bias".
        kind: of the layer in which it was found, "plain" or "transposed".
    """
    names, result = _arrays(edit.nest, step, kind)
    where = f" in {GRADIENTS[step]}" if step in GRADIENTS else ""
    parts = {("identity", "compose"): " in W E^T", ("bias", "forward"): " where the bias is added"}
    part = parts.get((edit.nest, step), "")
    axes = f" along the {edit.axes} axis" if edit.axes else ""
    outside = ", with 0 for what is read outside of an array" if edit.beyond == 0 else ""
    if edit.stops:
        return f"stops {_loop(edit, kind, names)} at the first 0 of {names[edit.stops]}{part}{where}"
    if edit.last:
        return f"assigns each product to {names[result]} in place of adding it: the last one stays{part}{where}"
    if edit.keep is not None:
        kept = keep_words(edit.keep)
        of_all = step == "grad_bias" and edit.over == ("p",) and not edit.axes
        if of_all and (limit := re.fullmatch(r"ends {} at (\d+)", kept)):
            return f"leaves grad_y at each position counted over space beyond the first {limit[1]} out of grad_bias"
        return f"{kept.format(_loop(edit, kind, names))}{part}{where}"
    nest = NESTS["delta" if edit.nest == BOTH else edit.nest]
    if edit.name in nest.loops:
        loop = f"the loop over {_index(edit.name, kind)}"
        new, right = (said(text, kind) for text in (edit.text, nest.loops[edit.name]))
        return f"runs {loop} to {new} where {right} is right{part}{where}{outside}"
    line = nest.line(edit.name, (edit.when,))
    new, right = (said(text, kind) for text in (edit.text, line.text))
    if edit.name.endswith("_at"):
        array = edit.name.removesuffix("_at")
        verb = "writes" if array == result else "reads"
        return f"{verb} {names[array]} at {new} where {right} is right{part}{where}{outside}"
    if edit.name in ("begins", "ends"):
        asked = "q >= 0" if edit.name == "begins" else "q < size"
        return f"takes a position for inside of {names['big']} where {new}, not where {asked}{axes}{where}{outside}"
    if edit.name == "m":
        return f"takes {new} for the element that position q stands for, where {right} is right{axes}{part}{where}{outside}"
    meaning = MEANING[edit.name].format(**names)
    only = {("m",): " where it reads", ("begins", "ends"): " where it looks whether it is inside"}.get(edit.seen, "")
    return f"takes {new} for {meaning}{only}, where {right} is right{axes}{part}{where}{outside}"


def _arrays(nest: str, step: str, kind: str) -> tuple[dict[str, str], str]:
    """What the arrays of a nest are, and which is the result."""
    if nest == "convolution":
        small, big, kernel = ARRAYS[step, kind]
        return {"small": small, "big": big, "kernel": kernel}, RESULTS[step][kind]
    of_y = "grad_y" if step == "grad_bias" else "y"
    if nest == "bias":
        return {"bias": "the bias", "y": of_y, "small": of_y}, "bias" if step == "grad_bias" else "y"
    names = {"W": "W", "D": "D_delta", "weight": "W'" if step == "compose" else "the gradient of W'"}
    result = {"grad_W": "W", "grad_D": "D"}.get(step, "weight")
    return names if result == "weight" else names | {result: GRADIENTS[step]}, result


def _loop(edit: Edit, kind: str, names: dict[str, str]) -> str:
    over = " and ".join(_index(index, kind) for index in edit.over)
    along = f" along the {edit.axes} axis" if edit.axes else ""
    inside = ", of those that a tap meets inside" if edit.name == "valid" else ""
    return f"the loop over {over}{along}{inside}"


def _index(index: str, kind: str) -> str:
    said = {"n": "the images", "p": "the positions", "k": "the taps", "s": "the columns s", "t": "the whole tiles"}
    channels = {"a": f"the channels {SYMBOLS[kind]['a']}", "c": f"the channels {SYMBOLS[kind]['c']} of a group"}
    return {**said, **channels}[index]


def said(text: str, kind: str) -> str:
    """An expression in the README's symbols."""
    return _said(ast.parse(text, mode="eval").body, kind, 0)


def _said(node: ast.AST, kind: str, outer: int) -> str:
    if isinstance(node, ast.Name):
        return _name(node.id, kind, outer)
    if isinstance(node, ast.Call) and (
        rounded := {"up": "ceil({} / {})", "cut": "trunc({} / {})"}.get(ast.unparse(node.func))
    ):
        return rounded.format(*(_said(argument, kind, at) for argument, at in zip(node.args, (2, 3), strict=True)))
    if isinstance(node, ast.Call):
        return f"{_said(node.func, kind, 0)}({', '.join(_said(argument, kind, 0) for argument in node.args)})"
    if isinstance(node, ast.UnaryOp):
        return f"-{_said(node.operand, kind, 9)}"
    if isinstance(node, ast.Compare):
        return f"{_said(node.left, kind, 0)} {COMPARED[type(node.ops[0])]} {_said(node.comparators[0], kind, 0)}"
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.FloorDiv):
            return f"floor({_said(node.left, kind, 2)} / {_said(node.right, kind, 3)})"
        mine = PRECEDENCE[type(node.op)]
        left, right = _said(node.left, kind, mine), _said(node.right, kind, mine + 1)
        text = f"{left} {SIGNS[type(node.op)]} {right}"
        return f"({text})" if mine < outer else text
    if isinstance(node, ast.Constant) and node.value >= LONG and node.value & (node.value - 1) == 0:  # type: ignore[operator]
        return f"2^{node.value.bit_length() - 1}"  # type: ignore[union-attr]
    return ast.unparse(node)


def _name(name: str, kind: str, outer: int) -> str:
    base, _, end = name.rpartition("_")
    if end in ENDS:
        return ENDS[end].format(PLAIN.get(base, base))
    found = {**PLAIN, **SYMBOLS[kind]}.get(name, name)
    return f"({found})" if "/" in found and outer > 1 and not found.startswith("floor") else found
