"""Training: the layers follow the core's own steps, and no column of `W` and `D` is dead."""

import numpy as np
import pytest
import torch

import doconv_torch
from doconv_conformance.layer_checks.training import LEARNING_RATE, TRAININGS, Training, expected
from doconv_conformance.verdicts.judge import judge
from doconv_torch import DOConvMixin
from doconv_torch._arrays import to_numpy, to_tensor

by_name = pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)


def layer(training: Training, dtype: torch.dtype, cls: type | None = None) -> DOConvMixin:
    g = training.geometry
    cls = cls or getattr(doconv_torch, f"DOConv{'Transpose' if g.transposed else ''}{g.spatial_rank}d")
    added = {"d_mul": g.d_mul} if issubclass(cls, DOConvMixin) else {}
    return cls(
        g.in_channels, g.out_channels, g.kernel_size, stride=g.stride, dilation=g.dilation, groups=g.groups, dtype=dtype,
        **added,
    )  # fmt: skip


def steps(conv: DOConvMixin, training: Training, count: int) -> None:
    optimizer = torch.optim.SGD(conv.parameters(), lr=LEARNING_RATE)
    for x, target in zip(training.x[:count], training.target, strict=False):
        optimizer.zero_grad()
        y = conv(to_tensor(x).to(conv.W.dtype))
        (0.5 * (y - to_tensor(target).to(y.dtype)).square().sum()).backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@by_name
def test_ten_steps_follow_the_core(training: Training, dtype: str) -> None:
    conv = layer(training, getattr(torch, dtype))
    names = {"W": "W", "D": "D_delta", "bias": "bias"}
    conv.load_state_dict({ours: to_tensor(training.start[name]) for ours, name in names.items()})
    steps(conv, training, len(training.x))
    outputs = {name: to_numpy(getattr(conv, ours)) for ours, name in names.items()}
    judgement = judge(expected(training, dtype), outputs, exact=False)
    assert judgement["verdict"] == "within_bound", judgement["reason"]


def moved(conv: DOConvMixin, training: Training, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which columns of `W` and of `D` have moved in each of their entries, and that the others have in none."""
    before = {name: tensor.clone() for name, tensor in conv.state_dict().items()}
    steps(conv, training, count)
    result = []
    for name in ("W", "D"):
        changed = (getattr(conv, name) != before[name]).flatten(0, -2)
        assert (changed.all(0) | ~changed.any(0)).all()
        result.append(changed.all(0).numpy())
    return result[0], result[1]


@by_name
def test_one_step_moves_what_has_a_gradient_and_two_move_everything(training: Training) -> None:
    """At `D_delta = 0`, with `g = dL/dW'`: `dL/dW = g E` and `dL/dD_delta = sum over the kernels of g W`.

    So a column of `W` moves where `E` has a one in it, which surplus columns (`S` no multiple of `K`) have not; a column of `D`
    where `W` is not zero. A fresh `W` is zero nowhere. A layer made from a kernel has zeros in its second and later tiles, and
    random numbers in its surplus columns. What stands still in the first step meets a partner that has moved in the second.
    """
    taps, multiplier = training.geometry.taps, training.geometry.d_mul
    columns = np.arange(multiplier)
    in_tile, in_first = columns < multiplier - multiplier % taps, columns < taps

    def fresh() -> DOConvMixin:
        torch.manual_seed(0)
        return layer(training, torch.float64)

    def converted() -> DOConvMixin:
        return doconv_torch.overparameterize(layer(training, torch.float64, fresh().plain_class), d_mul=multiplier)

    np.testing.assert_array_equal(moved(fresh(), training, 1), [in_tile, np.ones_like(in_tile)])
    np.testing.assert_array_equal(moved(converted(), training, 1), [in_tile, in_first | ~in_tile])
    for conv in (fresh(), converted()):
        assert np.all(moved(conv, training, 2))


def test_surplus_columns_are_among_the_trainings() -> None:
    assert any(training.geometry.d_mul % training.geometry.taps for training in TRAININGS)
