"""Which single edit of the layer's loops a port's failures are those of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np

from doconv_conformance.diagnosis.agreement import same
from doconv_conformance.diagnosis.asking import Ask, Question
from doconv_conformance.diagnosis.loops import layer
from doconv_conformance.diagnosis.loops.edits import READ, edits, of_both_sums, of_padded
from doconv_conformance.diagnosis.loops.layer import BIAS, CONVOLUTION, DELTA, IDENTITY, Planted
from doconv_conformance.diagnosis.loops.nest import Edit, Nest
from doconv_conformance.diagnosis.loops.words import words
from doconv_conformance.diagnosis.planted import answer, run
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.port import Tensors
from doconv_core.geometry import ConvGeometry

Steps = tuple[str, ...]
OUTPUTS = ("grad_x", "grad_W", "grad_D_delta", "grad_bias")
Fits = list[tuple[Fault, ...]]
# The nests of a step, and the steps that follow it where a framework takes the gradients of what is computed.
FOLLOWED: dict[str, tuple[tuple[Nest, ...], Steps]] = {
    "compose": ((IDENTITY, DELTA), ("compose", "grad_W", "grad_D")),
    "forward": ((CONVOLUTION, BIAS), ("forward", "grad_x", "grad_kernel", "grad_bias")),
}
OF_GRADIENTS: dict[tuple[str, ...], tuple[tuple[str, tuple[Nest, ...]], ...]] = {
    ("grad_x",): (("grad_x", (CONVOLUTION,)),),
    ("grad_bias",): (("grad_bias", (BIAS,)),),
    ("grad_W",): (("grad_W", (DELTA, IDENTITY)), ("grad_kernel", (CONVOLUTION,))),
    ("grad_D_delta",): (("grad_D", (DELTA,)), ("grad_kernel", (CONVOLUTION,))),
    ("grad_W", "grad_D_delta"): (("grad_kernel", (CONVOLUTION,)), ("grad_W+grad_D", (DELTA,))),
    ("grad_x", "grad_W", "grad_D_delta"): (("grad_x+grad_kernel", (CONVOLUTION,)),),
}
# Code that both kinds of layer share: what gathers from the big side, and what scatters to it.
SHARED: dict[str, tuple[Steps, str]] = {
    "plain": (("plain:forward", "transposed:grad_x"), ", in y and, of transposed layers, in grad_x"),
    "transposed": (("transposed:forward", "plain:grad_x"), ", in y of transposed layers and in grad_x of the others"),
}
# Edits that are looked at closely, and where several gradients have one each.
MOST_FITS, MOST_OF_SEVERAL = 8, 3
# Of a large array addresses may wrap around after so many elements.
LEAST_WRAP = 2**15
# And an index of channels or positions.
LEAST_WIDE = 2**5


def fits(
    ask: Ask, row: Row, others: Callable[[], Sequence[Row]], known: Callable[[Row], Sequence[Fault]], wide: bool = False
) -> Fits:
    """Sets of faults of one edit each that explain a row: those that explain the most of some other ones.

    Args:
        ask: to see whether there is time.
        row: one that fails.
        others: answers, right and wrong ones, to other questions of the same operation.
        known: what is planted in a row already.
        wide: whether only indices that wrap around are tried: each edit takes long on a large row.
    """
    if row.operation != "backward":
        return [(fault,) for fault in _found(ask, row, others, known, tuple(row.want), wide)]
    right = run(known(row), row.case.geometry, row.operation, row.case.inputs(row.operation))
    if right is None:
        return []
    wrong = tuple(name for name in OUTPUTS if name in right and not _agrees(right, row, (name,)))
    parameters = tuple(name for name in wrong if name in ("grad_W", "grad_D_delta"))
    parts = [wrong, tuple(name for name in wrong if name == "grad_x"), parameters, *((name,) for name in parameters),
             tuple(name for name in wrong if name == "grad_bias")]  # fmt: skip
    chosen, left = list[list[Fault]](), set(wrong)
    for part in dict.fromkeys(parts):
        if part in OF_GRADIENTS and left.issuperset(part):
            of_part = _found(ask, row, others, known, part, wide)
            if of_part:
                chosen.append(of_part)
                left -= set(part)
    most = MOST_FITS if len(chosen) == 1 else MOST_OF_SEVERAL
    return [] if left else list(product(*(of_part[:most] for of_part in chosen)))


def _found(
    ask: Ask,
    row: Row,
    others: Callable[[], Sequence[Row]],
    known: Callable[[Row], Sequence[Fault]],
    names: Sequence[str],
    wide: bool,
) -> list[Fault]:
    found, planted_ = list[Fault](), known(row)
    alone = _Alone(row) if row.operation == "backward" and not planted_ else None
    geometry, operation, inputs = row.case.geometry, row.operation, row.case.inputs(row.operation)
    unedited = answer(planted_, geometry, operation, inputs)
    for number, fault in enumerate(_candidates(row, tuple(names))):
        if number % 64 == 0:
            ask.check()
        if not fault.where(geometry) or (wide and _wraps_at(fault) < LEAST_WIDE):
            continue
        if alone is not None and not alone.may_be(fault):
            continue
        outputs = answer((*planted_, fault), geometry, operation, inputs)
        if outputs is None or (unedited is not None and _equal(outputs, unedited, names)):
            continue
        if _agrees(outputs, row, names):
            found.append(fault)
        elif row.finite and any(np.isnan(value.astype(np.float64)).any() for value in outputs.values()):
            (one,) = fault.hooks["loops"]
            nothing = planted(replace(one.edit, beyond=0.0), one.step, tuple(one.steps), one.kind)
            outputs = answer((*planted_, nothing), geometry, operation, inputs)
            if outputs is not None and _agrees(outputs, row, names):
                found.append(nothing)
    found += [twin for fault in found if (twin := _padded(fault))]
    if len(found) < 2:
        return found
    rows, scores = others(), list[int]()
    for fault in found:
        ask.check()
        scores.append(sum(_explains((*known(other), fault), other, names) for other in rows))
    return [found[at] for at in sorted(range(len(found)), key=lambda at: -scores[at])[:MOST_FITS]]


class _Alone:
    """One gradient of a row by itself, which takes a fraction of the time of all."""

    def __init__(self, row: Row) -> None:
        self.row, self.g = row, row.case.geometry
        inputs = row.case.inputs("backward")
        self.x, self.grad_y = inputs["x"], inputs["grad_y"].astype(np.float64)
        self.W, self.D = inputs["W"].astype(np.float64), inputs.get("D_delta")
        composed = run([], self.g, "compose", {name: inputs[name] for name in ("W", "D_delta") if name in inputs})
        assert composed is not None  # nothing is planted
        self.kernel = composed["weight"].astype(self.x.dtype)
        self.grad_kernel = self._convolved("grad_kernel", ())

    def _convolved(self, step: str, edits_: tuple[Edit, ...]) -> np.ndarray:
        arrays = {"y": self.grad_y} | ({"x": self.x} if step == "grad_kernel" else {"kernel": self.kernel})
        return layer.convolved(step, edits_, self.g, arrays, self.x.shape)

    def may_be(self, fault: Fault) -> bool:
        """Whether the first gradient that an edit changes is the port's with it, or has a NaN that may be read otherwise."""
        (one,) = fault.hooks["loops"]
        try:
            name, value = self._of(one.step.split("+")[0], (one.edit,))
        except (ValueError, IndexError, ZeroDivisionError):
            return False
        got = self.row.got[name]
        cast = value.reshape(self.row.want[name].value.shape).astype(got.dtype)
        return bool(np.isnan(value).any()) or same({name: got}, {name: cast})

    def _of(self, step: str, edits_: tuple[Edit, ...]) -> tuple[str, np.ndarray]:
        if step == "grad_x":
            return "grad_x", self._convolved(step, edits_)
        if step == "grad_bias":
            return step, layer.grad_bias(edits_, self.g, self.grad_y, self.x.shape)
        grad_kernel = self._convolved(step, edits_) if step == "grad_kernel" else self.grad_kernel
        if step == "grad_D":
            return "grad_D_delta", layer.grad_D(edits_, self.g, grad_kernel, self.W)
        return "grad_W", layer.grad_W(edits_ if step == "grad_W" else (), self.g, grad_kernel, self.D)


