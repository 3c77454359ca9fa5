"""The case table itself: every case can be computed exactly where it says so, and the core passes all of them."""

import ml_dtypes
import numpy as np
import pytest

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.draws import DIGITS, KNOWN, ROUNDED_ONCE, SINGLE, TINY
from doconv_conformance.cases.table import DTYPES, EXACT_LIMIT, STAGES, Case, cases, select
from doconv_conformance.port import OPERATIONS
from doconv_conformance.verdicts import integers
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Expected, Numerics, expected
from doconv_conformance.verdicts.judge import judge
from doconv_core import compose, compose_vjp, convolve, convolve_vjp

SEEDS = (0, 1, 2)


def test_ids_and_names_are_unique_and_every_stage_has_cases() -> None:
    table = cases()
    assert len({case.id for case in table}) == len({case.name for case in table}) == len(table)
    assert {case.stage(operation) for case, operation in select(extended=True)} == set(STAGES)


def test_the_first_part_has_no_large_tensors_and_the_extended_part_has_the_first() -> None:
    first, extended = select(), select(extended=True)
    assert {case.stage(operation) for case, operation in first} == set(STAGES) - {"large"}
    assert set(first) < set(extended)
    assert not [case for case, _ in first if case.extended or case.large]
    assert [case.large for case, _ in extended] == sorted(case.large for case, _ in extended)  # the last ones


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_of_exact_cases_are_exact_in_every_order(seed: int) -> None:
    """No sum of absolute values exceeds what the type counts exactly, intermediate kernels and their gradients included.

    In float32 the kernel and its gradient also fit the eleven bits of TF32, except with a tiny `D_delta`. Those of the
    parameters are summed in at least float32.
    """
    for case in cases(seed):
        if case.numbers not in ("integers", "wide") or case.large:
            continue
        kernel, grad_kernel, *others, grad_W, grad_D = sums_of_absolute_values(case)
        unit = 2.0 ** TINY[case.dtype] if case.delta == "tiny" else 1.0
        limit = EXACT_LIMIT[case.dtype] * unit
        assert max(tensor.max() for tensor in others) <= limit, case.id
        tf32 = case.dtype != "float64" and case.delta != "tiny"
        assert max(kernel.max(), grad_kernel.max()) <= min(limit, 2**11 if tf32 else limit), case.id
        wide = max(EXACT_LIMIT[case.dtype], EXACT_LIMIT["float32"]) * unit
        assert max(grad_W.max(), grad_D.max()) <= wide, case.id


def test_sums_of_large_cases_are_exact_in_every_order() -> None:
    for case in (case for case in cases() if case.large):
        for operation in case.operations:
            for name, want in expected(case, operation).items():
                assert want.scale.max() / UNIT_ROUNDOFF[case.dtype] <= EXACT_LIMIT[case.dtype], (
                    case.id,
                    operation,
                    name,
                )


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_of_cases_rounded_once_are_exact_in_float32(seed: int) -> None:
    """In units of what the numbers are multiples of; the composed kernel, or its gradient, fits the type, nothing overflows.

    Products of float32 numbers have sums that are exact in float64.
    """
    for case in cases(seed):
        if case.numbers not in ROUNDED_ONCE:
            continue
        unit = 2.0 ** -DIGITS[case.dtype] if case.numbers == "residual" else 1.0
        limit = EXACT_LIMIT["float64" if case.dtype == "float32" else "float32"]
        assert max(tensor.max() for tensor in sums_of_absolute_values(case)) / unit <= limit, case.id
        tensors = {name: tensor.astype(np.float64) for name, tensor in case.tensors.items()}
        held = compose(tensors["W"], tensors["D_delta"], case.geometry)
        if case.numbers.startswith("gradients"):
            held = convolve_vjp(tensors["x"], held, tensors["grad_y"], case.geometry)[1]
        np.testing.assert_array_equal(held.astype(DTYPES[case.dtype]), held, err_msg=case.id)
        for output in (expected(case, operation) for operation in case.operations):
            assert all(np.abs(want.value).max() < ml_dtypes.finfo(want.dtype).max for want in output.values()), case.id


@pytest.mark.parametrize("seed", SEEDS)
def test_single_products_are_rounded_overflow_and_fall_below_the_smallest_normal_number(seed: int) -> None:
    """Every kind shows what it is made for, in each of its cases, and no sum is left to the order of its terms."""
    for case in (case for case in cases(seed) if case.exact and case.numbers not in ("integers", "wide")):
        tensors = {name: tensor.astype(np.float64) for name, tensor in case.tensors.items()}
        if case.numbers in SINGLE:
            for name in ("x", "grad_y"):
                assert (np.count_nonzero(tensors[name].reshape(case.batch, -1), axis=1) == 1).all(), case.id
        kernel = compose(tensors["W"], tensors["D_delta"], case.geometry)
        y = expected(case, "forward")["y"].value
        if case.numbers == "rounding":
            assert (kernel.astype(DTYPES[case.dtype]) != kernel).any(), case.id
        elif case.numbers == "overflow":
            np.testing.assert_array_equal(kernel.astype(DTYPES[case.dtype]), kernel, err_msg=case.id)
            outputs = [want.value for name in case.operations for want in expected(case, name).values()]
            assert not any(np.isnan(value).any() for value in outputs)
            assert np.isinf(y).any(), case.id
        elif case.numbers != "subnormal":
            small = np.abs(tensors["x"] if case.numbers == "subnormal-inputs" else kernel)
            assert 0 < small.max() < np.finfo(np.float16).smallest_normal
        if case.numbers.startswith("subnormal"):
            small = np.abs(y[y != 0])
            assert (small < np.finfo(np.float16).smallest_normal).any(), case.id


