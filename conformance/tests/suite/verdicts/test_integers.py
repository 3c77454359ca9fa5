"""The integer evaluation against its own definitions, added up product by product in Python integers."""

from fractions import Fraction

import numpy as np
import pytest

from doconv_conformance.cases.table import Case, cases
from doconv_conformance.verdicts import integers
from doconv_conformance.verdicts.integers import Scaled, composition_products, convolution_products

Numbers = dict[tuple[int, ...], Fraction]
# Exact cases of so few products that Python adds them up quickly.
FEW = 6000


def numbers(case: Case, name: str) -> Numbers:
    tensor = case.tensors.get(name)
    return {} if tensor is None else {index: Fraction(float(tensor[index])) for index in np.ndindex(*tensor.shape)}


def by_hand(case: Case) -> dict[str, Numbers]:
    """The composed kernel, the output and all gradients; every loop is written out."""
    g, w, d = case.geometry, numbers(case, "W"), numbers(case, "D_delta")
    x, grad_y, bias = (numbers(case, name) for name in ("x", "grad_y", "bias"))
    pairs = list(composition_products(case))
    kernel = dict.fromkeys(np.ndindex(*g.kernel_shape), Fraction(0))
    for kernel_key, d_key, w_key, identity in pairs:
        kernel[kernel_key] += (identity + d.get(d_key, 0)) * w[w_key]
    y = {key: bias.get((key[1],), Fraction(0)) for key in grad_y}
    grad_x, grad_kernel = dict.fromkeys(x, Fraction(0)), dict.fromkeys(kernel, Fraction(0))
    for y_key, x_key, kernel_key in convolution_products(case, case.tensors["grad_y"].shape):
        y[y_key] += kernel[kernel_key] * x[x_key]
        grad_x[x_key] += kernel[kernel_key] * grad_y[y_key]
        grad_kernel[kernel_key] += x[x_key] * grad_y[y_key]
    grad_w, grad_d, grad_bias = (dict.fromkeys(keys, Fraction(0)) for keys in (w, d, bias))
    for kernel_key, d_key, w_key, identity in pairs:
        grad_w[w_key] += (identity + d.get(d_key, 0)) * grad_kernel[kernel_key]
        if g.has_d:
            grad_d[d_key] += w[w_key] * grad_kernel[kernel_key]
    for key in grad_y if case.bias else ():
        grad_bias[(key[1],)] += grad_y[key]
    gradients = {"grad_x": grad_x, "grad_W": grad_w, "grad_D_delta": grad_d, "grad_bias": grad_bias}
    return {"weight": kernel, "y": y} | gradients


def few(case: Case) -> bool:
    g = case.geometry
    positions = np.prod(case.input_size if g.transposed else g.output_size(case.input_size))
    products = case.batch * positions * g.taps * g.in_channels * g.out_channels // g.groups
    return max(products, np.prod(g.w_shape) * g.taps) < FEW


def test_every_small_case_by_hand() -> None:
    """Numbers that are made to be rounded have no sums to check."""
    checked = [case for case in cases() if case.numbers in ("integers", "wide") and few(case)]
    assert len(checked) > 100
    for case in checked:
        right = by_hand(case)
        for operation in ("compose", "forward", "backward") if not case.large else ():
            for name, value in integers.expected(case, operation).items():
                hand = np.zeros(value.shape)
                for index, number in right[name].items():
                    hand[index] = number
                np.testing.assert_array_equal(value, hand, err_msg=f"{case.id} {operation} {name}")


def test_every_mode_and_both_directions_are_checked_by_hand() -> None:
    checked = [case.geometry for case in cases() if case.exact and few(case)]
    assert {(g.padding_mode, g.spatial_rank) for g in checked} == {
        (mode, rank) for mode in ("zeros", "reflect", "replicate", "circular") for rank in (1, 2, 3)
    }
    assert {(g.transposed, g.spatial_rank, g.groups > 1) for g in checked} == {
        (transposed, rank, grouped) for transposed in (False, True) for rank in (1, 2, 3) for grouped in (False, True)
    }


def test_scaled_holds_numbers_exactly_or_refuses() -> None:
    tensor = np.array([0.0, 3 * 2.0**-20, -5.0, 2.0**30])
    exact = Scaled.of(tensor)
    assert exact.exponent == -20
    assert exact.integers.tolist() == [0, 3, -5 * 2**20, 2**50]
    np.testing.assert_array_equal(exact.rounded("float64"), tensor)
    total = exact + Scaled(np.array([1, 1, 1, 1]), -22)
    assert total.exponent == -22
    np.testing.assert_array_equal(total.rounded("float64"), tensor + 2.0**-22)
    with pytest.raises(ValueError, match="span more than 62 bits"):
        Scaled.of(np.array([1.0, 2.0**63]))
