"""What training made of a DO-Conv layer: how far `D` is from the identity, and the composed kernel from `W`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from doconv_core.checkpoint._checkpoint import Checkpoint
from doconv_core.composition import identity, sum_tiles

# Values of D whose singular values are worth waiting for; of a larger D, evenly spaced channels.
LARGEST_SPECTRUM = 2**24
HALF = np.finfo(np.float16)


@dataclass(frozen=True)
class LayerStats:
    """One layer, all values in float64.

    Attributes:
        path: of the layer.
        from_identity: `|D_delta| / |E|` by the Frobenius norm, of each input channel `(C_in,)`.
        spectrum: the singular values of `D = E + D_delta`, descending, of each input channel `(channels, K)`; all are 1 at the
            start (where `S == K`).
        kernel_change: `|W' - W E^T| / |W E^T|`: how much of the composed kernel is due to `D_delta`.
        before: the number of parameters that train, without the bias.
        after: of the folded kernel.
        largest: the largest absolute value of the composed kernel.
        smallest: the smallest that is not zero.
        half_overflows: how many values of `W`, of `D` or of the composed kernel are beyond float16.
        half_vanishes: the share of the composed kernel's values, zeros aside, that float16 makes zero.
        half_subnormal: the share that it keeps with fewer bits.
    """

    path: str
    from_identity: np.ndarray
    spectrum: np.ndarray
    kernel_change: float
    before: int
    after: int
    largest: float
    smallest: float
    half_overflows: int
    half_vanishes: float
    half_subnormal: float


def layer_stats(checkpoint: Checkpoint, path: str) -> LayerStats:
    """What training made of one over-parameterized layer.

    Args:
        checkpoint: the file.
        path: of a layer with `D`.

    Raises:
        CheckpointError: as `Checkpoint.fold`.
        ValueError: the layer has no `D`.
    """
    info = checkpoint.layers[path]
    if not info.has_d:
        raise ValueError(f"a layer without D has nothing to compare. Received: {path}")
    conv, E = info.conv, identity(info.conv)
    kernel = checkpoint.fold(path).astype(np.float64)
    W, D_delta = (array.astype(np.float64) for array in checkpoint.parameters(path))
    start = sum_tiles(W, conv).reshape(kernel.shape)
    step = max(1, D_delta.size // LARGEST_SPECTRUM)
    sizes = np.abs(kernel[kernel != 0])
    values = [np.abs(array) for array in (W, E + D_delta, kernel)]
    return LayerStats(
        path,
        _norm(D_delta, (1, 2)) / _norm(E),
        np.linalg.svd(E + D_delta[::step], compute_uv=False),
        _ratio(float(_norm(kernel - start)), float(_norm(start))),
        W.size + D_delta.size,
        kernel.size,
        float(sizes.max(initial=0)),
        float(sizes.min(initial=np.inf)) if sizes.size else 0.0,
        sum(int((array > float(HALF.max)).sum()) for array in values),
        _share(sizes < float(HALF.smallest_subnormal) / 2),
        _share((sizes >= float(HALF.smallest_subnormal) / 2) & (sizes < float(HALF.smallest_normal))),
    )


def _norm(array: np.ndarray, axes: tuple[int, ...] | None = None) -> np.ndarray:
    """The Euclidean norm, also where squares would overflow or vanish."""
    largest = float(np.abs(array).max(initial=0)) or 1.0
    return largest * np.sqrt(np.square(array / largest).sum(axes))


def _ratio(change: float, start: float) -> float:
    if start == 0:
        return 0.0 if change == 0 else float("inf")
    return change / start


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if which.size else 0.0
