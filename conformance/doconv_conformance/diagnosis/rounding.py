"""What fails although the structure is right: other arithmetic than declared, and answers that depend on the size of numbers.

Looked at is one output of one operation in one pair of types at a time, a *cell*: a candidate explains it where, planted, it
gives the port's values in every failing row of the cell, and none that is right contradicts it. Of those that explain as many
rows the port is asked by numbers of all digits, which tell a rounding here from one there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import ml_dtypes
import numpy as np

from doconv_conformance.cases.draws import DIGITS
from doconv_conformance.cases.table import DTYPES
from doconv_conformance.diagnosis import arithmetic, values
from doconv_conformance.diagnosis.agreement import reproduces, spoils
from doconv_conformance.diagnosis.asking import Asker, Question, Spent
from doconv_conformance.diagnosis.hypotheses import arithmetics, changed, within
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.diagnosis.roundings import Kind, Types, kinds
from doconv_conformance.diagnosis.scope import EVERYWHERE, Scope, best
from doconv_conformance.faults import Fault
from doconv_conformance.faults.gradients import FOLDING
from doconv_conformance.port import OPERATIONS
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Numerics, expected

# Of fewer geometries a condition would be an accident, and of fewer cases a claim.
LEAST_IN_SCOPE, LEAST_CASES = 3, 2
# So many right rows of one cell are looked at where none fails.
MOST_RIGHT = 40
# So many candidates that explain as many rows are told apart, by so many questions.
MOST_ALIKE, QUESTIONS = 24, 3
# Of the values that a rounding changes, the share that it must give; a sum in another order may fall to the other side.
MOSTLY, FLIPPED = 0.8, 0.25
# A change that is smaller than this share of the largest one says little.
SHOWS = 0.1
# By so much of the largest value sums in float64 differ in another order.
OF_ORDER = 2.0**-44
# Errors that differ by less than so many times are of one size.
ALIKE = 4
# Numbers of a question.
MOST_NUMBERS = 2**13


@dataclass(frozen=True)
class Rounding:
    """One claim.

    Attributes:
        name: short.
        words: as a clause that completes "a port that ...".
        look_at: where a porter looks first.
        rows: the failing rows that it takes part in explaining.
        fault: what was replayed, where something was.
    """

    name: str
    words: str
    look_at: str
    rows: tuple[Row, ...]
    fault: Fault | None = None


@dataclass
class Cell:
    """One output of one operation in one pair of types; the rows are of this output alone, small ones first."""

    types: Types
    operation: str
    output: str
    failing: list[Row] = field(default_factory=list)
    right: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A fault that may explain cells.

    Attributes:
        fault: to be planted.
        kind: what it is made of; None for a listed fault, or one that was measured as a whole.
    """

    fault: Fault
    kind: Kind | None = None

    def shows_in(self, cell: Cell) -> bool:
        """Whether it can change the cell's output."""
        if self.kind is None:
            return True
        return cell.output in self.kind.shows(cell.operation) and self.kind.plan.target(*cell.types) is not None

    def said(self, cells: Sequence[Cell]) -> str:
        """In words, of the cells that it explains."""
        return self.fault.words if self.kind is None else self.kind.said(cell.types for cell in cells)


Known = Callable[[Row], list[Fault]]


def explain(
    rows: Sequence[Row], known: Known, asker: Asker, numerics: Numerics, catalogue: Sequence[Fault],
    say: Callable[[str], None], *, of_size: bool = True,
) -> tuple[list[Rounding], list[str]]:  # fmt: skip
    """Claims for the failing rows among `rows`, the one of most rows first, and what was measured.

    Args:
        rows: rows whose structure is right or explained.
        known: what is planted in a row already.
        asker: for questions.
        numerics: what the port declares.
        catalogue: the listed faults that may be used.
        say: called with what is being tried.
        of_size: whether sums in another type may be read off the size of errors alone.
    """
    rows = sorted(rows, key=_numbers)
    failing = [row for row in rows if row.failed]
    say("asking for the arithmetic")
    measured, facts, digits = _measured(failing, asker)
    listed = set(catalogue)
    candidates = [Candidate(fault) for fault in measured]
    candidates += [Candidate(kind.fault, kind) for kind in _kinds(digits)]
    candidates += [Candidate(fault) for fault in FOLDING if fault in listed]
    work = _Work(_cells(rows), known, asker, numerics)
    try:
        claims = work.claims(candidates)
    except Spent:
        claims = work.made
    found = _of_rows(claims, failing)
    taken = {row.key for item in found for row in item.rows}
    if of_size:
        found += _sums([row for row in rows if row.key not in taken], asker, numerics, digits)
    return sorted(found, key=lambda item: -len(item.rows)), facts


