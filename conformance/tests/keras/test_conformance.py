"""The suite on each of Keras's backends, in a process of its own, over the protocol."""

import importlib.util

import pytest

from doconv_conformance.cases.table import Case, select
from doconv_conformance.port import OPERATIONS
from doconv_conformance.running.runner import Run, python_backend, run_cases
from doconv_conformance.verdicts.judge import disagreements

# JAX compiles every operation of every case, seconds per case: each geometry forward, a few in all operations and types.
JAX_IN_FULL = ("groups-2-", "d-mul-13-", "transposed-strides-", "large-groups-")


def chosen(case: Case, operation: str) -> bool:
    return (case.exact and case.dtype == "float32" and operation == "forward") or case.name.startswith(JAX_IN_FULL)


@pytest.fixture(scope="module", params=["tensorflow", "jax", "torch", "numpy"])
def run(request: pytest.FixtureRequest) -> Run:
    needs = "jax" if request.param == "numpy" else request.param  # Keras's numpy backend convolves with JAX
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"Keras's {request.param} backend needs {needs}, which is not installed")
    backend = python_backend(
        f"keras-{request.param}", "doconv_conformance.adapters.keras", env={"KERAS_BACKEND": request.param}
    )
    pairs = [*select(), *select(case="large-groups-")]
    return run_cases(backend, [pair for pair in pairs if request.param != "jax" or chosen(*pair)])


def test_every_case_agrees_with_the_core(run: Run) -> None:
    wrong = disagreements(run.results)
    assert not wrong, "\n".join(wrong[:20])


def test_nothing_is_inaccurate_and_every_operation_ran(run: Run) -> None:
    assert not [row for row in run.results if row.verdict == "inaccurate"]
    ran = {row.operation for row in run.results if row.verdict in ("exact", "within_bound")}
    assert ran == set(OPERATIONS) - ({"backward"} if "numpy" in run.backend.name else set())
