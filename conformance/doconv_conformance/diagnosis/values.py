"""Answers that depend on the size of the numbers: small ones taken for zero, large ones cut.

The layer is linear in `x` and `W` and affine in `D_delta` and the bias: halving one of them halves what it adds. Where a port
leaves that, the size at which it does is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_conformance.diagnosis.asking import Ask, random_question
from doconv_conformance.diagnosis.moves import TENSORS
from doconv_conformance.faults.faulty_port import Fault
from doconv_core.geometry import ConvGeometry

DEEPEST = 14
STEPS = 14


def thresholds(ask: Ask, case: Case, operations: Sequence[str]) -> list[Fault]:
    """Faults that take small entries of a tensor for zero, each with the size that was measured."""
    found = []
    for name in ("D_delta", "W", "x", "bias"):
        operation = "compose" if name in ("D_delta", "W") and "compose" in operations else "forward"
        if operation in operations and name in case.inputs(operation):
            found += _threshold(ask, case, name, operation)
    return found


def _threshold(ask: Ask, case: Case, name: str, operation: str) -> list[Fault]:
    if case.dtype not in ("float32", "float64"):
        return []  # small numbers are lost beside larger ones there
    question = random_question(case, 7)
    signs = np.where(question.tensors[name] >= 0, 1.0, -1.0)
    if name == "bias":
        question = question.with_(x=np.zeros(question.tensors["x"].shape))
    elif "bias" in question.tensors:
        question = question.with_(bias=np.zeros(question.tensors["bias"].shape))
    output = "weight" if operation == "compose" else "y"

    def adds(size: float) -> bool | None:
        """Whether entries of one size add anything."""
        zero, some = (ask(operation, question.with_(**{name: factor * signs})) for factor in (0.0, size))
        if zero is None or some is None or output not in zero:
            return None
        return bool((zero[output].astype(np.float64) != some[output].astype(np.float64)).any())

    if not adds(1.0):
        return []
    small = next((power for power in range(1, DEEPEST) if adds(2.0**-power) is False), None)
    if small is None:
        return []
    low, high = 2.0**-small, 2.0 ** (1 - small)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if adds(middle) else (middle, high)
    size = float(np.format_float_scientific(high, precision=2))

    def change(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
        return np.where(np.abs(tensor) < size, 0, tensor).astype(tensor.dtype)

    words = f"takes entries of {TENSORS[name]} smaller than about {size:.3g} for zero"
    return [Fault(f"{name}-threshold", words, f"a tolerance or a skip of small {TENSORS[name]}", {name: change})]


def limits(ask: Ask, case: Case, operation: str) -> list[Fault]:
    """Faults that cut large entries of a tensor, each with the size that was measured."""
    found = []
    for name in ("W", "D_delta", "x", "bias"):
        if name in case.inputs(operation) and case.dtype in ("float32", "float64"):
            found += _limit(ask, case, name, operation)
    return found


def _limit(ask: Ask, case: Case, name: str, operation: str) -> list[Fault]:
    question = random_question(case, 8)
    signs = np.where(question.tensors[name] >= 0, 1.0, -1.0)
    output = "weight" if operation == "compose" else "y"

    def at(size: float) -> np.ndarray | None:
        answer = ask(operation, question.with_(**{name: size * signs}))
        return None if answer is None or output not in answer else answer[output].astype(np.float64)

    far, farther = at(2.0**12), at(2.0**13)
    if far is None or farther is None or not np.array_equal(far, farther):
        return []
    low, high = 0.0, 2.0**12
    for _ in range(26):
        middle = (low + high) / 2
        now = at(middle)
        low, high = (low, middle) if now is not None and np.array_equal(now, far) else (middle, high)
    size = float(np.format_float_scientific(high, precision=4))
    words = f"limits the entries of {TENSORS[name]} to [-{size:.6g}, {size:.6g}]"
    return [
        Fault(
            f"{name}-limit",
            words,
            f"what is done to {TENSORS[name]}",
            {name: lambda tensor, g: np.clip(tensor, -size, size)},
        )
    ]
