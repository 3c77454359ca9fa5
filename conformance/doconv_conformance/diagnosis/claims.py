"""What a report says of one port's failures, and what it says where nothing explains them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from doconv_conformance.cases.table import STAGES
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.diagnosis.terms import terms
from doconv_conformance.faults import Fault
from doconv_conformance.port import OPERATIONS
from doconv_conformance.verdicts.judge import judge

SHOWN_TERMS = 12


@dataclass(frozen=True)
class Diagnosis:
    """One explanation of failing rows.

    Attributes:
        kind: "catalogue" (a listed fault gives the same values), "measured" (what further questions showed does),
            "hypothesis" (a rule found in the values does, offline), or "unknown" (nothing does).
        name: of the fault or the hypothesis; "unknown" otherwise.
        consistent_with: a sentence: what the failures look like.
        look_at: a sentence: where a porter looks first.
        cases: the `(case id, operation)` rows that it explains.
        failing: how many rows failed in all.
        detail: lines of numbers; for an unknown failure the first wrong element and the terms of the right value.
        fault: what was replayed, where something was.
    """

    kind: str
    name: str
    consistent_with: str
    look_at: str
    cases: tuple[tuple[str, str], ...]
    failing: int
    detail: tuple[str, ...] = ()
    fault: Fault | None = None

    @property
    def complete(self) -> bool:
        """Whether every failing row is explained."""
        return self.kind != "unknown" and len(self.cases) == self.failing

    def to_json(self) -> dict[str, Any]:
        """For the JSON report."""
        report = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "fault"}
        return report | {"cases": [list(pair) for pair in self.cases], "detail": list(self.detail)}


def claimed(
    kind: str, name: str, words: str, look_at: str, rows: Sequence[Row], failing: int, detail: Sequence[str] = (),
    fault: Fault | None = None,
) -> Diagnosis:  # fmt: skip
    """A diagnosis from a clause that completes "a port that ..."."""
    return Diagnosis(
        kind, name, f"the failures are consistent with a port that {words}", look_at, tuple(row.key for row in rows), failing,
        tuple(detail), fault,
    )  # fmt: skip


def unknown(
    failing: Sequence[Row], total: int, facts: Sequence[str] = (), further: Iterable[str] = (), *, rest: bool = False
) -> Diagnosis:
    """The smallest failing case of the earliest stage: its first wrong element, and what that is the sum of.

    Rows whose shapes are wrong say less, and are taken only where there are no others.

    Args:
        failing: rows that nothing explains.
        total: how many rows failed in all.
        facts: what was measured, the plainest first, to be said in the first line.
        further: what is said below it.
        rest: whether other rows are explained.
    """
    ordered = sorted(failing, key=size)
    row = next((row for row in ordered if _first_wrong(row)), ordered[0])
    case = row.case
    reason = judge(row.want, row.got, exact=row.exact)["reason"]
    wrong = [name for name in OPERATIONS if any(item.operation == name for item in failing)]
    measured = "; ".join(facts[:2]) or f"{' and '.join(wrong)}: {reason}"
    return Diagnosis(
        "unknown",
        "unknown",
        f"the {'other ' if rest else ''}failures follow no rule that is listed; measured, {measured}",
        f"the smallest failing case is {case.id}, {row.operation}: {reason}; re-run it alone with --case {case.id}",
        tuple(item.key for item in failing),
        total,
        (*facts, *further, *(_first_wrong(row) or (reason,))),
    )


def size(row: Row) -> tuple[bool, int, int]:
    """Exact cases first, then early stages, then few numbers."""
    case = row.case
    size = sum(tensor.size for tensor in case.inputs(row.operation).values())
    return not row.exact, STAGES.index(case.stage(row.operation)), size


def _first_wrong(row: Row) -> tuple[str, ...]:
    """The first wrong element and the terms that make up the right value; nothing where names or shapes are wrong."""
    for name, want in row.want.items():
        value = row.got.get(name)
        if value is None or value.shape != want.value.shape:
            continue
        error = np.abs(value.astype(np.float64) - want.value)
        right = (error <= want.allowed(row.exact)) | (
            value.astype(np.float64) == want.value
        )  # infinities; a NaN is wrong
        wrong = np.argwhere(~right)
        if len(wrong):
            index = tuple(int(i) for i in wrong[0])
            got, right = float(value[index]), float(want.value[index])
            line = (
                f"{name}[{','.join(map(str, index))}] is {got:.9g}, must be {right:.9g}; difference {got - right:.9g}"
            )
            if row.case.large:
                return (line,)  # its terms are millions
            found = terms(row.case, row.operation, name, index)
            shown = [f"  {term}" for term in found if term.product][:SHOWN_TERMS]
            dropped = sum(bool(term.product) for term in found) - len(shown)
            return (
                line,
                f"the right value is a sum of {len(found)} terms, without zeros:",
                *shown,
                *([f"  and {dropped} more"] if dropped else []),
            )
    return ()
