"""Which products of the composition count, and how much: measured column by column, put in words by the part that is wrong.

With one column of `W` at one and the others at zero, each entry of the composed kernel is one product of `D_delta`, or one of
the identity: what it is of the right one is its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from doconv_conformance.cases.table import LOW_PRECISION, Case
from doconv_conformance.diagnosis import selections
from doconv_conformance.diagnosis.asking import Ask, Question
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.selections import Axis, Part, Relation
from doconv_conformance.faults.faulty_port import Fault
from doconv_core.geometry import ConvGeometry

MOST_COLUMNS = 24
SAID = {"delta_part": "the products of D with W", "identity_part": "the identity's part of W'"}


def fits(ask: Ask, case: Case, known: Sequence[Fault]) -> list[tuple[Fault, ...]]:
    """Faults of the two parts, where what is wrong has plain words; one of each where both are wrong."""
    of_parts = []
    for part in SAID:
        measured = measure(ask, case, known, part)
        if measured is None:
            return []
        got, right, counts = measured
        if np.array_equal(got, right):
            continue
        g = case.geometry
        flat = [replace(axis, at=np.broadcast_to(axis.at, got.shape)[counts]) for axis in axes(g)]
        found = selections.matching(flat, got[counts], right[counts])
        of_parts.append([fault(part, *item) for item in found if item[1].linear])
    if not of_parts or not all(of_parts):
        return []
    if len(of_parts) == 1:
        return [(one,) for one in of_parts[0]]
    return [(one, other) for one in of_parts[0][:3] for other in of_parts[1][:3]]


def measure(
    ask: Ask, case: Case, known: Sequence[Fault], part: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """`(C_out, C_in/G, K, S)` as in `W`: what came, what should have, and where a product is; None where it cannot be asked."""
    g = case.geometry
    if g.d_mul > MOST_COLUMNS:
        return None
    if case.param_dtype in LOW_PRECISION or (part == "delta_part" and not g.has_d):
        return np.zeros(0), np.zeros(0), np.zeros(0, bool)
    columns: list[list[np.ndarray]] = [[], []]
    for s in range(g.d_mul):
        W = np.zeros(g.w_shape)
        W[..., s] = 1
        for side, answer in zip(columns, _both(ask, Question(g, {"W": W}), known, part, case), strict=True):
            if answer is None:
                return None
            side.append(answer.reshape(*g.w_shape[:2], g.taps))
    got, right = (np.stack(side, -1) for side in columns)
    counts = right != 0
    return None if got[~counts].any() else (got, right, counts)


def _both(
    ask: Ask, question: Question, known: Sequence[Fault], part: str, case: Case
) -> tuple[np.ndarray | None, np.ndarray | None]:
    g = question.geometry
    with_d: list[dict[str, np.ndarray]] = [{}] if not g.has_d else [{"D_delta": np.zeros(g.d_shape)}]
    if part == "delta_part":
        with_d.append({"D_delta": 3.0 + np.arange(np.prod(g.d_shape)).reshape(g.d_shape)})
    found = []
    for answer in (ask, lambda operation, asked: run(known, g, operation, asked.inputs(operation))):
        values = []
        for tensors in with_d:
            asked = Question(g, {**question.tensors, **tensors}, case.dtype, case.param_dtype)
            outputs = answer("compose", asked)
            if outputs is None or "weight" not in outputs or outputs["weight"].shape != g.kernel_shape:
                return None, None
            values.append(outputs["weight"].astype(np.float64))
        found.append(values[-1] - values[0] if part == "delta_part" else values[0])
    return found[0], found[1]


def axes(g: ConvGeometry) -> list[Axis]:
    """The indices of a product: its channels, tap and column."""
    at = (slice(None), slice(None), None, None)
    taps, columns = np.arange(g.taps).reshape(1, 1, -1, 1), np.arange(g.d_mul).reshape(1, 1, 1, -1)
    found = [
        *selections.pairs(g, at),
        Axis("tap", taps, g.taps),
        Axis("column", columns, g.d_mul),
        *selections.tiles(taps, columns, g),
    ]
    return [axis for axis in found if axis.size > 1]


def fault(part: str, selected: Part, relation: Relation) -> Fault:
    """As a fault whose hook gives the share of every product."""
    said = relation.words.format(SAID[part]) + selections.words(selected)

    def shares(g: ConvGeometry) -> np.ndarray:
        shape = (*g.w_shape[:2], g.taps, g.d_mul)
        at = selections.mask(selected, axes(g), shape)
        return np.where(at, float(relation.change(np.ones(1))[0]), 1.0)

    return Fault(f"{part}-{said}", said, f"{SAID[part]}{selections.words(selected)}", {part: shares})
