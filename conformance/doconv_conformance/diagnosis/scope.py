"""Where a mistake is made: the plainest condition on a case that holds where it shows and nowhere where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_conformance.diagnosis.replay import Row

# `case -> bool`. A lambda that remembers a variable by a default has no type that mypy could infer.
Condition = Any


@dataclass(frozen=True)
class Scope:
    """A part of the cases; `words` are empty for all of them. `conditions` is how many hold together, 0 where none is known."""

    words: str
    holds: Condition
    conditions: int = 1


MOST_TOGETHER, ROWS_FOR_ONE = 4, 6
EVERYWHERE = Scope("", lambda case: True)


def _is_plain_depthwise(case: Case) -> bool:
    g = case.geometry
    return bool(g.groups == g.in_channels == g.out_channels > 1)


def _is_product(case: Case) -> bool:
    """Whether the layer is a plain product of matrices."""
    g = case.geometry
    return bool(g.taps == 1 and max(g.stride) == 1 and not any(map(any, g.padding)))


def _plain() -> Iterator[Scope]:
    yield Scope("in transposed convolutions only", lambda case: case.geometry.transposed)
    yield Scope("except in transposed convolutions", lambda case: not case.geometry.transposed)
    yield Scope("in grouped convolutions only", lambda case: case.geometry.groups > 1)
    yield Scope("without groups only", lambda case: case.geometry.groups == 1)
    yield Scope("in depthwise convolutions only", lambda case: case.geometry.groups == case.geometry.in_channels > 1)
    yield Scope(
        "except in depthwise convolutions", lambda case: not case.geometry.groups == case.geometry.in_channels > 1
    )
    yield Scope("in depthwise convolutions with as many outputs as inputs only", _is_plain_depthwise)
    yield Scope(
        "except in depthwise convolutions with as many outputs as inputs", lambda case: not _is_plain_depthwise(case)
    )
    yield Scope("with kernels of one tap without stride and padding only", _is_product)
    yield Scope("except with kernels of one tap without stride and padding", lambda case: not _is_product(case))
    for rank in (1, 2, 3):
        yield Scope(f"in {rank}-D only", lambda case, rank=rank: case.geometry.spatial_rank == rank)
    for rank in (1, 2, 3):
        yield Scope(f"except in {rank}-D", lambda case, rank=rank: case.geometry.spatial_rank != rank)
    yield Scope("where d_mul is larger than K only", lambda case: case.geometry.d_mul > case.geometry.taps)
    yield Scope("where d_mul is K only", lambda case: case.geometry.d_mul == case.geometry.taps)
    yield Scope("where d_mul is no multiple of K only", lambda case: case.geometry.d_mul % case.geometry.taps > 0)
    yield Scope("where D_delta is 0 only", lambda case: case.delta == "zero" and case.geometry.has_d)
    yield Scope("with strides only", lambda case: max(case.geometry.stride) > 1)
    yield Scope("without strides only", lambda case: max(case.geometry.stride) == 1)
    yield Scope("with dilation only", lambda case: max(case.geometry.dilation) > 1)
    yield Scope("without dilation only", lambda case: max(case.geometry.dilation) == 1)
    yield Scope("with padding modes other than zeros only", lambda case: case.geometry.padding_mode != "zeros")
    yield Scope("with zero padding only", lambda case: case.geometry.padding_mode == "zeros")
    for mode in ("reflect", "replicate", "circular"):
        yield Scope(f"with padding mode {mode} only", lambda case, mode=mode: case.geometry.padding_mode == mode)
    yield Scope("with output padding only", lambda case: any(case.geometry.output_padding))
    yield Scope("with padding only", lambda case: any(map(any, case.geometry.padding)))
    yield Scope("without padding only", lambda case: not any(map(any, case.geometry.padding)))
    yield Scope("where low and high padding differ only", lambda case: any(a != b for a, b in case.geometry.padding))
    for axis, which in ((0, "first"), (-1, "last")):
        for number, name in (("stride", "a stride"), ("dilation", "a dilation")):
            yield Scope(
                f"where the {which} axis has {name} only",
                lambda case, axis=axis, number=number: getattr(case.geometry, number)[axis] > 1,
            )
            yield Scope(
                f"where the {which} axis has no {number} only",
                lambda case, axis=axis, number=number: getattr(case.geometry, number)[axis] == 1,
            )
        yield Scope(
            f"where the {which} axis has padding only", lambda case, axis=axis: any(case.geometry.padding[axis])
        )
    yield Scope("with a bias only", lambda case: case.bias)
    yield Scope("without a bias only", lambda case: not case.bias)
    yield Scope("with kernels of 3 along every axis only", lambda case: set(case.geometry.kernel_size) == {3})
    yield Scope("with kernels of one tap only", lambda case: case.geometry.taps == 1)
    yield Scope("with kernels of more than one tap only", lambda case: case.geometry.taps > 1)
    yield Scope(
        "with square kernels only", lambda case: len(set(case.geometry.kernel_size)) == 1 < case.geometry.spatial_rank
    )
    yield Scope("with kernels that are not square only", lambda case: len(set(case.geometry.kernel_size)) > 1)
    yield Scope(
        "where an axis of a kernel of several taps has length 1 only",
        lambda case: case.geometry.taps > 1 and min(case.geometry.kernel_size) == 1,
    )
    yield Scope(
        "where an axis of the kernel is even only",
        lambda case: any(size % 2 == 0 for size in case.geometry.kernel_size),
    )
    yield Scope(
        "where every axis of the kernel is odd only", lambda case: all(size % 2 for size in case.geometry.kernel_size)
    )
    yield Scope(
        "where C_in and C_out are equal only", lambda case: case.geometry.in_channels == case.geometry.out_channels
    )
    yield Scope(
        "where C_in and C_out differ only", lambda case: case.geometry.in_channels != case.geometry.out_channels
    )
    yield Scope("for batches of one only", lambda case: case.batch == 1)
    yield Scope("in float32 only", lambda case: case.dtype == "float32")
    for dtype in ("float64", "float16", "bfloat16"):
        yield Scope(f"in {dtype} only", lambda case, dtype=dtype: case.dtype == dtype)
    yield Scope("in float16 and bfloat16 only", lambda case: case.dtype in ("float16", "bfloat16"))
    yield Scope("in mixed precision only", lambda case: case.dtype != case.param_dtype)


def _equal_sizes() -> Iterator[Scope]:
    """Two sizes that are the same number: what is told apart by its length is taken for the other then."""
    sizes: dict[str, Callable[[Case], int]] = {
        "the last axis of x": lambda case: case.input_size[-1],
        "the last axis of y": lambda case: case.geometry.output_size(case.input_size)[-1],
        "the first axis of x": lambda case: case.input_size[0],
        "the batch": lambda case: case.batch,
    }
    others: dict[str, Callable[[Case], int]] = {
        "C_in": lambda case: case.geometry.in_channels,
        "C_out": lambda case: case.geometry.out_channels,
    }
    for (name, size), (other, number) in product(sizes.items(), others.items()):
        words = f"where {name} is as long as {other} only"
        yield Scope(words, lambda case, size=size, number=number: size(case) == number(case))
    yield Scope("where all axes of x are equally long only", lambda case: len(set(case.input_size)) == 1)


PLAIN = (EVERYWHERE, *_plain(), *_equal_sizes())
SIZES: dict[str, Callable[[Case], int]] = {
    "C_in/G": lambda case: case.geometry.in_channels // case.geometry.groups,
    "C_out/G": lambda case: case.geometry.out_channels // case.geometry.groups,
    "C_in": lambda case: case.geometry.in_channels,
    "C_out": lambda case: case.geometry.out_channels,
    "K": lambda case: case.geometry.taps,
    "S": lambda case: case.geometry.d_mul,
    "G": lambda case: case.geometry.groups,
    "the number of entries of W": lambda case: int(np.prod(case.geometry.w_shape)),
    "N": lambda case: case.batch,
    "the stride": lambda case: max(case.geometry.stride),
    "the dilation": lambda case: max(case.geometry.dilation),
    "the number of input positions": lambda case: int(np.prod(case.input_size)),
    "the size of the last axis": lambda case: case.input_size[-1],
}


@lru_cache(maxsize=2**13)
def _holds(case: Case) -> np.ndarray:
    """Which of `PLAIN` hold."""
    return np.array([scope.holds(case) for scope in PLAIN])


@lru_cache(maxsize=2**13)
def _numbers(case: Case) -> np.ndarray:
    """Each of `SIZES`."""
    return np.array([size(case) for size in SIZES.values()])


def scopes(cases: Sequence[Case]) -> tuple[list[Scope], np.ndarray]:
    """Every condition that splits the cases, the plain ones, then those on a size; and in which cases each holds."""
    found, masks = list(PLAIN), [np.array([_holds(case) for case in cases]).T]
    numbers = np.array([_numbers(case) for case in cases]).T
    for (name, size), values in zip(SIZES.items(), numbers, strict=True):
        for words, holds in _of_size(name, np.unique(values)):
            said = f"where {name} is {words}" + ("" if words.endswith(")") else " only")
            found.append(Scope(said, lambda case, size=size, holds=holds: bool(holds(size(case)))))
            masks.append(holds(values)[None])
    return found, np.concatenate(masks)


def _of_size(name: str, values: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Conditions on a size, of which these values occur: in words, and as a function of one or of many."""
    for rest, parity in ((1, "odd"), (0, "even")):
        yield parity, lambda n, rest=rest: n % 2 == rest
        yield f"{parity} and above {2 - rest}", lambda n, rest=rest: (n % 2 == rest) & (n > 2 - rest)
    if "C_" in name:
        for width in (4, 8, 16):
            yield f"a multiple of {width}", lambda n, width=width: n % width == 0
    for low, high in pairwise(values.tolist()):
        yield f"{high} or more only ({low} is right)", lambda n, high=high: n >= high
        yield f"{low} or less only ({high} is right)", lambda n, low=low: n <= low