def _numbers(row: Row) -> int:
    return sum(tensor.size for tensor in row.case.tensors.values())


def _measured(failing: Sequence[Row], asker: Asker) -> tuple[list[Fault], list[str], dict[str, arithmetic.Arithmetic]]:
    """Faults that were measured as a whole, what was measured in words, and the digits that each type keeps.

    Args:
        failing: the smallest first.
        asker: for questions.
    """
    candidates = list[Fault]()
    with_d = [row for row in failing if row.case.geometry.has_d and row.case.dtype in ("float32", "float64")]
    if with_d:
        candidates += values.thresholds(asker, with_d[0].case, asker.supports)
    facts, digits = [fault.words for fault in candidates], dict[str, arithmetic.Arithmetic]()
    rank = failing[0].case.geometry.spatial_rank
    for dtype, param_dtype in dict.fromkeys((row.case.dtype, row.case.param_dtype) for row in failing):
        measured = arithmetic.measure(asker, dtype, param_dtype, rank)
        if measured is not None:
            digits.setdefault(dtype, measured)
            facts += [line for line in measured.facts() if line not in facts]
    return candidates, facts, digits


def _kinds(digits: Mapping[str, arithmetic.Arithmetic]) -> list[Kind]:
    """What may be wrong, with the numbers that were measured."""
    usual = {8, 11, 24, 53}
    others = {
        dtype: {n for n in (found.x, found.kernel, found.result) if n and n < DIGITS[dtype]} - usual
        for dtype, found in digits.items()
    }
    blocks = sorted({found.block for found in digits.values() if found.block})
    modes = [found.rounding for found in digits.values() if found.rounding not in (None, "nearest")]
    return kinds(others, blocks, str(next(iter(modes), "nearest")))


def _cells(rows: Sequence[Row]) -> list[Cell]:
    cells: dict[tuple[Types, str, str], Cell] = {}
    for row in rows:
        of = None if row.operation in ("compose", "initialise") else row.case.dtype
        for part in row.outputs:
            key = ((of, row.case.param_dtype), row.operation, part.only)
            cell = cells.setdefault(key, Cell(*key))
            (cell.failing if part.failed else cell.right).append(part)
    return list(cells.values())


@dataclass(frozen=True, eq=False)
class Claim:
    """A candidate with the cells that it explains, as far as its scope reaches."""

    candidate: Candidate
    cells: list[Cell]
    scope: Scope
    operations: tuple[str, ...] = ()

    @cached_property
    def words(self) -> str:
        """As a clause that completes "a port that ..."."""
        where = f"in {' and '.join(self.operations)} only" if self.operations else ""
        return ", ".join(filter(None, (self.candidate.said(self.cells), self.scope.words, where)))


