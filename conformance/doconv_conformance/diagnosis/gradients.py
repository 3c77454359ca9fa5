"""The gradients: whether they are those of what the port computes forward, and if not, what they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_conformance.diagnosis import added, convolution, in_parts, moves, selections
from doconv_conformance.diagnosis.agreement import same
from doconv_conformance.diagnosis.asking import Ask, Question, random_question
from doconv_conformance.diagnosis.gradient_faults import OUTPUTS, gates, of_all, of_one, overwritten, x_moved
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.readings import readings
from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.port import Tensors
from doconv_core.geometry import ConvGeometry

Fits = list[tuple[Fault, ...]]
# Of fewer different values any factor may be an accident.
LEAST_DISTINCT = 6


def fits(ask: Ask, case: Case, known: Sequence[Fault], left_out: Collection[Fault] = ()) -> Fits:
    """Sets of faults, one for each gradient that is wrong, with which the reference answers as the port does.

    Those in `left_out` are not used.
    """
    question = random_question(case, 1)
    got = ask("backward", question)
    right = _planted(known, question)
    if got is None or right is None:
        return []
    if (typed := _other_types(got, right)) is not None:
        return [(typed,)] if _explains(typed, known, question, got, list(right)) else []
    wrong = [name for name in OUTPUTS if name in right and not same(_only(got, name), _only(right, name))]
    everything = [name for name in OUTPUTS if name in right]

    def explaining(faults: Sequence[Fault], of: Sequence[str]) -> list[Fault]:
        found = []
        for fault in faults:
            ask.check()
            if fault not in left_out and _explains(fault, known, question, got, of):
                found.append(fault)
        return found

    if shared := explaining((*of_all(), *gates()), everything):
        alone = of_one(wrong[0], case.geometry) if len(wrong) == 1 else []
        return [(fault,) for fault in (*shared, *explaining([one for one in alone if one not in shared], wrong))]
    chosen: list[Fits] = []
    for name in wrong:
        of_name: Fits = [(fault,) for fault in explaining(of_one(name, case.geometry), [name])]
        if not of_name and name == "grad_x":
            of_name = [fit for fit in _map_of_grad_x(ask, case, known) if fit]  # of a right map nothing is said
        if not of_name and name in ("grad_W", "grad_D_delta"):
            of_name = _both_of_kernel(question, got, known, wrong, case.geometry)
            if of_name:
                rest = [other for other in wrong if other in ("grad_x", "grad_bias") and other != name]
                chosen = [item for item, other in zip(chosen, wrong, strict=False) if other in rest] + [of_name]
                wrong = rest
                break
        if not of_name and name == "grad_x" and name in got:
            of_name = _left_over(got[name], right[name], question.inputs("backward")["x"], case.geometry)
        if not of_name and name in got:
            of_name = [(fault,) for fault in added.fits(name, got[name], right[name], question.inputs("backward"))]
        if not of_name and name in got:
            of_name = [(fault,) for fault in selections.fits(name, got[name], right[name], case.geometry)]
        if not of_name:
            of_name = [(fault,) for fault in in_parts.of_gradient(ask, case, known, name)]
        if not of_name:
            return []
        chosen.append(of_name)
    if len(chosen) == 1:
        return chosen[0]
    found: Fits = [()]
    for of_name in chosen:
        found = [(*before, *one) for before in found for one in of_name[:8]]
    return found[:32]


def _other_types(got: Tensors, right: Tensors) -> Fault | None:
    """Gradients that come in the type of the activations, or all in float32, whatever the parameters' is."""
    wrong = tuple(name for name in OUTPUTS if name in right and name in got and got[name].dtype != right[name].dtype)
    if not wrong:
        return None
    of_x = all(got[name].dtype == right["grad_x"].dtype for name in wrong)

    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        dtype = inputs["x"].dtype if of_x else got[wrong[0]].dtype
        return {name: value.astype(dtype) if name in wrong else value for name, value in gradients.items()}

    words = f"gives {' and '.join(wrong)} in {'the type of x' if of_x else got[wrong[0]].dtype}"
    return Fault(f"types-{'-'.join(wrong)}-{of_x}", words, "the types of the gradients: those of their tensors",
                 {"gradients": change})  # fmt: skip


def _planted(faults: Sequence[Fault], question: Question) -> Tensors | None:
    active = [fault for fault in faults if fault.where(question.geometry)]
    return run(active, question.geometry, "backward", question.inputs("backward"))


def _only(tensors: Tensors, name: str) -> Tensors:
    return {name: tensors[name]} if name in tensors else {}


def _explains(fault: Fault, known: Sequence[Fault], question: Question, got: Tensors, wrong: Sequence[str]) -> bool:
    """Whether the fault gives all gradients in `wrong`."""
    planted = _planted((*known, fault), question)
    return bool(wrong) and planted is not None and all(same(_only(got, name), _only(planted, name)) for name in wrong)


