"""What a port's failures are consistent with, and where to look.

Three things are tried, in this order: the planted faults; rules that are guessed or recovered from the answers (`hypotheses`);
and, for cases that only a bound decides, other arithmetic than the port declares. Each is replayed on the port's own cases
(`replay`), and named only where it gives the port's values on at least two of them and is contradicted by none.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from doconv_conformance.cases.table import STAGES, Case, cases
from doconv_conformance.diagnosis.agreement import reproduces
from doconv_conformance.diagnosis.asking import Asker
from doconv_conformance.diagnosis.hypotheses import arithmetics, hypotheses, within
from doconv_conformance.diagnosis.measured import Finding, measure
from doconv_conformance.diagnosis.planted import joined
from doconv_conformance.diagnosis.replay import LEAST_CASES, Explanation, Row, cover
from doconv_conformance.diagnosis.terms import terms
from doconv_conformance.faults import CATALOGUE, Fault
from doconv_conformance.protocol.session import PortSession
from doconv_conformance.running.runner import Run, numerics_of
from doconv_conformance.verdicts.bounds import Numerics
from doconv_conformance.verdicts.judge import Result, judge

Outputs = Mapping[tuple[str, str], Mapping[str, np.ndarray]]
SHOWN_TERMS = 12
# For all questions to one port.
SECONDS = 15.0


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


def diagnose_run(
    run: Run, *, ask: bool = False, timeout: float = 60.0, say: Callable[[str], None] = lambda text: None
) -> list[Diagnosis]:
    """What one port's mismatches are; a fault of the diagnosis itself is a diagnosis that says so, never an error.

    Args:
        run: of the port, with its answers.
        ask: whether the port can be asked further questions.
        timeout: seconds for one answer.
        say: called with a few words on what is being tried.
    """
    try:
        if ask:
            session = PortSession(run.backend, timeout=timeout)
            try:
                return diagnose(
                    run.results, run.outputs, numerics_of(run.hello), asker=Asker(session, SECONDS), say=say
                )
            finally:
                session.close()
        return diagnose(run.results, run.outputs, numerics_of(run.hello))
    except Exception as error:  # the report must not be lost by a mistake in here
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        rows = tuple((row.case, row.operation) for row in run.results if row.verdict == "mismatch")
        return [Diagnosis(
            "unknown", "unknown", "the failures were not diagnosed: the diagnosis itself failed",
            "the rows below; please report the failure of the diagnosis", rows, len(rows),
            (f"{type(error).__name__}: {error} ({where})",),
        )]  # fmt: skip


def diagnose(
    results: Sequence[Result],
    outputs: Outputs,
    numerics: Numerics | None = None,
    table: Sequence[Case] | None = None,
    catalogue: Sequence[Fault] = CATALOGUE,
    asker: Asker | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Diagnosis]:
    """What one port's mismatches are consistent with, the likeliest first; empty where there are none.

    Args:
        results: the port's rows.
        outputs: what it answered, by `(case id, operation)`, failing rows included.
        numerics: what it says of its arithmetic.
        table: the cases the ids belong to; by default `cases()`.
        catalogue: the faults to try.
        asker: for further questions; without one only what was answered is replayed.
        say: called with a few words on what is being tried.
    """
    known, numerics = {case.id: case for case in table or cases()}, numerics or Numerics()
    rows = [
        Row(known[row.case], row.operation, got, row.verdict == "mismatch", numerics)
        for row in results
        if row.case in known and (got := outputs.get((row.case, row.operation)))
        and row.verdict in ("exact", "within_bound", "inaccurate", "mismatch")
    ]  # fmt: skip
    failing = sum(row.failed for row in rows)
    found: list[Diagnosis] = []
    structure = [row for row in rows if _decides_structure(row)] or [
        row for row in rows if row.case.numbers == "floats"
    ]
    if asker is not None and any(row.failed for row in structure):
        return _by_asking(rows, structure, asker, say, catalogue, failing)
    explained = _explained(structure, catalogue, hypotheses)
    rows = _note(explained, rows, failing, found)
    # What is wrong there and has no name is wrong in the other types, too; only what is right there is left to explain.
    spoilt = {(row.case.geometry, row.operation) for row in rows if row.failed and row in structure}
    others = [row for row in rows if (row.case.geometry, row.operation) not in spoilt]
    left = _note(_explained(others, catalogue, None), others, failing, found)
    found += _other_arithmetic(left, numerics, failing)
    taken = {key for diagnosis in found for key in diagnosis.cases}
    unknown = [row for row in rows if row.failed and row.key not in taken]
    return [*found, *([_unknown(unknown, failing)] if unknown else [])]


def _by_asking(
    rows: Sequence[Row], structure: Sequence[Row], asker: Asker, say: Callable[[str], None], catalogue: Sequence[Fault],
    failing: int,
) -> list[Diagnosis]:  # fmt: skip
    """What is measured, then the rows of the other types that it explains, then what is left."""
    measured = measure(structure, asker, say, catalogue)
    found, taken = list[Diagnosis](), set[tuple[str, str]]()
    left = [row for row in rows if row.failed]
    for item in measured.findings:
        others = [other for other in measured.findings if other is not item]
        mine = [
            row
            for row in left
            if item.active(row) and _reproduced(measured.findings, row) and not _reproduced(others, row)
        ]
        taken |= {row.key for row in mine}
        name = "+".join(fault.name for fault in item.faults)
        look_at = "; ".join(dict.fromkeys(fault.look_at for fault in item.faults))
        kind = "catalogue" if all(fault in set(catalogue) for fault in item.faults) else "measured"
        where = f" ({item.stage})" if item.stage not in ("compose", "forward") else ""
        found.append(Diagnosis(
            kind, name, f"the failures are consistent with a port that {item.words}", look_at,
            tuple(row.key for row in mine), failing, detail=(f"found in {item.stage}{where and ''}",), fault=joined(item.faults),
        ))  # fmt: skip
    unknown = [row for row in left if row.key not in taken]
    if unknown:
        facts = [line for lines in measured.facts.values() for line in lines]
        found.append(_unknown(unknown, failing, facts))
    return found


def _reproduced(findings: Sequence[Finding], row: Row) -> bool:
    faults = [fault for item in findings if item.active(row) for fault in item.faults if fault.where(row.case.geometry)]
    return reproduces(faults, row)


def _explained(
    rows: Sequence[Row],
    catalogue: Sequence[Fault],
    further: Callable[[Sequence[Row], Sequence[Fault]], Sequence[Fault]] | None,
) -> list[tuple[str, Explanation]]:
    """By the catalogue alone if that explains all, else by the best of both; each with its kind."""
    if not any(row.failed for row in rows):
        return []
    chosen, complete = cover(catalogue, rows)
    if not complete and further:
        chosen, _ = cover([*catalogue, *further(rows, catalogue)], rows)
    listed = set(catalogue)
    return [("catalogue" if item.fault in listed else "hypothesis", item) for item in chosen]


def _note(
    explained: Iterable[tuple[str, Explanation]], rows: Sequence[Row], failing: int, found: list[Diagnosis]
) -> list[Row]:
    """Add each explanation to `found`, with whatever else of `rows` it explains; returns the rows that are left."""
    left = list(rows)
    for kind, item in explained:
        keys = {row.key for row in item.rows}
        inside = [row for row in left if row.failed and item.scope.holds(row) and row.key not in keys]
        keys |= {row.key for row in inside if row.relation(item.fault) == "explained"}
        found.append(_named(kind, item, [row for row in left if row.key in keys], failing))
        left = [row for row in left if row.key not in keys]
    return left


def _decides_structure(row: Row) -> bool:
    """Exact float32 cases: what is wrong there is not the arithmetic."""
    return row.case.dtype == row.case.param_dtype == "float32" and row.exact


def _named(kind: str, item: Explanation, rows: Sequence[Row], failing: int) -> Diagnosis:
    words = f"{item.fault.words}, {item.scope.words}" if item.scope.words else item.fault.words
    return Diagnosis(
        kind, item.fault.name, f"the failures are consistent with a port that {words}", item.fault.look_at,
        tuple(row.key for row in rows), failing, fault=item.fault,
    )  # fmt: skip


def _other_arithmetic(rows: Sequence[Row], numerics: Numerics, failing: int) -> list[Diagnosis]:
    """Arithmetic under which what fails by a bound agrees; none where an exact case of that type fails, too."""
    found: list[Diagnosis] = []
    for other, name, words in arithmetics(numerics):
        taken = {key for diagnosis in found for key in diagnosis.cases}
        left = [row for row in rows if row.failed and row.key not in taken]
        spoilt = {row.case.dtype for row in left if row.exact}
        agreeing = [row for row in left if row.case.dtype not in spoilt and within(row, other)]
        if len({row.case.id for row in agreeing}) >= LEAST_CASES:
            found.append(Diagnosis(
                "hypothesis", name, f"the failures are consistent with a port that {words}",
                "the precision settings of the framework, or what hello declares under numerics",
                tuple(row.key for row in agreeing), failing,
            ))  # fmt: skip
    return found


def _unknown(failing: Sequence[Row], total: int, facts: Sequence[str] = ()) -> Diagnosis:
    """The smallest failing case of the earliest stage: its first wrong element, and what that is the sum of.

    Rows whose shapes are wrong say less, and are taken only where there are no others.
    """
    ordered = sorted(failing, key=_size)
    row = next((row for row in ordered if _first_wrong(row)), ordered[0])
    case = row.case
    reason = judge(row.want, row.got, exact=row.exact)["reason"]
    return Diagnosis(
        "unknown",
        "unknown",
        "the failures are consistent with no known mistake",
        f"the smallest failing case is {case.id}, {row.operation}: {reason}; re-run it alone with --case {case.id}",
        tuple(item.key for item in failing),
        total,
        (*facts, *(_first_wrong(row) or (reason,))),
    )


def _size(row: Row) -> tuple[bool, int, int]:
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
        wrong = np.argwhere(~(error <= want.allowed(row.exact)))  # a NaN is wrong, too
        if len(wrong):
            index = tuple(int(i) for i in wrong[0])
            got, right = float(value[index]), float(want.value[index])
            found = terms(row.case, row.operation, name, index)
            shown = [f"  {term}" for term in found if term.product][:SHOWN_TERMS]
            dropped = sum(bool(term.product) for term in found) - len(shown)
            return (
                f"{name}[{','.join(map(str, index))}] is {got:.9g}, must be {right:.9g}; difference {got - right:.9g}",
                f"the right value is a sum of {len(found)} terms, without zeros:",
                *shown,
                *([f"  and {dropped} more"] if dropped else []),
            )
    return ()
