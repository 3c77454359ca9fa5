"""Training: the layers follow the core's own steps, and no column of `W` and `D` is dead."""

import keras
import numpy as np
import pytest

import doconv_keras
from doconv_conformance.layer_checks.training import LEARNING_RATE, TRAININGS, Training, expected
from doconv_conformance.verdicts.judge import judge
from doconv_keras._arrays import to_numpy

pytestmark = pytest.mark.skipif(keras.backend.backend() == "numpy", reason="Keras's numpy backend has no gradients")
# Each layer is compiled by its framework; in float64 the bound is so narrow that nothing else is needed.
DTYPE = "float32" if keras.backend.backend() == "jax" else "float64"  # JAX has float64 by a switch for the process only
by_name = pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)


class Loss(keras.losses.Loss):
    """`0.5 * sum((y - target)**2)`, the loss of `training`."""

    def call(self, target: object, y: object) -> object:
        return 0.5 * keras.ops.sum(keras.ops.square(y - target))


def layer(training: Training, dtype: str, plain: bool = False) -> keras.layers.Layer:
    g = training.geometry
    depthwise = g.groups == g.in_channels > 1
    kind = "Depthwise" if depthwise else ""
    cls = getattr(keras.layers if plain else doconv_keras,
                  f"{'' if plain else 'DO'}{kind}Conv{g.spatial_rank}D{'Transpose' if g.transposed else ''}")  # fmt: skip
    options = {"strides": g.stride, "dilation_rate": g.dilation, "dtype": dtype}
    options |= {} if plain else {"d_mul": g.d_mul}
    if depthwise:
        options["depth_multiplier"] = g.out_channels // g.in_channels
    else:
        options |= {"filters": g.out_channels} | ({} if g.transposed else {"groups": g.groups})
    conv = cls(kernel_size=g.kernel_size, **options)
    conv.build((None, *training.input_size, g.in_channels))
    return conv


def steps(conv: keras.layers.Layer, training: Training, count: int) -> None:
    model = keras.Sequential(
        [keras.Input((*training.input_size, training.geometry.in_channels), dtype=conv.dtype), conv]
    )
    model.compile(keras.optimizers.SGD(LEARNING_RATE), Loss(reduction=None, dtype=conv.dtype), jit_compile=False)
    for x, target in zip(training.x[:count], training.target, strict=False):
        model.train_on_batch(np.moveaxis(x, 1, -1).astype(conv.dtype), np.moveaxis(target, 1, -1).astype(conv.dtype))


@by_name
def test_ten_steps_follow_the_core(training: Training) -> None:
    conv = layer(training, DTYPE)
    layout = conv.layout()
    conv.W.assign(layout.w_from_canonical(training.start["W"]))
    conv.D.assign(layout.d_from_canonical(training.start["D_delta"]))
    conv.bias.assign(training.start["bias"])
    steps(conv, training, len(training.x))
    outputs = {
        "W": layout.w_to_canonical(to_numpy(conv.W)),
        "D_delta": layout.d_to_canonical(to_numpy(conv.D)),
        "bias": to_numpy(conv.bias),
    }
    judgement = judge(expected(training, DTYPE), outputs, exact=False)
    assert judgement["verdict"] == "within_bound", judgement["reason"]


def moved(conv: keras.layers.Layer, training: Training, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which columns of `W` and of `D` have moved in each of their entries, and that the others have in none."""
    layout = conv.layout()

    def state() -> list[np.ndarray]:
        return [layout.w_to_canonical(to_numpy(conv.W)), layout.d_to_canonical(to_numpy(conv.D))]

    before = state()
    steps(conv, training, count)
    result = []
    for old, new in zip(before, state(), strict=True):
        changed = (old != new).reshape(-1, old.shape[-1])
        assert (changed.all(0) | ~changed.any(0)).all()
        result.append(changed.all(0))
    return result[0], result[1]


@pytest.mark.parametrize("training", [TRAININGS[0], TRAININGS[-1]], ids=lambda training: training.name)
def test_one_step_moves_what_has_a_gradient_and_two_move_everything(training: Training) -> None:
    """At `D_delta = 0`, with `g = dL/dW'`: `dL/dW = g E` and `dL/dD_delta = sum over the kernels of g W`.

    So a column of `W` moves where `E` has a one in it, which surplus columns (`S` no multiple of `K`) have not; a column of `D`
    where `W` is not zero. A fresh `W` is zero nowhere. A layer made from a kernel has zeros in its second and later tiles, and
    random numbers in its surplus columns. What stands still in the first step meets a partner that has moved in the second.
    """
    taps, multiplier = training.geometry.taps, training.geometry.d_mul
    columns = np.arange(multiplier)
    in_tile, in_first = columns < multiplier - multiplier % taps, columns < taps

    def fresh() -> keras.layers.Layer:
        keras.utils.set_random_seed(0)
        return layer(training, DTYPE)

    def converted() -> keras.layers.Layer:
        keras.utils.set_random_seed(0)
        return doconv_keras.overparameterize(layer(training, DTYPE, plain=True), d_mul=multiplier)

    np.testing.assert_array_equal(moved(fresh(), training, 1), [in_tile, np.ones_like(in_tile)])
    np.testing.assert_array_equal(moved(converted(), training, 1), [in_tile, in_first | ~in_tile])
    for conv in (fresh(), converted()):
        assert np.all(moved(conv, training, 2))


def test_surplus_columns_are_among_the_trainings() -> None:
    assert TRAININGS[-1].geometry.d_mul % TRAININGS[-1].geometry.taps
