"""When an answer and what is planted are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from doconv_conformance.cases.table import EXACT_LIMIT, LOW_PRECISION
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.port import Tensors
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Expected
from doconv_conformance.verdicts.judge import judge

# Where a mistake makes fractions of integers, the order of summation shows in the last digits.
NEAR = 2.0**-18
# Every float32 beyond it is one, fraction of a product or not.
LARGEST_INTEGER = 2.0**24
# A mistake that changes a value by so many roundings is none of rounding.
FAR = 8


def same(got: Mapping[str, np.ndarray] | None, want: Tensors | None) -> bool:
    """Whether two answers have the same names, shapes, types and values; -0 is 0, a NaN is a NaN, fractions may be rounded."""
    if got is None or want is None or got.keys() != want.keys():
        return False
    return all(
        (got[name].shape, got[name].dtype) == (want[name].shape, want[name].dtype)
        and _equal(got[name].astype(np.float64), want[name].astype(np.float64))
        for name in got
    )


def _equal(got: np.ndarray, want: np.ndarray) -> bool:
    if np.array_equal(got, want, equal_nan=True):
        return True
    finite = np.isfinite(want) & np.isfinite(got)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return False
    got, want = got[finite], want[finite]
    if _are_integers(want):
        return np.array_equal(got, want)
    return bool(np.allclose(got, want, rtol=NEAR, atol=NEAR * float(np.abs(want).max())))


def _are_integers(values: np.ndarray) -> bool:
    """Whether all are, and none is so large that any float32 is one."""
    return bool(((values == np.rint(values)) & (np.abs(values) < LARGEST_INTEGER)).all())


def is_near(got: np.ndarray, want: np.ndarray, near: float = NEAR) -> bool:
    """Whether two arrays of one shape are equal but for roundings, by `near` of the largest that is wanted."""
    return bool(np.allclose(got, want, rtol=0, atol=near * float(np.abs(want).max(initial=0))))


def reproduces(faults: Sequence[Fault], row: Row) -> bool:
    """Whether the reference with the faults answers as the port did: equal values on exact rows, else within the bound."""
    return _reproduces(tuple(faults), row)


@lru_cache(maxsize=2**16)
def _reproduces(faults: tuple[Fault, ...], row: Row) -> bool:
    if row.failed and not faults:
        return False
    planted = row.of(run(faults, row.case.geometry, row.operation, row.case.inputs(row.operation)))
    return (
        planted is not None and _is_answer(planted, faults, row) and not (row.failed and _changes_nothing(planted, row))
    )


def _is_answer(planted: Tensors, faults: Sequence[Fault], row: Row) -> bool:
    if row.operation == "initialise":
        if faults and _starts_in_its_own_way(faults, row):
            return True
        planted = _with_own_start(faults, row, planted)
    if not row.exact and (row.case.numbers == "floats" or row.within_bound_of(planted)):
        return row.within_bound_of(planted)  # sums that are exact without the mistake need not be so with it
    if planted.keys() != row.got.keys():
        return False
    for name, value in planted.items():
        got, want = row.got[name], row.want.get(name)
        if (value.shape, value.dtype) != (got.shape, got.dtype):
            return False
        value, got = value.astype(np.float64), got.astype(np.float64)
        if row.operation == "initialise" and name == "weight":
            near = max(NEAR, 2 * UNIT_ROUNDOFF[str(row.got[name].dtype)])
            if not np.allclose(value, got, rtol=near, atol=near):  # its sums may have another order
                return False
            continue
        if want is not None and want.bound.shape == value.shape:  # a value that is free says nothing
            value, got = (np.where(np.isinf(want.bound), 0.0, tensor) for tensor in (value, got))
        alike = _equal(got, value) or (row.exact and _beyond_exact(got, value, str(row.got[name].dtype)))
        alike = alike or (row.exact and want is not None and _is_what_cancels(got, value, want))
        if not alike and not _is_rounded(got, value, row, name):
            return False
    return not _dead(row, planted)


def _is_rounded(got: np.ndarray, value: np.ndarray, row: Row, name: str) -> bool:
    """Whether they are near in low precision, which float32 gradients go through, and the mistake changes by far more."""
    right = _right(row)
    if row.case.dtype not in LOW_PRECISION or right is None or name not in right or right[name].shape != value.shape:
        return False
    changed = np.abs(value - right[name].astype(np.float64)).max(initial=0)
    nearest = 4 * UNIT_ROUNDOFF[row.case.dtype] * np.abs(value).max(initial=0)
    return bool(changed > FAR * nearest) and _beyond_exact(got, value, row.case.dtype)


def _is_what_cancels(got: np.ndarray, value: np.ndarray, want: Expected) -> bool:
    """Whether fractions, which a mistake makes of integers, differ by roundings of terms that are larger than their sum."""
    if want.scale.shape != value.shape or _are_integers(value):
        return False
    with np.errstate(invalid="ignore"):  # of two infinities
        return bool(((got == value) | (np.abs(got - value) <= FAR * want.scale)).all())


def spoils(faults: Sequence[Fault], row: Row) -> bool:
    """Whether the reference with the faults answers wrongly, or not at all, what the port answered rightly."""
    return _spoils(tuple(faults), row)


@lru_cache(maxsize=2**16)
def _spoils(faults: tuple[Fault, ...], row: Row) -> bool:
    planted = row.of(run(faults, row.case.geometry, row.operation, row.case.inputs(row.operation)))
    return planted is None or judge(row.want, planted, exact=row.exact)["verdict"] == "mismatch"


def _beyond_exact(got: np.ndarray, value: np.ndarray, dtype: str) -> bool:
    """Whether they are near and so large, by a mistake, that not every sum in the type was exact."""
    largest = float(np.abs(value).max(initial=0))
    if not EXACT_LIMIT[dtype] / 4 < largest < np.inf:
        return False
    # Each partial sum beyond the exact integers is off by half a unit of the largest; few of them are so large.
    return is_near(got, value, 4 * UNIT_ROUNDOFF[dtype] if dtype in LOW_PRECISION else NEAR)


def _changes_nothing(planted: Tensors, row: Row) -> bool:
    """Whether the faults leave the right answer as it is: then they do not explain what is wrong by less than a rounding."""
    right = _right(row)
    return right is not None and all(
        name in planted and planted[name].dtype == value.dtype and np.array_equal(planted[name], value)
        for name, value in right.items()
    )


@lru_cache(maxsize=2**13)
def _right(row: Row) -> Tensors | None:
    return row.of(run((), row.case.geometry, row.operation, row.case.inputs(row.operation)))


def _with_own_start(faults: Sequence[Fault], row: Row, planted: Tensors) -> Tensors:
    """Surplus columns of `W` are free: the composed kernel of the start is that of the port's own."""
    own = {name: row.got[name] for name in ("W", "D_delta") if name in row.got}
    started = any("started" in fault.hooks for fault in faults)
    if "W" not in own or own["W"].shape != row.case.geometry.w_shape:
        return planted
    composed = run(faults, row.case.geometry, "compose", own)
    for fault in faults:
        composed = fault.hooks["start_weight"](own, row.case.geometry) if "start_weight" in fault.hooks else composed
    if composed is None or (
        started and not _equal(row.got["weight"].astype(np.float64), composed["weight"].astype(np.float64))
    ):
        return planted
    return planted | composed