class _Work:
    """The claims, one after the other."""

    def __init__(self, cells: Sequence[Cell], known: Known, asker: Asker, numerics: Numerics) -> None:
        self.cells, self.known, self.asker, self.numerics = list(cells), known, asker, numerics
        self.made = list[Claim]()

    def claims(self, candidates: Sequence[Candidate]) -> list[Claim]:
        """The claim of the most rows, then that of the most of what it leaves, and so on."""
        open_ = [cell for cell in self.cells if cell.failing]
        explained: dict[Candidate, list[Cell]] = {}
        for candidate in candidates:
            self.asker.check()
            shown = [cell for cell in open_ if candidate.shows_in(cell)]
            cells = [cell for cell in shown if self._explains_all(candidate, cell)]
            types = {cell.types for cell in cells}
            others = sum(cell.types in types for cell in shown) - len(cells)
            if len(cells) > others:  # else it would show where something else is wrong
                explained[candidate] = cells
        while explained:
            count = {candidate: sum(len(cell.failing) for cell in cells) for candidate, cells in explained.items()}
            alike = [candidate for candidate in explained if count[candidate] == max(count.values())][:MOST_ALIKE]
            for candidate in self._confirmed(alike, explained[alike[0]]):
                self.asker.check()
                if claim := self._claim(candidate, explained[candidate]):
                    self.made.append(claim)
                    break
            else:
                explained = {key: value for key, value in explained.items() if key not in alike}
                continue
            left = {key: [cell for cell in cells if cell not in claim.cells] for key, cells in explained.items()}
            explained = {key: cells for key, cells in left.items() if cells}
        return self.made

    def _explains_all(self, candidate: Candidate, cell: Cell) -> bool:
        """Whether a fault gives the port's values in all failing rows of a cell; of floats some may be near only."""
        near = 0
        for row in cell.failing:
            if self._explains(candidate.fault, row):
                continue
            near += not (candidate.kind and candidate.kind.plan.loose)
            if 2 * near > len(cell.failing) or not self._is_near(candidate, row, cell.types):
                return False
        return True

    def _explains(self, fault: Fault, row: Row) -> bool:
        return fault.where(row.case.geometry) and reproduces([*self.known(row), fault], row)

    def _is_near(self, candidate: Candidate, row: Row, types: Types) -> bool:
        """Whether most values are the planted ones, and no other is further off than the rounding allows.

        A partial sum that falls between two numbers of a type may be rounded to the other one, by the last digits of what is
        added up in no order that is known.
        """
        if candidate.kind is None or not row.only or not (row.case.numbers == "floats" or candidate.kind.plan.loose):
            return False
        planted = self._planted(row, [candidate.fault])
        if planted is None:
            return False
        (name, got), (value,) = next(iter(row.got.items())), planted.values()
        to = candidate.kind.plan.target(*types)
        wide = _allowing(self.numerics, types[0] or types[1], str(to))
        bound = expected(row.case, row.operation, wide)[name].bound
        off = np.abs(got.astype(np.float64) - value.astype(np.float64))
        flipped = 0 if candidate.kind.plan.loose else np.mean(off > row.want[name].bound)
        return bool(flipped <= FLIPPED and (off <= bound).all())

    def _planted(self, row: Row, faults: Sequence[Fault]) -> dict[str, np.ndarray] | None:
        inputs = row.case.inputs(row.operation)
        return row.of(run([*self.known(row), *faults], row.case.geometry, row.operation, inputs))

    def _confirmed(self, alike: Sequence[Candidate], cells: Sequence[Cell]) -> list[Candidate]:
        """Those that give the port's answers to numbers of all digits, the best first; the others can't be true."""
        shares: dict[Candidate, list[float]] = {candidate: [] for candidate in alike}
        modes = {candidate.kind.plan.mode for candidate in alike if candidate.kind}
        for row in (*_spread(cells), *self._right_ones(alike, cells)):
            for question in _of_all_digits(row, modes):
                answer = row.of(self.asker(row.operation, question))
                inputs, g = question.inputs(row.operation), row.case.geometry
                right = row.of(run(self.known(row), g, row.operation, inputs))
                if not answer or not right or any(answer[n].shape != right[n].shape for n in right):
                    continue
                for candidate in alike:
                    planted = row.of(run([*self.known(row), candidate.fault], g, row.operation, inputs))
                    loose = candidate.kind is not None and candidate.kind.plan.loose
                    share = None if planted is None else _share(answer, planted, right, loose=loose)
                    shares[candidate] += [] if share is None else [share]
        least = {one: round(min(found, default=float(one.kind is None)), 1) for one, found in shares.items()}
        exact = {one: sum(self._explains(one.fault, row) for cell in cells for row in cell.failing) for one in alike}
        return sorted((one for one in alike if least[one] >= MOSTLY), key=lambda one: (-least[one], -exact[one]))

    def _right_ones(self, alike: Sequence[Candidate], cells: Sequence[Cell]) -> list[Row]:
        """Of other outputs of the same types in which no case shows anything, and a candidate would: where others fail."""
        types = {cell.types[0] or cell.types[1] for cell in cells}
        geometries = {row.case.geometry for cell in cells for row in cell.failing}
        found: dict[tuple[Types, str], Row] = {}
        for cell in self.cells:
            of_types = (cell.types[0] or cell.types[1]) in types
            if of_types and not cell.failing and any(candidate.shows_in(cell) for candidate in alike):
                usable = [row for row in cell.right if row.case.geometry in geometries]
                found |= {(cell.types, cell.output): usable[-1]} if usable else {}
        return list(found.values())

    def _claim(self, candidate: Candidate, cells: Sequence[Cell]) -> Claim | None:
        """With the plainest condition that no right row contradicts; None where there is none, or too little to go by."""
        every = [row for cell in cells for row in (*cell.failing, *cell.right)]
        losses = np.array([not row.failed and self._contradicts(candidate.fault, row) for row in every])
        scope, kept = EVERYWHERE, list(cells)
        if losses.any():
            gains = np.array([row.failed for row in every])
            geometries = {row.case.geometry for row in every if row.failed}
            found = best(every, gains, losses) if len(geometries) >= LEAST_IN_SCOPE else None
            spoilt = {id(row) for row, lost in zip(every, losses, strict=True) if lost}
            if found is not None:
                scope = found[0]
            else:
                kept = [cell for cell in cells if not any(id(row) in spoilt for row in cell.right)]
        failing = [row for cell in kept for row in cell.failing]
        if len({row.case.id for row in failing}) < LEAST_CASES:
            return None
        if not any(spoils([candidate.fault], row) for row in failing):  # is allowed, and comes on top of what is known
            return None
        return Claim(candidate, kept, scope, self._only(candidate, kept, scope))

    def _only(self, candidate: Candidate, cells: Sequence[Cell], scope: Scope) -> tuple[str, ...]:
        """The operations of the cells, where others are right that it would show in."""
        operations = [name for name in OPERATIONS if any(cell.operation == name for cell in cells)]
        others = [cell for cell in self.cells if cell.operation not in operations and candidate.shows_in(cell)]
        rows = (row for cell in others if not cell.failing for row in cell.right[:MOST_RIGHT])
        is_contradicted = any(scope.holds(row.case) and self._contradicts(candidate.fault, row) for row in rows)
        return tuple(operations) if is_contradicted else ()

    def _contradicts(self, fault: Fault, row: Row) -> bool:
        """Whether a right row would be wrong with the fault."""
        return fault.where(row.case.geometry) and spoils([*self.known(row), fault], row)


