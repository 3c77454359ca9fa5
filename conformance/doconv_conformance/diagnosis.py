"""What a port's failures are consistent with, and where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from doconv_conformance.cases import STAGES, Case, cases
from doconv_conformance.judge import Result, judge, judged_exactly
from doconv_conformance.reference import Numerics, expected
from doconv_conformance.terms import terms

Outputs = Mapping[tuple[str, str], Mapping[str, np.ndarray]]
SHOWN_TERMS = 12


@dataclass(frozen=True)
class Diagnosis:
    """One explanation of failing rows.

    Attributes:
        kind: "catalogue" (a planted fault gives the same values), "hypothesis" (a rule found in the values does), or
            "unknown" (nothing does).
        name: of the fault or the hypothesis; "unknown" otherwise.
        consistent_with: a sentence: what the failures look like.
        look_at: a sentence: where a porter looks first.
        cases: the `(case id, operation)` rows that it explains.
        failing: how many rows failed in all.
        detail: lines of numbers; for an unknown failure the first wrong element and the terms of the right value.
    """

    kind: str
    name: str
    consistent_with: str
    look_at: str
    cases: tuple[tuple[str, str], ...]
    failing: int
    detail: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every failing row is explained."""
        return self.kind != "unknown" and len(self.cases) == self.failing

    def to_json(self) -> dict[str, Any]:
        """For the JSON report."""
        return asdict(self) | {"cases": [list(pair) for pair in self.cases], "detail": list(self.detail)}


def diagnose(
    results: Sequence[Result],
    outputs: Outputs,
    numerics: Numerics | None = None,
    table: Sequence[Case] | None = None,
) -> list[Diagnosis]:
    """What one port's mismatches are consistent with, the likeliest first; empty where there are none.

    Args:
        results: the port's rows.
        outputs: what it answered, by `(case id, operation)`, failing rows included.
        numerics: what it says of its arithmetic.
        table: the cases the ids belong to; by default `cases()`.
    """
    known = {case.id: case for case in table or cases()}
    failing = [(known[row.case], row.operation) for row in results if row.verdict == "mismatch" and row.case in known]
    failing = [pair for pair in failing if outputs.get((pair[0].id, pair[1]))]
    if not failing:
        return []
    return [_unknown(failing, outputs, numerics or Numerics())]


def _unknown(failing: Sequence[tuple[Case, str]], outputs: Outputs, numerics: Numerics) -> Diagnosis:
    """The smallest failing case of the earliest stage: its first wrong element, and what that is the sum of."""
    case, operation = min(failing, key=_size)
    want = expected(case, operation, numerics)
    got = outputs[case.id, operation]
    reason = judge(want, got, exact=judged_exactly(case, operation, numerics))["reason"]
    return Diagnosis(
        "unknown",
        "unknown",
        "the failures are consistent with no known mistake",
        f"the smallest failing case is {case.id}, {operation}: {reason}; re-run it alone with --case {case.id}",
        tuple((item.id, name) for item, name in failing),
        len(failing),
        _first_wrong(case, operation, numerics, got),
    )


def _size(pair: tuple[Case, str]) -> tuple[int, int, int]:
    """Exact cases first, then early stages, then few numbers."""
    case, operation = pair
    return (not case.exact, STAGES.index(case.stage(operation)), sum(t.size for t in case.inputs(operation).values()))


def _first_wrong(case: Case, operation: str, numerics: Numerics, got: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The first wrong element and the terms that make up the right value; nothing where names, shapes or types are wrong."""
    exact = judged_exactly(case, operation, numerics)
    for name, want in expected(case, operation, numerics).items():
        value = got.get(name)
        if value is None or value.shape != want.value.shape:
            continue
        allowed = want.allowed(exact)
        error = np.abs(value.astype(np.float64) - want.value)
        wrong = np.argwhere(~(error <= allowed))  # a NaN is wrong, too
        if len(wrong):
            index = tuple(int(i) for i in wrong[0])
            number, right = float(value[index]), float(want.value[index])
            found = terms(case, operation, name, index)
            shown = [f"  {term}" for term in found if term.product][:SHOWN_TERMS]
            dropped = sum(bool(term.product) for term in found) - len(shown)
            return (
                f"{name}[{','.join(map(str, index))}] is {number:.9g}, must be {right:.9g}; difference {number - right:.9g}",
                f"the right value is a sum of {len(found)} terms, without zeros:",
                *shown,
                *([f"  and {dropped} more"] if dropped else []),
            )
    return ()
