"""The suite on each of Keras's engines in each of its ways, every way in its own process, with its default cases."""

import importlib.util
import os

import pytest

from doconv_conformance.adapters.ways.table import LARGE, Way, ways_of
from doconv_conformance.cases.table import select
from doconv_conformance.running.runner import run_cases
from doconv_conformance.running.ways import TIMEOUT, way_port
from doconv_conformance.verdicts.judge import disagreements

# `nox -s ways` runs all that each way supports.
FULL = bool(os.environ.get("DOCONV_FULL"))
CASES = [*select(), *(select("large") if FULL else select(case=LARGE))]
WAYS = [(engine, way) for engine in ("tensorflow", "jax", "torch") for way in ways_of("keras", engine)[1:]]


@pytest.mark.parametrize(("engine", "way"), WAYS, ids=[f"{engine}-{way.name}" for engine, way in WAYS])
def test_the_way_agrees_with_the_core(engine: str, way: Way) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"Keras's {engine} backend needs {engine}, which is not installed")
    pairs = way.choose(CASES, full=FULL)
    run = run_cases(way_port(way, engine), pairs, timeout=TIMEOUT)
    wrong = [run.smoke] if run.smoke else disagreements(run.results)
    assert not wrong, "\n".join(wrong[:20])
    assert not [row for row in run.results if row.verdict == "inaccurate"]
    ran = {row.operation for row in run.results if row.verdict in ("exact", "within_bound")}
    assert ran == {operation for _, operation in pairs}
