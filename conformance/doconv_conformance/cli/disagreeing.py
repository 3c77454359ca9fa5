"""What does not agree, in as few lines as say it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from doconv_conformance.counting import counted
from doconv_conformance.reports.build import agrees

Row = Mapping[str, Any]


def disagreeing(results: Sequence[Row]) -> list[str]:
    """The lines: one where a port fails everywhere for one reason, else one for each stage, operation and verdict.

    A claim that is contradicted has a line for each claim: each is a line of the port's hello to mend.
    """
    lines = []
    for name in dict.fromkeys(row["backend"] for row in results):
        rows = [row for row in results if row["backend"] == name]
        wrong = [row for row in rows if not agrees(row)]
        reasons = {row["reason"] for row in wrong}
        if len(wrong) == len(rows) > 1 and len(reasons) == 1:
            lines.append(f"{name}, all {len(rows)} rows: {wrong[0]['verdict']} {reasons.pop()}")
            continue
        lines += _by_stage(name, rows, [row for row in wrong if not row["contradicts"]])
        lines += _by_claim(name, [row for row in wrong if row["contradicts"]])
    return lines


def _by_stage(name: str, rows: Sequence[Row], wrong: Sequence[Row]) -> list[str]:
    def kind(row: Row) -> tuple[str, str]:
        return row["stage"], row["operation"]

    lines = []
    for key in dict.fromkeys((*kind(row), row["verdict"]) for row in wrong):
        group = [row for row in wrong if (*kind(row), row["verdict"]) == key]
        of = sum(kind(row) == key[:2] for row in rows)
        stage = key[0] if key[0] == key[1] else f"{key[0]} {key[1]}"
        lines.append(f"{name} {stage}: {len(group)} of {of} {key[2]}, first {group[0]['case']}: {group[0]['reason']}")
    return lines


def _by_claim(name: str, wrong: Sequence[Row]) -> list[str]:
    lines = []
    for claim in dict.fromkeys(row["contradicts"] for row in wrong):
        group = [row for row in wrong if row["contradicts"] == claim]
        operations = ", ".join(dict.fromkeys(row["operation"] for row in group))
        said = f" ({group[0]['reason']})" if group[0]["reason"] else ""
        lines.append(f"{name} {operations}: {claim}{said}: {counted(len(group), 'row')}, first {group[0]['case']}")
    return lines
