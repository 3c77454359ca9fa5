"""What every backend is held to beyond the case table, as numbers: groups, low precision, refusals.

The tests of a backend give these tensors to its layers; what the layers must answer comes from the core.
"""

from __future__ import annotations

from itertools import product

import ml_dtypes
import numpy as np

from doconv_conformance.cases import generator
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, gamma
from doconv_core import ConvGeometry, compose, compose_features

IN_CHANNELS = 8
GROUPED = [
    ConvGeometry(in_channels=IN_CHANNELS, out_channels=out, kernel_size=(3, 2), groups=groups)
    for groups, out in product((1, 2, 4, IN_CHANNELS), (IN_CHANNELS, 2 * IN_CHANNELS))
]
SMALL = ConvGeometry(in_channels=4, out_channels=16, kernel_size=(3, 3))
DELTA = 1e-3


def grouped_tensors(geometry: ConvGeometry) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Small integers `x`, `W`, `D_delta` in float32, and the output by feature composition: exact in any order of summation."""
    shapes = {"x": (2, geometry.in_channels, 5, 6), "W": geometry.w_shape, "D_delta": geometry.d_shape}
    tensors = {
        name: generator.integers(f"contract/{geometry.describe()}/{name}", shape, -3, 3).astype(np.float32)
        for name, shape in shapes.items()
    }
    return tensors, compose_features(**tensors, geometry=geometry)


def impulse_tensors() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Parameters whose `D_delta` bfloat16 cannot add to 1, and what a layer that computes in bfloat16 makes of impulses.

    Sample `n` of `x` `(C_in, C_in, 5, 5)` is one impulse in channel `n`, so the output of the plain convolution is the composed
    kernel itself, each entry rounded once to bfloat16.

    Returns:
        `x`, `W`, `D_delta` in float32; the kernel `(C_in, C_out, 3, 3)` as the output shows it, in float64; and how far off an
        entry may be: one rounding to bfloat16 on top of the composition in float32.
    """
    x = np.zeros((SMALL.in_channels, SMALL.in_channels, 5, 5), np.float32)
    x[range(SMALL.in_channels), range(SMALL.in_channels), 2, 2] = 1
    W = generator.floats("contract/impulse/W", SMALL.w_shape).astype(np.float32)
    D_delta = np.broadcast_to(DELTA * np.eye(SMALL.taps), SMALL.d_shape).astype(np.float32)
    kernel = compose(W, D_delta, SMALL, dtype=np.float64)
    size = compose(np.abs(W), np.abs(D_delta), SMALL, dtype=np.float64)
    composition = gamma(SMALL.d_mul + 2, UNIT_ROUNDOFF["float32"]) * size
    bound = composition + UNIT_ROUNDOFF["bfloat16"] * (np.abs(kernel) + composition)
    return {"x": x, "W": W, "D_delta": np.ascontiguousarray(D_delta)}, _seen(kernel), _seen(bound)


def naive_impulse_response() -> np.ndarray:
    """The answer of a layer that casts first and composes in bfloat16, where `1 + 0.001` is 1: it must be out of bounds."""
    tensors, _, _ = impulse_tensors()
    D = (tensors["D_delta"] + np.eye(SMALL.taps)).astype(ml_dtypes.bfloat16).astype(np.float64)
    W = tensors["W"].astype(ml_dtypes.bfloat16).astype(np.float64)
    naive = np.einsum("iks,ois->oik", D, W).astype(ml_dtypes.bfloat16).astype(np.float64)
    return _seen(naive.reshape(SMALL.kernel_shape))


def _seen(kernel: np.ndarray) -> np.ndarray:
    """How a kernel appears in the output: sample and channel exchanged, the taps in reverse."""
    return np.flip(kernel.swapaxes(0, 1), (2, 3))
