"""The layers of a checkpoint on ports, one layer at a time: how far each port is from the reference, and what a type loses.

Two questions have two answers. Whether ports agree: each starts from inputs that are rounded to the type, and so does the
reference; a derived bound decides. What a type loses: the distance from the same layer in float64, on inputs that are not
rounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

from doconv_conformance.cases.table import DTYPES
from doconv_conformance.protocol.process import PortCrash, PortTimeout, port_threads
from doconv_conformance.protocol.session import PortSession
from doconv_conformance.protocol.smoke import smoke
from doconv_conformance.running.layer_cases import OPERATIONS, LayerCase, LayerPlan, read_layer
from doconv_conformance.running.recordings import Recordings
from doconv_conformance.running.runner import PATIENCE, Run, answer, numerics_of, with_advice
from doconv_conformance.running.ways import WayPort
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Expected, Numerics, Output, outputs_of
from doconv_conformance.verdicts.judge import Result, row
from doconv_core.blocked import compose_blocked, compose_vjp_blocked
from doconv_core.checkpoint import Checkpoint
from doconv_core.convolution import convolve, convolve_vjp

Tensors = Mapping[str, np.ndarray]
Derived = Mapping[str, Output]
GRADIENTS = ("grad_x", "grad_W", "grad_D_delta", "grad_bias")


@dataclass(frozen=True)
class Answer:
    """What a port said to one operation: `status` "ok", "unsupported", "error", "crashed" or "timeout"."""

    status: str
    reason: str
    outputs: Tensors = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Loss:
    """How far a port's results in one type are from float64 on inputs that are not rounded, where they are finite.

    Attributes:
        backend: the port.
        dtype: of the activations.
        output: `|y - y64| / |y64|`; None where there was no answer, here and below.
        folded: the same of the folded layer.
        folding: `|folded y - y| / |y64|`: what the fold itself changes.
        gradients: the largest of the gradients' `|g - g64| / |g64|`.
        infinite: for each result with values that are not finite, how many, and of how many.
        unbounded: results of which any finite value is right: the port forms sums so long in a type so short that no bound
            holds.
    """

    backend: str
    dtype: str
    output: float | None = None
    folded: float | None = None
    folding: float | None = None
    gradients: float | None = None
    infinite: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unbounded: tuple[str, ...] = ()


@dataclass
class LayerOutcome:
    """What came of one layer.

    Attributes:
        plan: what it was computed on.
        rows: one per port, type and operation.
        losses: one per port and type.
        largest: the largest absolute values in float64: "x", "kernel", "y".
        not_computed: types that its inputs or parameters do not fit, each with how many values are beyond it.
    """

    plan: LayerPlan
    rows: list[Result] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)
    not_computed: dict[str, int] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        return all(result.agrees for result in self.rows)

    def loss(self, dtype: str, name: str) -> float | None:
        """`Loss.output` or another of its numbers, of the port that loses most; None where no port has it."""
        found = (getattr(loss, name) for loss in self.losses if loss.dtype == dtype)
        return max((value for value in found if value is not None), default=None)

    def is_beyond(self, dtype: str) -> bool:
        """Whether a type is too short for the layer."""
        return dtype in self.not_computed or any(loss.infinite for loss in self.losses if loss.dtype == dtype)

    @property
    def overflows(self) -> bool:
        """Whether one of the types is too short for the layer."""
        return any(self.is_beyond(dtype) for dtype in {*self.not_computed, *(loss.dtype for loss in self.losses)})

    def share(self, backend: str | None = None) -> float | None:
        """The largest error as a share of its bound, of one port or of all; None where nothing could be compared."""
        known = [
            result.bound_fraction
            for result in self.rows
            if backend in (None, result.backend) and result.bound_fraction is not None
        ]
        return max(known, default=None)

    @property
    def badness(self) -> tuple[bool, bool, float]:
        """What layers are sorted by, worst first: a disagreement, a type that is too short, the share of the bound."""
        return not self.agrees, self.overflows, self.share() or 0.0


def run_layers(
    ports: Sequence[WayPort],
    checkpoint: Checkpoint,
    plans: Sequence[LayerPlan],
    dtypes: Sequence[str],
    recordings: Recordings | None = None,
    *,
    step: Callable[[str], None] = lambda layer: None,
    timeout: float = 60.0,
) -> tuple[list[Run], list[LayerOutcome]]:
    """Every layer in every type on every port; the tensors of one layer are in memory at a time.

    Args:
        ports: with the cases that each is asked (`LayerPlan.case`).
        checkpoint: where parameters are read from.
        plans: of the layers.
        dtypes: of the activations.
        recordings: where inputs are read from.
        step: called after each layer and type with the layer's name.
        timeout: seconds for one answer.

    Returns:
        The ports' runs with all rows, and the layers, worst first.

    Raises:
        OSError: the suite cannot write its own files.
        KeyboardInterrupt: as it comes; the ports are ended first.
    """
    asked = [_Asked(port, timeout) for port in ports]
    outcomes = []
    try:
        with port_threads(len(asked)) as threads:
            list(threads.map(_Asked.start, asked))
            for plan in plans:
                outcome = LayerOutcome(plan)
                _run_layer(threads, asked, outcome, read_layer(checkpoint, plan, recordings), dtypes, step)
                checkpoint.release(plan.path)
                if recordings and plan.recorded:
                    recordings.source.release(recordings.names[plan.path])
                outcomes.append(outcome)
    finally:
        for port in asked:
            port.end()
    outcomes.sort(key=lambda outcome: outcome.badness, reverse=True)
    for port in asked:
        name = port.run.backend.name
        port.run.results = [result for outcome in outcomes for result in outcome.rows if result.backend == name]
    return [port.run for port in asked], outcomes


class _Asked:
    """A port in its session, which is given up after several failures in a row."""

    def __init__(self, port: WayPort, timeout: float) -> None:
        self.run, self.timeout, self.began = Run(port.port), timeout, time.monotonic()
        self.pairs = {(case.id, operation) for case, operation in port.pairs}
        self.session: PortSession | None = None
        self.failure: PortCrash | PortTimeout | None = None
        self.failures = 0

    def start(self) -> None:
        try:
            with self.run.clock("start"):
                self.session = PortSession(self.run.backend, timeout=self.timeout)
            self.run.hello = self.session.hello
            self.run.smoke = smoke(self.session)
        except (PortCrash, PortTimeout) as failure:
            self.failure = with_advice(failure, self.run.backend)

    def ask(self, case: LayerCase, name: str) -> dict[str, Answer]:
        """Its answers to the operations on a case; `name` is that of a folder."""
        return {
            operation: self._ask(case, operation, name)
            for operation in OPERATIONS
            if (case.id, operation) in self.pairs
        }

    def end(self) -> None:
        if self.session:
            self.session.close()
        self.run.seconds["total"] = time.monotonic() - self.began

    def _ask(self, case: LayerCase, operation: str, name: str) -> Answer:
        if self.session is None:
            return _failed(self.failure)
        if self.failures >= PATIENCE:
            return Answer("crashed", f"not run: the port failed {PATIENCE} times in a row")
        began = time.monotonic()
        try:
            with self.run.clock("port"):
                said = self.session.run(
                    name, operation, case.geometry, case.dtype, case.param_dtype, case.inputs(operation)
                )
        except (PortCrash, PortTimeout) as failure:
            self.failures += 1
            return _failed(failure, time.monotonic() - began)
        self.failures = 0
        return Answer(*said, time.monotonic() - began)


def _failed(failure: PortCrash | PortTimeout | None, seconds: float = 0.0) -> Answer:
    return Answer("timeout" if isinstance(failure, PortTimeout) else "crashed", str(failure), seconds=seconds)


def _run_layer(
    pool: ThreadPoolExecutor, ports: Sequence[_Asked], outcome: LayerOutcome, numbers: Tensors, dtypes: Sequence[str],
    step: Callable[[str], None],
) -> None:  # fmt: skip
    plan = outcome.plan
    exact = exact_values(plan, numbers)
    sizes = {"x": numbers["x"], "kernel": exact["weight"], "y": exact["y"]}
    outcome.largest = {name: float(np.abs(value).max(initial=0)) for name, value in sizes.items()}
    for dtype in dtypes:
        case = plan.case(dtype, numbers)
        if beyond := sum(int((~np.isfinite(tensor)).sum()) for tensor in case.tensors.values()):
            outcome.not_computed[dtype] = beyond
            step(plan.label)
            continue
        answers = [pool.submit(port.ask, case, dtype) for port in ports]
        began = time.monotonic()
        derived = {operation: outputs_of(case, operation) for operation in ("backward", "fold")}
        derived["forward"] = {"y": derived["fold"]["y"]}
        spent = time.monotonic() - began
        for port, future in zip(ports, answers, strict=True):
            given = future.result()
            port.run.seconds["reference"] = port.run.seconds.get("reference", 0.0) + spent
            with port.run.clock("judge"):
                _judge(port.run, outcome, case, given, derived, exact)
        step(plan.label)


def exact_values(plan: LayerPlan, numbers: Tensors) -> dict[str, np.ndarray]:
    """The layer's results in float64, on numbers that are not rounded."""
    g, t = plan.geometry, {name: value.astype(np.float64) for name, value in numbers.items()}
    kernel = compose_blocked(t["W"], t["D_delta"], g)
    grad_x, grad_kernel, grad_bias = convolve_vjp(t["x"], kernel, t["grad_y"], g)
    grad_W, grad_D = compose_vjp_blocked(t["W"], t["D_delta"], grad_kernel, g)
    assert grad_D is not None
    values = {"weight": kernel, "y": convolve(t["x"], kernel, t.get("bias"), g), "grad_x": grad_x}
    return values | {"grad_W": grad_W, "grad_D_delta": grad_D, "grad_bias": grad_bias}


