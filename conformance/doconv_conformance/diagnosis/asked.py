"""The diagnosis by asking: whether answers depend on earlier questions, then the structure, then the arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from doconv_conformance.cases.table import LOW_PRECISION
from doconv_conformance.diagnosis import reading, rounding, state
from doconv_conformance.diagnosis.agreement import reproduces
from doconv_conformance.diagnosis.asking import OVER, Asker, Spent
from doconv_conformance.diagnosis.claims import Diagnosis, claimed, size, unknown
from doconv_conformance.diagnosis.measured import Finding, Measured, measure
from doconv_conformance.diagnosis.planted import joined, run
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.faults import Fault
from doconv_conformance.verdicts.bounds import Numerics

# Fewer float32 rows than one in so many say nothing of the other types.
FEW = 8
# A claim that explains fewer rows than one in so many may be an accident: it is not said first.
MOST_TIMES = 10


def by_asking(
    rows: Sequence[Row], structure: Sequence[Row], asker: Asker, numerics: Numerics, catalogue: Sequence[Fault],
    say: Callable[[str], None],
) -> list[Diagnosis]:  # fmt: skip
    """What the failing rows are consistent with.

    Args:
        rows: the port's answers, in the order in which they were asked.
        structure: those of `rows` that decide the structure.
        asker: of the port, just started.
        numerics: what it says of its arithmetic.
        catalogue: the listed faults that may be used.
        say: called with a few words on what is being tried.
    """
    work = _Work(rows, asker, numerics, catalogue, say)
    try:
        work.reading()
        if not work.taken:
            work.state()
        work.structure([row for row in structure if row.key not in work.taken])
        work.arithmetic()
        work.structure_of_other_types()
        work.arithmetic()
    except Spent:
        work.facts.append(OVER)
    return work.result()


def _fits_in(row: Row) -> bool:
    """Whether every output has its shape; a port that takes another one for right may read beyond its buffers later."""
    return all(name in row.got and row.got[name].shape == want.value.shape for name, want in row.want.items())


class _Work:
    """What is claimed so far, and what is left."""

    def __init__(
        self, rows: Sequence[Row], asker: Asker, numerics: Numerics, catalogue: Sequence[Fault],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.rows, self.asker, self.numerics, self.catalogue, self.say = rows, asker, numerics, list(catalogue), say
        self.wrong = [row for row in rows if row.failed]
        self.measured = Measured()
        self.facts: list[str] = []
        self.found: dict[str, list[Diagnosis]] = {"state": [], "structure": [], "arithmetic": []}

    def reading(self) -> None:
        """Tensors that are taken for others: nothing else can be said then."""
        if order := reading.order_of_bytes(sorted(self.wrong, key=size)):
            words = f"takes the bytes of the tensors {order}, whatever data_offsets says"
            self._claim("state", "reading", words, "data_offsets in the header of a file of tensors", self.wrong)

    def state(self) -> None:
        """What depends on more than the question: nothing else can be said of these rows."""
        self.say("asking the same again")
        shapeless = {row.case.geometry for row in self.wrong if row.operation == "forward" and not _fits_in(row)}
        wrong = [row for row in self.wrong if row.operation == "forward" or row.case.geometry not in shapeless]
        words, facts, rows = state.depends(self.rows, sorted(wrong or self.wrong, key=size), self.asker)
        if words:
            look_at = "what is kept between questions: caches, buffers, globals"
            self._claim("state", "state", words, look_at, rows, facts)
            self.asker.restart()

    def structure(self, rows: Sequence[Row]) -> None:
        """What is computed where the types cannot matter."""
        if any(row.failed for row in rows):
            self.measured = measure(rows, self.asker, self.say, self.catalogue)
        self._claim_findings()

    def structure_of_other_types(self) -> None:
        """What is left of exact rows: where only other types than float32 are wrong."""
        spoilt = {row.case.geometry for of_stage in self.measured.unknown.values() for row in of_stage}
        taken, given_up = self.taken_by("state", "arithmetic"), self._mostly_unknown()
        left = [row for row in self.rows if row.key not in taken and row.operation not in given_up]
        exact = [row for row in left if row.exact and row.case.geometry not in spoilt]
        if not any(row.failed and not reproduces(self._planted(row), row) for row in exact):
            return
        known = [replace(item, only=()) for item in self.measured.findings]
        further = measure(exact, self.asker, self.say, self.catalogue, known)
        further.unknown |= self.measured.unknown
        further.facts |= self.measured.facts
        further.where |= self.measured.where
        self.measured = further
        self._claim_findings()

    def _mostly_unknown(self) -> set[str]:
        """Operations of which most of what fails in float32 has no explanation, and that is not little: so it is elsewhere."""
        exact = Counter(row.operation for row in self.wrong if row.exact)
        failed = Counter(row.operation for row in self.wrong if row.exact and row.case.dtype == "float32")
        unknown = {name: len(left) for name, left in self.measured.unknown.items()}
        return {name for name, left in unknown.items() if 2 * left > failed[name] and FEW * left > exact[name]}

    def taken_by(self, *stages: str) -> set[tuple[str, str]]:
        """The rows that are claimed in some stages."""
        return {key for stage in stages for item in self.found[stage] for key in item.cases}

    @property
    def taken(self) -> set[tuple[str, str]]:
        """The rows that are claimed."""
        return self.taken_by(*self.found)

    def _claim_findings(self) -> None:
        self.found["structure"].clear()
        of_state = self.taken_by("state")
        for item in self.measured.findings:
            others = [other for other in self.measured.findings if other is not item]
            mine = [
                row
                for row in self.wrong
                if row.key not in of_state
                and item.active(row)
                and reproduces(self._planted(row), row)
                and (not reproduces(self._planted(row, others), row) or self._is_first(item, row))
            ]
            name = "+".join(fault.name for fault in item.faults)
            look_at = "; ".join(dict.fromkeys(fault.look_at for fault in item.faults))
            mine += [row for row in self.wrong if row.key not in of_state and self._follows(item, row, mine)]
            self._claim("structure", name, item.words, look_at, mine, (f"found in {item.stage}",), item.faults)

    def _is_first(self, item: Finding, row: Row) -> bool:
        """Whether a row that several findings explain is left, and this one explains it without the others."""
        return row.key not in self.taken and reproduces(self._planted(row, [item]), row)

    def _follows(self, item: Finding, row: Row, mine: Sequence[Row]) -> bool:
        """Whether a gradient is of an output whose shape the finding makes another: nothing can be compared there."""
        if row.operation != "backward" or row in mine or not mine or not item.scope.holds(row.case):
            return False
        usable = [fault for fault in item.faults if fault.where(row.case.geometry)]
        planted = run(usable, row.case.geometry, "forward", row.case.inputs("forward"))
        return planted is not None and planted["y"].shape != row.case.tensors["grad_y"].shape

    def arithmetic(self) -> None:
        """Rows whose structure is right or explained."""
        spoilt = {(row.case.geometry, row.operation) for of_stage in self.measured.unknown.values() for row in of_stage}
        taken = self.taken
        every = [row for row in self.rows if row.key not in taken]
        left = [row for row in every if (row.case.geometry, row.operation) not in spoilt]
        if any(row.failed for row in every) and len(left) < len(every):  # a rounding that exact rows show, perhaps
            self._claim_arithmetic(every, of_size=False)
            taken = self.taken
            self.measured.unknown = {
                name: [row for row in rows if row.key not in taken] for name, rows in self.measured.unknown.items()
            }
        left = [row for row in left if row.key not in taken]
        if any(row.failed for row in left):
            self._claim_arithmetic(left, of_size=True)

    def _claim_arithmetic(self, rows: Sequence[Row], *, of_size: bool) -> None:
        claims, self.facts = rounding.explain(
            rows, self._planted, self.asker, self.numerics, self.catalogue, self.say, of_size=of_size
        )
        for one in claims:
            fault = (one.fault,) if one.fault else ()
            rows = one.rows
            if not fault and any(item.stage == "compose" for item in self.measured.findings):
                continue  # a wrong kernel makes errors of any size
            if not fault:  # read off the size of errors alone, which are of another kind where exact rows are wrong
                rows = tuple(row for row in rows if row.exact or row.operation not in self.measured.unknown)
            self._claim("arithmetic", one.name, one.words, one.look_at, rows, self.facts, fault)

    def result(self) -> list[Diagnosis]:
        """The claims in the order of the stages; what has no explanation first where it is by far the most."""
        taken, claims = self.taken, [item for of_stage in self.found.values() for item in of_stage]
        left = [row for row in self.wrong if row.key not in taken]
        if left:
            of_arithmetic = any(row.case.dtype in LOW_PRECISION or not row.exact for row in left)
            heads, facts = list[str](), list(self.facts) if of_arithmetic and not self.measured.findings else []
            for operation, lines in self.measured.facts.items():
                if not any(row.operation == operation for row in left):
                    continue
                head = " ".join(filter(None, (operation, self.measured.where.get(operation, ""))))
                if lines and lines != [OVER]:
                    heads.append(f"{head}: {'; '.join(lines[:2])}")
                    facts += lines[2:]
                else:
                    facts.append(OVER if lines else f"{head} is wrong on the same geometries")
            facts = facts if heads else [fact for fact in facts if fact == OVER]  # on the same as what was measured
            most = len(left) > MOST_TIMES * max((len(item.cases) for item in claims), default=0)
            found = unknown(left, len(self.wrong), heads, dict.fromkeys(facts), rest=bool(claims))
            claims.insert(0 if most else len(claims), found)
        return claims

    def _planted(self, row: Row, findings: Sequence[Finding] | None = None) -> list[Fault]:
        active = [item for item in (self.measured.findings if findings is None else findings) if item.active(row)]
        return [fault for item in active for fault in item.faults if fault.where(row.case.geometry)]

    def _claim(
        self, stage: str, name: str, words: str, look_at: str, rows: Sequence[Row], detail: Sequence[str] = (),
        faults: Sequence[Fault] = (),
    ) -> None:  # fmt: skip
        if not rows:
            return
        kind = "catalogue" if faults and all(fault in set(self.catalogue) for fault in faults) else "measured"
        fault = joined(faults) if faults else None
        self.found[stage].append(claimed(kind, name, words, look_at, rows, len(self.wrong), detail, fault))
