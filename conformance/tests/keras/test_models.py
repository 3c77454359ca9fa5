"""Whole models: over-parameterized without a change of their outputs, trained, folded, loaded into the plain architecture."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from conformance.tests.keras.architectures import MODELS, digits, inputs
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, gamma
from doconv_keras import fold, inspect_model, overparameterize
from doconv_keras._arrays import to_numpy
from doconv_keras._layers import EXPLICIT, DOConvMixin
from doconv_keras._transfer import walk

STEPS, BATCH = 10, 8


class Trained:
    """One architecture: the plain model, the over-parameterized one, and that after ten steps."""

    def __init__(self, make: Callable[[], keras.Model]) -> None:
        self.make = make
        keras.utils.set_random_seed(0)
        self.plain = make()
        self.model = overparameterize(self.plain)
        x = inputs(self.plain, digits(BATCH)[0])
        # Batch statistics and dropout first, then the running statistics that resulted.
        self.outputs = [[outputs(m, x, training) for training in (True, False)] for m in (self.plain, self.model)]
        self.start = {path: (to_numpy(conv.W), to_numpy(conv.D)) for path, conv in layers(self.model).items()}
        self.losses = train(self.model)
        calibrate(self.model)


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def trained(request: pytest.FixtureRequest) -> Trained:
    return Trained(request.param)


def outputs(model: keras.Model, x: list[np.ndarray], training: bool = False) -> list[np.ndarray]:
    y = model(x if len(x) > 1 else x[0], training=training)
    return [to_numpy(tensor) for tensor in (y if isinstance(y, list) else [y])]


def layers(model: keras.Model) -> dict[str, DOConvMixin]:
    return {path: layer for path, layer in walk(model) if isinstance(layer, DOConvMixin) and layer.D is not None}


def names(model: keras.Model) -> list[str]:
    """Of the inputs and of all layers; Keras renames the inputs of a model within a model."""
    inner = [layer.name for _, layer in walk(model) if not isinstance(layer, keras.layers.InputLayer)]
    return [*(tensor._keras_history.operation.name for tensor in model.inputs), *inner]


def train(model: keras.Model) -> list[float]:
    """The losses of ten steps."""
    pictures, classes = digits(STEPS * BATCH)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.02, 0.9), [loss] * len(model.outputs), jit_compile=False)
    losses = []
    for start in range(0, len(pictures), BATCH):
        x = inputs(model, pictures[start : start + BATCH])
        target = [classes[start : start + BATCH]] * len(model.outputs)
        losses.append(float(np.sum(model.train_on_batch(x if len(x) > 1 else x[0], target))))
    return losses


def calibrate(model: keras.Model) -> None:
    """Give the batch normalisations the statistics of the data, which ten steps are too few for."""
    norms = [layer for _, layer in walk(model) if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    outputs(model, inputs(model, digits(32)[0]), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def test_outputs_are_the_same_after_overparameterize(trained: Trained) -> None:
    for want, got in zip(*trained.outputs, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(want, got, strict=True))
    convs = {path: layer for path, layer in walk(trained.plain) if isinstance(layer, tuple(EXPLICIT))}
    assert list(layers(trained.model)) == [path for path, conv in convs.items() if math.prod(conv.kernel_size) > 1]
    assert list(inspect_model(trained.model)) == list(convs)
    assert names(trained.model) == names(trained.plain)


def test_ten_steps_train_every_w_and_d(trained: Trained) -> None:
    assert all(math.isfinite(loss) for loss in trained.losses)
    for path, conv in layers(trained.model).items():
        W, D = trained.start[path]
        assert (to_numpy(conv.W) != W).any(), path
        assert (to_numpy(conv.D) != D).any(), path


@contextmanager
def recorded(model: keras.Model) -> Iterator[dict[str, Any]]:
    """The last input and output of every DO layer, as the model runs within."""
    seen: dict[str, Any] = {}
    convs = layers(model)
    for path, conv in convs.items():

        def call(x: Any, path: str = path, conv: Any = conv) -> Any:
            y = type(conv).call(conv, x)
            seen[path] = (to_numpy(x), to_numpy(y))
            return y

        conv.call = call
    yield seen
    for conv in convs.values():
        del conv.call


def double(conv: DOConvMixin, kernel: np.ndarray, others: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """The plain layer in float64 without its activation, with another kernel."""
    config = {key: value for key, value in conv.get_config().items() if not key.startswith("d_")}
    plain = conv.plain_class.from_config(config | {"dtype": "float64", "activation": None})
    plain.build(x.shape)
    plain.set_weights([kernel, *others])
    return to_numpy(plain(x.astype(np.float64)))


def kernel_bound(conv: DOConvMixin) -> np.ndarray:
    """How far the kernel composed in float32 and the one that `fold` composes in float64 and rounds once may be apart.

    Both are sums of `S` products, the tiles of `W` and one addition more; the second is rounded to float32 at the end.
    """
    sizes = type(conv).from_config(conv.get_config() | {"dtype": "float64", "activation": None})
    sizes.build_from_config(conv.get_build_config())
    sizes.W.assign(np.abs(to_numpy(conv.W)))
    sizes.D.assign(np.abs(to_numpy(conv.D)))
    n, single, wide = conv.d_mul + 2, UNIT_ROUNDOFF["float32"], UNIT_ROUNDOFF["float64"]
    return (gamma(n, single) + gamma(n, wide) + single * (1 + gamma(n, wide))) * sizes.folded_kernel()


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_folded_layers_equal_unfolded_ones_within_the_bound_where_the_model_uses_them(trained: Trained) -> None:
    """Each layer on the input that it meets in the trained model.

    With kernels `w, w'` at most `e` apart, both outputs are sums of `n = K * C_in/G + 1` products, in float32 and in any order:
    `|y - y'| <= conv(|x|, e) + 2 * gamma(n) * (conv(|x|, |w| + e) + |b|)`. A separable layer's pointwise convolution sums what
    the depthwise one gives: the same, with the absolute values of its kernel and `n = K + C_in * multiplier + 1`. The
    activations are ReLU and half of it, which do not enlarge a difference.
    """
    with recorded(trained.model) as seen:
        outputs(trained.model, inputs(trained.model, digits(2)[0]))
    assert seen.keys() == layers(trained.model).keys()
    for path, conv in layers(trained.model).items():
        x, y = seen[path]
        folded, bound = fold(conv), kernel_bound(conv)
        composed, kernel = (to_numpy(getattr(layer, conv._kernel_name)).astype(np.float64) for layer in (conv, folded))
        assert (np.abs(composed - kernel) <= bound).all(), path
        others = [np.abs(to_numpy(variable)) for variable in folded.weights[1:]]
        geometry = conv.layout().geometry
        n = geometry.taps * geometry.in_channels // geometry.groups + 1
        zero = list(others)
        if conv.use_bias:
            zero[-1] = np.zeros_like(others[-1])
        if isinstance(conv, keras.layers.SeparableConv2D):
            n = geometry.taps + geometry.out_channels + 1
        allowed = double(conv, bound, zero, np.abs(x))
        allowed += 2 * gamma(n, UNIT_ROUNDOFF["float32"]) * double(conv, np.abs(kernel) + bound, others, np.abs(x))
        error = np.abs(y.astype(np.float64) - to_numpy(folded(x)).astype(np.float64))
        assert (error <= allowed).all(), path
        plain = conv.layout().kernel_from_canonical(
            conv.layout().w_to_canonical(to_numpy(conv.W)).reshape(geometry.kernel_shape)
        )
        assert (np.abs(plain - kernel) > bound).any(), path  # the bound tells a fold that forgets `D`


def test_the_folded_model_equals_the_unfolded_one(trained: Trained, tmp_path: Path) -> None:
    """The two models differ in the rounding of their kernels and in nothing else.

    So with parameters whose composition is exact in float32, the whole models agree bit for bit: the trained ones, with `D`
    scaled up to 1/4 and both rounded to 8 bits. What rounding adds is bounded layer by layer in the test above.
    """
    for conv in layers(trained.model).values():
        for variable, largest in ((conv.W, 1.0), (conv.D, 0.25)):
            value = to_numpy(variable)
            power = 2.0 ** math.frexp(np.abs(value).max())[1]
            variable.assign(np.round(value * 2**8 / power) * (largest / 2**8))
    calibrate(trained.model)
    x = inputs(trained.model, digits(BATCH)[0])
    before = outputs(trained.model, x)
    folded = fold(trained.model)
    assert not layers(folded)
    assert fold(folded) is folded
    assert [type(layer) for _, layer in walk(folded)] == [type(layer) for _, layer in walk(trained.plain)]

    folded.save_weights(tmp_path / "folded.weights.h5")
    plain = trained.make()
    plain.load_weights(tmp_path / "folded.weights.h5")
    for model in (folded, plain):
        assert all(np.array_equal(one, other) for one, other in zip(outputs(model, x), before, strict=True))