def _judge(
    run: Run, outcome: LayerOutcome, case: LayerCase, given: Mapping[str, Answer], derived: Mapping[str, Derived],
    exact: Tensors,
) -> None:  # fmt: skip
    """Add the rows of a port's answers, and what its results lose."""
    numerics, unbounded = numerics_of(run.hello), set[str]()
    for operation, said in given.items():
        want = {name: output.within(numerics) for name, output in derived[operation].items()}
        unbounded |= {name for name, expectation in want.items() if np.isinf(expectation.bound).any()}
        outcome.rows.append(judge_answer(run, case, operation, said, derived[operation], want))
    outcome.losses.append(
        replace(measure(run.backend.name, case.dtype, given, exact), unbounded=tuple(sorted(unbounded)))
    )


def judge_answer(
    run: Run, case: LayerCase, operation: str, said: Answer, derived: Derived, want: Mapping[str, Expected]
) -> Result:
    """The row of an answer. Where a right result overflows the type, an infinite one is right."""
    name, outputs, want = run.backend.name, dict(said.outputs), dict(want)
    if said.status in ("crashed", "timeout"):
        return row(name, case, operation, verdict=said.status, reason=said.reason, seconds=said.seconds)
    for output, expectation in want.items():
        got = outputs.get(output)
        if got is not None and got.shape == expectation.value.shape and not (finite := np.isfinite(got)).all():
            free = ~finite & may_overflow(case, derived, want, numerics_of(run.hello), output)
            outputs[output] = np.where(free, np.zeros((), got.dtype), got)
            want[output] = replace(expectation, value=np.where(free, 0, expectation.value))
    return answer(name, case, operation, run.hello, said.status, said.reason, outputs, want, exact=False,
                  seconds=said.seconds)  # fmt: skip


