"""The diagnosis by questions: stage by stage, what a port computes is measured, put in words, and checked on all its rows.

An earlier stage is explained first. What is found there is planted in the reference before a later stage is looked at, so that
only what is wrong there itself is left. A claim stands only if, planted, it gives the port's values on every failing row of the
condition that it names; else the rows are "unknown", with what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from doconv_conformance.cases.table import STAGES, Case
from doconv_conformance.diagnosis import (
    composition,
    convolution,
    gradient_faults,
    gradients,
    linear,
    selections,
    shrinking,
    starting,
    structure,
    values,
)
from doconv_conformance.diagnosis.agreement import reproduces, same
from doconv_conformance.diagnosis.asking import OVER, Asker, Spent, question_of, random_question
from doconv_conformance.diagnosis.loops import search
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.diagnosis.scope import EVERYWHERE, Scope, best
from doconv_conformance.diagnosis.variants import of_other_ranks, variants
from doconv_conformance.faults import CATALOGUE, Fault
from doconv_conformance.faults.precision import PRECISION
from doconv_conformance.port import OPERATIONS
from doconv_conformance.verdicts.judge import judge
from doconv_core.geometry import ConvGeometry

# Hooks that show in `compose`: where that is right, the same mistake inside `forward` has a hook of its own.
COMPOSED = {"W", "D_delta", "kernel", "rows", "identity", "delta", "compose"}
ROUNDS = 4
TRIED = 3
FITS = 24
# Of more, those that explain the most of so many failing rows are taken.
MOST_COMPARED = 8
# A condition on fewer answers than this, further ones among them, would be an accident.
LEAST_IN_SCOPE = 3
LEAST_OF_SEVERAL = 5
# Geometries that one fault explains without a condition that tells them from the others.
LEAST_WITHOUT_WORDS = 12
# Rows in which it is looked where an output is wrong.
MOST_LOCATED = 24
# Of fewer failing rows it is an accident where their sizes begin.
LEAST_TOLD = 8
# A finding that is no claim is a fact where it holds in this part of its rows; in fewer it is an accident.
MOSTLY = 0.75
# Rows of more products than this are looked at once a claim is made, not for each that is tried.
LARGE = 2**17
# Conditions that are said by the steps of an edit of the loops that both kinds of layer share.
KINDS_OF_LAYER = ("in transposed convolutions only", "except in transposed convolutions", "")
# Gradients of more products are looked for on a smaller case, where each that is tried takes a fraction of the time.
SLOW = 2**12
# Entries of W beyond which a composition is not asked about one by one.
LARGEST_ASKED = 2**18


@dataclass(frozen=True)
class Finding:
    """A fault that is made, and where.

    Attributes:
        faults: planted together; as a rule one.
        scope: the cases it is made in.
        operations: where it shows.
        stage: the operation that it was found in.
        only: the operations, where it is not made in others that it would show in.
    """

    faults: tuple[Fault, ...]
    scope: Scope
    operations: frozenset[str]
    stage: str
    only: tuple[str, ...] = ()

    def active(self, row: Row) -> bool:
        """Whether it is made in a row."""
        return row.operation in self.operations and self.scope.holds(row.case)

    @property
    def words(self) -> str:
        """As a clause that completes "a port that ..."."""
        words = ", and ".join(fault.words for fault in self.faults)
        where = f"in {' and '.join(self.only)} only" if self.only else ""
        return ", ".join(filter(None, (words, self.scope.words, where)))


@dataclass
class Measured:
    """What came of it.

    Attributes:
        findings: what is claimed, in the order of the stages.
        explained: for each finding the failing rows that it takes part in explaining.
        unknown: failing rows that nothing explains, by the stage they are of.
        facts: of each such stage what was measured.
        where: of each such stage the condition on the rows that are wrong, in words, where there is one.
    """

    findings: list[Finding] = field(default_factory=list)
    explained: list[list[Row]] = field(default_factory=list)
    unknown: dict[str, list[Row]] = field(default_factory=dict)
    facts: dict[str, list[str]] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)


def measure(
    rows: Sequence[Row], asker: Asker, say: Callable[[str], None], catalogue: Sequence[Fault] = CATALOGUE,
    found: Sequence[Finding] = (),
) -> Measured:  # fmt: skip
    """Explain the failing rows among `rows`, all of exact values; other rows are the business of the arithmetic.

    Args:
        rows: the port's answers on exact cases, right ones among them.
        asker: for further questions.
        say: called with what is being tried.
        catalogue: the listed faults that may be used.
        found: what is known already.
    """
    state = _State(rows, asker, say, catalogue)
    state.findings = list(found)
    for operation in OPERATIONS:
        try:
            state.stage(operation)
        except Spent:
            state.give_up(operation, OVER)
    return state.result()


class _State:
    """The work in progress."""

    def __init__(
        self, rows: Sequence[Row], asker: Asker, say: Callable[[str], None], catalogue: Sequence[Fault]
    ) -> None:
        self.rows = list(rows)
        self.asker, self.say, self.catalogue = asker, say, list(catalogue)
        self.findings: list[Finding] = []
        self.measured = Measured()
        self.spoilt: set[object] = set()
        self.given_up: set[str] = set()

    def faults(self, row: Row, findings: Iterable[Finding] | None = None) -> list[Fault]:
        """What is planted in a row."""
        active = [item for item in (self.findings if findings is None else findings) if item.active(row)]
        return [fault for item in active for fault in item.faults if fault.where(row.case.geometry)]

    def stage(self, operation: str) -> None:
        """Explain the rows of one operation."""
        rows = [row for row in self.rows if row.operation == operation]
        if not any(row.failed for row in rows):
            return
        self._inherit(operation, rows)
        self._rounds(operation, rows)
        if narrowed := self._narrow(operation, rows):
            self._rounds(operation, rows)
            self._keep_honest(narrowed, rows)
        self._note_unknown(operation, rows)

    def _rounds(self, operation: str, rows: Sequence[Row]) -> None:
        """Explain one row after the other, the smallest first."""
        tried: list[Row] = []
        for _ in range(ROUNDS):
            open_ = [row for row in rows if row.failed and row not in tried and not reproduces(self.faults(row), row)]
            open_ = [row for row in open_ if row.case.geometry not in self.spoilt]
            if not open_ or len(tried) == TRIED:
                break
            row = min(open_, key=lambda row: (_has_nan(row), *_size(row)))
            self.say(f"{operation}: asking at {row.case.name}")
            if not self._explain(operation, row, rows):
                tried.append(row)

    def _open(self, item: Finding, rows: Sequence[Row]) -> list[Row]:
        """Failing rows that a finding changes and that are not explained."""
        return [row for row in rows if row.failed and item.active(row) and not reproduces(self.faults(row), row)
                and self._shows(item, row)]  # fmt: skip

    def _narrow(self, operation: str, rows: Sequence[Row]) -> list[tuple[int, Finding]]:
        """Give findings of this operation a condition that leaves out the rows that they do not explain, if one does.

        There something else may be wrong in their place. The findings that were narrowed come back, as they were.
        """
        before = list[tuple[int, Finding]]()
        for at, item in enumerate(self.findings):
            if item.stage != operation or not (open_ := self._open(item, rows)):
                continue
            others = [other for other in self.findings if other is not item]
            gains = np.array([
                row.failed and item.active(row) and reproduces(self.faults(row), row)
                and not reproduces(self.faults(row, others), row) for row in rows
            ])  # fmt: skip
            losses = np.array([row in open_ or self._would_break(item, row) for row in rows])
            found = best(rows, gains, losses) if gains.sum() >= LEAST_IN_SCOPE else None
            if found is not None:
                before.append((at, item))
                self.findings[at] = replace(item, scope=found[0])
        return before

    def _would_break(self, item: Finding, row: Row) -> bool:
        usable = [fault for fault in item.faults if fault.where(row.case.geometry)]
        return not row.failed and not reproduces([*self.faults(row), *usable], row)

    def _keep_honest(self, narrowed: Sequence[tuple[int, Finding]], rows: Sequence[Row]) -> None:
        """Where nothing was found for the rows that a narrowed condition leaves out, say in how many it holds instead."""
        for at, item in narrowed:
            now, shown = self.findings[at], [row for row in rows if row.failed and item.active(row)]
            if any(not reproduces(self.faults(row), row) and not now.active(row) for row in shown):
                count = sum(now.active(row) for row in shown)
                words = ", ".join(
                    filter(None, (item.scope.words, f"in {count} of the {len(shown)} failing cases there"))
                )
                self.findings[at] = replace(now, scope=Scope(words, now.scope.holds))

    def give_up(self, operation: str, why: str) -> None:
        """Leave the rest of an operation unexplained."""
        rows = [row for row in self.rows if row.operation == operation]
        self._inherit(operation, rows)
        self.given_up.add(operation)
        self._note_unknown(operation, rows, why)

    def result(self) -> Measured:
        """The findings that hold in every failing row they could show in, with the rows that each takes part in."""
        failed = [row for row in self.rows if row.failed]
        while True:
            active = {
                id(item): [row for row in failed if item.active(row) and self._shows(item, row)]
                for item in self.findings
            }
            untrue = [item for item in self.findings if self._is_untrue(active[id(item)])]
            if not untrue:
                break
            worst = max(untrue, key=lambda item: sum(not reproduces(self.faults(row), row) for row in active[id(item)]))
            untrue_in = {row.operation for row in active[id(worst)] if not reproduces(self.faults(row), row)}
            at = self.findings.index(worst)
            if kept := worst.operations - untrue_in:
                self.findings[at] = replace(worst, operations=kept)
                continue
            del self.findings[at]
            rows = sum(reproduces([*self.faults(row), *worst.faults], row) for row in active[id(worst)])
            if rows >= MOSTLY * len(active[id(worst)]):
                facts = self.measured.facts.setdefault(worst.stage, [])
                facts.append(f"{rows} of {len(active[id(worst)])} rows look as if it {worst.words}; the others do not")
        for item in sorted(self.findings, key=lambda item: len(active[id(item)])):
            others = [other for other in self.findings if other is not item]
            held = [row for row in failed if item.active(row) and reproduces(self.faults(row), row)]
            if held and all(reproduces(self.faults(row, others), row) for row in held):  # a wider one holds there
                self.findings = others
        for item in self.findings:
            self.measured.findings.append(replace(item, only=self._only(item)))
            self.measured.explained.append(active[id(item)])
        for operation in OPERATIONS:
            left = [row for row in failed if row.operation == operation and not reproduces(self.faults(row), row)]
            if left:
                self.measured.unknown[operation] = left
        return self.measured

    def _is_untrue(self, rows: Sequence[Row]) -> bool:
        """Whether rows contradict what is planted; where a few are no valid layer with it, a port may do anything."""
        left = [row for row in rows if not reproduces(self.faults(row), row)]
        return len(left) > (1 - MOSTLY) * len(rows) or any(
            run(self.faults(row), row.case.geometry, row.operation, row.case.inputs(row.operation)) is not None
            for row in left
        )

    def _only(self, item: Finding) -> tuple[str, ...]:
        """The operations that it is made in, where it could show in others that are right."""
        if self.given_up:
            return ()  # what was not looked at may have it, too
        others = {
            row.operation for row in self.rows
            if row.operation not in item.operations and not row.failed and item.scope.holds(row.case)
            and self._changes(item, row)
        }  # fmt: skip
        shown = {row.operation for row in self.rows if row.failed and item.active(row) and self._changes(item, row)}
        return tuple(name for name in OPERATIONS if name in shown) if others else ()

    def _shows(self, item: Finding, row: Row) -> bool:
        """Whether a finding changes a row, the others in place; of a very large row, whether all of them explain it."""
        if row.case.large:
            return reproduces(self.faults(row), row)
        with_ = run(self.faults(row), row.case.geometry, row.operation, row.case.inputs(row.operation))
        others = [other for other in self.findings if other is not item]
        without = run(self.faults(row, others), row.case.geometry, row.operation, row.case.inputs(row.operation))
        return not same(with_, without)

    def _inherit(self, operation: str, rows: Sequence[Row]) -> None:
        """Extend what was found in earlier operations to this one where it explains more rows than it breaks."""
        for at, item in enumerate(self.findings):
            if operation in item.operations:
                continue
            wider = Finding(item.faults, item.scope, item.operations | {operation}, item.stage)
            trial = [*self.findings[:at], wider, *self.findings[at + 1 :]]
            with_, without = (
                np.array([reproduces(self.faults(row, found), row) for row in rows]) for found in (trial, self.findings)
            )
            lost = (without & ~with_).sum()
            inside = [row for row in rows if item.scope.holds(row.case)]
            explains = not lost and with_.sum() > without.sum()
            if (
                not explains
                and operation == "backward"
                and (self._inherit_otherwise(at, rows) or self._inherit_grad_x(item, rows))
            ):
                continue
            # Where nothing speaks against it, what else is wrong here comes on top.
            if explains or (not lost and all(row.failed for row in inside if self._changes(wider, row))):
                self.findings = trial

    def _inherit_otherwise(self, at: int, rows: Sequence[Row]) -> bool:
        """The same for an edit of the loops that only some parts of backward have.

        Returns whether that explains rows, and breaks none.
        """
        item = self.findings[at]
        without = np.array([reproduces(self.faults(row), row) for row in rows])
        for faults in search.otherwise(item.faults):
            wider = replace(item, faults=faults, operations=item.operations | {"backward"})
            if item.scope.words in KINDS_OF_LAYER and any(":" in step for step in faults[0].hooks["loops"][0].steps):
                wider = replace(wider, scope=EVERYWHERE)  # which kind has it is said by the steps
            trial = [*self.findings[:at], wider, *self.findings[at + 1 :]]
            with_ = np.array([reproduces(self.faults(row, trial), row) for row in rows])
            if (with_ & ~without).any() and not (without & ~with_).any():
                self.findings = trial
                return True
        return False

    def _inherit_grad_x(self, item: Finding, rows: Sequence[Row]) -> bool:
        """The same where only the gradient of `x` shows it: the others have formulas of their own, and these are right.

        Returns whether that explains rows, and breaks none.
        """
        alone = replace(item, faults=(gradient_faults.in_grad_x_only(item.faults),), operations=frozenset({"backward"}))
        with_, without = (
            np.array([reproduces(self.faults(row, found), row) for row in rows])
            for found in ([*self.findings, alone], self.findings)
        )
        if (with_ & ~without).any() and not (without & ~with_).any():
            self.findings.append(replace(alone, stage="backward"))
            return True
        return False

    def _changes(self, item: Finding, row: Row) -> bool:
        if row.case.large:  # says nothing either way
            return row.failed
        planted = run(
            [fault for fault in item.faults if fault.where(row.case.geometry)],
            row.case.geometry,
            row.operation,
            row.case.inputs(row.operation),
        )
        right = run([], row.case.geometry, row.operation, row.case.inputs(row.operation))
        return not same(planted, right)

    def _explain(self, operation: str, row: Row, rows: Sequence[Row]) -> bool:
        """Find what explains one row, and how far it reaches; whether something did.

        Where what is listed leaves rows that fail, an edit of the loops may explain more of them.
        """
        chosen, most = None, 0
        try:
            # A NaN that nothing was computed from has no rule, but may have been read beyond an array.
            for of in (self._edited,) if _has_nan(row) else (self._fits, self._edited):
                found = self._choice(operation, row, rows, of(operation, row))
                explained = self._explained(found, rows) if found else 0
                if explained > most:
                    chosen, most = found, explained
                if most == sum(item.failed for item in rows):
                    break
        finally:
            self.findings += [chosen] if chosen else []
        return chosen is not None

    def _explained(self, found: Finding, rows: Sequence[Row]) -> int:
        """How many failing rows are explained with a finding."""
        return sum(item.failed and reproduces(self.faults(item, [*self.findings, found]), item) for item in rows)

    def _edited(self, operation: str, row: Row) -> list[tuple[Fault, ...]]:
        """Edits of the layer's loops that explain one row on top of what is known."""
        if _cost(row) > LARGE or operation == "initialise":
            return []
        others = {
            item.case.geometry: item for item in sorted(self.rows, key=_cost, reverse=True)
            if item.operation == operation and item.failed and item is not row and _cost(item) <= LARGE
        }  # fmt: skip
        some = sorted(others.values(), key=_cost)[:: max(1, len(others) // MOST_COMPARED)][:MOST_COMPARED]
        return search.fits(self.asker, row, lambda: [*some, *self._varied(operation, row)], self.faults)

    def _choice(
        self, operation: str, row: Row, rows: Sequence[Row], candidates: Sequence[tuple[Fault, ...]]
    ) -> Finding | None:
        """The widest of the candidates that large rows do not contradict."""
        candidates = self._likeliest(candidates, rows)
        everything, rows = rows, [item for item in rows if item is row or _cost(item) <= max(LARGE, _cost(row))]
        asked = self._varied(operation, row) if candidates and not row.case.large else []
        while True:
            chosen = self._widest(operation, row, rows, asked, candidates)
            if chosen is None:
                return None
            self.findings.append(chosen)
            contrary = [item for item in everything if self._contradicts(item, chosen)]  # the large ones, once
            self.findings.pop()
            if not contrary or all(item in rows for item in contrary):
                return chosen
            rows = [*rows, *contrary]

    def _likeliest(self, candidates: Sequence[tuple[Fault, ...]], rows: Sequence[Row]) -> list[tuple[Fault, ...]]:
        """Of more than can be looked at closely, those that explain the most of a few other rows."""
        if len(candidates) <= FITS:
            return list(candidates)
        others = {
            row.case.geometry: row
            for row in sorted(rows, key=_size, reverse=True)
            if row.failed and _cost(row) <= LARGE
        }
        some = list(others.values())[:: max(1, len(others) // MOST_COMPARED)]
        return sorted(candidates, key=lambda fit: -sum(self._reproduces_with(row, fit) for row in some))[:FITS]

    def _widest(
        self,
        operation: str,
        row: Row,
        rows: Sequence[Row],
        asked: Sequence[Row],
        candidates: Sequence[tuple[Fault, ...]],
    ) -> Finding | None:
        """The candidate that explains the most rows, each with the plainest condition that `asked` does not refute."""
        found_: list[tuple[tuple[int, bool, bool, int, int, int], Finding]] = []
        count, rows = len(rows), [*rows, *asked]
        base = np.array([reproduces(self.faults(item), item) for item in rows])
        for order, fit in enumerate(candidates):
            self.asker.check()
            finding = Finding(fit, EVERYWHERE, frozenset({operation}), operation)
            trial = [*self.findings, finding]
            with_ = np.array([reproduces(self.faults(item, trial), item) for item in rows])
            gains, losses = with_ & ~base, base & ~with_
            if not gains.any():
                continue
            found = best(rows, gains, losses) or self._where_it_fails(rows, gains, losses, base | with_)
            if found is None:
                continue  # right in some cases, with nothing that tells these from the others: an accident
            scope, mask = found
            if not scope.holds(row.case) or (scope is not EVERYWHERE and (mask & gains).sum() < LEAST_IN_SCOPE):
                continue
            won = {item.case.id for item, is_won in zip(rows[:count], (mask & gains)[:count], strict=True) if is_won}
            if len(won) < 2 and (" and " in scope.words or not self._holds_on_other_numbers(operation, row, fit)):
                continue  # one case fits several conditions by accident
            if any("loops" in fault.hooks for fault in fit):
                supported = scope is EVERYWHERE or (mask & gains).sum() >= LEAST_WITHOUT_WORDS
                if not self._is_plain(scope) or not supported:
                    continue  # of so many edits one fits some cases by accident
            is_rich = len(fit) > 1 or any(selections.names_a_number(fault) for fault in fit)
            if is_rich and scope is not EVERYWHERE and len(won) < LEAST_OF_SEVERAL:
                continue  # two mistakes, or a number, and a condition fit a few cases by accident
            left = (mask & ~base & ~with_)[:count]
            rank = (len(won), not left.any(), scope is EVERYWHERE, -len(fit), -scope.conditions, -order)
            found_.append((rank, Finding(fit, scope, frozenset({operation}), operation)))
        if not found_:
            return None
        found_.sort(key=lambda item: item[0], reverse=True)
        alike = [finding for rank, finding in found_ if rank[:-1] == found_[0][0][:-1]]
        return self._told_apart(operation, row, alike)

    def _is_plain(self, scope: Scope) -> bool:
        """Whether a condition is a single one, but for the kind of layer."""
        of_kind = any(words.removesuffix(" only") in scope.words for words in KINDS_OF_LAYER if words)
        return 1 <= scope.conditions <= 1 + of_kind

    def _where_it_fails(
        self, rows: Sequence[Row], gains: np.ndarray, losses: np.ndarray, explained: np.ndarray
    ) -> tuple[Scope, np.ndarray] | None:
        """All but the geometries that are right, where most of what fails is explained and no condition is found.

        Not of a few geometries, which would be an accident.
        """
        failing = np.array([row.failed for row in rows])
        of = [(row.case.geometry, row.case.bias) for row in rows]
        won, right = ({key for key, is_in in zip(of, which, strict=True) if is_in} for which in (gains, losses))
        too_many_left = (failing & ~explained).sum() > (1 - MOSTLY) * failing.sum()
        if len(won) < LEAST_WITHOUT_WORDS or won & right or too_many_left:
            return None
        words = f"in {gains.sum()} of the {(gains | losses).sum()} cases where it would show"
        return Scope(words, lambda case: (case.geometry, case.bias) not in right, 0), np.array(
            [key not in right for key in of]
        )

    def _varied(self, operation: str, row: Row) -> list[Row]:
        """Answers on the row's case with one option changed at a time."""
        if operation == "initialise":
            return []
        found, small = [], self._small(operation, row)
        plain = replace(small, numbers="integers", delta="unit", one_in=1, own=None)
        zero = variants(replace(plain, delta="zero")) if small.delta == "zero" else ()
        for case in (*variants(plain), *zero):
            answer = self.asker(operation, question_of(case))
            if answer is not None and set(answer) == set(row.got):
                item = Row(case, operation, answer, failed=False, numerics=row.numerics)
                failed = judge(item.want, answer, exact=item.exact)["verdict"] == "mismatch"
                found.append(Row(case, operation, answer, failed=failed, numerics=row.numerics))
        return found

    def _contradicts(self, row: Row, chosen: Finding) -> bool:
        """Whether a right row contradicts a finding."""
        return not row.failed and chosen.scope.holds(row.case) and not reproduces(self.faults(row), row)

    def _told_apart(self, operation: str, row: Row, alike: Sequence[Finding]) -> Finding | None:
        """The first of several that the cases do not tell apart which holds on larger ones, too; None where none does."""
        left = list(alike)
        if row.case.large:  # answers take too long
            return left[0]
        for case in (*larger(row.case), *of_other_ranks(row.case)):
            question = random_question(case, 4)
            answer = self.asker(operation, question)
            if answer is None:
                continue
            known = [fault for fault in self.faults(row) if fault.where(case.geometry)]
            agreeing = [
                item for item in left
                if same(answer, run([*known, *item.faults], case.geometry, operation, question.inputs(operation)))
            ]  # fmt: skip
            if not agreeing and case.geometry == row.case.geometry and all(item.scope is EVERYWHERE for item in left):
                return None
            left = agreeing or left
        return left[0]

    def _holds_on_other_numbers(self, operation: str, row: Row, fit: tuple[Fault, ...]) -> bool:
        for seed in (2, 3):
            question = random_question(row.case, seed)
            faults = [fault for fault in (*self.faults(row), *fit) if fault.where(row.case.geometry)]
            planted = run(faults, row.case.geometry, operation, question.inputs(operation))
            if planted is None or not same(self.asker(operation, question), planted):
                return False
        return True

    def _fits(self, operation: str, row: Row) -> list[tuple[Fault, ...]]:
        """Sets of faults that explain one row on top of what is known."""
        known = self.faults(row)
        if np.prod(row.case.geometry.w_shape) > LARGEST_ASKED and (lost := self._lost(row)):
            return lost
        case = self._small(operation, row)
        listed = [
            (fault,) for fault in self.catalogue
            if (operation == "compose" or not fault.hooks.keys() <= COMPOSED)
            and fault not in PRECISION  # the arithmetic has its own questions
            and self._reproduces_with(row, (fault,))
        ]  # fmt: skip
        found: list[tuple[Fault, ...]] = []
        if operation == "compose":
            found = composition.fits(self.asker, case, known)
            right = run(known, row.case.geometry, operation, row.case.inputs(operation))
            found += [(fault,) for fault in structure.limited(dict(row.got), right, case.geometry)]
        elif operation in ("forward", "fold"):
            found = structure.fold_fits(self.asker, case, known) if operation == "fold" else []
            found = found or structure.output_fits(
                self.asker, case, known, operation, lambda fit: self._reproduces_with(row, fit)
            )
        elif operation == "backward":
            found = gradients.fits(self.asker, case, known, set(CATALOGUE) - set(self.catalogue))
        elif operation == "initialise":
            found = starting.start_fits(row)
        if not found and not listed and operation in ("compose", "forward"):
            found = [(fault,) for fault in values.limits(self.asker, case, operation)]
        allowed = [fit for fit in found if self._is_allowed(fit) and self._has_effect(operation, row, fit)]
        return [*listed, *(fit for fit in allowed if self._reproduces_with(row, fit))]

    def _lost(self, row: Row) -> list[tuple[Fault, ...]]:
        """Of kernels too large to be asked about entry by entry: what `compose` leaves out of the row's own."""
        question = question_of(row.case)
        answer = self.asker("compose", question) if row.case.geometry.has_d else None
        if answer is None or "weight" not in answer:
            return []
        faults = composition.lost_parts(answer["weight"], question, self.faults(row))
        faults = faults or search.of_large(answer["weight"], question, self.faults(row))
        return [(fault,) for fault in faults if self._reproduces_with(row, (fault,))]

    def _small(self, operation: str, row: Row) -> Case:
        """A smaller case that fails as well, where the row is large."""
        if _cost(row) <= (SLOW if operation == "backward" else LARGE):
            return row.case
        return shrinking.shrunk(row.case, partial(self._fails, operation, self.faults(row)))[0]

    def _fails(self, operation: str, known: Sequence[Fault], case: Case) -> bool:
        """Whether a case is answered otherwise than by what is known."""
        question = random_question(case, 9)
        usable = [fault for fault in known if fault.where(case.geometry)]
        planted = run(usable, case.geometry, operation, question.inputs(operation))
        answer = self.asker(operation, question)
        return answer is not None and planted is not None and not same(answer, planted)

    def _has_effect(self, operation: str, row: Row, fit: Sequence[Fault]) -> bool:
        """Whether each fault changes the right answer; one that does nothing would explain what has another cause."""
        question = random_question(row.case, 1)
        inputs = question.inputs(operation)
        right = run([], row.case.geometry, operation, inputs)
        return all(
            fault.name.endswith(gradient_faults.OF_RIGHT)
            or not same(run([fault], row.case.geometry, operation, inputs), right)
            for fault in fit
        )

    def _is_allowed(self, fit: Sequence[Fault]) -> bool:
        left_out = set(CATALOGUE) - set(self.catalogue)
        return not left_out & set(fit)

    def _reproduces_with(self, row: Row, fit: Sequence[Fault]) -> bool:
        usable = [fault for fault in fit if fault.where(row.case.geometry)]
        return len(usable) == len(fit) and reproduces([*self.faults(row), *usable], row)

    def _note_unknown(self, operation: str, rows: Sequence[Row], why: str = "") -> None:
        left = [row for row in rows if row.failed and not reproduces(self.faults(row), row)]
        own = [row for row in left if row.case.geometry not in self.spoilt]
        if not left:
            return
        if operation == "compose" or own:
            self.spoilt |= {row.case.geometry for row in own}
        facts = list[str]()
        if own:
            if why:
                self.asker.reserve()
            try:
                facts += self._facts(operation, own)
            except Spent:
                why = OVER
        self.measured.facts[operation] = [*facts, *filter(None, [why])]
        if own:
            self.measured.where[operation] = self._whereabouts(operation, own, rows)

    def _whereabouts(self, operation: str, own: Sequence[Row], rows: Sequence[Row]) -> str:
        """The condition that tells the rows that are wrong from the right ones, if it holds on questions of its own, too."""
        try:
            asked = self._varied(operation, min(own, key=_size))
        except Spent:
            return ""
        every = [*rows, *asked]
        gains = np.array([row in own or (at >= len(rows) and row.failed) for at, row in enumerate(every)])
        losses = np.array([not row.failed for row in every])
        found = best(every, gains, losses) if losses.any() and len(own) > 2 else None
        return found[0].words if found else ""

    def _located(self, operation: str, rows: Sequence[Row]) -> list[str]:
        """In which part each output is wrong, where one has words, in all of the rows."""
        lines, samples = list[str](), dict[str, list[tuple[np.ndarray, np.ndarray, ConvGeometry]]]()
        for row in rows:
            right = run(self.faults(row), row.case.geometry, operation, row.case.inputs(operation))
            for name, value in (right or {}).items():
                got = row.got.get(name)
                if got is not None and got.shape == value.shape and (got != value).any():
                    samples.setdefault(name, []).append((got, value, row.case.geometry))
        for name, of_name in samples.items():
            tensor = f"out_{name}" if operation == "fold" else {"weight": "kernel"}.get(name, name)
            lines += selections.located(tensor, of_name)
        return lines

    def _facts(self, operation: str, rows: Sequence[Row]) -> list[str]:
        row = min(rows, key=_size)
        located = self._located(operation, sorted(rows, key=_size)[:MOST_LOCATED])
        known = self.faults(row)
        small, below = (row.case, list[shrinking.Below]())
        if operation != "initialise":
            small, below = shrinking.shrunk(row.case, partial(self._fails, operation, known))
        case = row.case if _cost(row) <= LARGE else small
        lines = structure.properties(self.asker, case, operation)
        if operation == "compose":
            lines += composition.facts(self.asker, case, known)
        elif operation == "forward":
            lines += structure.bias_facts(self.asker, case, known)
            measured = convolution.measure(self.asker, case, known)
            lines += convolution.facts(measured) if measured else []
        elif operation == "fold":
            lines += structure.fold_facts(self.asker, case, known)
        elif operation == "backward":
            lines += gradients.facts(self.asker, case, known)
        is_linear = not any("not linear" in line or "not affine" in line for line in lines)
        if is_linear and operation in ("compose", "forward", "backward"):
            wrong = self._wrong(operation, small, known)
            each = (linear.facts(self.asker, item, known, operation, wrong) for item in dict.fromkeys((case, small)))
            lines = [*next(filter(None, each), []), *lines]
        # What rows of the table contradict is true of that one geometry only.
        told = below if len(rows) >= LEAST_TOLD else ()
        sizes = [side.words for side in told if not any(side.holds(item.case) for item in rows)]
        return [*located, *lines, *sizes]

    def _wrong(self, operation: str, case: Case, known: Sequence[Fault]) -> list[str]:
        """The outputs that are not as what is known makes them."""
        question = random_question(case, 9)
        usable = [fault for fault in known if fault.where(case.geometry)]
        right, got = run(usable, case.geometry, operation, question.inputs(operation)), self.asker(operation, question)
        if right is None or got is None:
            return []
        return [name for name in right if name in got and not same({name: got[name]}, {name: right[name]})]


def larger(case: Case) -> list[Case]:
    """The case with a larger batch, more channels in each group, more groups, a larger input."""
    g = case.geometry

    def changed(**fields: Any) -> Case:
        return replace(case, name=f"{case.name}-larger", **fields)

    found = [changed(batch=case.batch + 3), changed(input_size=tuple(n + 3 for n in case.input_size))]
    if g.taps > 1:
        taller = (g.kernel_size[0] + 3, *g.kernel_size[1:])
        sizes = {"kernel_size": taller, "d_mul": g.d_mul - g.taps + int(np.prod(taller))}
        input_size = tuple(n + 3 * d for n, d in zip(case.input_size, g.dilation, strict=True))
        found.append(changed(geometry=ConvGeometry.from_json(g.to_json() | sizes), input_size=input_size))
    for factors in ({"in_channels": 3, "out_channels": 2}, {"in_channels": 3, "out_channels": 3, "groups": 3}):
        if g.groups == 1 and "groups" in factors:
            continue
        sizes = {name: getattr(g, name) * factor for name, factor in factors.items()}
        found.append(changed(geometry=ConvGeometry.from_json(g.to_json() | sizes)))
    return found


def _cost(row: Row) -> int:
    """Products of the convolution, about."""
    case = row.case
    return case.tensors["grad_y"].size * case.geometry.taps * case.geometry.in_channels // case.geometry.groups


def _has_nan(row: Row) -> bool:
    return any(np.isnan(value.astype(np.float64)).any() for value in row.got.values())


def _size(row: Row) -> tuple[bool, int, int, int]:
    """Plain numbers first: those at the limits of a type are the worst to measure on."""
    case = row.case
    return (
        case.numbers not in ("integers", "wide"),
        sum(tensor.size for tensor in case.inputs(row.operation).values()),
        STAGES.index(case.stage(row.operation)),
        case.geometry.taps,
    )