def _map_of_grad_x(ask: Ask, case: Case, known: Sequence[Fault]) -> Fits:
    measured = convolution.measure(ask, case, known, backward=True)
    return convolution.fits(measured, "options_grad_x", "in the gradient of x") if measured else []


def _both_of_kernel(
    question: Question, got: Tensors, known: Sequence[Fault], wrong: Sequence[str], g: ConvGeometry
) -> Fits:
    """Mistakes of the composed kernel's gradient, from which both parameters' follow: other options, then two at a time."""
    parameters = [name for name in wrong if name in ("grad_W", "grad_D_delta")]
    found: Fits = []
    for rules in readings(g):
        faults = [rule.fault("options_grad_kernel", "in the gradient of the composed kernel") for rule in rules]
        if _explains(faults[0], known, question, got, parameters):
            found += [(fault,) for fault in faults]
    single = (overwritten(), *(x_moved(fault) for fault in moves.of_activations("x")))
    found += [(fault,) for fault in single if _explains(fault, known, question, got, parameters)]
    if found or len(parameters) == 1:
        return found
    of_each = {
        name: [fault for fault in of_one(name, g) if _explains(fault, known, question, got, [name])]
        for name in parameters
    }
    if all(of_each.values()):
        return [tuple(of_each[name][0] for name in parameters)]
    return []


def _left_over(got: np.ndarray, right: np.ndarray, x: np.ndarray, g: ConvGeometry) -> Fits:
    """`x` in place of its gradient in a part: what was in the buffer before."""
    wrong = got != right
    if got.shape != right.shape or not np.array_equal(got[wrong], x[wrong]):
        return []
    parts = selections.parts(selections.axes("grad_x", x.shape, g), x.shape, wrong)
    single = takewhile(lambda item: len(item[0]) < 2, parts)
    fitting = [part for part, at in single if np.array_equal(got[at], x[at])]
    return [(_x_left(part),) for part in fitting]


def _x_left(part: selections.Part) -> Fault:
    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        x = inputs["x"]
        at = selections.mask(part, selections.axes("grad_x", x.shape, g), x.shape)
        return gradients | {"grad_x": np.where(at, x, gradients["grad_x"])}

    where = selections.words(part)
    return Fault(f"x-left-{where}", f"has x itself for grad_x{where}", "what is in the buffer of grad_x before it is written",
                 {"gradients": change})  # fmt: skip


def facts(ask: Ask, case: Case, known: Sequence[Fault]) -> list[str]:
    """In words: which gradients are wrong, their ratio to the right ones, and whether they are of the port's own output."""
    question = random_question(case, 1)
    got, right = ask("backward", question), _planted(known, question)
    if got is None or right is None:
        return ["backward answers nothing there"] if got is None else []
    lines = []
    wrong = [name for name in OUTPUTS if name in right and not same(_only(got, name), _only(right, name))]
    for name in wrong:
        if name not in got or got[name].shape != right[name].shape:
            lines.append(f"{name} is missing or of another shape")
            continue
        if got[name].dtype != right[name].dtype:
            lines.append(f"{name} comes in {got[name].dtype}; must be {right[name].dtype}")
            continue
        with np.errstate(all="ignore"):
            ratio = got[name].astype(np.float64) / right[name]
        seen = np.unique(ratio[np.isfinite(ratio)])
        distinct = len(np.unique(right[name][right[name] != 0]))
        if len(seen) == 1 and distinct >= LEAST_DISTINCT and np.array_equal(got[name], seen[0] * right[name]):
            lines.append(f"{name} is {seen[0]:.6g} times the right one")
        else:
            at = tuple(int(i) for i in np.argwhere(got[name] != right[name])[0])
            part = (got[name] != right[name]).mean()
            lines.append(
                f"{name}{list(at)} is {float(got[name][at]):.9g}; must be {float(right[name][at]):.9g} "
                f"({100 * part:.0f} % are wrong)"
            )
    lines.append(_inner_products(ask, question, got, wrong))
    fine = [name for name in right if name not in wrong]
    if fine:
        lines.append(f"right are {', '.join(fine)}")
    return [line for line in lines if line]


def _inner_products(ask: Ask, question: Question, got: Tensors, wrong: Sequence[str]) -> str:
    """Whether `<grad_x, x> = <grad_y, y>` for the port's own output without bias: `y` is linear in `x`."""
    forward = ask(
        "forward",
        question.with_(bias=np.zeros(question.geometry.out_channels)) if "bias" in question.tensors else question,
    )
    if (
        forward is None
        or "y" not in forward
        or "grad_x" not in got
        or forward["y"].shape != question.tensors["grad_y"].shape
    ):
        return ""
    left = float((got["grad_x"].astype(np.float64) * question.tensors["x"]).sum())
    right = float((forward["y"].astype(np.float64) * question.tensors["grad_y"]).sum())
    kept = left == right
    return (
        f"grad_x is {'' if kept else 'not '}the gradient of the output that the port itself computes "
        f"(sum of x * grad_x {left:.9g}, of y * grad_y {right:.9g})"
    )