def _allowing(numerics: Numerics, dtype: str, to: str) -> Numerics:
    """What is declared, with sums in a shorter type."""
    if to == "TF32":
        return changed(numerics, "algorithm", "tf32")
    short = to if to in DTYPES else "bfloat16" if int(to.split()[0]) < DIGITS["float16"] else "float16"
    wider = {kind: {dtype: short} for kind in ("reduction", "scatter", "kernel_gradient", "accumulator")}
    for kind, types in wider.items():
        numerics = changed(numerics, kind, types)
    return numerics


def _spread(cells: Sequence[Cell]) -> list[Row]:
    """Failing rows of different cells, each the largest that is small enough to be asked."""
    found = [max(cell.failing, key=lambda row: min(_numbers(row), MOST_NUMBERS - _numbers(row))) for cell in cells]
    step = max(1, len(found) // QUESTIONS)
    return found[::step][:QUESTIONS]


def _of_all_digits(row: Row, modes: Collection[str]) -> Iterator[Question]:
    """A row's geometry and types with random numbers, and with such as the modes at issue change.

    Those are halves of a unit, numbers that overflow, and subnormal ones.
    """
    rng, case = np.random.default_rng(3), row.case
    limits, high = ml_dtypes.finfo(DTYPES[case.dtype]), 2.0 ** DIGITS[case.dtype]
    tensors = {name: rng.standard_normal(tensor.shape) for name, tensor in case.tensors.items()}
    several = [tensors]
    if "halves away" in modes:
        of_parameters = row.only in ("grad_W", "grad_D_delta", "grad_bias")
        sizes = {"x": 2, "grad_y": high} if of_parameters else {"x": 2, "grad_y": 2, "W": 2 * high, "D_delta": 0}
        several.append({name: np.rint(sizes.get(name, 1) * np.clip(t, -1, 1)) for name, t in tensors.items()})
    for mode, power in (("flushed", limits.minexp), ("saturating", limits.maxexp)):
        if mode in modes:
            scaled = ("W",) if row.only in ("", "weight") else ("x", "grad_y")
            several.append({name: np.ldexp(t, power - 1) if name in scaled else t for name, t in tensors.items()})
    for tensors in several:
        with np.errstate(all="ignore"):
            held = Question(case.geometry, tensors, case.dtype, case.param_dtype).inputs("backward")
        held = {name: np.nan_to_num(tensor.astype(np.float64), posinf=0, neginf=0) for name, tensor in held.items()}
        yield Question(case.geometry, {**tensors, **held}, case.dtype, case.param_dtype)


def _share(
    answer: Mapping[str, np.ndarray], planted: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray], *, loose: bool
) -> float | None:
    """Of the values that are planted otherwise than right, how many the port gives; None where there are none.

    `loose` is 1 where the port's are as far off as the planted ones, else 0.
    """
    (got, value, true), *_ = (
        (answer[n].astype(np.float64), planted[n].astype(np.float64), right[n].astype(np.float64)) for n in right
    )
    change = np.where(value == true, 0, np.abs(value - true))  # of two infinities, none
    finite = np.where(np.isfinite(change), change, 0)
    of_order = OF_ORDER * np.abs(np.where(np.isfinite(true), true, 0)).max(initial=0)
    shown = (change > max(SHOWS * finite.max(initial=0), of_order)) | np.isinf(change)
    if not shown.any():
        return None
    if loose:
        times = np.linalg.norm((got - true)[shown]) / np.linalg.norm(change[shown])
        return float(1 / ALIKE < times < ALIKE)
    return float(np.mean((got == value)[shown] | (np.abs(got - value) <= SHOWS * finite)[shown]))


