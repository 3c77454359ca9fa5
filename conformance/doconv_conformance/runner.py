"""Run the cases on one port. A port that crashes, hangs or is missing becomes rows that say so, never the end of the run."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import Case
from doconv_conformance.judge import Result, judge, judged_exactly, row
from doconv_conformance.port import PROTOCOL
from doconv_conformance.process import PortCrash, PortProcess, PortTimeout
from doconv_conformance.reference import ALGORITHMS, Expected, Numerics, expected
from doconv_core.geometry import ConvGeometry

# After so many crashes or timeouts without a good answer in between, the remaining cases are given up.
PATIENCE = 3


@dataclass(frozen=True)
class Backend:
    """A port that can be run: its name, its command, and what its environment needs."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """What came of running the cases on one port.

    Attributes:
        backend: the port.
        hello: what it said of itself; empty where it never did.
        results: a row a case and operation.
        outputs: what it gave, for comparing ports with each other.
        seconds: until it had started, and in all.
    """

    backend: Backend
    hello: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    outputs: dict[tuple[str, str], dict[str, np.ndarray]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class PortSession:
    """A port with its folder of tensors: asks one operation at a time and starts the port again after a crash.

    Args:
        backend: the port.
        folder: where inputs and outputs go; kept if given, else temporary.
        timeout: seconds for one answer.
        start_timeout: seconds until the port has said hello.
        memory_limit: bytes of resident memory after which the port is ended.

    Raises:
        PortCrash, PortTimeout: the port does not start, or does not say hello as the protocol wants.
    """

    def __init__(
        self,
        backend: Backend,
        folder: Path | None = None,
        *,
        timeout: float = 60.0,
        start_timeout: float = 180.0,
        memory_limit: int = 8 * 2**30,
    ) -> None:
        self.backend, self.timeout, self.start_timeout = backend, timeout, start_timeout
        self.memory_limit = memory_limit
        self._temporary = None if folder else tempfile.mkdtemp(prefix="doconv-")
        self.folder = folder or Path(self._temporary or "")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process: PortProcess | None = None
        try:
            self.hello = self._start()
        except (PortCrash, PortTimeout):
            self.close()
            raise

    def run(
        self,
        name: str,
        operation: str,
        geometry: ConvGeometry,
        dtype: str,
        param_dtype: str,
        inputs: Mapping[str, np.ndarray],
    ) -> tuple[str, str, dict[str, np.ndarray]]:
        """Ask for one operation; returns `(status, reason, outputs)`.

        Raises:
            PortCrash, PortTimeout: as `PortProcess.ask`; the port starts again with the next call.
        """
        if self._process is None:
            self._start()
        assert self._process
        source, target = (self.folder / f"{name}-{operation}-{end}.safetensors" for end in ("inputs", "outputs"))
        target.unlink(missing_ok=True)
        save_file({key: np.ascontiguousarray(value) for key, value in inputs.items()}, source)
        request = {
            "type": "run", "id": f"{name}/{operation}", "operation": operation, "dtype": dtype, "param_dtype": param_dtype,
            "geometry": geometry.to_json(), "inputs": str(source.resolve()), "outputs": str(target.resolve()),
        }  # fmt: skip
        try:
            answer = self._process.ask(request, self.timeout)
            if answer.get("type") != "result" or answer.get("status") not in ("ok", "unsupported", "error"):
                raise PortCrash(f"answered what the protocol does not know: {str(answer)!r:.200}")
            if answer.get("id") != request["id"]:
                raise PortCrash(f"answered {answer.get('id')!r} when asked for {request['id']!r}")
        except (PortCrash, PortTimeout):
            self._stop()
            raise
        outputs = _load(target) if answer["status"] == "ok" else {}
        return answer["status"], str(answer.get("reason", "")), outputs

    def close(self) -> None:
        """End the port and remove its temporary folder."""
        self._stop()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _start(self) -> dict[str, Any]:
        self._process = PortProcess(self.backend.command, env=self.backend.env, memory_limit=self.memory_limit)
        hello = self._process.ask({"type": "hello", "protocol": PROTOCOL}, self.start_timeout)
        if hello.get("type") != "hello" or PROTOCOL not in hello.get("protocol", []):
            raise PortCrash(f"does not speak protocol {PROTOCOL}; said {str(hello)!r:.200}")
        algorithm = hello.get("numerics", {}).get("algorithm", "direct")
        if algorithm not in ALGORITHMS:
            raise PortCrash(f"declares algorithm {algorithm!r}; must be one of {', '.join(ALGORITHMS)}")
        return hello

    def _stop(self) -> None:
        if self._process:
            self._process.close()
        self._process = None


def run_cases(
    backend: Backend,
    pairs: Sequence[tuple[Case, str]],
    *,
    progress: Callable[[], None] = lambda: None,
    keep: Path | None = None,
    timeout: float = 60.0,
    start_timeout: float = 180.0,
    memory_limit: int = 8 * 2**30,
) -> Run:
    """Every `(case, operation)` on one port, in order; always one row each.

    Args:
        backend: the port.
        pairs: what to run.
        progress: called after each.
        keep: a folder that keeps the tensors of every case.
        timeout: seconds for one answer.
        start_timeout: seconds until the port has said hello.
        memory_limit: bytes of resident memory after which the port is ended.
    """
    run = Run(backend)
    began = time.monotonic()
    limits = {"timeout": timeout, "start_timeout": start_timeout, "memory_limit": memory_limit}
    try:
        session = PortSession(backend, keep, **limits)  # type: ignore[arg-type]
    except (PortCrash, PortTimeout) as failure:
        for case, operation in pairs:
            run.results.append(_failed(backend, case, operation, failure))
            progress()
        run.seconds = {"start": time.monotonic() - began, "total": time.monotonic() - began}
        return run
    run.hello = session.hello
    run.seconds["start"] = time.monotonic() - began
    numerics = numerics_of(run.hello)
    failures = 0
    try:
        for case, operation in pairs:
            if failures >= PATIENCE:
                reason = f"not run: the port failed {PATIENCE} times in a row"
                result = row(backend.name, case, operation, verdict="crashed", reason=reason)
            else:
                result, outputs = _run_case(session, run.hello, numerics, case, operation)
                failures = failures + 1 if result.verdict in ("crashed", "timeout") and not outputs else 0
                if outputs:
                    run.outputs[case.id, operation] = outputs
            run.results.append(result)
            progress()
    finally:
        session.close()
    run.seconds["total"] = time.monotonic() - began
    return run


def numerics_of(hello: Mapping[str, Any]) -> Numerics:
    """What a port declares of its arithmetic."""
    return Numerics.from_json(hello.get("numerics", {}))


def declared_unsupported(hello: Mapping[str, Any], case: Case, operation: str) -> str:
    """Why a port says it does not support a case; empty where it says it does."""
    supports, g = hello.get("supports", {}), case.geometry
    facts = {
        "operation": operation, "dtype": case.dtype, "param_dtype": case.param_dtype, "spatial_rank": g.spatial_rank,
        "transposed": g.transposed, "grouped": g.groups > 1, "padding_mode": g.padding_mode,
        "dilated": max(g.dilation) > 1, "strided": max(g.stride) > 1, "surplus_columns": g.d_mul > g.taps,
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
        if entry["when"] and all(facts.get(key) == value for key, value in entry["when"].items()):
            return str(entry["reason"])
    return ""


def _run_case(
    session: PortSession, hello: Mapping[str, Any], numerics: Numerics, case: Case, operation: str
) -> tuple[Result, dict[str, np.ndarray]]:
    name, outputs = session.backend.name, dict[str, np.ndarray]()
    want = expected(case, operation, numerics)
    exact = judged_exactly(case, operation, numerics)
    began = time.monotonic()
    try:
        status, reason, outputs = session.run(
            case.id, operation, case.geometry, case.dtype, case.param_dtype, case.inputs(operation)
        )
    except (PortCrash, PortTimeout) as failure:
        return _failed(session.backend, case, operation, failure, time.monotonic() - began), {}
    seconds = time.monotonic() - began
    declared = declared_unsupported(hello, case, operation)
    if status == "error":
        result = {"verdict": "crashed", "reason": reason or "answered an error without a text"}
        return row(name, case, operation, seconds=seconds, **result), outputs
    if status == "unsupported":
        contradicts = "" if declared else "declared supported, but answered unsupported"
        result = {"verdict": "unsupported", "reason": reason or declared, "contradicts": contradicts}
        return row(name, case, operation, seconds=seconds, **result), outputs
    judgement = judge(want, outputs, exact=exact)
    if declared and judgement["verdict"] != "mismatch":
        judgement["contradicts"] = f"declared unsupported ({declared}), but works"
    return row(name, case, operation, seconds=seconds, **judgement), outputs


def _failed(backend: Backend, case: Case, operation: str, failure: Exception, seconds: float = 0.0) -> Result:
    verdict = "timeout" if isinstance(failure, PortTimeout) else "crashed"
    return row(backend.name, case, operation, verdict=verdict, reason=str(failure), seconds=seconds)


def _load(path: Path) -> dict[str, np.ndarray]:
    """The port's outputs; a missing or damaged file is an answer without outputs."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        return {}


