"""Replay: whether a fault, planted in the reference, answers as a port did.

A fault explains a failing row where both give the same values: equal where values must be equal, within the bound of an honest
port elsewhere. It is contradicted by a row where it would have shown and the port gave something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from doconv_conformance.cases.table import DTYPES, Case
from doconv_conformance.faults import Fault, FaultyPort
from doconv_conformance.port import OPERATIONS, Tensors
from doconv_conformance.verdicts.bounds import Expected, Numerics, expected
from doconv_conformance.verdicts.judge import judge, judged_exactly

# A fault is named on no fewer different cases than this.
LEAST_CASES = 2
# A difference of so many bounds is no rounding.
STRUCTURAL = 64
# So many failing rows are tried before a fault that explains none of them is given up.
PROBES = 32


class Row:
    """One answer of a port, as evidence.

    Attributes:
        case: the case.
        operation: what was asked.
        got: the outputs.
        failed: whether they were a mismatch.
        only: the one output that it is evidence of; empty for all of them.
    """

    def __init__(
        self,
        case: Case,
        operation: str,
        got: Mapping[str, np.ndarray],
        failed: bool,
        numerics: Numerics,
        only: str = "",
    ) -> None:
        self.case, self.operation, self.got, self.failed = case, operation, got, failed
        self.numerics, self.only = numerics, only
        self.exact = judged_exactly(case, operation, numerics)
        self._digest = _digest(got, self.want) if self.exact else b""

    @property
    def finite(self) -> bool:
        """Whether there is no NaN and no infinity in the outputs."""
        return all(np.isfinite(value.astype(np.float64)).all() for value in self.got.values())

    @property
    def key(self) -> tuple[str, str]:
        """`(case id, operation)`."""
        return self.case.id, self.operation

    @property
    def want(self) -> Mapping[str, Expected]:
        """What the row should give."""
        want = expected(self.case, self.operation, self.numerics)
        return {self.only: want[self.only]} if self.only else want

    @cached_property
    def outputs(self) -> list[Row]:
        """The row output by output; none where names are missing or shapes are wrong."""
        if self.operation == "initialise":  # its outputs are judged by each other
            return [self]
        if self.got.keys() != self.want.keys():
            return []
        if any(self.got[name].shape != want.value.shape for name, want in self.want.items()):
            return []
        found = []
        for name, want in self.want.items():
            got = {name: self.got[name]}
            failed = self.failed and judge({name: want}, got, exact=self.exact)["verdict"] == "mismatch"
            found.append(Row(self.case, self.operation, got, failed, self.numerics, name))
        return found

    def of(self, outputs: Tensors | None) -> Tensors | None:
        """Of the outputs of its question those that it is evidence of."""
        if outputs is None or not self.only:
            return outputs
        return {name: value for name, value in outputs.items() if name == self.only}

    def relation(self, fault: Fault) -> str:
        """One of "explained", "contradicted", "unaffected" (the fault does not show here) and "silent" (it raises here)."""
        if not fault.touches(self.case.geometry, self.operation):
            return "unaffected"
        if self.exact:
            predicted = _predicted_digest(fault, self.case, self.operation)
            if predicted is None:
                return "silent" if self.failed else "contradicted"
            if predicted == self._digest:
                return "explained" if self.failed else "unaffected"
            return "unaffected" if predicted == _right_digest(self.case, self.operation) else "contradicted"
        outputs = answer(fault, self.case, self.operation)
        if outputs is None:
            return "silent" if self.failed else "contradicted"
        if judge(self.want, outputs, exact=False)["verdict"] != "mismatch":
            return "unaffected"
        if self.failed and self.within_bound_of(outputs):
            return "explained"
        return "contradicted"

    def within_bound_of(self, outputs: Tensors) -> bool:
        """Whether the port is as near to the fault's values as an honest port must be to the right ones."""
        if set(outputs) != set(self.got):
            return False
        for name, value in outputs.items():
            got, want = self.got[name], self.want.get(name)
            if want is None or (value.shape, value.dtype) != (got.shape, got.dtype):
                return False
            # Where the right value is the sum of nothing its bound is 0, and says nothing of another value.
            largest = want.bound.max(initial=0.0, where=np.isfinite(want.bound))
            bound = largest
            if want.bound.shape == value.shape:
                strict = (want.bound > 0) | (value.astype(np.float64) == want.value)
                bound = np.where(strict, want.bound, largest)
            with np.errstate(invalid="ignore"):
                if want.bound.shape == value.shape and (np.abs(value - want.value) > STRUCTURAL * largest).any():
                    bound = largest  # values have other places: so have their bounds
            with np.errstate(invalid="ignore"):  # of two infinities
                near = np.abs(value.astype(np.float64) - got.astype(np.float64)) <= bound
            if not (near | (value == got) | (np.isnan(value) & np.isnan(got))).all():
                return False
        return True


def answer(fault: Fault, case: Case, operation: str) -> Tensors | None:
    """What a port with the fault answers; None where it raises, as a framework would."""
    try:
        return FaultyPort(fault).run(case, operation)
    except (ValueError, TypeError, IndexError):
        return None


@lru_cache(maxsize=2**17)
def _predicted_digest(fault: Fault, case: Case, operation: str) -> bytes | None:
    outputs = answer(fault, case, operation)
    return None if outputs is None else _digest(outputs, expected(case, operation))


