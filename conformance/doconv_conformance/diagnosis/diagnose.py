"""What a port's failures are consistent with, and where to look.

Where the port can be asked, it is (`asked`): what it computes is measured by questions made for that. Offline, what it answered
is replayed (`replayed`), which says less.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from doconv_conformance.cases.table import Case, cases
from doconv_conformance.diagnosis.asked import by_asking
from doconv_conformance.diagnosis.asking import Asker
from doconv_conformance.diagnosis.claims import Diagnosis
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.diagnosis.replayed import by_replay
from doconv_conformance.diagnosis.scope import best
from doconv_conformance.faults import CATALOGUE, Fault
from doconv_conformance.port import OPERATIONS
from doconv_conformance.protocol.process import PortCrash, PortTimeout
from doconv_conformance.protocol.session import PortSession
from doconv_conformance.running.runner import Run, numerics_of
from doconv_conformance.verdicts.bounds import Numerics
from doconv_conformance.verdicts.judge import Result

__all__ = ["Diagnosis", "diagnose", "diagnose_run"]
Outputs = Mapping[tuple[str, str], Mapping[str, np.ndarray]]
# Rows with an error before a condition is named, and reasons that are shown.
LEAST, MOST_REASONS = 3, 4
# For all questions to one port.
SECONDS = 15.0


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
        numerics, session = numerics_of(run.hello), _session(run, timeout) if ask else None
        if session is None:
            return diagnose(run.results, run.outputs, numerics)
        try:
            return diagnose(run.results, run.outputs, numerics, asker=Asker(session, SECONDS), say=say)
        finally:
            session.close()
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
        if row.case in known
        and (got := outputs.get((row.case, row.operation)))
        and row.verdict in ("exact", "within_bound", "inaccurate", "mismatch")
    ]
    errors = of_errors(results, known)
    if not any(row.failed for row in rows):
        return errors
    structure = [row for row in rows if _decides_structure(row)] or [
        row for row in rows if row.case.numbers == "floats"
    ]
    with np.errstate(all="ignore"):  # ports give infinities, and some cases have them
        if asker is not None:
            return by_asking(rows, structure, asker, numerics, catalogue, say) + errors
        return by_replay(rows, structure, numerics, catalogue) + errors


def of_errors(results: Sequence[Result], known: Mapping[str, Case]) -> list[Diagnosis]:
    """Where a port answers an error: one diagnosis for each reason, with the condition that its rows have in common."""
    found, reasons = list[Diagnosis](), dict[str, list[Result]]()
    for row in results:
        if row.verdict == "crashed" and row.reason and row.case in known:
            reasons.setdefault(re.sub(r"\d+", "0", row.reason), []).append(row)
    for rows in sorted(reasons.values(), key=len, reverse=True)[:MOST_REASONS]:
        operations = [name for name in OPERATIONS if any(row.operation == name for row in rows)]
        asked = [row for row in results if row.operation in operations and row.case in known]
        mine = {(row.case, row.operation) for row in rows}
        gains = np.array([(row.case, row.operation) in mine for row in asked])
        losses = np.array([row.verdict not in ("crashed", "timeout", "unsupported") for row in asked])
        scope = best([known[row.case] for row in asked], gains, losses) if len(rows) >= LEAST else None
        where = f", {scope[0].words}" if scope and scope[0].words else ""
        words = f"fails in {' and '.join(operations)}{where}: {rows[0].reason}"
        found.append(
            Diagnosis(
                "measured", "error", f"the errors are those of a port that {words}", "where that error is raised",
                tuple((row.case, row.operation) for row in rows), len(rows),
            )
        )  # fmt: skip
    return found


def _session(run: Run, timeout: float) -> PortSession | None:
    """With the port once more; None where it does not start."""
    try:
        return PortSession(run.backend, timeout=timeout)
    except (PortCrash, PortTimeout):
        return None


def _decides_structure(row: Row) -> bool:
    """Exact float32 cases: what is wrong there is not the arithmetic."""
    return row.case.dtype == row.case.param_dtype == "float32" and row.exact