def may_overflow(
    case: LayerCase, derived: Derived, want: Mapping[str, Expected], numerics: Numerics, name: str
) -> np.ndarray | np.bool_:
    """Where a result that is not finite can be right: it, its factors or a part of its sum do not fit the type.

    Args:
        case: the layer.
        derived: the results of one operation.
        want: the same with the bounds of the port.
        numerics: the port's arithmetic.
        name: of the result.
    """
    output = derived[name]
    if name in ("weight", "bias"):
        return np.abs(output.value) >= _largest(case.param_dtype)
    if name in ("grad_W", "grad_D_delta"):  # both are made of the kernel's gradient, which is rounded to the type
        return np.bool_(2 * derived["grad_W"].scale.max() >= _largest(case.dtype))
    if name == "grad_bias":
        return 2 * output.scale >= _largest(case.dtype)
    kernel = compose_blocked(case.tensors["W"], case.tensors["D_delta"], case.geometry, dtype=np.float64)
    factors = (kernel, case.tensors.get("bias", np.zeros(1)).astype(np.float64))
    if any((np.abs(factor) >= _largest(case.dtype)).any() for factor in factors):
        return np.bool_(True)
    if numerics.forming(output.sums).unit_roundoff(case.dtype) >= UNIT_ROUNDOFF[case.dtype]:  # so are its parts
        return np.bool_(2 * output.scale.max() >= _largest(case.dtype))
    return np.abs(output.value) + want[name].bound >= _largest(case.dtype)