def _explains(faults: Sequence[Fault], row: Row, names: Sequence[str]) -> bool:
    g = row.case.geometry
    outputs = answer([fault for fault in faults if fault.where(g)], g, row.operation, row.case.inputs(row.operation))
    return outputs is not None and _agrees(outputs, row, [name for name in names if name in row.want])


def _agrees(outputs: Tensors, row: Row, names: Sequence[str]) -> bool:
    return all(
        name in outputs and name in row.got and same({name: row.got[name]}, {name: outputs[name]}) for name in names
    )


def _equal(outputs: Tensors, others: Tensors, names: Sequence[str]) -> bool:
    return all(np.array_equal(outputs[name], others[name], equal_nan=True) for name in names)


def _candidates(row: Row, names: tuple[str, ...]) -> Iterator[Fault]:
    g = row.case.geometry
    when = (g.padding_mode, "transposed" if g.transposed else "plain")
    if row.operation == "backward":
        for step, nests in OF_GRADIENTS[names]:
            yield from _of_step(step, nests, tuple(step.split("+")), when)
    elif row.operation in ("compose", "initialise"):
        yield from _of_step("compose", *FOLLOWED["compose"], when)
    else:
        yield from _of_step("forward", *FOLLOWED["forward"], when)
        yield from _of_step("compose", *FOLLOWED["compose"], when)


