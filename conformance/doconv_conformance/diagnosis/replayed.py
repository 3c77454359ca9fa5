"""The diagnosis without a port to ask: what was answered is replayed.

Three things are tried, in this order: the planted faults; rules that are guessed or recovered from the answers (`hypotheses`);
and, for cases that only a bound decides, other arithmetic than the port declares. Each is replayed on the port's own cases
(`replay`), and named only where it gives the port's values on at least two of them and is contradicted by none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from doconv_conformance.diagnosis.claims import Diagnosis, claimed, unknown
from doconv_conformance.diagnosis.hypotheses import arithmetics, hypotheses, within
from doconv_conformance.diagnosis.replay import LEAST_CASES, Explanation, Row, cover
from doconv_conformance.faults import Fault
from doconv_conformance.verdicts.bounds import Numerics


def by_replay(
    rows: Sequence[Row], structure: Sequence[Row], numerics: Numerics, catalogue: Sequence[Fault]
) -> list[Diagnosis]:
    """What the failing rows are consistent with.

    Args:
        rows: the port's answers.
        structure: those of `rows` that decide the structure.
        numerics: what it says of its arithmetic.
        catalogue: the faults to try.
    """
    failing = sum(row.failed for row in rows)
    found: list[Diagnosis] = []
    rows = _note(_explained(structure, catalogue, hypotheses), rows, failing, found)
    # What is wrong there and has no name is wrong in the other types, too; only what is right there is left to explain.
    spoilt = {(row.case.geometry, row.operation) for row in rows if row.failed and row in structure}
    others = [row for row in rows if (row.case.geometry, row.operation) not in spoilt]
    left = _note(_explained(others, catalogue, None), others, failing, found)
    found += _other_arithmetic(left, numerics, failing)
    taken = {key for diagnosis in found for key in diagnosis.cases}
    without = [row for row in rows if row.failed and row.key not in taken]
    return [*found, *([unknown(without, failing)] if without else [])]


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


def _named(kind: str, item: Explanation, rows: Sequence[Row], failing: int) -> Diagnosis:
    words = f"{item.fault.words}, {item.scope.words}" if item.scope.words else item.fault.words
    return claimed(kind, item.fault.name, words, item.fault.look_at, rows, failing, fault=item.fault)


def _other_arithmetic(rows: Sequence[Row], numerics: Numerics, failing: int) -> list[Diagnosis]:
    """Arithmetic under which what fails by a bound agrees; none where an exact case of that type fails, too."""
    found: list[Diagnosis] = []
    for other, name, words in arithmetics(numerics):
        taken = {key for diagnosis in found for key in diagnosis.cases}
        left = [row for row in rows if row.failed and row.key not in taken]
        spoilt = {row.case.dtype for row in left if row.exact}
        agreeing = [row for row in left if row.case.dtype not in spoilt and within(row, other)]
        if len({row.case.id for row in agreeing}) >= LEAST_CASES:
            look_at = "the precision settings of the framework, or what hello declares under numerics"
            found.append(claimed("hypothesis", name, words, look_at, agreeing, failing))
    return found
