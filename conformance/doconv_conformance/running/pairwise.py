"""Every two ports against each other: their difference against the sum of their bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_conformance.running.runner import Run, numerics_of, wanted
from doconv_conformance.verdicts.bounds import Expected
from doconv_conformance.verdicts.judge import Result, judge, judged_exactly, row


def pairwise(runs: Sequence[Run], pairs: Sequence[tuple[Case, str]]) -> list[Result]:
    """A row for every two ports and everything that both answered."""
    results = []
    for index, first in enumerate(runs):
        for second in runs[index + 1 :]:
            for case, operation in pairs:
                key = (case.id, operation)
                if key not in first.outputs or key not in second.outputs:
                    continue
                name = f"{first.backend.name}~{second.backend.name}"
                results.append(row(name, case, operation, **_compare(case, operation, first, second)))
    return results


def _compare(case: Case, operation: str, first: Run, second: Run) -> dict[str, Any]:
    left, right = (wanted(case, operation, run.hello) for run in (first, second))
    one, other = (run.outputs[case.id, operation] for run in (first, second))
    expectations = {}
    for name, want in left.items():
        if name not in other or other[name].shape != want.value.shape:
            reason = f"{second.backend.name} gave no {name} of shape {want.value.shape}"
            return {"verdict": "mismatch", "reason": reason}
        if not np.isfinite(other[name].astype(np.float64)).all():
            return {"verdict": "mismatch", "reason": f"{second.backend.name} gave a {name} that is not finite"}
        bound = want.bound + right[name].bound
        expectations[name] = Expected(other[name].astype(np.float64), bound, want.scale, want.dtype)
    exact = all(judged_exactly(case, operation, numerics_of(run.hello)) for run in (first, second))
    return judge(expectations, one, exact=exact)
