"""What fails although the structure is right: other arithmetic than declared, and answers that depend on the size of numbers.

Each candidate was measured by a question made for it, or is listed; it is claimed for the types and operations in which,
planted, it gives the port's values on every failing row and is contradicted by no right one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from doconv_conformance.cases.draws import DIGITS
from doconv_conformance.diagnosis import arithmetic, values
from doconv_conformance.diagnosis.agreement import reproduces, spoils
from doconv_conformance.diagnosis.asking import Asker, Spent
from doconv_conformance.diagnosis.hypotheses import arithmetics, changed, within
from doconv_conformance.diagnosis.replay import LEAST_CASES, Row
from doconv_conformance.diagnosis.scope import EVERYWHERE, best
from doconv_conformance.faults import Fault
from doconv_conformance.faults.gradients import FOLDING
from doconv_conformance.faults.precision import PRECISION
from doconv_conformance.port import OPERATIONS
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Numerics

Cell = tuple[str, str, str]
# So many right rows of one operation and types are looked at where none fails.
MOST_RIGHT = 40
# Of fewer geometries a condition would be an accident.
LEAST_IN_SCOPE = 3


@dataclass(frozen=True)
class Rounding:
    """One claim.

    Attributes:
        name: short.
        words: as a clause that completes "a port that ...".
        look_at: where a porter looks first.
        rows: the failing rows that it explains.
        fault: what was replayed, where something was.
    """

    name: str
    words: str
    look_at: str
    rows: tuple[Row, ...]
    fault: Fault | None = None


def explain(
    rows: Sequence[Row], known: Callable[[Row], list[Fault]], asker: Asker, numerics: Numerics, catalogue: Sequence[Fault],
    say: Callable[[str], None],
) -> tuple[list[Rounding], list[str]]:  # fmt: skip
    """Claims for the failing rows among `rows`, the one of most rows first, and what was measured.

    Args:
        rows: rows whose structure is right or explained.
        known: what is planted in a row already.
        asker: for questions.
        numerics: what the port declares.
        catalogue: the listed faults that may be used.
        say: called with what is being tried.
    """
    rows = sorted(rows, key=_numbers)
    failing = [row for row in rows if row.failed]
    say("asking for the arithmetic")
    candidates, facts, digits = _measured(failing, asker)
    allowed = {fault: _allowed(numerics, digits) for fault in candidates if "factors" in fault.hooks}
    listed, measured = set(catalogue), set(candidates)
    candidates += [fault for fault in (*PRECISION, *FOLDING) if fault in listed]
    candidates += arithmetic.composition_sums()
    measured |= set(arithmetic.composition_sums())
    found, left = list[Rounding](), list(rows)
    while any(row.failed for row in left):
        try:
            widest = _widest(candidates, left, known, allowed, asker)
        except Spent:
            break
        if widest is None or len({row.case.id for row in widest.rows}) < (
            1 if widest.fault in measured else LEAST_CASES
        ):
            break
        found.append(widest)
        taken = {row.key for row in widest.rows}
        left = [row for row in left if row.key not in taken]
    found += _sums(left, asker, numerics, digits)
    return sorted(found, key=lambda item: -len(item.rows)), facts


def _widest(
    candidates: Sequence[Fault], rows: Sequence[Row], known: Callable[[Row], list[Fault]],
    allowed: Mapping[Fault, Numerics], asker: Asker,
) -> Rounding | None:  # fmt: skip
    """The claim of the most rows."""
    claims = []
    for fault in candidates:
        asker.check()
        claims.append(_claim(fault, rows, known, allowed.get(fault)))
    return max(claims, key=lambda item: len(item.rows), default=None)


def _numbers(row: Row) -> int:
    return sum(tensor.size for tensor in row.case.tensors.values())


def _measured(failing: Sequence[Row], asker: Asker) -> tuple[list[Fault], list[str], dict[str, arithmetic.Arithmetic]]:
    """Faults that were measured, what was measured in words, and the digits that each type keeps.

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
            known = {fault.name + fault.words for fault in candidates}
            candidates += [fault for fault in arithmetic.faults(measured) if fault.name + fault.words not in known]
            facts += [line for line in measured.facts() if line not in facts]
    return candidates, facts, digits


