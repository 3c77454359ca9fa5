"""Fold tensors in memory, where they come from a state dict and not from a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from doconv_core.blocked import compose_blocked
from doconv_core.geometry import ConvGeometry


def fold_tensors(
    W: np.ndarray,
    D_delta: np.ndarray | None,
    kernel_size: Sequence[int],
    *,
    groups: int | None = None,
    transposed: bool = False,
    dialect: str = "doconv",
) -> np.ndarray:
    """The plain kernel of one DO-Conv layer, from its tensors alone: `doconv_core.compose`.

    Args:
        W: `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`.
        D_delta: `(C_in, K, S)`, or None for a kernel of one tap.
        kernel_size: one integer per axis; it is not in the shapes, which know `K` only.
        groups: `G`; by default what the shapes say, where they do.
        transposed: whether the layer is a transposed convolution.
        dialect: of the rows of `D`, see `doconv_core.dialect_rows`.

    Returns:
        `(C_out, C_in/G, *kernel_size)`, transposed `(C_in, C_out/G, *kernel_size)`, in the dtype of `W`.

    Raises:
        TypeError: a tensor that is not a floating point array, or two dtypes.
        ValueError: shapes that do not belong together, `D_delta` given or missing against the number of taps.
    """
    if W.ndim != 3:
        raise ValueError(f"W must have three axes. Received: W of shape {W.shape}")
    first, second = W.shape[:2]
    channels = first if transposed else second * (groups or 1)
    if D_delta is not None:
        channels = D_delta.shape[0]
    if groups is None:
        groups = 1 if transposed else max(1, channels // second)
    geometry = ConvGeometry(
        in_channels=channels,
        out_channels=second * groups if transposed else first,
        kernel_size=tuple(kernel_size),
        groups=groups,
        transposed=transposed,
        d_mul=W.shape[2],
    )
    return compose_blocked(W, D_delta, geometry, dialect=dialect)
