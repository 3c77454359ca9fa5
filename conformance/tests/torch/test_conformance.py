"""The suite on this backend, in its own process, over the protocol."""

import pytest

from doconv_conformance.cases.table import select
from doconv_conformance.running.runner import Run, python_backend, run_cases
from doconv_conformance.verdicts.judge import disagreements


@pytest.fixture(scope="module")
def run() -> Run:
    return run_cases(python_backend("torch", "doconv_conformance.adapters.torch"), select(extended=True))


def test_every_case_agrees_with_the_core(run: Run) -> None:
    wrong = disagreements(run.results)
    assert not wrong, "\n".join(wrong[:20])


def test_nothing_is_inaccurate_and_every_operation_ran(run: Run) -> None:
    assert not [row for row in run.results if row.verdict == "inaccurate"]
    ran = {row.operation for row in run.results if row.verdict in ("exact", "within_bound")}
    assert ran == {"compose", "forward", "backward", "fold", "initialise"}
