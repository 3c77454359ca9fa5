"""Portable checkpoints of Keras models; `checkpoints/test_travel.py` sends one through all frameworks."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from safetensors.numpy import load_file

from doconv_conformance.cases import generator
from doconv_keras import DOConv1DTranspose, DOConv2D, DODepthwiseConv2D, load_checkpoint, save_checkpoint


def block(name: str) -> keras.Model:
    inputs = keras.Input((6, 6, 4))
    y = DODepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(inputs)
    y = layers.GroupNormalization(2, name="norm")(y)
    return keras.Model(inputs, DOConv2D(4, 3, padding="same", name="conv")(y), name=name)


def net() -> keras.Model:
    """Nested models, a layer used twice, a layer of other sizes than its neighbours."""
    inputs = keras.Input((6, 6, 4))
    shared = DOConv2D(4, 3, padding="same", d_mul=12, name="shared")
    y = shared(block("inner")(shared(inputs)))
    y = layers.BatchNormalization(name="bn")(y)
    y = layers.Reshape((36, 4))(layers.Dropout(0.1)(y))
    y = DOConv1DTranspose(3, 2, strides=2, name="up")(y)
    y = layers.LayerNormalization(name="last")(layers.GlobalAveragePooling1D()(y))
    return keras.Model(inputs, layers.Dense(2, name="fc")(y))


def fill(model: keras.Model, value: float) -> None:
    for index, weight in enumerate(model.weights):
        weight.assign(generator.floats(f"keras/{index}", weight.shape) + value)


def test_there_and_back(tmp_path: Path) -> None:
    model, other = net(), net()
    fill(model, 1)
    fill(other, 2)
    save_checkpoint(model, tmp_path / "file")
    assert load_checkpoint(tmp_path / "file", other) is other
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    names = load_file(tmp_path / "file").keys()
    assert {"inner.depthwise.D_delta", "inner.norm.weight", "shared.W", "bn.running_var", "up.W", "fc.weight"} <= names


def test_a_depthwise_layer_is_a_grouped_one_with_as_many_groups_as_channels(tmp_path: Path) -> None:
    depthwise, grouped = (
        keras.Sequential([keras.Input((6, 6, 4)), layer])
        for layer in (DODepthwiseConv2D(3, depth_multiplier=2, name="a"), DOConv2D(8, 3, groups=4, name="a"))
    )
    fill(depthwise, 0)
    save_checkpoint(depthwise, tmp_path / "file")
    load_checkpoint(tmp_path / "file", grouped)
    save_checkpoint(grouped, tmp_path / "again")
    first, second = load_file(tmp_path / "file"), load_file(tmp_path / "again")
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_what_no_layer_covers_is_named(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.SeparableConv2D(4, 3, name="s"), layers.PReLU(name="p")])
    with pytest.raises(ValueError, match=r"Received: s\.depthwise_kernel, s\.pointwise_kernel, s\.bias, p\.alpha"):
        save_checkpoint(model, tmp_path / "file")
    fill(model, 1)
    save_checkpoint(model, tmp_path / "file", strict=False)
    values = [weight.numpy() for weight in model.weights]
    fill(model, 2)
    load_checkpoint(tmp_path / "file", model)
    for weight, value in zip(model.weights, values, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def automatic(d_mul: int | None = None) -> keras.Model:
    """Names that Keras gives, of a nested model too; two layers of one shape."""
    inner = keras.Sequential([keras.Input((8, 8, 3)), DOConv2D(3, 3, d_mul=d_mul), layers.BatchNormalization()])
    start = keras.Input((8, 8, 3))
    y = DOConv2D(3, 3, padding="same", name="named")(DOConv2D(3, 3, padding="same")(start))
    return keras.Model(start, layers.Dense(2)(inner(DOConv2D(3, 3, padding="same")(y))))


def test_names_that_keras_gave_are_matched_by_their_order(tmp_path: Path) -> None:
    first, second = automatic(), automatic()
    assert [layer.name for layer in first.layers] != [layer.name for layer in second.layers]
    fill(first, 1)
    fill(second, 2)
    save_checkpoint(first, tmp_path / "file")
    load_checkpoint(tmp_path / "file", second)
    for ours, theirs in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    with pytest.raises(ValueError, match=r"sequential\w*\.do_conv2d\w* .*has W"):
        load_checkpoint(tmp_path / "file", automatic(d_mul=10))
    fewer = keras.Sequential([keras.Input((8, 8, 3)), DOConv2D(3, 3)])
    with pytest.raises(ValueError, match=r"missing in the file: do_conv2d\w*\n  left over"):
        load_checkpoint(tmp_path / "file", fewer)


def test_quantized_layers_are_of_no_kind_that_travels(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((6, 6, 4)), DOConv2D(2, 3, name="conv"), layers.Flatten(), layers.Dense(2, name="fc")]
    )
    for mode in ("int8", "float8"):
        model.get_layer("fc").quantize(mode)
        with pytest.raises(ValueError, match=r"Received: .*fc\.kernel"):
            save_checkpoint(model, tmp_path / "file")
        model.pop()
        model.add(layers.Dense(2, name="fc"))


def test_models_that_cannot_be_saved_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"model must be a keras\.layers\.Layer. Received: list"):
        save_checkpoint([], tmp_path / "file")
    with pytest.raises(ValueError, match=r"build the model first. Received: unbuilt, built=False"):
        save_checkpoint(keras.Sequential([DOConv2D(2, 3)], name="unbuilt"), tmp_path / "file")
    inputs = keras.Input((4, 4, 2))
    one, two = layers.Conv2D(2, 1, name="same"), layers.Conv2D(2, 1, name="same")

    class Twice(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = one, two

        def call(self, x: object) -> object:
            return self.two(self.one(x))

    model = Twice()
    model(inputs)
    with pytest.raises(ValueError, match=r"two layers have the same path: give them other names. Received: same"):
        save_checkpoint(model, tmp_path / "file")
    assert not list(tmp_path.iterdir())