def _largest(dtype: str) -> float:
    return float(ml_dtypes.finfo(DTYPES[dtype]).max)


def measure(backend: str, dtype: str, given: Mapping[str, Answer], exact: Tensors) -> Loss:
    """What a port's results in one type lose."""
    infinite, errors, outputs = dict[str, tuple[int, int]](), dict[str, float](), dict[str, np.ndarray]()
    for operation, said in given.items():
        for name, value in said.outputs.items():
            if name not in exact or value.shape != exact[name].shape:
                continue
            key = f"folded {name}" if operation == "fold" else name
            outputs[key] = value.astype(np.float64)
            errors[key] = _distance(outputs[key], exact[name], exact[name])
            if count := int((~np.isfinite(outputs[key])).sum()):
                infinite[key] = (count, value.size)
    folding = None
    if {"y", "folded y"} <= outputs.keys():
        folding = _distance(outputs["folded y"], outputs["y"], exact["y"])
    gradients = max((errors[name] for name in GRADIENTS if name in errors), default=None)
    return Loss(backend, dtype, errors.get("y"), errors.get("folded y"), folding, gradients, infinite)


def _distance(got: np.ndarray, want: np.ndarray, unit: np.ndarray) -> float:
    """`|got - want| / |unit|` over the elements where both are finite."""
    finite = np.isfinite(got) & np.isfinite(want)
    error, size = float(np.linalg.norm(got[finite] - want[finite])), float(np.linalg.norm(unit[finite]))
    return error / size if size else 0.0 if error == 0 else float("inf")


def to_json(outcomes: Sequence[LayerOutcome]) -> list[dict[str, Any]]:
    """The layers as plain values, in their order; None for a loss that cannot be measured or is without measure."""

    def plain(value: float | None) -> float | None:
        return value if value is not None and np.isfinite(value) else None

    found = []
    for outcome in outcomes:
        plan = outcome.plan
        backends = {
            name: {"agrees": all(result.agrees for result in outcome.rows if result.backend == name),
                   "bound_fraction": plain(outcome.share(name))}
            for name in dict.fromkeys(result.backend for result in outcome.rows)
        }  # fmt: skip
        losses = [
            {"backend": loss.backend, "dtype": loss.dtype, "output": plain(loss.output), "folded": plain(loss.folded),
             "folding": plain(loss.folding), "gradients": plain(loss.gradients), "unbounded": list(loss.unbounded),
             "infinite": {name: list(counts) for name, counts in loss.infinite.items()}}
            for loss in outcome.losses
        ]  # fmt: skip
        found.append({
            "path": plan.path, "geometry": plan.geometry.to_json(), "input": list(plan.shape),
            "recorded": plan.recorded is not None, "agrees": outcome.agrees, "backends": backends, "losses": losses,
            "largest": outcome.largest, "not_computed": outcome.not_computed,
        })  # fmt: skip
    return found