def best(rows: Sequence[Row | Case], gains: np.ndarray, losses: np.ndarray) -> tuple[Scope, np.ndarray] | None:
    """The plainest condition that holds in all rows that are won and in none that are lost, and where it holds.

    Args:
        rows: all rows that count.
        gains: those that a fault explains.
        losses: those that it is contradicted by.
    """
    if not losses.any():
        return EVERYWHERE, np.ones(len(rows), bool)
    cases = [row.case if isinstance(row, Row) else row for row in rows]
    candidates, masks = scopes(cases)
    fits = ~(masks & losses).any(axis=1) & ~(~masks & gains).any(axis=1)
    if fits.any():
        at = int(np.flatnonzero(fits)[0])
        return candidates[at], masks[at]
    holding = np.flatnonzero(~(~masks & gains).any(axis=1)).tolist()
    plain = [at for at in holding if 0 < at < len(PLAIN)]
    on_sizes = [at for at in holding if at >= len(PLAIN)]
    for one, other in (*combinations(plain, 2), *((at, plain_at) for plain_at in plain for at in on_sizes)):
        mask = masks[one] & masks[other]
        if not (mask & losses).any():
            return _together((candidates[one], candidates[other])), mask
    return _several(PLAIN, masks[: len(PLAIN)], gains, losses) or _several(candidates, masks, gains, losses)


def _several(
    candidates: Sequence[Scope], masks: np.ndarray, gains: np.ndarray, losses: np.ndarray
) -> tuple[Scope, np.ndarray] | None:
    """Some conditions that hold in all rows that are won, each leaving out the most of what is lost.

    At most `MOST_TOGETHER`, and no more than the rows that are won can bear.
    """
    usable = np.flatnonzero(~(~masks & gains).any(axis=1))
    mask, chosen = np.ones(len(gains), bool), list[int]()
    most = min(MOST_TOGETHER, max(3, int(gains.sum()) // ROWS_FOR_ONE))
    while (mask & losses).any() and len(chosen) < most and len(usable):
        left = [int((masks[at] & mask & losses).sum()) for at in usable]
        chosen.append(int(usable[int(np.argmin(left))]))
        mask = mask & masks[chosen[-1]]
    if (mask & losses).any() or not chosen:
        return None
    return _together([candidates[at] for at in chosen]), mask


def _together(several: Sequence[Scope]) -> Scope:
    *before, last = (scope.words.removesuffix(" only") for scope in several)
    words = f"{', '.join(before)} and {last} only"
    return Scope(words, lambda case: all(scope.holds(case) for scope in several), len(several))