def _allowed(numerics: Numerics, digits: Mapping[str, arithmetic.Arithmetic]) -> Numerics:
    """What is declared, with the digits that the factors were measured to keep."""
    for dtype, found in digits.items():
        least = min(found.factor(part, name) for part, names in arithmetic.FACTORS.items() for name in names)
        if dtype == "float32" and least == DIGITS["float16"]:
            numerics = changed(numerics, "algorithm", "tf32")
        elif least < DIGITS[dtype] and least in arithmetic.TYPES:
            numerics = changed(numerics, "accumulator", {dtype: arithmetic.TYPES[least]})
    return numerics


def _cell(row: Row) -> Cell:
    return row.case.dtype, row.case.param_dtype, row.operation


def _claim(
    fault: Fault, rows: Sequence[Row], known: Callable[[Row], list[Fault]], allowed: Numerics | None
) -> Rounding:
    """The cells (types and operation) in which a fault explains every failing row and is contradicted by no right one.

    Where there is none, those in which no right row of some condition contradicts it.
    """
    claimed, contradicted, right, scope = list[Row](), list[Row](), list[Row](), EVERYWHERE
    for cell in dict.fromkeys(map(_cell, rows)):
        mine = [row for row in rows if _cell(row) == cell]
        failing = [row for row in mine if row.failed]
        if not failing:
            right += mine[:MOST_RIGHT]
        elif _explain_all(fault, failing, known, allowed):
            if any(_contradicts(fault, row, known) for row in mine if not row.failed):
                contradicted += mine
            else:
                claimed += failing
    failing = [row for row in contradicted if row.failed]
    if not claimed and len({row.case.geometry for row in failing}) >= LEAST_IN_SCOPE:
        losses = np.array([not row.failed and _contradicts(fault, row, known) for row in contradicted])
        if found := best(contradicted, np.array([row.failed for row in contradicted]), losses):
            scope, claimed = found[0], failing
    operations = [name for name in OPERATIONS if any(row.operation == name for row in claimed)]
    others = [row for row in right if row.operation not in operations] if claimed else []
    where = f"in {' and '.join(operations)} only" if any(_contradicts(fault, row, known) for row in others) else ""
    words = ", ".join(filter(None, (fault.words, scope.words, where)))
    return Rounding(fault.name, words, fault.look_at, tuple(claimed), fault)


def _explain_all(
    fault: Fault, failing: Sequence[Row], known: Callable[[Row], list[Fault]], allowed: Numerics | None
) -> bool:
    """Whether a fault gives the port's values on all rows.

    A rounding of factors that was measured may fall to the other side, where a factor's last digits depend on the order of a
    sum: rows of floats need then be no further off than the rounding allows.
    """
    for row in failing:
        if not _explains(fault, row, known) and (allowed is None or row.exact or not within(row, allowed)):
            return False
    return True


def _explains(fault: Fault, row: Row, known: Callable[[Row], list[Fault]]) -> bool:
    return fault.where(row.case.geometry) and reproduces([*known(row), fault], row)


def _contradicts(fault: Fault, row: Row, known: Callable[[Row], list[Fault]]) -> bool:
    """Whether a right row would be wrong with the fault."""
    return fault.where(row.case.geometry) and spoils([*known(row), fault], row)


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
            and max(kept.factor("y", "x"), kept.factor("y", "kernel")) <= DIGITS[short]
        ):
            words = f"computes the convolutions of {dtype} in {short}: x, the kernel and the sums"
        look_at = "the type in which sums are formed, or what hello declares under numerics"
        found.append(Rounding(name, words, look_at, tuple(mine)))
    return found
