"""Whether an answer depends on more than its question: on what was asked before, or on nothing at all."""

from __future__ import annotations

from collections.abc import Sequence

from doconv_conformance.diagnosis.agreement import reproduces, same
from doconv_conformance.diagnosis.asking import Asker, question_of
from doconv_conformance.diagnosis.replay import Row

SAMPLE = 3
AGAIN = 8


def depends(rows: Sequence[Row], failing: Sequence[Row], asker: Asker) -> tuple[str, list[str]]:
    """What a port does in words, and what was measured; both empty where the same question has the same answer.

    Args:
        rows: all rows, in the order in which they were asked.
        failing: those that failed, the smallest first.
        asker: of a port that was just started and asked nothing.
    """
    sample = list(failing[:1])
    fresh = [_is_right(row, asker.afresh(row.operation, question_of(row.case))) for row in sample]
    if not any(fresh):
        return _differs(sample[0], asker)
    for row in failing[1:SAMPLE]:
        asker.restart()
        sample.append(row)
        fresh.append(_is_right(row, asker.afresh(row.operation, question_of(row.case))))
    if not all(fresh):
        return "", []
    facts = [f"{len(sample)} failing rows, each asked first in a fresh process, are right"]
    row = sample[0]
    for before, words in _before(rows, row):
        asker.restart()
        asker.afresh(before.operation, question_of(before.case))
        if not _is_right(row, asker.afresh(row.operation, question_of(row.case))):
            facts.append(f"{row.operation} of {row.case.id} is wrong after {before.operation} of {before.case.id}")
            return f"keeps something from one question to the next: it answers wrongly after {words}", facts
    return "keeps something from one question to the next: it answers rightly only when it is asked first", facts


def _before(rows: Sequence[Row], row: Row) -> list[tuple[Row, str]]:
    """Rows that were asked before one, and what they have in common with it."""
    earlier = rows[: next(at for at, item in enumerate(rows) if item.key == row.key)]
    same_geometry = [item for item in earlier if item.case.geometry == row.case.geometry]
    found = [(item, "a question of the same geometry") for item in same_geometry[-2:]]
    if earlier:
        found.append((earlier[-1], "another question"))
    of_operation = [item for item in earlier if item.operation == row.operation and item.case.bias != row.case.bias]
    return [
        *found,
        *(
            (item, "a question with a bias" if item.case.bias else "a question without a bias")
            for item in of_operation[-1:]
        ),
    ]


def _differs(row: Row, asker: Asker) -> tuple[str, list[str]]:
    """Whether repeated answers differ."""
    first = asker.afresh(row.operation, question_of(row.case))
    for number in range(AGAIN):
        again = asker.afresh(row.operation, question_of(row.case))
        if first is not None and again is not None and not same(again, first):
            return "gives different answers to the same question", [
                f"{row.operation} of {row.case.id}, asked {number + 2} times in a row"
            ]
    return "", []


def _is_right(row: Row, answer: object) -> bool:
    if not isinstance(answer, dict):
        return False
    other = Row(row.case, row.operation, answer, failed=False, numerics=row.numerics)
    return reproduces((), other)
