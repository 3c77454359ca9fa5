"""A multiple of an input that is added to an output of the same shape: weight decay in a gradient, a residual connection."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.port import Tensors
from doconv_core.geometry import ConvGeometry

# Of fewer elements of an input any number may be the factor by accident.
LEAST = 4
# Of the largest value: float32 rounds the sum a few times, by 2**-24 each. It chooses what is planted, which must then agree.
NEAR = 1e-5


def fits(name: str, got: np.ndarray, right: np.ndarray, inputs: Mapping[str, np.ndarray]) -> list[Fault]:
    """Which inputs, times a number, make up all of the difference."""
    found = []
    if got.shape != right.shape or not np.isfinite(got.astype(np.float64)).all():
        return []
    difference = got.astype(np.float64) - right.astype(np.float64)
    for tensor, value in inputs.items():
        used = value.astype(np.float64)
        if used.shape != got.shape or np.count_nonzero(used) < LEAST:
            continue
        factor = _plain(float((difference * used).sum() / (used * used).sum()))
        scale = float(np.abs(got.astype(np.float64)).max(initial=1))
        if factor and np.allclose(difference, factor * used, rtol=0, atol=NEAR * scale):
            found.append(_fault(name, tensor, factor))
    return found


def _plain(number: float) -> float:
    """A short decimal or a fraction where it is near to one."""
    for plain in (float(f"{number:.3g}"), float(Fraction(number).limit_denominator(64))):
        if abs(plain - number) < 1e-4 * abs(number):
            return plain
    return number


def _fault(name: str, tensor: str, factor: float) -> Fault:
    said = f"adds {factor:.6g} times {tensor} to {name}"
    look_at = f"what is added to {name} beside its sum"

    def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        return y + factor * inputs[tensor].astype(np.float64) if inputs[tensor].shape == y.shape else y

    def gradients(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        if name not in outputs or tensor not in inputs or outputs[name].shape != inputs[tensor].shape:
            return outputs
        added = outputs[name].astype(np.float64) + factor * inputs[tensor].astype(np.float64)
        return outputs | {name: added.astype(outputs[name].dtype)}

    return Fault(f"added-{said}", said, look_at, {"result": result} if name == "y" else {"gradients": gradients})