def _of_rows(claims: Iterable[Claim], failing: Sequence[Row]) -> list[Rounding]:
    """Of each claim the rows of which it explains an output, where every failing output is explained by some claim."""
    of: dict[tuple[str, str, str], list[Claim]] = {}
    claims = list(claims)
    for claim in claims:
        for row in (row for cell in claim.cells for row in cell.failing):
            of.setdefault((*row.key, row.only), []).append(claim)
    rows: dict[Claim, list[Row]] = {claim: [] for claim in claims}
    for row in failing:
        wrong = [(*row.key, part.only) for part in row.outputs if part.failed]
        if wrong and all(key in of for key in wrong):
            for claim in dict.fromkeys(claim for key in wrong for claim in of[key]):
                rows[claim].append(row)
    faults = {claim: claim.candidate.fault for claim in claims}
    return [
        Rounding(fault.name, claim.words, fault.look_at, tuple(rows[claim]), fault)
        for claim, fault in faults.items()
        if rows[claim]
    ]


def _sums(
    rows: Sequence[Row], asker: Asker, numerics: Numerics, digits: Mapping[str, arithmetic.Arithmetic]
) -> list[Rounding]:
    """Sums in a shorter type than declared: measured, and so far off as that type allows."""
    found, taken = list[Rounding](), set[tuple[str, str]]()
    for other, name, words in arithmetics(numerics):
        if name == "tf32":
            continue
        kind, dtype, _, short = name.rsplit("-", 3)
        if dtype not in UNIT_ROUNDOFF:
            continue
        mine = [
            row
            for row in rows
            if row.failed and row.case.dtype == dtype and row.key not in taken and within(row, other)
        ]
        if not mine or any(
            row.failed
            and row.exact
            and row.case.dtype == dtype
            and row.numerics.algorithm == "direct"
            and row not in mine
            for row in rows
        ):
            continue
        row = mine[0]
        if not arithmetic.sums_lose(
            asker, kind, dtype, row.case.param_dtype, DIGITS[short], row.case.geometry.spatial_rank
        ):
            continue
        taken |= {row.key for row in mine}
        kept = digits.get(dtype)
        if (
            kind == "accumulator"
            and short != dtype
            and kept
            and max(kept.x or DIGITS[dtype], kept.kernel or DIGITS[dtype]) <= DIGITS[short]
        ):
            words = f"computes the convolutions of {dtype} in {short}: x, the kernel and the sums"
        look_at = "the type in which sums are formed, or what hello declares under numerics"
        found.append(Rounding(name, words, look_at, tuple(mine)))
    return found
