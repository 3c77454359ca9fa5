"""The kernels of many layers composed on a GPU by one launch, and their gradients by two; with the cast to the compute type.

    W'[o, i, k] = sum_s (E + D)[i, k, s] * W[o, i, s]

The small products of a model are bound by launches, not by arithmetic. Here a table says where the layers' `W` and `D` lie; the
composed kernels, in the type in which the convolutions compute, lie one after the other in one piece of memory, and so do the
gradients. Sums are float32, in a fixed order: no atomic additions, the same numbers at every run.

Every layer is cut into dense *items*, its groups: `rows` kernels that read the same `lanes` input channels. Depthwise layers
and kernels of many taps are left to products, which took a tenth of the time for depthwise 7x7 on an H100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from doconv_torch._compose_all import Spec


# Columns of the table of items; offsets and strides in numbers. The composed kernel and its gradient have strides of their own.
FIELDS = ("W", "D", "kernel", "grad_W", "grad_D", "rows", "lanes", "w_row", "w_lane", "k_row", "k_lane", "k_tap")
COLUMNS = tl.constexpr(len(FIELDS))
# Numbers of a program's sums; the kernels that one program adds up to a gradient of `D`.
SUMS, ROWS_PER_BLOCK, ROWS_PER_SUM = 4096, 8, 32


class Plan:
    """The tables of one launch: layers of the same `(K, S)` and memory format on one device.

    Args:
        layers: of each what decides its composition, `W` and `D`, contiguous float32, whose addresses the tables have.
    """

    def __init__(self, layers: Sequence[tuple[Spec, Tensor, Tensor]]) -> None:
        spec, _, D = layers[0]
        (_, self.taps, self.columns), self.last = D.shape, spec.channels_last
        self.kernel_sizes = [math.prod(W.shape[:2]) * self.taps for _, W, _ in layers]
        self.w_sizes = [W.numel() for _, W, _ in layers]
        self.d_sizes = [D.numel() for _, _, D in layers]
        items, starts = [], [0, 0, 0]
        for position, layer in enumerate(layers):
            items += _items(*layer, *starts)
            sizes = self.kernel_sizes[position], self.w_sizes[position], self.d_sizes[position]
            starts = [_aligned(start + size) for start, size in zip(starts, sizes, strict=True)]
        self.kernel_numbers, self.w_numbers, self.d_numbers = starts
        padded = triton.next_power_of_2(max(self.taps, self.columns))
        rows = max(item[5] for item in items)
        self.padded = padded
        self.lanes_per_block = max(1, SUMS // (padded * ROWS_PER_BLOCK))
        self.lanes_per_sum = max(1, 2 * SUMS // padded**2)
        self.splits = -(-rows // ROWS_PER_SUM)
        self.items = torch.tensor(items, device=D.device)
        self.blocks = torch.tensor(_blocks(items, ROWS_PER_BLOCK, self.lanes_per_block), device=D.device)
        self.sums = torch.tensor(_blocks(items, ROWS_PER_SUM, self.lanes_per_sum), device=D.device)

    def kernels(self, dtype: torch.dtype) -> list[Tensor]:
        """The composed kernels, each a flat `(C_out, C_in/G, K)`, `channels_last` `(C_out, K, C_in/G)`."""
        flat = torch.empty(self.kernel_numbers, dtype=dtype, device=self.items.device)
        self._launch(flat, flat, back=False)
        return _pieces(flat, self.kernel_sizes)

    def gradients(self, grads: Sequence[Tensor | None]) -> list[tuple[Tensor, Tensor]]:
        """`dL/dW` and `dL/dD` of each layer, flat, from the gradients of what `kernels` gives; None is zero."""
        some = next(grad for grad in grads if grad is not None)
        filled = [
            some.new_zeros(size) if grad is None else grad for grad, size in zip(grads, self.kernel_sizes, strict=True)
        ]
        grad = _joined(filled, self.kernel_sizes)
        grad_W = torch.empty(self.w_numbers, device=grad.device)
        self._launch(grad, grad_W, back=True)
        return list(zip(_pieces(grad_W, self.w_sizes), _pieces(self._grad_D(grad), self.d_sizes), strict=True))

    def _launch(self, source: Tensor, result: Tensor, *, back: bool) -> None:
        with torch.cuda.device_of(source):
            _multiply[(len(self.blocks),)](
                self.items, self.blocks, source, result, self.taps, self.columns, self.padded, self.last, back,
                ROWS_PER_BLOCK, self.lanes_per_block,
            )  # fmt: skip

    def _grad_D(self, grad: Tensor) -> Tensor:
        parts = torch.zeros(self.splits, self.d_numbers, device=grad.device)
        with torch.cuda.device_of(grad):
            _sum_outer[(len(self.sums),)](
                self.items, self.sums, grad, parts, self.d_numbers, self.taps, self.columns, self.padded, self.last,
                ROWS_PER_SUM, self.lanes_per_sum,
            )  # fmt: skip
        return parts[0] if self.splits == 1 else parts.sum(0)


def _pieces(flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The layers' parts of what lies one after the other."""
    parts = flat.split([_aligned(size) for size in sizes])
    return [part if len(part) == size else part[:size] for part, size in zip(parts, sizes, strict=True)]


