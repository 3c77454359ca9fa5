"""Mistakes that are made in a part only: at some channels, images or positions, in the remainder of a loop over vectors.

Any mistake that has words may be made there. The part is not guessed: it is where the port is wrong, in the plainest words that
hold all of that, and the mistake must give the port's values in the whole of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_conformance.diagnosis import moves, selections
from doconv_conformance.diagnosis.agreement import same
from doconv_conformance.diagnosis.asking import Ask, Question, random_question
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.selections import Axis, Part
from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.port import Tensors
from doconv_core.geometry import ConvGeometry

MOST_FITS, MOST_PARTS = 16, 4
OF_BIAS = "selected-bias-"
# A kernel of more input channels, or `grad_y` with more values of its indices, is not asked about one by one.
MOST_ASKED = 160


def of_output(faults: Iterable[Fault], known: Sequence[Fault], question: Question, got: np.ndarray) -> list[Fault]:
    """Mistakes of `forward` that `got`, its output for the question, has in a part of it, and not in the others."""
    found, right = list[Fault](), _output(known, question)
    if right is None or right.shape != got.shape or np.array_equal(got, right):
        return []
    wrong = got != right
    parts = [
        item
        for item in selections.parts(selections.axes("y", got.shape, question.geometry), got.shape, wrong)
        if item[0]
    ]
    for fault in faults:
        planted = _output((*known, fault), question) if fault.where(question.geometry) else None
        if planted is None or planted.shape != got.shape or not np.array_equal(planted[wrong], got[wrong]):
            continue
        fitting = [part for part, at in parts if np.array_equal(planted[at], got[at])]
        found += [_at_outputs(fault, known, part) for part in fitting[:MOST_PARTS]]
        if len(found) >= MOST_FITS:
            break
    return found


def _output(faults: Sequence[Fault], question: Question) -> np.ndarray | None:
    active = [fault for fault in faults if fault.where(question.geometry)]
    outputs = run(active, question.geometry, "forward", question.inputs("forward"))
    return None if outputs is None else outputs["y"]


def _at_outputs(fault: Fault, known: Sequence[Fault], part: Part) -> Fault:
    def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        names = ("x", "W", "D_delta", "bias")
        given = {name: inputs[name] for name in names if name in inputs}
        outputs = run([one for one in (*known, fault) if one.where(g)], g, "forward", given)
        if outputs is None or outputs["y"].shape != y.shape:
            return y
        return np.where(selections.mask(part, selections.axes("y", y.shape, g), y.shape), outputs["y"], y)

    where = selections.words(part)
    return Fault(f"selected-{fault.name}{where}", f"{fault.words}{where} of y", f"{fault.look_at}{where} of y",
                 {"result": result}, fault.where)  # fmt: skip


def of_bias(whole: np.ndarray, bare: np.ndarray, question: Question) -> list[Fault]:
    """What is wrong with the bias in a part of the output, from the answers with and without it."""
    g, bias = question.geometry, question.tensors["bias"]
    if whole.shape != bare.shape or whole.shape[1] != len(bias):
        return []
    right = np.broadcast_to(bias.reshape(-1, *[1] * g.spatial_rank), whole.shape)
    return [
        _bias_at(*item)
        for item in selections.found_in("y", whole.astype(np.float64) - bare.astype(np.float64), right, g)
    ]


def _bias_at(part: Part, relation: selections.Relation) -> Fault:
    def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        if "bias" not in inputs:
            return y
        bias = np.broadcast_to(inputs["bias"].astype(np.float64).reshape(-1, *[1] * g.spatial_rank), y.shape)
        at = selections.mask(part, selections.axes("y", y.shape, g), y.shape)
        return y + np.where(at, relation.change(bias) - bias, 0)

    said = relation.words.format("the bias") + selections.words(part)
    return Fault(f"{OF_BIAS}{said}", said, f"where the bias is added{selections.words(part)}", {"result": result})


def of_input_channels(ask: Ask, case: Case, known: Sequence[Fault]) -> list[Fault]:
    """Moves of the kernel in the products with some input channels: those whose input, alone, gives a wrong output."""
    g, question = case.geometry, random_question(case, 1)
    if not 1 < g.in_channels <= MOST_ASKED:
        return []
    question = question.with_(bias=np.zeros(g.out_channels)) if case.bias else question
    channels = np.arange(g.in_channels).reshape(1, -1, *[1] * g.spatial_rank)
    wrong = np.zeros(g.in_channels, bool)
    for channel in range(g.in_channels):
        alone = question.with_(x=np.where(channels == channel, question.tensors["x"], 0))
        answer, right = ask("forward", alone), _output(known, alone)
        if answer is None or right is None or "y" not in answer:
            return []
        wrong[channel] = not same({"y": answer["y"]}, {"y": right})
    if wrong.all() or not wrong.any():
        return []
    asked = question.with_(x=np.where(wrong.reshape(channels.shape), question.tensors["x"], 0))
    answer = ask("forward", asked)
    axes = _input_channels(g)
    parts = [item for item in selections.parts(axes, (g.in_channels,), wrong) if np.array_equal(item[1], wrong)]
    if answer is None or not parts:
        return []
    usable = [fault for fault in moves.of_kernel("conv_kernel") if fault.where(g)]
    fitting = [fault for fault in usable if same(answer, run((*known, fault), g, "forward", asked.inputs("forward")))]
    return [_at_inputs(fault, part) for fault in fitting[:MOST_FITS] for part, _ in parts[:MOST_FITS]]


def _input_channels(g: ConvGeometry) -> list[Axis]:
    at, of_group = np.arange(g.in_channels), g.in_channels // g.groups
    found = [Axis("input channel", at, g.in_channels), Axis("input channel of each group", at % of_group, of_group)]
    return [axis for axis in found if axis.size > 1]


def _at_inputs(fault: Fault, part: Part) -> Fault:
    (hook,) = fault.hooks

    def change(kernel: np.ndarray, g: ConvGeometry) -> np.ndarray:
        axes = selections.axes("conv_kernel", kernel.shape, g)
        return np.where(selections.mask(part, axes, kernel.shape), fault.hooks[hook](kernel, g), kernel)

    where = selections.words(part)
    return Fault(
        f"selected-{fault.name}{where}", f"{fault.words}{where}", f"{fault.look_at}{where}", {hook: change}, fault.where
    )


def of_gradient(ask: Ask, case: Case, known: Sequence[Fault], name: str) -> list[Fault]:
    """Parts of `grad_y` that one gradient leaves out: `grad_y` that is nothing elsewhere gives nothing."""
    question = random_question(case, 1)
    grad_y, found, asked = question.tensors["grad_y"], list[Fault](), 0
    for axis in selections.axes("y", grad_y.shape, case.geometry):
        if asked + axis.size > MOST_ASKED:
            continue
        asked += axis.size
        lost = np.zeros(axis.size, bool)
        for value in range(axis.size):
            alone = question.with_(grad_y=np.where(axis.at == value, grad_y, 0))
            answer, right = ask("backward", alone), run(known, case.geometry, "backward", alone.inputs("backward"))
            if answer is None or right is None or name not in answer:
                return []
            lost[value] = not answer[name].any() and right[name].any()
        if not lost.any():
            continue
        values = np.arange(axis.size)
        for condition in axis.parts or selections.conditions(axis.size):
            if np.array_equal(condition.holds(values, axis.size), lost):
                found.append(_left_out(name, ((axis.name, condition),)))
    return found[:MOST_FITS]


def _left_out(name: str, part: Part) -> Fault:
    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        grad_y = inputs["grad_y"]
        at = selections.mask(part, selections.axes("y", grad_y.shape, g), grad_y.shape)
        kept = run([], g, "backward", {**inputs, "grad_y": np.where(at, 0, grad_y).astype(grad_y.dtype)})
        return gradients if kept is None or name not in kept else gradients | {name: kept[name]}

    said = f"leaves grad_y{selections.words(part)} out of {name}"
    return Fault(f"selected-{said}", said, f"the sum over grad_y in {name}", {"gradients": change})
