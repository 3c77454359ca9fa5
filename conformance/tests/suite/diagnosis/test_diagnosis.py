"""The diagnosis: the right fault first, a true description or "unknown" where the fault is not in the catalogue.

What is named is checked on other numbers than it was found with: there, too, it must give the port's values.
"""

import os
from collections.abc import Sequence

import numpy as np
import pytest

from doconv_conformance.cases.table import Case, select
from doconv_conformance.diagnosis.diagnose import Diagnosis, diagnose
from doconv_conformance.diagnosis.replay import answer
from doconv_conformance.faults import CATALOGUE, Fault
from doconv_conformance.faults.combined import COMBINED
from doconv_conformance.faults.precision import PRECISION
from doconv_conformance.verdicts.bounds import Numerics, expected
from doconv_conformance.verdicts.judge import Result, judge, judged_exactly, row

Pairs = Sequence[tuple[Case, str]]
Answers = tuple[list[Result], dict[tuple[str, str], dict[str, np.ndarray]]]
STRUCTURE = [
    (case, name) for case, name in select() if case.dtype == "float32" and (case.exact or name == "initialise")
]
WHOLE = [
    (case, name) for case, name in select(extended=True)
    if case.dtype == "float32" and case.exact and case.stage(name) != "large"
]  # fmt: skip
HONEST = Fault("honest", "makes no mistake", "nothing", {})
SOME = ("plain-3x3", "kernel-3x2", "groups-2-", "depthwise-times-2", "conv1d-", "transposed-3x3")
MIXED = [
    *((case, name) for case, name in select() if case.name.startswith(SOME)),
    *((case, name) for case, name in select(extended=True) if case.name.startswith("bias-positions-")),
]
# Faults that the exact float32 cases do not show.
ARITHMETIC = [fault for fault in CATALOGUE if fault in PRECISION or fault.name.startswith("fold-through")]
# Faults that need several options at once: a few rows of the whole table show each.
STRUCTURAL = [fault for fault in CATALOGUE if fault not in (*ARITHMETIC, *COMBINED)]
# All of the catalogue under `nox -s kill-matrix`.
EVERY = 1 if os.environ.get("DOCONV_FULL") else 8


def port(fault: Fault, pairs: Pairs) -> Answers:
    """What a port with the fault answers, and the verdicts."""
    results, outputs = [], {}
    for case, operation in pairs:
        found = answer(fault, case, operation)
        if found is None:
            results.append(row("port", case, operation, verdict="crashed", reason="raised"))
            continue
        outputs[case.id, operation] = found
        want, exact = expected(case, operation), judged_exactly(case, operation, Numerics())
        results.append(row("port", case, operation, **judge(want, found, exact=exact)))
    return results, outputs


def named(fault: Fault, pairs: Pairs, catalogue: Sequence[Fault] = CATALOGUE) -> list[Diagnosis]:
    return diagnose(*port(fault, pairs), catalogue=catalogue)


@pytest.mark.parametrize("fault", STRUCTURAL, ids=lambda fault: fault.name)
def test_a_structural_fault_is_named_first_and_explains_everything(fault: Fault) -> None:
    first, *others = named(fault, STRUCTURE)
    assert (first.kind, first.name, others) == ("catalogue", fault.name, [])
    assert first.complete
    assert first.consistent_with == f"the failures are consistent with a port that {fault.words}"


@pytest.mark.parametrize("fault", ARITHMETIC[::2] if EVERY > 1 else ARITHMETIC, ids=lambda fault: fault.name)
def test_a_fault_of_the_arithmetic_is_named_first(fault: Fault) -> None:
    first, *_ = named(fault, MIXED)
    assert (first.kind, first.name) == ("catalogue", fault.name)
    assert first.complete


@pytest.mark.parametrize("fault", STRUCTURAL[::EVERY], ids=lambda fault: fault.name)
def test_a_fault_outside_the_catalogue_gets_no_wrong_name(fault: Fault) -> None:
    """Whatever is named without it gives the port's values on other numbers, too, wherever it claims to."""
    claims_are_true(fault, named(fault, STRUCTURE, [other for other in CATALOGUE if other is not fault]))


@pytest.mark.parametrize("fault", COMBINED[::EVERY], ids=lambda fault: fault.name)
def test_a_fault_of_several_options_gets_no_wrong_name(fault: Fault) -> None:
    """On the exact float32 rows that it can touch. One that is of another type, or beyond a size, shows nothing there."""
    found = named(fault, [pair for pair in WHOLE if fault.where(pair[0].geometry)])
    if found:
        claims_are_true(fault, found)


@pytest.mark.parametrize("fault", ARITHMETIC if EVERY == 1 else ARITHMETIC[:2], ids=lambda fault: fault.name)
def test_arithmetic_outside_the_catalogue_gets_no_wrong_name(fault: Fault) -> None:
    """What is named instead is other arithmetic, whose bound holds the port's values, or nothing."""
    for diagnosis in named(fault, MIXED, [other for other in CATALOGUE if other is not fault]):
        assert diagnosis.kind in ("hypothesis", "unknown") or not diagnosis.complete, diagnosis


def claims_are_true(fault: Fault, found: Sequence[Diagnosis]) -> None:
    assert found
    names = {case.id: case.name for case, _ in select(extended=True)}
    other_numbers = {(case.name, operation): case for case, operation in select(seed=1, extended=True)}
    for diagnosis in found:
        if diagnosis.kind == "unknown":
            assert diagnosis.detail
            continue
        assert len({case for case, _ in diagnosis.cases}) >= 2
        for name, operation in diagnosis.cases:
            case = other_numbers[names[name], operation]
            want = answer(fault, case, operation)
            if diagnosis.name == "error":  # that the port fails there, and with what
                assert want is None
                continue
            assert diagnosis.fault
            got = answer(diagnosis.fault, case, operation)
            assert want is not None
            assert got is not None
            for output, value in want.items():
                np.testing.assert_array_equal(
                    got[output], value, err_msg=f"{fault.name} {diagnosis.name} {case.id} {output}"
                )


def test_an_honest_port_has_no_diagnosis() -> None:
    assert named(HONEST, STRUCTURE) == []