def _joined(parts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """The inverse of `_pieces`."""
    spread = []
    for part, size in zip(parts, sizes, strict=True):
        spread.append(part)
        if gap := _aligned(size) - size:
            spread.append(part.new_empty(gap))
    return torch.cat(spread)


def _aligned(numbers: int) -> int:
    """Each layer starts at a multiple of 128 bytes of the smallest type: convolutions are slower elsewhere."""
    return -(-numbers // 64) * 64


def _items(spec: Spec, W: Tensor, D: Tensor, kernel: int, grad_w: int, grad_d: int) -> list[list[int]]:
    """Rows of the table, in the order of `FIELDS`."""
    (first, second, columns), taps = W.shape, D.shape[1]
    rows = first // spec.groups
    strides = [second * taps, 1, second] if spec.channels_last else [second * taps, taps, 1]
    sizes = [rows, second, second * columns, columns]
    made = []
    for group in range(spec.groups):
        w, d = group * rows * second * columns, group * second * taps * columns
        starts = [kernel + group * rows * second * taps, grad_w + w, grad_d + d]
        made.append([W.data_ptr() + 4 * w, D.data_ptr() + 4 * d, *starts, *sizes, *strides])
    return made


def _blocks(items: list[list[int]], rows: int, lanes: int) -> list[list[int]]:
    """For each program its item, block of rows and block of lanes."""
    return [
        [number, row, lane]
        for number, item in enumerate(items)
        for row in range(-(-item[5] // rows))
        for lane in range(-(-item[6] // lanes))
    ]


@triton.jit
def _add_product(  # type: ignore[no-untyped-def]
    acc, n, source, D, row, lane, m, row_stride, lane_stride, n_stride, mask, m_mask, lane_mask,
    K: tl.constexpr, S: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """`acc[row, m, lane] += (E + D)[lane, m, n] * source[row, lane, n]`; `BACK`: with `E + D` transposed."""
    x = tl.load(source + row[:, None] * row_stride + lane[None, :] * lane_stride + n * n_stride, mask=mask, other=0.0)
    x = x.to(tl.float32)[:, None, :]
    at = n * S + m if BACK else m * S + n
    d = tl.load(D + lane[None, :] * (K * S) + at[:, None], mask=m_mask[:, None] & lane_mask[None, :], other=0.0)
    one = (m % K == n) & (m < K * (S // K)) if BACK else (m == n % K) & (n < K * (S // K))
    return acc + tl.where(one[None, :, None], x, 0.0) + d[None, :, :] * x


@triton.jit
def _multiply(  # type: ignore[no-untyped-def]
    items, blocks, source, result, K: tl.constexpr, S: tl.constexpr, PADDED: tl.constexpr, LAST: tl.constexpr,
    BACK: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A block of composed kernels from `W` (`source` is not read), or `BACK`, of `dL/dW` from the kernels' gradient."""
    block = blocks + tl.program_id(0) * 3
    item = items + tl.load(block) * COLUMNS
    row = tl.load(block + 1) * ROWS + tl.arange(0, ROWS)
    lane = tl.load(block + 2) * LANES + tl.arange(0, LANES)
    D = tl.load(item + 1).to(tl.pointer_type(tl.float32))
    row_mask, lane_mask = row < tl.load(item + 5), lane < tl.load(item + 6)
    w_row, w_lane = tl.load(item + 7), tl.load(item + 8)
    k_row = tl.load(item + 9)
    if LAST:  # what is 1 is written out: the compiler joins accesses then
        k_lane, k_tap = 1, tl.load(item + 11)
    else:
        k_lane, k_tap = tl.load(item + 10), 1
    m = tl.arange(0, PADDED)
    acc = tl.zeros((ROWS, PADDED, LANES), tl.float32)
    mask = row_mask[:, None] & lane_mask[None, :]
    if BACK:
        kernel = source + tl.load(item + 2)
        m_mask = m < S
        for n in tl.static_range(K):
            acc = _add_product(
                acc, n, kernel, D, row, lane, m, k_row, k_lane, k_tap, mask, m_mask, lane_mask, K, S, BACK
            )
        start = result + tl.load(item + 3)
        r_row, r_lane, r_m = w_row, w_lane, 1
    else:
        W = tl.load(item).to(tl.pointer_type(tl.float32))
        m_mask = m < K
        for n in tl.static_range(S):
            acc = _add_product(acc, n, W, D, row, lane, m, w_row, w_lane, 1, mask, m_mask, lane_mask, K, S, BACK)
        start = result + tl.load(item + 2)
        r_row, r_lane, r_m = k_row, k_lane, k_tap
    at = row[:, None, None] * r_row + m[None, :, None] * r_m + lane[None, None, :] * r_lane
    tl.store(
        start + at,
        acc.to(result.dtype.element_ty, fp_downcast_rounding="rtne"),
        mask=mask[:, None, :] & m_mask[None, :, None],
    )


@triton.jit
def _load_row(g, W, row, end, k_row, w_row, k_at, s_at, k_mask, s_mask):  # type: ignore[no-untyped-def]
    """One row of the kernels' gradient, `(K, lanes)`, and of `W`, `(S, lanes)`; zeros from `end` on."""
    x = tl.load(g + row * k_row + k_at, mask=k_mask & (tl.zeros_like(k_at) + row < end), other=0.0)
    w = tl.load(W + row * w_row + s_at, mask=s_mask & (tl.zeros_like(s_at) + row < end), other=0.0)
    return x, w


@triton.jit
def _sum_outer(  # type: ignore[no-untyped-def]
    items, blocks, grad, parts, numbers, K: tl.constexpr, S: tl.constexpr, PADDED: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """`parts[split, lane, k, s] = sum over the split's rows of g[row, lane, k] * W[row, lane, s]`."""
    block = blocks + tl.program_id(0) * 3
    item = items + tl.load(block) * COLUMNS
    split = tl.load(block + 1)
    lane = tl.load(block + 2) * LANES + tl.arange(0, LANES)
    W = tl.load(item).to(tl.pointer_type(tl.float32))
    g = grad + tl.load(item + 2)
    lane_mask = lane < tl.load(item + 6)
    w_row, w_lane = tl.load(item + 7), tl.load(item + 8)
    k_row = tl.load(item + 9)
    if LAST:  # what is 1 is written out: the compiler joins accesses then
        k_lane, k_tap = 1, tl.load(item + 11)
    else:
        k_lane, k_tap = tl.load(item + 10), 1
    m = tl.arange(0, PADDED)
    k_mask = (m < K)[:, None] & lane_mask[None, :]
    s_mask = (m < S)[:, None] & lane_mask[None, :]
    k_at = m[:, None] * k_tap + lane[None, :] * k_lane
    s_at = m[:, None] + lane[None, :] * w_lane
    acc = tl.zeros((PADDED, PADDED, LANES), tl.float32)
    end = tl.minimum(tl.load(item + 5), (split + 1) * ROWS)
    for row in range(split * ROWS, end, 4):  # four rows are on their way before the first is used
        x0, w0 = _load_row(g, W, row, end, k_row, w_row, k_at, s_at, k_mask, s_mask)
        x1, w1 = _load_row(g, W, row + 1, end, k_row, w_row, k_at, s_at, k_mask, s_mask)
        x2, w2 = _load_row(g, W, row + 2, end, k_row, w_row, k_at, s_at, k_mask, s_mask)
        x3, w3 = _load_row(g, W, row + 3, end, k_row, w_row, k_at, s_at, k_mask, s_mask)
        acc += x0.to(tl.float32)[:, None, :] * w0[None, :, :]
        acc += x1.to(tl.float32)[:, None, :] * w1[None, :, :]
        acc += x2.to(tl.float32)[:, None, :] * w2[None, :, :]
        acc += x3.to(tl.float32)[:, None, :] * w3[None, :, :]
    start = parts + split * numbers + tl.load(item + 4)
    at = m[:, None, None] * S + m[None, :, None] + lane[None, None, :] * (K * S)
    mask = (m < K)[:, None, None] & (m < S)[None, :, None] & lane_mask[None, None, :]
    tl.store(start + at, acc, mask=mask)