def python_backend(
    name: str, module: str, *arguments: str, env: Mapping[str, str] | None = None, python: str = ""
) -> Backend:
    """A port written in Python and run as a module."""
    return Backend(name, (python or sys.executable, "-m", module, *arguments), {**_one_thread(), **(env or {})})


def _one_thread() -> dict[str, str]:
    """One thread a port: the cases are small, and the ports run side by side."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return {name: os.environ.get(name, "1") for name in names}


def pairwise(runs: Sequence[Run], pairs: Sequence[tuple[Case, str]]) -> list[Result]:
    """Every two ports against each other: their difference against the sum of their bounds."""
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
    left, right = (expected(case, operation, numerics_of(run.hello)) for run in (first, second))
    one, other = (run.outputs[case.id, operation] for run in (first, second))
    wanted = {}
    for name, want in left.items():
        if name not in other or other[name].shape != want.value.shape:
            return {
                "verdict": "mismatch",
                "reason": f"{second.backend.name} gave no {name} of shape {want.value.shape}",
            }
        bound = want.bound + right[name].bound
        wanted[name] = Expected(other[name].astype(np.float64), bound, want.scale, want.dtype)
    algorithms = {numerics_of(run.hello).algorithm for run in (first, second)}
    return judge(wanted, one, exact=(case.exact and algorithms <= {"direct", "tf32"}) or operation == "initialise")
