"""Whether an answer depends on more than its question: on what was asked before, or on nothing at all."""

from __future__ import annotations

from collections.abc import Sequence

from doconv_conformance.diagnosis.agreement import same
from doconv_conformance.diagnosis.asking import Asker, question_of
from doconv_conformance.diagnosis.replay import Row

# Rows of an operation that are asked in a fresh process: at first, and once another operation is found to do so.
SAMPLE, MORE = 2, 6
AGAIN, ALONE = 8, 3


def depends(rows: Sequence[Row], failing: Sequence[Row], asker: Asker) -> tuple[str, list[str], list[Row]]:
    """What a port does in words, what was measured, and the failing rows of it; nothing where only the question decides.

    Asked are the smallest failing rows of each operation, in two fresh processes and orders: what else may be wrong, a question
    has one answer. Where one has another, they are asked again, each first in a process of its own.

    Args:
        rows: all rows, in the order in which they were asked.
        failing: those that failed, the smallest first.
        asker: of a port that was just started and asked nothing.
    """
    by_operation = {name: [row for row in failing if row.operation == name] for name in dict.fromkeys(
        row.operation for row in failing
    )}  # fmt: skip
    changed = dict[str, Row]()
    if _other_together(list(by_operation.values()), asker):
        changed = {name: row for name, mine in by_operation.items() if (row := _other_alone(mine[:SAMPLE], asker))}
    if not changed:
        return *_differs(failing[0], asker), list(failing)
    for name, mine in by_operation.items():
        if name not in changed and (row := _other_alone(mine[SAMPLE:MORE], asker)):
            changed[name] = row
    of_operations = [name for name in by_operation if name in changed]
    operation, row = next(iter(changed.items()))
    words, facts = _cause(rows, row, asker)
    facts.insert(0, f"{operation} of {row.case.id} has another answer where it is asked first in a fresh process")
    if set(of_operations) != {row.operation for row in rows}:
        words += f", in {' and '.join(of_operations)}"
    return words, facts, [row for row in failing if row.operation in of_operations]


def _other_together(by_operation: Sequence[Sequence[Row]], asker: Asker) -> bool:
    """Whether a fresh process gives another answer to one of the smallest rows of each operation than came among others."""
    for number, operations in enumerate((by_operation, by_operation[::-1])):
        if number:
            asker.restart()
        for mine in operations:
            row = mine[min(number, len(mine) - 1)]
            answer = asker.afresh(row.operation, question_of(row.case))
            if answer is not None and not same(answer, dict(row.got)):
                return True
    return False


def _other_alone(sample: Sequence[Row], asker: Asker) -> Row | None:
    """The first to which a fresh process gives another answer than the one that came among others."""
    for row in sample:
        asker.restart()
        answer = asker.afresh(row.operation, question_of(row.case))
        if answer is not None and not same(answer, dict(row.got)):
            return row
    return None


def _cause(rows: Sequence[Row], row: Row, asker: Asker) -> tuple[str, list[str]]:
    asker.restart()
    alone = asker.afresh(row.operation, question_of(row.case))
    for _ in range(ALONE):
        asker.restart()
        if same(asker.afresh(row.operation, question_of(row.case)), alone):
            continue
        return "gives different answers to the same question, asked first in a fresh process", []
    for before, words in _before(rows, row):
        asker.restart()
        asker.afresh(before.operation, question_of(before.case))
        if not same(asker.afresh(row.operation, question_of(row.case)), alone):
            facts = [
                f"{row.operation} of {row.case.id} has another answer after {before.operation} of {before.case.id}"
            ]
            return f"keeps something from one question to the next: it answers otherwise, for one, after {words}", facts
    return "keeps something from one question to the next: it answers otherwise than when it is asked first", []


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
