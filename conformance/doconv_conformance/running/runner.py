"""Run the cases on one port. A port that crashes, hangs or is missing becomes rows that say so, never the end of the run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from doconv_conformance.cases.table import STAGES, Case
from doconv_conformance.protocol.process import PortCrash, PortTimeout
from doconv_conformance.protocol.session import Backend, PortSession
from doconv_conformance.protocol.smoke import smoke
from doconv_conformance.running.vectors import keep_case
from doconv_conformance.verdicts.bounds import Expected, Numerics, expected
from doconv_conformance.verdicts.judge import Result, judge, judged_exactly, row

# After so many crashes or timeouts in a row the rest of a stage is given up; after so many stages given up, the run.
PATIENCE = 3
STAGES_GIVEN_UP = 2
# Algorithms whose errors are bounded by norms: an element that is small by itself has errors of the large ones.
BY_NORM = ("winograd", "fft")
# Upper edges of the bins in which errors are counted, in units of `u * a`; the last bin has none.
EDGES = (0.0, *(2.0**power for power in range(-6, 7)))


@dataclass
class Run:
    """What came of running the cases on one port.

    Attributes:
        backend: the port.
        hello: what it said of itself; empty where it never did.
        smoke: why the smoke case failed; empty where it passed.
        results: one row per case and operation.
        outputs: what it gave, for comparing ports with each other.
        errors: for each stage, how many elements of float cases were wrong by how much (`EDGES`).
        seconds: "start", "port" (its answers), "reference", "judge", "picture" (what `then` did), and "total".
    """

    backend: Backend
    hello: dict[str, Any] = field(default_factory=dict)
    smoke: str = ""
    results: list[Result] = field(default_factory=list)
    outputs: dict[tuple[str, str], dict[str, np.ndarray]] = field(default_factory=dict)
    errors: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to `seconds[name]`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


def run_cases(
    backend: Backend,
    pairs: Sequence[tuple[Case, str]],
    *,
    progress: Callable[[], None] = lambda: None,
    then: Callable[[PortSession], None] | None = None,
    keep: Path | None = None,
    fail_fast: bool = False,
    timeout: float = 60.0,
    start_timeout: float = 180.0,
    memory_limit: int = 8 * 2**30,
) -> Run:
    """The smoke case, then every `(case, operation)` on one port, in order; one row each.

    Args:
        backend: the port.
        pairs: what to run.
        progress: called after each.
        then: called with the session after the last, unless the port has not started.
        keep: a folder that keeps the files of every case.
        fail_fast: stop after the first row that does not agree; what is left has no rows.
        timeout: seconds for one answer.
        start_timeout: seconds until the port has said hello.
        memory_limit: bytes of resident memory after which the port is ended.

    Raises:
        Interrupted: the run was interrupted (`process.port_threads`); the port is ended.
        OSError: the suite cannot write its own files.
    """
    run = Run(backend)
    limits = {"timeout": timeout, "start_timeout": start_timeout, "memory_limit": memory_limit}
    with run.clock("total"):
        try:
            with run.clock("start"):
                session = PortSession(backend, keep, **limits)  # type: ignore[arg-type]
        except (PortCrash, PortTimeout) as failure:
            failure = with_advice(failure, backend)
            for case, operation in pairs[:1] if fail_fast else pairs:
                run.results.append(_failed(backend, case, operation, failure))
                progress()
            return run
        try:
            run.hello = session.hello
            run.smoke = smoke(session)
            _run_pairs(run, session, pairs, progress, keep, fail_fast=fail_fast)
            if then:
                with run.clock("picture"):
                    then(session)
        finally:
            session.close()
    return run


def with_advice(failure: PortCrash | PortTimeout, backend: Backend) -> PortCrash | PortTimeout:
    """Why a port did not start, with the line that installs what it lacks."""
    if backend.install and "No module named" in str(failure):
        return PortCrash(f"{failure}. To install it: {backend.install}")
    return failure


def _run_pairs(
    run: Run, session: PortSession, pairs: Sequence[tuple[Case, str]], progress: Callable[[], None], keep: Path | None,
    *, fail_fast: bool,
) -> None:  # fmt: skip
    failures, given_up = 0, list[str]()
    for case, operation in pairs:
        stage = case.stage(operation)
        if stage in given_up or len(given_up) == STAGES_GIVEN_UP:
            which = "port" if stage in given_up else "stages before it"
            reason = f"not run: the {which} failed {PATIENCE} times in a row"
            run.results.append(row(run.backend.name, case, operation, verdict="crashed", reason=reason))
        elif run_case(run, session, case, operation):
            failures += 1
            if failures == PATIENCE:
                given_up.append(stage)
                failures = 0
        else:
            failures, given_up = 0, []
        if keep:
            keep_case(keep, case, operation, numerics_of(run.hello))
        progress()
        if fail_fast and not run.results[-1].agrees:
            return


def run_case(run: Run, session: PortSession, case: Case, operation: str) -> bool:
    """Run one and add its row; whether the port had to be ended."""
    name, numerics = session.backend.name, numerics_of(run.hello)
    with run.clock("reference"):
        want = wanted(case, operation, run.hello)
        inputs = case.inputs(operation)
    began = time.monotonic()
    try:
        with run.clock("port"):
            status, reason, outputs = session.run(
                case.id, operation, case.geometry, case.dtype, case.param_dtype, inputs
            )
    except (PortCrash, PortTimeout) as failure:
        run.results.append(_failed(session.backend, case, operation, failure, time.monotonic() - began))
        return True
    seconds = time.monotonic() - began
    if outputs:
        run.outputs[case.id, operation] = outputs
    with run.clock("judge"):
        exact = judged_exactly(case, operation, numerics)
        result = answer(name, case, operation, run.hello, status, reason, outputs, want, exact=exact, seconds=seconds)
        run.results.append(result)
        if not exact and result.verdict in ("within_bound", "inaccurate"):
            counts = run.errors.setdefault(result.stage, np.zeros(len(EDGES) + 1, np.int64))
            for output, expectation in want.items():
                counts += _histogram(outputs[output], expectation)
    return False


def answer(
    name: str, case: Case, operation: str, hello: Mapping[str, Any], status: str, reason: str,
    outputs: Mapping[str, np.ndarray], want: Mapping[str, Expected], *, exact: bool, seconds: float = 0.0,
) -> Result:  # fmt: skip
    """The row of an answer: the verdict on its outputs, or what its status says, and whether that contradicts its claims."""
    declared = declared_unsupported(hello, case, operation) if hello else ""
    if status == "error" and declared:
        result: dict[str, Any] = {"verdict": "unsupported", "reason": f"{declared}; it answered an error: {reason}"}
    elif status == "error":
        result = {"verdict": "crashed", "reason": reason}
    elif status == "unsupported":
        contradicts = "" if declared else "declared supported, but answered unsupported"
        result = {"verdict": "unsupported", "reason": reason, "contradicts": contradicts}
    else:
        result = judge(want, outputs, exact=exact)
        if result["verdict"] == "inaccurate" and numerics_of(hello).algorithm in BY_NORM:
            result["verdict"] = "within_bound"  # the limit of `r` is one for direct algorithms
        if declared and result["verdict"] != "mismatch":
            result["contradicts"] = f"declared unsupported ({declared}), but works"
    return row(name, case, operation, seconds=seconds, **result)


def wanted(case: Case, operation: str, hello: Mapping[str, Any]) -> dict[str, Expected]:
    """`reference.expected` for what a port declares of its arithmetic, computed once for all ports that declare the same."""
    declared = {key: value for key, value in hello.get("numerics", {}).items() if key != "switches"}
    return _wanted(case, operation, json.dumps(declared, sort_keys=True))


@cache
def _wanted(case: Case, operation: str, declared: str) -> dict[str, Expected]:
    return expected(case, operation, numerics_of({"numerics": json.loads(declared)}))


def numerics_of(hello: Mapping[str, Any]) -> Numerics:
    """What a port declares of its arithmetic."""
    return Numerics.from_json(hello.get("numerics", {}))


def declared_unsupported(hello: Mapping[str, Any], case: Case, operation: str) -> str:
    """Why a port says it does not support a case; empty where it says it does."""
    supports, g = hello.get("supports", {}), case.geometry
    facts = {
        "operation": operation, "dtype": case.dtype, "param_dtype": case.param_dtype, "spatial_rank": g.spatial_rank,
        "transposed": g.transposed, "grouped": g.groups > 1, "padding_mode": g.padding_mode,
        "padded": any(map(any, g.padding)), "dilated": max(g.dilation) > 1, "strided": max(g.stride) > 1,
        "surplus_columns": g.d_mul > g.taps,
    }  # fmt: skip
    if operation not in supports.get("operations", []):
        return f"operation {operation} is not declared"
    if case.param_dtype not in supports.get("dtypes", {}).get(case.dtype, []):
        return f"{case.dtype} with {case.param_dtype} parameters is not declared"
    if g.spatial_rank not in supports.get("spatial_ranks", []):
        return f"{g.spatial_rank} spatial axes are not declared"
    if g.padding_mode not in supports.get("padding_modes", ["zeros"]):
        return f"padding mode {g.padding_mode} is not declared"
    if g.transposed and not supports.get("transposed", False):
        return "transposed convolution is not declared"
    if g.groups > 1 and not supports.get("groups", False):
        return "groups are not declared"
    for entry in supports.get("unsupported", []):
        if all(facts[key] == value for key, value in entry["when"].items()):
            return str(entry["reason"])
    return ""


def python_backend(
    name: str, module: str, *arguments: str, env: Mapping[str, str] | None = None, python: str = "", install: str = ""
) -> Backend:
    """A port written in Python and run as a module, by this interpreter or another."""
    command = (python or sys.executable, "-m", module, *arguments)
    return Backend(name, command, {**_one_thread(), **(env or {})}, install)


def stages_run(results: Sequence[Result]) -> list[str]:
    """The stages that have rows, in their order."""
    present = {result.stage for result in results}
    return [stage for stage in STAGES if stage in present]


def _one_thread() -> dict[str, str]:
    """One thread a port: the cases are small, and the ports run side by side."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {name: os.environ.get(name, "1") for name in names}


def _failed(backend: Backend, case: Case, operation: str, failure: Exception, seconds: float = 0.0) -> Result:
    verdict = "timeout" if isinstance(failure, PortTimeout) else "crashed"
    return row(backend.name, case, operation, verdict=verdict, reason=str(failure), seconds=seconds)


def _histogram(got: np.ndarray, want: Expected) -> np.ndarray:
    """How many elements fall into each bin of `EDGES`; those without a unit take no part."""
    got = got.astype(np.float64)
    compared = (want.scale > 0) & np.isfinite(want.bound) & np.isfinite(want.value) & np.isfinite(got)
    units = np.abs(got[compared] - want.value[compared]) / want.scale[compared]
    return np.bincount(np.searchsorted(EDGES, units), minlength=len(EDGES) + 1)
