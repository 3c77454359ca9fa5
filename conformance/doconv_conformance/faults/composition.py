"""Faults of the composition: how `W` and `D` are read, which row meets which kernel, what the identity is, what comes out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from doconv_conformance.faults.faulty_port import Fault
from doconv_core.composition import dialect_rows, identity
from doconv_core.geometry import ConvGeometry

Rows = Callable[[ConvGeometry], np.ndarray]


def _channels(g: ConvGeometry) -> tuple[np.ndarray, np.ndarray]:
    """`o` and `c` of every kernel of a convolution."""
    o, c = np.indices(g.w_shape[:2])
    return o, c


def _plain(rows: Rows) -> Rows:
    """`rows` for convolutions; transposed ones keep theirs."""
    return lambda g: g.rows if g.transposed else rows(g)


def _in_group(g: ConvGeometry) -> int:
    return g.in_channels // g.groups


def _rows_fault(name: str, words: str, rows: Rows) -> Fault:
    return Fault(f"rows-{name}", words, "the index of D: i = (o // (C_out/G)) * (C_in/G) + c", {"rows": rows})


def _identity_fault(name: str, words: str, matrix: Callable[[ConvGeometry], np.ndarray]) -> Fault:
    look_at = "the identity: E[k, s] = 1 where s < K * (S // K) and s % K == k; D = E + D_delta"
    return Fault(f"identity-{name}", words, look_at, {"identity": matrix})


def _where(g: ConvGeometry, condition: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """A `(K, S)` matrix of ones where a condition on `k` and `s` holds."""
    k, s = np.indices((g.taps, g.d_mul))
    return condition(k, s).astype(np.float64)


def _masked(g: ConvGeometry, D: np.ndarray, *, diagonal: bool) -> np.ndarray:
    """`D_delta` on the ones of `E` only, or beside them only."""
    return np.where((identity(g) == 1) == diagonal, D, 0.0)


def _tiled(g: ConvGeometry) -> int:
    return g.taps * (g.d_mul // g.taps)


ROWS = [
    _rows_fault("original-torch", "pairs kernels with rows of D as the authors' PyTorch file does",
                _plain(lambda g: dialect_rows("original-torch", g))),
    _rows_fault("original-tf", "pairs kernels with rows of D as the authors' TensorFlow file does",
                _plain(lambda g: dialect_rows("original-tf", g))),
    _rows_fault("local", "takes the row of D by the channel within the group, for every group",
                lambda g: g.rows % _in_group(g)),
    _rows_fault("reversed", "takes the rows of D from the last input channel to the first",
                lambda g: g.in_channels - 1 - g.rows),
    _rows_fault("rotated", "is off by one in the row of D", lambda g: (g.rows + 1) % g.in_channels),
    _rows_fault("first", "composes every kernel with the first row of D", lambda g: np.zeros_like(g.rows)),
    _rows_fault("groups-reversed", "takes the rows of D of the groups in reverse order",
                lambda g: (g.groups - 1 - g.rows // _in_group(g)) * _in_group(g) + g.rows % _in_group(g)),
    _rows_fault("by-output", "takes the row of D by the output channel, modulo C_in",
                _plain(lambda g: _channels(g)[0] % g.in_channels)),
    _rows_fault("exchanged-sizes", "exchanges C_in/G and C_out/G in the row of D",
                _plain(lambda g: (_channels(g)[0] // _in_group(g) * (g.out_channels // g.groups) + _channels(g)[1])
                       % g.in_channels)),
    _rows_fault("per-output-channel", "takes the row of D by the output channel of a transposed convolution",
                lambda g: np.indices(g.w_shape[:2])[1] % g.in_channels if g.transposed else g.rows),
]  # fmt: skip

IDENTITIES = [
    _identity_fault("missing", "takes D_delta for D, without the identity", lambda g: np.zeros((g.taps, g.d_mul))),
    _identity_fault("doubled", "adds the identity to a D that contains it already", lambda g: 2 * identity(g)),
    _identity_fault("negated", "subtracts the identity", lambda g: -identity(g)),
    _identity_fault("interleaved", "interleaves the tiles of the identity, column s belongs to tap s // (S // K)",
                    lambda g: _where(g, lambda k, s: (s // (g.d_mul // g.taps) == k) & (s < _tiled(g)))),
    _identity_fault("first-tile", "puts the identity into the first K columns only",
                    lambda g: _where(g, lambda k, s: s == k)),
    _identity_fault("last-tile", "puts the identity into the last whole tile only",
                    lambda g: _where(g, lambda k, s: s - _tiled(g) + g.taps == k)),
    _identity_fault("partial-tile", "joins the surplus columns to the identity",
                    lambda g: _where(g, lambda k, s: s % g.taps == k)),
    _identity_fault("right-aligned", "puts the tiles of the identity at the end of the columns",
                    lambda g: _where(g, lambda k, s: (s >= g.d_mul - _tiled(g)) & ((s - g.d_mul + _tiled(g)) % g.taps == k))),
    _identity_fault("averaged", "divides the identity by the number of its tiles",
                    lambda g: identity(g) / (g.d_mul // g.taps)),
    _identity_fault("reversed", "has the identity's taps in reverse order", lambda g: identity(g)[::-1].copy()),
]  # fmt: skip

DELTAS = [
    Fault("delta-ignored", "ignores D_delta", "whether D takes part in the composition at all", {"delta": lambda g: 0.0}),
    Fault("delta-ignored-transposed", "ignores D_delta in transposed convolutions",
          "the composition on the transposed path", {"delta": lambda g: 0.0}, lambda g: g.transposed),
    Fault("delta-ignored-grouped", "ignores D_delta in grouped convolutions", "the composition on the grouped path",
          {"delta": lambda g: 0.0}, lambda g: g.groups > 1),
    Fault("delta-doubled", "adds D_delta twice", "the residual form W E^T + D_delta o W", {"delta": lambda g: 2.0}),
    Fault("delta-negated", "subtracts D_delta", "the sign of D_delta", {"delta": lambda g: -1.0}),
    Fault("delta-diagonal-only", "uses D_delta only where the identity has a one", "a mask on D_delta",
          {"D_delta": lambda D, g: _masked(g, D, diagonal=True)}),
    Fault("delta-off-diagonal-only", "uses D_delta only where the identity has a zero", "a mask on D_delta",
          {"D_delta": lambda D, g: _masked(g, D, diagonal=False)}),
    Fault("delta-surplus-ignored", "ignores the surplus columns of D_delta", "the columns s >= K * (S // K)",
          {"D_delta": lambda D, g: np.where(np.arange(g.d_mul) < _tiled(g), D, 0.0)}),
    Fault("delta-first-tile-only", "uses only the first K columns of D_delta", "the columns s >= K",
          {"D_delta": lambda D, g: np.where(np.arange(g.d_mul) < g.taps, D, 0.0)}),
    Fault("D-transposed", "exchanges the tap and the depth multiplier of D", "the axes of D: (C_in, K, S)",
          {"D_delta": lambda D, g: np.concatenate([D[..., : g.taps].swapaxes(1, 2), D[..., g.taps :]], -1)}),
    Fault("D-read-as-C-S-K", "reads D as (C_in, S, K)", "the axes of D: (C_in, K, S)",
          {"D_delta": lambda D, g: D.reshape(len(D), g.d_mul, g.taps).swapaxes(1, 2)}),
    Fault("D-read-as-K-S-C", "reads D as (K, S, C_in)", "the axes of D: (C_in, K, S)",
          {"D_delta": lambda D, g: np.moveaxis(D.reshape(g.taps, g.d_mul, g.in_channels), -1, 0)}),
    Fault("D-taps-reversed", "has the taps of D in reverse order", "the order of the taps in D",
          {"D_delta": lambda D, g: D[:, ::-1]}),
    Fault("D-taps-column-major", "has the taps of D in column-major order", "the order of the taps in D",
          {"D_delta": lambda D, g: _column_major(D, 1, g)}),
    Fault("D-columns-reversed", "has the columns of D in reverse order", "the order of S in D",
          {"D_delta": lambda D, g: D[..., ::-1]}),
]  # fmt: skip


def _column_major(tensor: np.ndarray, axis: int, g: ConvGeometry) -> np.ndarray:
    """The taps on `axis` read as if the first axis of the kernel ran fastest."""
    order = np.arange(g.taps).reshape(g.kernel_size, order="F").ravel()
    return np.take(tensor, order, axis)


def _w_as(order: tuple[int, int, int]) -> Callable[[np.ndarray, ConvGeometry], np.ndarray]:
    """`W` read as a buffer whose axes are in another order."""

    def move(W: np.ndarray, g: ConvGeometry) -> np.ndarray:
        return W.reshape([W.shape[axis] for axis in order]).transpose(np.argsort(order))

    return move


WEIGHTS = [
    Fault("W-channels-exchanged", "reads W as (C_in/G, C_out, S)", "the axes of W: (C_out, C_in/G, S)",
          {"W": _w_as((1, 0, 2))}),
    Fault("W-channels-exchanged-transposed", "reads W of a transposed convolution as (C_out/G, C_in, S)",
          "the axes of W of a transposed convolution: (C_in, C_out/G, S)", {"W": _w_as((1, 0, 2))}, lambda g: g.transposed),
    Fault("W-taps-first", "reads W as (S, C_out, C_in/G)", "the axes of W: (C_out, C_in/G, S)", {"W": _w_as((2, 0, 1))}),
    Fault("W-taps-middle", "reads W as (C_out, S, C_in/G)", "the axes of W: (C_out, C_in/G, S)", {"W": _w_as((0, 2, 1))}),
    Fault("W-columns-reversed", "has the columns of W in reverse order", "the order of S in W",
          {"W": lambda W, g: W[..., ::-1]}),
    Fault("W-last-column-dropped", "ignores the last column of W", "the number of columns summed: S",
          {"W": lambda W, g: np.where(np.arange(g.d_mul) < g.d_mul - 1, W, 0.0)}),
    Fault("W-first-tile-only", "uses only the first K columns of W", "the number of columns summed: S",
          {"W": lambda W, g: np.where(np.arange(g.d_mul) < g.taps, W, 0.0)}),
    Fault("W-input-channels-reversed", "has the channels of W within a group in reverse order", "the axis C_in/G of W",
          {"W": lambda W, g: W[:, ::-1]}),
]  # fmt: skip

KERNELS = [
    Fault("kernel-flipped", "flips the composed kernel on all axes", "cross-correlation against convolution",
          {"kernel": lambda kernel, g: np.flip(kernel, tuple(range(2, kernel.ndim)))}),
    Fault("kernel-flipped-last", "flips the composed kernel on its last axis", "the order of the taps",
          {"kernel": lambda kernel, g: kernel[..., ::-1]}),
    Fault("kernel-flipped-first", "flips the composed kernel on its first axis", "the order of the taps",
          {"kernel": lambda kernel, g: kernel[:, :, ::-1]}),
    Fault("kernel-flipped-transposed", "flips the composed kernel of transposed convolutions",
          "whether the framework's transposed convolution has its taps in reverse order",
          {"kernel": lambda kernel, g: np.flip(kernel, tuple(range(2, kernel.ndim)))}, lambda g: g.transposed),
    Fault("kernel-column-major", "writes the taps of the composed kernel in column-major order", "the order of the taps",
          {"kernel": lambda kernel, g: _column_major(kernel.reshape(*kernel.shape[:2], -1), 2, g).reshape(kernel.shape)}),
    Fault("kernel-axes-exchanged", "exchanges the axes of square kernels", "the order of the kernel's axes",
          {"kernel": lambda kernel, g: kernel.swapaxes(2, 3)}, lambda g: g.kernel_size[:1] * 2 == g.kernel_size),
    Fault("kernel-last-tap-dropped", "ignores the last tap of the composed kernel", "the number of taps",
          {"kernel": lambda kernel, g: np.where(np.arange(g.taps).reshape(g.kernel_size) < g.taps - 1, kernel, 0.0)}),
    Fault("kernel-negated", "negates the composed kernel", "a sign", {"kernel": lambda kernel, g: -kernel}),
    Fault("kernel-group-shared", "composes the first group and uses its kernels for every group", "the groups of W",
          {"kernel": lambda kernel, g: np.concatenate([kernel[: len(kernel) // g.groups]] * g.groups)}),
]  # fmt: skip

COMPOSITION = (*ROWS, *IDENTITIES, *DELTAS, *WEIGHTS, *KERNELS)
