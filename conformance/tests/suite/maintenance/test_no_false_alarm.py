"""The check is neither too strict nor slack: honest draws stay inside their bounds, and one planted roundoff shows."""

import sys
from dataclasses import replace
from itertools import islice

import numpy as np

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.table import Case, select
from doconv_conformance.maintenance.no_false_alarm import alarms, random_cases
from doconv_conformance.protocol.session import Backend
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Expected, expected
from doconv_conformance.verdicts.judge import INACCURATE, judge

CORE = Backend("core", (sys.executable, "-m", "doconv_conformance.adapters.core"))
TWICE = """
from doconv_conformance.adapters.core import CorePort
from doconv_conformance.port import serve
forward = CorePort.forward
CorePort.forward = lambda *request: {name: 2 * value for name, value in forward(*request).items()}
serve(CorePort())
"""
FLOATS = [(case, name) for case, name in select() if case.numbers == "floats" and case.dtype == "float32"]
EXACT = [(case, name) for case, name in select() if case.exact and case.dtype == "float32"]


def test_no_draw_of_the_core_is_outside_its_bound() -> None:
    tallies = alarms(CORE, geometries=20, draws=5)
    assert {types: tally.wrong for types, tally in tallies.items() if tally.wrong} == {}
    assert tallies["float32/float32"].draws == 100
    assert {tally.draws for types, tally in tallies.items() if types != "float32/float32"} == {20}


def test_an_alarm_says_what_is_wrong_and_where() -> None:
    tallies = alarms(Backend("twice", (sys.executable, "-c", TWICE)), geometries=1, draws=1, low_draws=0)
    (line,) = tallies["float32/float32"].wrong
    assert line.startswith("forward float32/float32: y[")
    assert "in_channels=" in line


def test_geometries_differ_and_have_every_option() -> None:
    geometries = {case.geometry for case in islice(random_cases(0), 200)}
    assert len(geometries) == 200
    for option in ("spatial_rank", "groups", "transposed", "padding_mode", "stride", "dilation"):
        assert len({getattr(geometry, option) for geometry in geometries}) > 1, option
    assert any(geometry.d_mul > geometry.taps for geometry in geometries)


def answers(case: Case, operation: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = getattr(CorePort(), operation)(case.geometry, case.inputs(operation))
    return found


def test_one_unit_of_roundoff_in_one_element_of_an_exact_case_is_a_mismatch() -> None:
    for case, operation in EXACT:
        outputs, want = answers(case, operation), expected(case, operation)
        for name in outputs:
            planted = {**outputs, name: outputs[name].copy()}
            planted[name].flat[-1] = np.nextafter(planted[name].flat[-1], np.float32(np.inf))
            assert judge(want, planted, exact=True)["verdict"] == "mismatch", (case.id, operation, name)


def test_a_large_ratio_in_one_element_of_a_float_case_is_reported() -> None:
    """`r = 32` is inaccurate where the bound allows as much (its `n` is above 32), else a mismatch; never within the bound."""
    verdicts = set()
    for case, operation in FLOATS:
        want, outputs = expected(case, operation), answers(case, operation)
        for name, right in want.items():
            if not right.scale.any():
                continue  # a start and the bias of a folded layer are no sums
            verdict = judge(want, outputs | {name: with_ratio(right, 32)}, exact=False)
            largest = right.scale.argmax()
            allowed = right.bound.flat[largest] / right.scale.flat[largest]
            likely = {"inaccurate" if allowed > 32 else "mismatch"}
            if abs(allowed - 32) < 1.5:  # the planted value is itself rounded
                likely = {"inaccurate", "mismatch"}
            assert verdict["verdict"] in likely, (case.id, operation, name)
            assert verdict["verdict"] == "mismatch" or verdict["r"] > INACCURATE
            verdicts.add(verdict["verdict"])
    assert verdicts == {"inaccurate", "mismatch"}


def with_ratio(right: Expected, r: float) -> np.ndarray:
    """The right output with an error of `r` in units of `u * a` in the element of the largest `a`."""
    value, largest = right.value.astype(right.dtype), right.scale.argmax()
    value.flat[largest] = right.value.flat[largest] + r * right.scale.flat[largest]
    return value


def test_the_bound_of_an_output_is_that_of_the_contract() -> None:
    """`gamma(K * C_in/G + S + 2) * a`, and beside it only the reference's own roundings, which are of float64."""
    for case, operation in FLOATS:
        if operation == "forward":
            g, y = case.geometry, expected(case, operation)["y"]
            n, u = g.taps * g.in_channels // g.groups + g.d_mul + 2, UNIT_ROUNDOFF["float32"]
            # A rounding of the reference is 2**-53 / 2**-24 = 2e-9 of one that the bound allows.
            np.testing.assert_allclose(y.bound, n / (1 - n * u) * y.scale, rtol=1e-8)


def test_another_seed_draws_other_numbers() -> None:
    case, _ = FLOATS[0]
    assert not np.array_equal(case.tensors["W"], replace(case, seed=1).tensors["W"])