def sums_of_absolute_values(case: Case) -> list[np.ndarray]:
    """Of the composed kernel, its gradient, the output and the other gradients of the convolution and the composition."""
    size = {name: np.abs(tensor.astype(np.float64)) for name, tensor in case.tensors.items()}
    kernel = compose(size["W"], size.get("D_delta"), case.geometry)
    used = kernel
    if case.numbers == "cancelling":  # what is large in the sum of the kernel is gone from the kernel
        parameters = [case.tensors[name].astype(np.float64) for name in ("W", "D_delta")]
        used = np.abs(compose(*parameters, case.geometry))
    y = convolve(size["x"], used, size.get("bias"), case.geometry)
    grad_x, grad_kernel, grad_bias = convolve_vjp(size["x"], used, size["grad_y"], case.geometry)
    grad_W, grad_D = compose_vjp(size["W"], size.get("D_delta"), grad_kernel, case.geometry)
    return [kernel, grad_kernel, y, grad_x, grad_bias, grad_W, np.zeros(1) if grad_D is None else grad_D]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_integer_evaluation_equals_the_core(operation: str) -> None:
    """Two implementations that share no code: integers and the NumPy core."""
    port = CorePort()
    for case in cases():
        if case.numbers in KNOWN and operation in case.operations:
            with np.errstate(over="ignore"):
                outputs = getattr(port, operation)(case.geometry, case.inputs(operation))
            for name, value in integers.expected(case, operation).items():
                np.testing.assert_array_equal(
                    outputs[name].astype(np.float64), value, err_msg=f"{case.id} {operation} {name}"
                )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_core_passes_every_case(seed: int) -> None:
    port = CorePort()
    numerics = Numerics(port.numerics["algorithm"], port.numerics["accumulator"])
    for case, operation in select(seed=seed, extended=True):
        if seed and (case.large or (case.extended and case.numbers == "floats")):
            continue  # once is enough of what is slow, and of numbers that show nothing in particular
        with np.errstate(over="ignore"):
            outputs = getattr(port, operation)(case.geometry, case.inputs(operation))
        verdict = judge(expected(case, operation, numerics), outputs, exact=case.exact or operation == "initialise")
        assert verdict["verdict"] in ("exact", "within_bound"), (case.id, operation, verdict)


@pytest.mark.parametrize("seed", SEEDS)
def test_many_positions_added_up_in_the_type_are_far_from_their_sum(seed: int) -> None:
    for case in (case for case in cases(seed) if case.numbers == "gradients-of-bias"):
        right, dtype = expected(case, "backward")["grad_bias"].value, DTYPES[case.dtype]
        total = np.zeros(case.geometry.out_channels, dtype)
        for values in np.moveaxis(case.tensors["grad_y"], 1, -1).reshape(-1, case.geometry.out_channels):
            total = (total.astype(np.float64) + values).astype(dtype)
        roundings = np.abs(total.astype(np.float64) - right) / (ml_dtypes.finfo(dtype).eps / 2 * right)
        assert roundings.max() > 30, case.id


def test_select_refuses_what_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"stage must be one of compose, .* Received: 'composition'"):
        select(stage="composition")
    with pytest.raises(ValueError, match=r"no case begins with that. Received: 'nothing'"):
        select(case="nothing")


def want(value: float, bound: float, scale: float) -> dict[str, Expected]:
    full = [np.full((2,), number) for number in (value, bound, scale)]
    return {"y": Expected(*full, np.dtype(np.float32))}


@pytest.mark.parametrize(
    ("outputs", "exact", "verdict", "text"),
    [
        ({"y": np.float32([3, 3])}, True, "exact", ""),
        ({"y": np.float32([3, np.nextafter(np.float32(3), np.float32(4))])}, True, "mismatch", r"y\[1\] is 3.0000002"),
        ({"y": np.float32([3, 3.5])}, False, "within_bound", ""),
        ({"y": np.float32([3, 4.5])}, False, "inaccurate", ""),
        ({"y": np.float32([3, 5.5])}, False, "mismatch", r"y\[1\] is 5.5; must be 3 within 2 \(1 of 2"),
        ({"y": np.float32([3, np.nan])}, False, "mismatch", r"y\[1\] is nan; must be 3"),
        ({"y": np.float32([3, np.inf])}, False, "mismatch", r"y\[1\] is inf"),
        ({"y": np.float32([np.inf, np.inf])}, True, "mismatch", r"y\[0\] is inf; must be 3"),
        ({"y": np.float64([3, 3])}, True, "mismatch", "y must be float32; received float64"),
        ({"y": np.float32([3])}, True, "mismatch", r"y must have shape \(2,\); received \(1,\)"),
        ({"z": np.float32([3, 3])}, True, "mismatch", r"output y is missing; received \['z'\]"),
        ({"y": np.float32([3, 3]), "z": np.float32([3])}, True, "mismatch", r"outputs \['z'\] were not asked for"),
    ],
)
def test_verdicts(outputs: dict, exact: bool, verdict: str, text: str) -> None:
    import re

    result = judge(want(3, 2, 1 / 16), outputs, exact=exact)
    assert result["verdict"] == verdict
    assert re.search(text, result["reason"]) if text else result["reason"] == ""


@pytest.mark.parametrize(
    ("got", "verdict"), [(np.inf, "exact"), (65504, "mismatch"), (-np.inf, "mismatch"), (np.nan, "mismatch")]
)
def test_infinity_is_right_where_a_result_is_too_large_for_the_type(got: float, verdict: str) -> None:
    result = judge(want(np.inf, 0, 1), {"y": np.float32([np.inf, got])}, exact=True)
    assert result["verdict"] == verdict
    assert ("y[1]" in result["reason"]) == (verdict == "mismatch")