@lru_cache(maxsize=64)
def _of_step(step: str, nests: tuple[Nest, ...], steps: Steps, when: tuple[str, str]) -> tuple[Fault, ...]:
    found = [edit for nest in nests for edit in edits(nest, when)]
    if CONVOLUTION in nests and when[0] != "zeros":
        found += of_padded(when[1])
    if nests == FOLLOWED["compose"][0]:
        found += of_both_sums()
    return tuple(planted(edit, step, steps, when[1]) for edit in found)


def of_large(got: np.ndarray, question: Question, known: Sequence[Fault]) -> list[Fault]:
    """Addresses of a large composition that wrap around: with which its channel that is wrong first is as in `got`."""
    g, right = question.geometry, run(known, question.geometry, "compose", question.inputs("compose"))
    if right is None or got.shape != g.kernel_shape or known:
        return []
    wrong = np.flatnonzero((got != right["weight"]).reshape(len(got), -1).any(1))
    if not len(wrong):
        return []
    inputs, block, found = question.inputs("compose"), slice(int(wrong[0]), int(wrong[0]) + 1), list[Fault]()
    kind = "transposed" if g.transposed else "plain"
    for fault in _of_step("compose", *FOLLOWED["compose"], (g.padding_mode, kind)):
        (one,) = fault.hooks["loops"]
        if not one.edit.name.endswith("_at") or _wraps_at(fault) < LEAST_WRAP:
            continue
        weight = layer.composed((one.edit,), g, inputs["W"], inputs.get("D_delta"), block).reshape(g.kernel_shape)
        if np.array_equal(weight[block], got[block]):
            found.append(fault)
    return found


def _padded(fault: Fault) -> Fault | None:
    """The same in an input that is padded first, which is told apart in other modes than zeros only."""
    (one,) = fault.hooks["loops"]
    if one.edit.nest != CONVOLUTION.name or one.edit.name not in READ or one.edit.padded:
        return None
    return planted(replace(one.edit, padded=True, when=""), one.step, tuple(one.steps), one.kind)


def _wraps_at(fault: Fault) -> int:
    """After how many an index wraps around; 0 where none does."""
    (one,) = fault.hooks["loops"]
    found = re.search(r"% (\d+)$", one.edit.text)
    return int(found[1]) if found else 0


def planted(edit: Edit, step: str, steps: Steps, kind: str, more: str = "") -> Fault:
    """An edit as a fault of some steps, in the words for where it was found."""
    said = words(edit, step.split("+")[0], kind)
    if step == "grad_W+grad_D":
        said = said.replace(" in grad_W", " in grad_W and grad_D_delta")
    if step == "grad_x+grad_kernel":
        said = said.replace(" in grad_x", " in the gradients")
    name = f"loops-{'-'.join(sorted(steps))}-{said}"

    def where(g: ConvGeometry) -> bool:
        kinds = (g.padding_mode, "transposed" if g.transposed else "plain")
        return edit.when in ("", *kinds) and (not edit.axes or g.spatial_rank > 1 or edit.axes == "last")

    hooks = {"loops": (Planted(edit, frozenset(steps), step, kind),)}
    return Fault(name, f"{said}{more}", "the loops: their bounds and addresses", hooks, where)


def otherwise(faults: Sequence[Fault]) -> list[tuple[Fault, ...]]:
    """The same edits in other steps of backward: in code that both kinds of layer share, or without what would follow them."""
    if len(faults) != 1 or faults[0].hooks.keys() != {"loops"}:
        return []
    (one,) = faults[0].hooks["loops"]
    others = list[tuple[Steps, str]]()
    if one.step == "compose":
        others = [(("compose",), ", in the composed kernel only")]
    elif one.step == "forward" and one.edit.nest == CONVOLUTION.name:
        others = [SHARED[one.kind], (("forward", "grad_x"), ", and so in grad_x"),
                  (("forward", "grad_kernel"), ", and so in the gradient of W'")]  # fmt: skip
    return [(planted(one.edit, one.step, steps, one.kind, more),) for steps, more in others]
