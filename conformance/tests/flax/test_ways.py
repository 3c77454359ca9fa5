"""The suite on this backend in each of its ways, every way in its own process, with the cases that it runs by default."""

import os
import subprocess
import sys

import pytest

from doconv_conformance.adapters.ways.flax import WAYS
from doconv_conformance.adapters.ways.table import LARGE, ways_of
from doconv_conformance.cases.table import select
from doconv_conformance.running.runner import run_cases
from doconv_conformance.running.ways import TIMEOUT, WayPort, select_ways
from doconv_conformance.verdicts.judge import disagreements

# `nox -s ways` runs all that each way supports.
FULL = bool(os.environ.get("DOCONV_FULL"))
CASES = [*select(), *(select("large") if FULL else select(case=LARGE))]
PORTS = [port for port in select_ways(["flax"], CASES, ["all"], full=FULL) if "/" in port.port.name]


@pytest.mark.parametrize("port", PORTS, ids=lambda port: port.port.name)
def test_the_way_agrees_with_the_core(port: WayPort) -> None:
    run = run_cases(port.port, port.pairs, timeout=TIMEOUT)
    wrong = [run.smoke] if run.smoke else disagreements(run.results)
    assert not wrong, "\n".join(wrong[:20])
    assert not [row for row in run.results if row.verdict == "inaccurate"]
    ran = {row.operation for row in run.results if row.verdict in ("exact", "within_bound")}
    assert ran == {operation for _, operation in port.pairs}


def test_every_declared_way_can_be_run() -> None:
    assert list(WAYS) == [way.name for way in ways_of("flax", "linen")]


def test_a_gpu_that_is_not_there_is_missed() -> None:
    command = (sys.executable, "-m", "doconv_conformance.adapters.flax")
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", "DOCONV_DEVICE": "cuda", "JAX_PLATFORMS": "cuda,cpu"}
    done = subprocess.run(command, env=os.environ | hidden, input="", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("JAX finds no GPU, and would run on the CPU\n")
