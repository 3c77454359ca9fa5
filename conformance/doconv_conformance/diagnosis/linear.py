"""Any linear map between what a port should use, or give, and what it does: read off from impulses, and put in words.

No rule is guessed. With one entry of a tensor at 1 and the others at 0, a port's answer is a sum of the answers that the
reference gives to single entries: which of them, and how often, is what the port uses in place of that tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from doconv_conformance.cases.table import LOW_PRECISION, Case
from doconv_conformance.diagnosis.asking import Ask, Question, random_question
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.port import Tensors

MOST_ENTRIES = 120
# Float32 answers carry 2**-24 a rounding, and a system of equations some digits more; plain fractions differ by far more.
NEAR = 1e-6
# A ratio is of two answers that were each rounded to float32, some of them of sums that nearly cancel.
NEAR_RATIO = 1e-5
LARGEST_DENOMINATOR = 144
SHOWN = 4
MOST_FACTORS = 24
NAMES = {"grad_x": "the gradient of x", "grad_W": "the gradient of W", "grad_D_delta": "the gradient of D_delta",
         "grad_bias": "the gradient of the bias", "weight": "the composed kernel", "y": "y"}  # fmt: skip


def of_input(
    ask: Ask, case: Case, known: Sequence[Fault], operation: str, tensor: str, outputs: Sequence[str]
) -> np.ndarray | None:
    """`B` such that the port uses `B @ T` for the entries `T` of an input; None where no linear map gives its answers.

    Args:
        ask: the port.
        case: a small one.
        known: what is planted in the reference.
        operation: that is asked.
        tensor: the input.
        outputs: what is compared.
    """
    if case.dtype in LOW_PRECISION or case.tensors[tensor].size > MOST_ENTRIES:
        return None
    question = random_question(case, 11)
    asked = [np.zeros(case.tensors[tensor].shape) for _ in range(case.tensors[tensor].size + 1)]
    for at, entry in enumerate(asked[1:]):
        entry.flat[at] = 1
    sides: list[np.ndarray] = []
    for answer in (ask, _reference(known)):
        columns: list[np.ndarray] = []
        for entry in asked:
            vector = _values(answer(operation, question.with_(**{tensor: entry})), outputs)
            if vector is None or (columns and vector.shape != columns[0].shape):
                return None
            columns.append(vector)
        sides.append(np.stack(columns[1:], -1) - columns[0][:, None])
    got, right = sides
    if got.shape != right.shape or np.linalg.matrix_rank(right) < right.shape[1]:
        return None
    return _exact(right, got)


def of_output(ask: Ask, case: Case, known: Sequence[Fault], operation: str, output: str) -> np.ndarray | None:
    """`A` such that the port gives `A @ T` for the entries `T` of the right output; None where no linear map does."""
    size = _values(_reference(known)(operation, random_question(case, 20)), [output])
    if case.dtype in LOW_PRECISION or size is None or len(size) > MOST_ENTRIES:
        return None
    got, right = list[np.ndarray](), list[np.ndarray]()
    for seed in range(len(size) + 4):
        question = random_question(case, 20 + seed)
        for side, answer in ((got, ask), (right, _reference(known))):
            vector = _values(answer(operation, question), [output])
            if vector is None or vector.shape != size.shape:
                return None
            side.append(vector)
    if np.linalg.matrix_rank(np.stack(right)) < len(size):
        return None
    found = _exact(np.stack(right), np.stack(got))
    return None if found is None else found.T


def _exact(right: np.ndarray, got: np.ndarray) -> np.ndarray | None:
    """The solution of `right @ B = got`, of plain fractions where it is near to them; None where there is none."""
    solved, *_ = np.linalg.lstsq(right, got, rcond=None)
    plain = np.array([float(Fraction(float(value)).limit_denominator(LARGEST_DENOMINATOR)) for value in solved.ravel()])
    plain = plain.reshape(solved.shape)
    solved = np.asarray(np.where(np.abs(plain - solved) < NEAR, plain, solved))
    scale = float(np.abs(got).max(initial=1))
    return solved if np.allclose(right @ solved, got, rtol=0, atol=NEAR * scale) else None


def _reference(known: Sequence[Fault]) -> Callable[[str, Question], Tensors | None]:
    def answer(operation: str, question: Question) -> Tensors | None:
        active = [fault for fault in known if fault.where(question.geometry)]
        return run(active, question.geometry, operation, question.inputs(operation))

    return answer


def _values(answer: Tensors | None, outputs: Sequence[str]) -> np.ndarray | None:
    if answer is None or any(name not in answer for name in outputs):
        return None
    vector = np.concatenate([answer[name].astype(np.float64).ravel() for name in outputs])
    return vector if np.isfinite(vector).all() else None


def words(matrix: np.ndarray, tensor: str, shape: Sequence[int], verb: str) -> str:
    """As a clause: "uses 1/2 D_delta[0, 0, 1] where D_delta[0, 0, 0] should be (12 of 36 entries)"; empty for the identity."""
    wrong = np.flatnonzero((matrix != np.eye(len(matrix))).any(axis=1))
    if not len(wrong):
        return ""
    first = int(wrong[0])
    sources = np.flatnonzero(matrix[first])
    shown = [f"{_factor(matrix[first, at])}{_entry(tensor, int(at), shape)}" for at in sources[:SHOWN]]
    more = f" and {len(sources) - SHOWN} more" if len(sources) > SHOWN else ""
    said = " + ".join(shown).replace("+ -", "- ") + more if len(sources) else "nothing"
    return f"{verb} {said} where {_entry(tensor, first, shape)} should be ({len(wrong)} of {len(matrix)} entries)"


def _factor(value: float) -> str:
    ones = {1.0: "", -1.0: "-"}
    return ones[value] if value in ones else f"{_number(value)} "


def _number(value: float) -> str:
    fraction = Fraction(float(value)).limit_denominator(LARGEST_DENOMINATOR)
    return f"{fraction}" if float(fraction) == value else f"{value:.6g}"


def _entry(tensor: str, flat: int, shape: Sequence[int]) -> str:
    return f"{tensor}[{', '.join(str(int(at)) for at in np.unravel_index(flat, tuple(shape)))}]"


def factors(ask: Ask, case: Case, known: Sequence[Fault], operation: str, output: str) -> str:
    """As a clause, where each element of an output is the right one times a factor that depends on its place only."""
    ratios = list[np.ndarray]()
    for seed in (30, 31):
        question = random_question(case, seed)
        if "bias" in question.tensors:
            question = question.with_(bias=np.zeros(case.geometry.out_channels))
        got, right = (answer(operation, question) for answer in (ask, _reference(known)))
        if got is None or right is None or output not in got or got[output].shape != right[output].shape:
            return ""
        one, other = got[output].astype(np.float64), right[output].astype(np.float64)
        if not np.isfinite(one).all() or one[other == 0].any():
            return ""
        ratios.append(np.divide(one, other, out=np.full(one.shape, np.nan), where=other != 0))
    both = np.isfinite(ratios[0]) & np.isfinite(ratios[1])
    if both.mean() < 0.2 or not np.allclose(ratios[0][both], ratios[1][both], rtol=NEAR_RATIO):
        return ""
    found: dict[str, tuple[int, ...]] = {}
    for at in np.argwhere(both):
        found.setdefault(_number(ratios[0][tuple(at)]), tuple(int(i) for i in at))
    if len(found) > MOST_FACTORS or found.keys() in ({"1"}, {"0"}):
        return ""
    name = NAMES.get(output, output)
    if len(found) == 1:
        return f"multiplies {name} by {next(iter(found))} everywhere"
    shown = [f"{factor} times at {list(at)}" for factor, at in list(found.items())[:SHOWN]]
    return f"has {name} {', '.join(shown)}"


def facts(ask: Ask, case: Case, known: Sequence[Fault], operation: str, wrong: Sequence[str]) -> list[str]:
    """In words: which linear map of one input explains all outputs that are wrong, or which map of each output it is."""
    inputs = {"compose": ("D_delta", "W"), "forward": ("x", "W", "bias"), "backward": ("grad_y", "x", "W", "D_delta")}
    scaled = [factors(ask, case, known, operation, output) for output in wrong]
    if scaled and all(scaled):
        return scaled
    lines = []
    for output in wrong:
        if (matrix := of_output(ask, case, known, operation, output)) is not None:
            shape = _shape(case, output, known, operation)
            lines.append(words(matrix, output, shape, "gives"))
    if len(lines) < len(wrong):
        for tensor in inputs.get(operation, ()):
            if tensor not in case.tensors:
                continue
            matrix = of_input(ask, case, known, operation, tensor, wrong)
            if matrix is not None and (said := words(matrix, tensor, case.tensors[tensor].shape, "uses")):
                return [said]
    return [line for line in lines if line]


def _shape(case: Case, output: str, known: Sequence[Fault], operation: str) -> tuple[int, ...]:
    answer = _reference(known)(operation, random_question(case, 20))
    assert answer is not None
    return answer[output].shape