@lru_cache(maxsize=2**12)
def _right_digest(case: Case, operation: str) -> bytes:
    want = expected(case, operation)
    right = {name: _right(output) for name, output in want.items()}
    return _digest(right, want)


def _right(output: Expected) -> np.ndarray:
    free = np.isinf(output.bound)
    return np.where(free, 1.0, output.value).astype(output.dtype)


def _digest(outputs: Mapping[str, np.ndarray], want: Mapping[str, Expected]) -> bytes:
    """Of names, shapes, types and values; -0 is 0, and of values that are free only whether a column of them is dead."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(outputs):
        value = outputs[name]
        if name in want and want[name].alive is not None and value.shape == want[name].value.shape:
            alive = value.any(axis=tuple(range(value.ndim - 1)))
            value = np.where(np.isinf(want[name].bound), alive.astype(value.dtype), value)
        digest.update(f"{name}{value.shape}{value.dtype}".encode())
        digest.update((value.astype(np.float64) + 0.0).tobytes())
    return digest.digest()


@dataclass(frozen=True)
class Scope:
    """A part of the case table that a mistake may be confined to.

    Attributes:
        words: added to the fault's, empty for the whole table.
        holds: whether a row is in it.
    """

    words: str
    holds: Callable[[Row], bool]


def _rank(rank: int) -> Scope:
    return Scope(f"in {rank}-D only", lambda row: row.case.geometry.spatial_rank == rank)


def _operation(name: str) -> Scope:
    return Scope(f"in {name} only", lambda row: row.operation == name)


def _dtype(name: str) -> Scope:
    return Scope(f"in {name} only", lambda row: row.case.dtype == name)


SCOPES = (
    Scope("", lambda row: True),
    Scope("in transposed convolutions only", lambda row: row.case.geometry.transposed),
    Scope("except in transposed convolutions", lambda row: not row.case.geometry.transposed),
    Scope("in grouped convolutions only", lambda row: row.case.geometry.groups > 1),
    Scope("in ungrouped convolutions only", lambda row: row.case.geometry.groups == 1),
    Scope("in depthwise convolutions only", lambda row: row.case.geometry.groups == row.case.geometry.in_channels > 1),
    *map(_rank, (1, 2, 3)),
    Scope("where d_mul is larger than K only", lambda row: row.case.geometry.d_mul > row.case.geometry.taps),
    Scope("with dilation only", lambda row: max(row.case.geometry.dilation) > 1),
    Scope("with strides only", lambda row: max(row.case.geometry.stride) > 1),
    Scope("with padding modes other than zeros only", lambda row: row.case.geometry.padding_mode != "zeros"),
    *map(_operation, OPERATIONS),
    *map(_dtype, DTYPES),
    Scope("in mixed precision only", lambda row: row.case.dtype != row.case.param_dtype),
)


@dataclass(frozen=True)
class Explanation:
    """A fault, where it acts, and the failing rows it explains."""

    fault: Fault
    scope: Scope
    rows: tuple[Row, ...]


def explanations(faults: Iterable[Fault], rows: Sequence[Row], scopes: Sequence[Scope] = SCOPES) -> list[Explanation]:
    """Every fault that explains rows of at least two cases and is nowhere contradicted within a scope, the best first.

    The best explains the most rows, then in the widest scope, then comes first among `faults`.
    """
    found = []
    probes = _spread([row for row in rows if row.failed])
    for fault in faults:
        if not any(row.relation(fault) == "explained" for row in probes):
            continue
        relations = [(row, row.relation(fault)) for row in rows]
        for scope in scopes:
            inside = [(row, relation) for row, relation in relations if scope.holds(row)]
            explained = tuple(row for row, relation in inside if relation == "explained")
            contradicted = any(relation == "contradicted" for _, relation in inside)
            if len({row.case.id for row in explained}) >= LEAST_CASES and not contradicted:
                found.append(Explanation(fault, scope, explained))
                break
    return sorted(found, key=lambda item: (-len(item.rows), scopes.index(item.scope)))


def cover(faults: Sequence[Fault], rows: Sequence[Row]) -> tuple[list[Explanation], bool]:
    """The best explanation, then the best of what it leaves, and so on; and whether they explain every failing row.

    Mistakes that are confined to a scope are named only if nothing is left: where most of a port is wrong, some mistake often
    looks right in a corner of it.
    """
    for scopes in (SCOPES, SCOPES[:1]):
        chosen, left = list[Explanation](), list(rows)
        while any(row.failed for row in left) and (found := explanations(faults, left, scopes)):
            chosen.append(found[0])
            explained = {row.key for row in found[0].rows}
            left = [row for row in left if row.key not in explained]
        if not any(row.failed for row in left):
            return chosen, True
    return chosen, False


def _spread(rows: Sequence[Row]) -> list[Row]:
    """At most `PROBES` of the rows, of every stage and operation alike."""
    groups: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        g = row.case.geometry
        groups.setdefault((row.operation, row.case.family, g.d_mul > g.taps), []).append(row)
    spread = [
        group[n]
        for n in range(max(map(len, groups.values()), default=0))
        for group in groups.values()
        if n < len(group)
    ]
    return spread if len(rows) <= 2 * PROBES else spread[:PROBES]
