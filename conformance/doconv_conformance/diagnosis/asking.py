"""Further questions to a port after a failure: designed tensors on any geometry, within a limit of time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from doconv_conformance.cases.table import DTYPES, LOW_PRECISION, Case
from doconv_conformance.port import Tensors
from doconv_conformance.protocol.process import PortCrash, PortTimeout
from doconv_conformance.protocol.session import PortSession
from doconv_core.geometry import ConvGeometry

NAMES = {
    "compose": ("W", "D_delta"),
    "forward": ("x", "W", "D_delta", "bias"),
    "backward": ("x", "W", "D_delta", "bias", "grad_y"),
    "fold": ("x", "W", "D_delta", "bias"),
    "initialise": ("weight",),
}


OVER = "the time for questions was over"


class Spent(Exception):
    """The time for questions is over."""


@dataclass(frozen=True)
class Question:
    """A geometry with tensors, float64 arrays that the types hold; `inputs` rounds them to their types.

    Attributes:
        geometry: of the convolution.
        tensors: `x`, `W`, `D_delta`, `bias`, `grad_y`, `weight`, as far as they are there.
        dtype: of the activations.
        param_dtype: of the parameters.
    """

    geometry: ConvGeometry
    tensors: Mapping[str, np.ndarray]
    dtype: str = "float32"
    param_dtype: str = "float32"

    def inputs(self, operation: str) -> Tensors:
        """The tensors that a port is given for `operation`."""
        return {
            name: self.tensors[name].astype(DTYPES[self.dtype if name in ("x", "grad_y") else self.param_dtype])
            for name in NAMES[operation]
            if name in self.tensors
        }

    def with_(self, **tensors: np.ndarray | None) -> Question:
        """The same with other tensors; None takes one away."""
        changed = {**self.tensors, **tensors}
        left = {name: tensor for name, tensor in changed.items() if tensor is not None}
        return Question(self.geometry, left, self.dtype, self.param_dtype)


def random_question(case: Case, seed: int) -> Question:
    """A case's sizes and types with other small integers, so small that every sum is exact in the type.

    What the case is about stays: a `D_delta` of zeros is one. No entry of the bias is 0.
    """
    high = 1 if case.dtype in LOW_PRECISION else 3
    rng = np.random.default_rng([seed, *case.id.encode()])
    tensors = {
        name: rng.integers(-high, high + 1, tensor.shape).astype(np.float64) for name, tensor in case.tensors.items()
    }
    if "bias" in tensors:  # a zero would hide a bias that is lost
        tensors["bias"] = np.where(tensors["bias"] == 0, 1.0, tensors["bias"])
    if case.delta == "zero":  # a port may have a path of its own for it
        tensors["D_delta"] = np.zeros(case.tensors["D_delta"].shape)
    return Question(case.geometry, tensors, case.dtype, case.param_dtype)


def question_of(case: Case) -> Question:
    """The case itself."""
    return Question(case.geometry, dict(case.tensors), case.dtype, case.param_dtype)


# So many times slower than its processor time a busy machine may make us before answers count in full.
BUSIEST = 6.0
# Seconds by the clock after which nothing more is asked, busy or not.
PATIENCE = 90.0
# Seconds for what was measured of a failure that is left, once the time for questions is over.
RESERVE = 4.0


class Ask(Protocol):
    """Who answers questions, as `Asker` does."""

    def __call__(self, operation: str, question: Question) -> Tensors | None: ...

    def check(self) -> None:
        """Raises `Spent` where no time is left."""


@dataclass
class Asker:
    """Asks a port, remembers the answers, and stops after a while.

    Attributes:
        session: the port.
        seconds: for all questions together, on an idle machine; none is asked after that.
        asked: how many were.
        waited: seconds for answers.
        worked: the processor time of this process when it began.
        began: the clock then.
        reserved: whether the last seconds are in use.
    """

    session: PortSession
    seconds: float
    asked: int = 0
    waited: float = 0.0
    worked: float = field(default_factory=time.process_time)
    began: float = field(default_factory=time.monotonic)
    reserved: bool = False
    _known: dict[tuple[str, bytes], Tensors | None] = field(default_factory=dict)

    def __call__(self, operation: str, question: Question) -> Tensors | None:
        """The outputs; None where the port refuses, fails or dies.

        Raises:
            Spent: no time is left.
        """
        key = _key(operation, question)
        if key not in self._known:
            self._known[key] = self.afresh(operation, question)
        return self._known[key]

    def check(self) -> None:
        """Raises `Spent` where no time is left."""
        if self.spent > self.seconds or time.monotonic() - self.began > PATIENCE:
            raise Spent

    @property
    def spent(self) -> float:
        """Seconds so far, as on an idle machine: our own processor time, and the wait for answers without what a busy
        machine adds to it. So a diagnosis says the same there, only later.
        """
        worked = time.process_time() - self.worked
        busy = (time.monotonic() - self.began - self.waited) / max(worked, 1e-3)
        return worked + self.waited / min(max(busy, 1.0), BUSIEST)

    def reserve(self) -> None:
        """Allow a little more, once, for what is to be said where the time is over."""
        if not self.reserved:
            self.reserved = True
            self.seconds = max(self.seconds, self.spent) + RESERVE
            self.began = max(self.began, time.monotonic() - PATIENCE + 2 * RESERVE)

    def afresh(self, operation: str, question: Question) -> Tensors | None:
        """The same, asked again."""
        self.check()
        self.asked += 1
        began = time.monotonic()
        try:
            status, _, outputs = self.session.run(
                f"question-{self.asked}", operation, question.geometry, question.dtype, question.param_dtype,
                question.inputs(operation),
            )  # fmt: skip
        except (PortCrash, PortTimeout):
            return None
        finally:
            self.waited += time.monotonic() - began
        return outputs if status == "ok" else None

    def restart(self) -> None:
        """End the port; the next question goes to a fresh process."""
        self.session.restart()

    @property
    def supports(self) -> Sequence[str]:
        """The operations that the port declares."""
        return self.session.hello.get("supports", {}).get("operations", ())


def _key(operation: str, question: Question) -> tuple[str, bytes]:
    parts = [str(question.geometry.to_json()), question.dtype, question.param_dtype]
    inputs = question.inputs(operation)
    data = b"".join(
        name.encode() + str(inputs[name].shape).encode() + inputs[name].tobytes() for name in sorted(inputs)
    )
    return operation, "/".join(parts).encode() + data
