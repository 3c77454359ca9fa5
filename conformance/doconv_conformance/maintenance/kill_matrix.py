"""The kill matrix: every planted fault against every case, `python -m doconv_conformance.maintenance.kill_matrix`.

A fault that no case kills is a hole in the suite. Each must be killed with every seed, so that none dies by luck.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from doconv_conformance.cases.table import STAGES, Case, select
from doconv_conformance.faults import CATALOGUE, Fault, FaultyPort
from doconv_conformance.port import Tensors
from doconv_conformance.verdicts.bounds import Expected, Numerics, expected
from doconv_conformance.verdicts.judge import judge, judged_exactly

SEEDS = (0, 1, 2)
# So many kills in a stage are counted; more say no more.
SHOWN = 10
# What a port usually declares: sums of low-precision products in float32, others in their type.
NUMERICS = Numerics()


@dataclass
class Killed:
    """What kills a fault in one stage.

    Attributes:
        rows: how many `(case, operation)` show it.
        wrong: the largest share of wrong values in a row.
        margin: the largest error as a multiple of its bound, over float32 and lower rows that a bound decides; 0 where none
            does.
    """

    rows: int = 0
    wrong: float = 0.0
    margin: float = 0.0


@dataclass
class Line:
    """One fault with one seed."""

    fault: Fault
    stages: dict[str, Killed] = field(default_factory=dict)

    @property
    def kills(self) -> int:
        """Rows that show the fault."""
        return sum(killed.rows for killed in self.stages.values())


def run(port: FaultyPort, case: Case, operation: str) -> Tensors | None:
    """The answer of a faulty port; None where it raises, as a framework would."""
    try:
        return port.run(case, operation)
    except (ValueError, TypeError, IndexError):
        return None


Rows = Sequence[tuple[Case, str, Mapping[str, Expected]]]


def rows(seed: int) -> Rows:
    """The whole table with one seed, and what each row should give."""
    return [
        (case, operation, expected(case, operation, NUMERICS)) for case, operation in select(seed=seed, extended=True)
    ]


def is_killed(fault: Fault, rows: Rows) -> bool:
    """Whether any row shows the fault; stops at the first that does."""
    return bool(line(fault, rows, enough=1).kills)


def line(fault: Fault, rows: Rows, enough: int | None = None) -> Line:
    """One fault against the cases. A port that raises is not counted as killed: a crash shows without a suite.

    Args:
        fault: what is planted.
        rows: the cases.
        enough: after so many kills the rest is not asked; by default `SHOWN` in each stage are, and of the extended part no
            more once anything has shown the fault.
    """
    result, port = Line(fault), FaultyPort(fault)
    for case, operation, want in rows:
        if enough and result.kills >= enough:
            break
        stage = result.stages.get(case.stage(operation), Killed())
        if stage.rows == SHOWN or (case.extended and result.kills):
            continue
        if not fault.touches(case.geometry, operation):
            continue
        killed = result.stages.setdefault(case.stage(operation), Killed())
        outputs, exact = run(port, case, operation), judged_exactly(case, operation, NUMERICS)
        if outputs is None or judge(want, outputs, exact=exact)["verdict"] != "mismatch":
            continue
        killed.rows += 1
        for name, right in want.items():
            if name not in outputs or outputs[name].shape != right.value.shape:
                killed.wrong = 1.0
                continue
            error = np.abs(outputs[name].astype(np.float64) - right.value)
            wrong = error > right.allowed(exact)
            killed.wrong = max(killed.wrong, float(wrong.mean()))
            if not exact and wrong.any() and case.dtype != "float64" and (right.bound > 0).all():
                killed.margin = max(killed.margin, float((error / right.bound).max()))
    return result


def matrix(seed: int, catalogue: Sequence[Fault] = ()) -> list[Line]:
    """Every fault, by default of the catalogue, against the whole table with one seed."""
    table = rows(seed)
    return [line(fault, table) for fault in catalogue or CATALOGUE]


def survivors(lines: Iterable[Line]) -> list[str]:
    """Names of the faults that nothing kills."""
    return [entry.fault.name for entry in lines if not entry.kills]


def unkilled(seed: int, catalogue: Sequence[Fault] = ()) -> list[str]:
    """Names of the faults, by default of the catalogue, that nothing kills with one seed; quicker than their matrix."""
    table = rows(seed)
    return [fault.name for fault in catalogue or CATALOGUE if not is_killed(fault, table)]


def page(lines: Sequence[Line], seeds: int) -> str:
    """The matrix of the first seed as a page of the documentation."""
    text = [
        "# The kill matrix",
        "",
        "Written by `python -m doconv_conformance.maintenance.kill_matrix`; do not edit.",
        "",
        f"Each of the {len(lines)} faults below is planted in the reference and put through the case table with {seeds}",
        "seeds: every one is killed with every seed. The numbers are those of the first seed. A stage's column counts the",
        "rows (a case and an operation) of the first part of the table that report a mismatch, up to ten; where there is none,",
        "the extended part is gone through until a row does. A blank means that the fault does not touch the stage. *Wrong* is",
        "the largest share of wrong values in one row, *margin* the largest error as a multiple of its bound, in rows of at",
        "most float32 that a bound decides. A fault that raises an error where a framework would is not counted as killed.",
        "",
        "| fault | a port that | " + " | ".join(STAGES) + " | wrong | margin |",
        "|---|---|" + "---:|" * (len(STAGES) + 2),
    ]
    for entry in lines:
        counts = [_count(entry.stages[stage].rows) if stage in entry.stages else "" for stage in STAGES]
        wrong = max((killed.wrong for killed in entry.stages.values()), default=0.0)
        margin = max((killed.margin for killed in entry.stages.values()), default=0.0)
        numbers = f"{100 * wrong:.0f} %", f"{margin:.3g}" if margin else ""
        text.append(f"| `{entry.fault.name}` | {entry.fault.words} | {' | '.join(counts)} | {' | '.join(numbers)} |")
    return "\n".join(text) + "\n"


def _count(rows: int) -> str:
    return str(rows) if rows < SHOWN else f"{rows}+"


def main(
    output: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = len(SEEDS),
) -> None:
    """Plant every fault; exit status 1 where one survives."""
    lines = matrix(0)
    if output:
        temporary = output.with_name(f".{output.name}.tmp")
        temporary.write_text(page(lines, seeds))
        temporary.replace(output)
    alive = {0: survivors(lines)} | {seed: unkilled(seed) for seed in range(1, seeds)}
    for seed, names in alive.items():
        if names:
            typer.echo(f"seed {seed}: {', '.join(names)} survive")
    typer.echo(f"{len(CATALOGUE)} faults, {seeds} seeds: {'survivors' if any(alive.values()) else 'all killed'}")
    raise typer.Exit(1 if any(alive.values()) else 0)


if __name__ == "__main__":
    typer.run(main)