def _starts_in_its_own_way(faults: Sequence[Fault], row: Row) -> bool:
    """Whether the port's start, composed as the faults compose, is the kernel that was asked: `W` in its own order."""
    outputs, weight = row.got, row.case.tensors["weight"]
    if any("started" in fault.hooks for fault in faults) or outputs.keys() != {"W", "weight", *_of_d(row)}:
        return False
    if outputs["W"].shape != row.case.geometry.w_shape or any(outputs[name].any() for name in _of_d(row)):
        return False
    composed = run(faults, row.case.geometry, "compose", {name: outputs[name] for name in ("W", *_of_d(row))})
    same_type = all(outputs[name].dtype == weight.dtype for name in outputs)
    return bool(
        same_type and composed is not None and np.array_equal(composed["weight"], weight)
        and np.array_equal(outputs["weight"], weight)
    )  # fmt: skip


def _of_d(row: Row) -> tuple[str, ...]:
    return ("D_delta",) if row.case.geometry.has_d else ()


def _dead(row: Row, planted: Tensors) -> bool:
    """Whether the port leaves columns at zero that must not be, and what is planted does not."""
    for name, want in row.want.items():
        if want.alive is not None and name in planted and row.got[name].shape == planted[name].shape:
            axes = tuple(range(planted[name].ndim - 1))
            if ((want.alive & ~row.got[name].any(axis=axes)) != (want.alive & ~planted[name].any(axis=axes))).any():
                return True
    return False
