"""The ten steps that layers are compared with: the bound holds for a right layer, and catches a wrong one."""

from collections.abc import Mapping

import numpy as np
import pytest

from doconv_conformance.layer_checks.training import LEARNING_RATE, TRAININGS, Training, expected
from doconv_conformance.verdicts.judge import judge
from doconv_core.composition import compose, compose_vjp
from doconv_core.convolution import convolve, convolve_vjp

MISTAKES = ("none", "learning rate", "no gradient of D", "gradient of W without D", "mean of squares", "momentum")


def train(training: Training, dtype: type, mistake: str = "none") -> Mapping[str, np.ndarray]:
    """A layer in NumPy that rounds the result of every stage to `dtype`."""
    g = training.geometry
    rate = LEARNING_RATE * (1 + 2.0**-10 if mistake == "learning rate" else 1)
    parameters = {name: value.astype(dtype) for name, value in training.start.items()}
    velocity = {name: np.zeros_like(value) for name, value in parameters.items()}
    for x, target in zip(training.x.astype(dtype), training.target.astype(dtype), strict=True):
        W, D, bias = parameters["W"], parameters["D_delta"], parameters["bias"]
        kernel = compose(W, D, g)
        residual = convolve(x, kernel, bias, g) - target
        if mistake == "mean of squares":
            residual = residual / residual.size
        _, grad_kernel, grad_bias = convolve_vjp(x, kernel, residual, g)
        grad_W, grad_D = compose_vjp(W, np.zeros_like(D) if mistake == "gradient of W without D" else D, grad_kernel, g)
        assert grad_D is not None
        gradients = {"W": grad_W, "D_delta": grad_D, "bias": grad_bias}
        if mistake == "no gradient of D":
            gradients["D_delta"] = np.zeros_like(D)
        for name, gradient in gradients.items():
            velocity[name] = gradient + (dtype(0.9) * velocity[name] if mistake == "momentum" else 0)
            parameters[name] = (parameters[name] - dtype(rate) * velocity[name]).astype(dtype)
    return parameters


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)
def test_a_layer_that_rounds_every_stage_stays_within_the_bound(training: Training, dtype: type) -> None:
    name = np.dtype(dtype).name
    judgement = judge(expected(training, name), train(training, dtype), exact=False)
    assert judgement["verdict"] == "within_bound", judgement["reason"]


@pytest.mark.parametrize("mistake", MISTAKES[1:])
@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)
def test_a_mistake_leaves_the_bound(training: Training, mistake: str) -> None:
    judgement = judge(expected(training), train(training, np.float64, mistake), exact=False)
    assert judgement["verdict"] == "mismatch"


@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)
def test_every_parameter_moves_far_beyond_the_bound_and_the_bound_grows_with_the_roundoff(training: Training) -> None:
    double, single = expected(training), expected(training, "float32")
    for name, want in double.items():
        moved = np.abs(want.value - training.start[name])
        assert np.median(moved) > 1e6 * want.bound.max()
        # Both are linear in u + v but for terms of second order: (2**-24 + 2**-53) / 2**-52, nearly.
        np.testing.assert_allclose(single[name].bound / want.bound, 2.0**28, rtol=0.05)


def test_all_numbers_are_exact_in_float32() -> None:
    for training in TRAININGS:
        for tensor in (*training.start.values(), training.x, training.target):
            np.testing.assert_array_equal(tensor, tensor.astype(np.float32))
