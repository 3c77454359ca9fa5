"""The case table itself: every case can be computed exactly where it says so, and the core passes all of them."""

import numpy as np
import pytest

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.draws import DIGITS, ROUNDED_ONCE
from doconv_conformance.cases.table import DTYPES, EXACT_LIMIT, LOW_PRECISION, STAGES, Case, cases, select
from doconv_conformance.port import OPERATIONS
from doconv_conformance.verdicts import integers
from doconv_conformance.verdicts.bounds import Expected, Numerics, expected
from doconv_conformance.verdicts.judge import judge
from doconv_core import compose, compose_vjp, convolve, convolve_vjp

SEEDS = (0, 1, 2)


def test_ids_and_names_are_unique_and_every_stage_has_cases() -> None:
    table = cases()
    assert len({case.id for case in table}) == len({case.name for case in table}) == len(table)
    assert {case.stage(operation) for case, operation in select()} == set(STAGES)


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_of_exact_cases_are_exact_in_every_order(seed: int) -> None:
    """No sum of absolute values exceeds what the type counts exactly, intermediate kernels and their gradients included.

    In float32 the kernel and its gradient also fit the eleven bits of TF32.
    """
    for case in cases(seed):
        if not case.exact:
            continue
        kernel, grad_kernel, *others = sums_of_absolute_values(case)
        assert max(tensor.max() for tensor in others) <= EXACT_LIMIT[case.dtype], case.id
        assert max(kernel.max(), grad_kernel.max()) <= min(EXACT_LIMIT[case.dtype], 2**11), case.id


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_of_cases_rounded_once_are_exact_in_float32(seed: int) -> None:
    """In units of what the numbers are multiples of; the composed kernel fits the type, and nothing overflows."""
    for case in cases(seed):
        if case.numbers not in ROUNDED_ONCE:
            continue
        unit = 2.0 ** -DIGITS[case.dtype] if case.numbers == "residual" else 1.0
        assert max(tensor.max() for tensor in sums_of_absolute_values(case)) / unit <= EXACT_LIMIT["float32"], case.id
        kernel = compose(*(case.tensors[name].astype(np.float64) for name in ("W", "D_delta")), case.geometry)
        np.testing.assert_array_equal(kernel.astype(DTYPES[case.dtype]), kernel, err_msg=case.id)
        for output in (expected(case, operation) for operation in case.operations):
            assert max(np.abs(want.value).max() for want in output.values()) < np.finfo(np.float16).max, case.id


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
    gradients = compose_vjp(size["W"], size.get("D_delta"), grad_kernel, case.geometry)
    of_parameters = [] if case.exact else [gradient for gradient in gradients if gradient is not None]
    return [kernel, grad_kernel, y, grad_x, grad_bias, *of_parameters]


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "initialise"])
def test_integer_evaluation_equals_the_core(operation: str) -> None:
    """Two implementations that share no code: loops over Python integers and the NumPy core."""
    port = CorePort()
    for case in cases():
        if case.exact and case.dtype not in LOW_PRECISION and operation in case.operations:
            outputs = getattr(port, operation)(case.geometry, case.inputs(operation))
            for name, value in integers.expected(case, operation).items():
                np.testing.assert_array_equal(outputs[name], value, err_msg=f"{case.id} {operation} {name}")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_core_passes_every_case(seed: int) -> None:
    port = CorePort()
    numerics = Numerics(port.numerics["algorithm"], port.numerics["accumulator"])
    for case, operation in select(seed=seed):
        outputs = getattr(port, operation)(case.geometry, case.inputs(operation))
        verdict = judge(expected(case, operation, numerics), outputs, exact=case.exact or operation == "initialise")
        assert verdict["verdict"] in ("exact", "within_bound"), (case.id, operation, verdict)


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
