"""What a port's failures are consistent with, and where to look.

Where the port can be asked, it is (`asked`): what it computes is measured by questions made for that. Offline, what it answered
is replayed (`replayed`), which says less.
"""

from __future__ import annotations

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
from doconv_conformance.faults import CATALOGUE, Fault
from doconv_conformance.protocol.process import PortCrash, PortTimeout
from doconv_conformance.protocol.session import PortSession
from doconv_conformance.running.runner import Run, numerics_of
from doconv_conformance.verdicts.bounds import Numerics
from doconv_conformance.verdicts.judge import Result

__all__ = ["Diagnosis", "diagnose", "diagnose_run"]
Outputs = Mapping[tuple[str, str], Mapping[str, np.ndarray]]
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
    if not any(row.failed for row in rows):
        return []
    structure = [row for row in rows if _decides_structure(row)] or [
        row for row in rows if row.case.numbers == "floats"
    ]
    with np.errstate(all="ignore"):  # ports give infinities, and some cases have them
        if asker is not None:
            return by_asking(rows, structure, asker, numerics, catalogue, say)
        return by_replay(rows, structure, numerics, catalogue)


def _session(run: Run, timeout: float) -> PortSession | None:
    """With the port once more; None where it does not start."""
    try:
        return PortSession(run.backend, timeout=timeout)
    except (PortCrash, PortTimeout):
        return None


def _decides_structure(row: Row) -> bool:
    """Exact float32 cases: what is wrong there is not the arithmetic."""
    return row.case.dtype == row.case.param_dtype == "float32" and row.exact
