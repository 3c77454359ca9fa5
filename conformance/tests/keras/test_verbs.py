"""What `overparameterize`, `fold`, `inspect_model` and `transfer_weights` report, keep and refuse."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from conformance.tests.keras.architectures import Subclassed, SubclassedTwin, digits, nested
from doconv_keras import DOConv2D, do_class, fold, inspect_model, overparameterize, transfer_weights
from doconv_keras._arrays import to_numpy
from doconv_keras._layers import DOConvMixin
from doconv_keras._transfer import walk

X = digits(4)[0]


def small(**options: Any) -> keras.Model:
    return keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(4, 3, name="wide", **options), layers.Conv2D(2, 1, name="point")],
        name="small",
    )


def exact(layer: Any) -> None:
    """`W` in 64ths and `D` of 1/4, so that the composed kernel is exact in float32 and folding changes no bit."""
    layer.W.assign(np.round(to_numpy(layer.W) * 64) / 64)
    layer.D.assign(np.full(layer.D.shape, 0.25))


def out(model: Any, x: np.ndarray = X) -> np.ndarray:
    return to_numpy(model(x))


def test_both_verbs_report_what_they_did(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "doconv")
    model = overparameterize(small())
    report = {"wide": "DOConv2D 3x3, d_mul=9", "point": "plain Conv2D 1x1: a kernel of one tap has no D"}
    assert inspect_model(model) == report
    assert caplog.messages == [
        "over-parameterized 1 of 2 convolutions",
        *(f"{path}: {state}" for path, state in report.items()),
    ]
    caplog.clear()
    folded = fold(model)
    assert caplog.messages == [
        "folded 1 of 2 convolutions",
        "wide: plain Conv2D 3x3, folded",
        "point: plain Conv2D 1x1: a kernel of one tap has no D, was plain before",
    ]
    assert inspect_model(folded)["wide"] == "plain Conv2D 3x3"
    caplog.clear()
    overparameterize(nested(), where="twice")
    assert "encoder/first: plain Conv2D 3x3, not selected" in caplog.messages
    recurrent = keras.Sequential([layers.Input((2, 8, 8, 1)), layers.ConvLSTM2D(2, 3, name="recurrent")])
    assert inspect_model(recurrent) == {"recurrent": "plain ConvLSTM2D: has no DO form"}


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        (None, ["twice", "encoder/first", "encoder/second"]),
        ("encoder/*", ["encoder/first", "encoder/second"]),
        (["twice", "*/second"], ["twice", "encoder/second"]),
        (lambda path, layer: layer.filters == 4, ["encoder/first"]),
    ],
)
def test_where_selects(where: Any, chosen: list[str]) -> None:
    model = overparameterize(nested(), d_mul=12, where=where)
    assert {path for path, layer in walk(model) if isinstance(layer, DOConvMixin)} == set(chosen)
    assert {layer.d_mul for _, layer in walk(model) if isinstance(layer, DOConvMixin)} == {12}


def test_a_converted_part_stays_and_the_rest_is_converted() -> None:
    part = overparameterize(nested(), where="twice")
    whole = overparameterize(part)
    assert list(inspect_model(whole).values()) == ["DOConv2D 3x3, d_mul=9"] * 3
    x = [X, X[:, ::-1]]
    assert all(np.array_equal(to_numpy(a), to_numpy(b)) for a, b in zip(whole(x), part(x), strict=True))


def tied() -> keras.Model:
    model = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(1, 3, name="one"), layers.Conv2D(1, 3, name="other")]
    )
    model.layers[1]._tracker.unlock()
    model.layers[1]._kernel = model.layers[0]._kernel
    return model


class Kernelless(layers.Conv2D):
    def call(self, x: Any) -> Any:
        return self.convolution_op(x, self._kernel)


@pytest.mark.parametrize(
    ("make", "options", "error", "text"),
    [
        (object, {}, TypeError, "model must be a Keras model or layer. Received: object"),
        (lambda: layers.Dense(2), {}, ValueError, "the model has no convolution. Received: Dense"),
        (small, {"where": "none*"}, ValueError,
         r"`where` selects no convolution. Received: 'none\*'; the paths are wide, point"),
        (small, {"where": "point"}, ValueError,
         "nothing is left to over-parameterize. Received: point: plain Conv2D 1x1: a kernel of one tap has no D"),
        (lambda: overparameterize(small()), {}, ValueError,
         "nothing is left to over-parameterize. Received: wide: DOConv2D 3x3, d_mul=9; point"),
        (small, {"d_mul": 8}, ValueError, r"d_mul must be at least 9, .* Received: wide: kernel_size=\(3, 3\), d_mul=8"),
        (tied, {}, ValueError, r"does not reach other: .*transfer_weights.* Received: .*kernel is also that of one"),
        (lambda: small(kernel_constraint="non_neg"), {}, ValueError, "Received: wide: has a constraint of its kernel"),
        (lambda: small(lora_rank=2), {}, ValueError, "Received: wide: has LoRA, which a DO-Conv layer has not"),
        (lambda: keras.Sequential([Kernelless(2, 3, name="odd")]), {}, ValueError,
         "odd: Kernelless cannot be .*: a convolution must read its kernel as self.kernel. Received: Kernelless.call"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make: Any, options: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        overparameterize(make(), **options)


def test_fold_of_a_plain_model_is_that_model_and_of_no_model_is_refused() -> None:
    model = small()
    assert fold(model) is model
    with pytest.raises(TypeError, match=r"model must be a Keras model or layer. Received: dict"):
        fold({})


@pytest.mark.parametrize("built", [False, True])
def test_a_sequential_model_without_input(built: bool) -> None:
    plain = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Conv2D(2, 3)])
    if built:
        plain.build((None, 8, 8, 1))
    model = overparameterize(plain)
    assert model.built is built
    assert list(inspect_model(model).values()) == ["DOConv2D 3x3, d_mul=9"] * 2
    if built:
        np.testing.assert_array_equal(out(model), out(plain))
    assert fold(model).built is built


def test_single_layers() -> None:
    plain = layers.Conv2D(4, 3, name="alone", activation="relu")
    plain.build((None, 8, 8, 1))
    layer = overparameterize(plain)
    assert (type(layer), layer.name, layer.built) == (DOConv2D, "alone", True)
    np.testing.assert_array_equal(out(layer), out(plain))
    assert type(fold(layer)) is layers.Conv2D
    np.testing.assert_array_equal(out(fold(layer)), out(plain))


def test_trainable_flags_random_states_and_policies_stay() -> None:
    plain = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="frozen", trainable=False),
            layers.Conv2D(4, 3, name="half", dtype="mixed_bfloat16"),
            layers.Conv2D(4, 1, name="whole"),
            layers.Dropout(0.5),
            layers.BatchNormalization(name="norm", trainable=False),
        ]
    )
    plain.get_layer("half").kernel.trainable = False
    x = tf.constant(X)
    plain(x, training=True)
    model = overparameterize(plain)
    half = model.get_layer("half")
    assert [v.trainable for v in (half.W, half.D, half.bias)] == [False, False, True]
    assert half.dtype_policy.name == "mixed_bfloat16"
    flags = {layer.name: layer.trainable for layer in plain.layers}
    for other in (model, fold(model)):
        assert {layer.name: layer.trainable for layer in other.layers} == flags
    assert len(fold(model).trainable_variables) == len(plain.trainable_variables)
    for _ in range(2):  # the same masks, one after the other
        np.testing.assert_array_equal(to_numpy(model(x, training=True)), to_numpy(plain(x, training=True)))
    plain.trainable = False
    assert overparameterize(plain).trainable_variables == []


def test_a_map_of_policies_stays() -> None:
    policies = keras.dtype_policies.DTypePolicyMap("mixed_bfloat16", {"point": keras.DTypePolicy("float32")})
    plain = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, dtype=policies),
            layers.Conv2D(2, 1, dtype=policies, name="point"),
        ]
    )
    model = overparameterize(plain)
    assert [layer.compute_dtype for layer in model.layers] == [layer.compute_dtype for layer in plain.layers]
    assert isinstance(model.layers[0].dtype_policy, keras.dtype_policies.DTypePolicyMap)
    np.testing.assert_array_equal(out(model).astype(np.float32), out(plain).astype(np.float32))


def test_the_new_model_is_not_compiled_and_the_given_one_stays_as_it_is() -> None:
    plain = nested()
    plain.get_layer("encoder").compile("sgd", "mse")
    plain.compile("adam", ["mse", "mse"])
    before = [to_numpy(v) for v in plain.variables]
    model = overparameterize(plain)
    assert not model.compiled
    assert plain.compiled
    assert plain.get_layer("encoder").compiled
    assert not model.get_layer("encoder").compiled
    assert all(np.array_equal(a, to_numpy(b)) for a, b in zip(before, plain.variables, strict=True))
    assert model.get_layer("encoder") is not plain.get_layer("encoder")


def test_weights_are_transferred_to_a_twin_in_both_directions() -> None:
    plain, twin, again = Subclassed(), SubclassedTwin(), Subclassed()
    with pytest.raises(ValueError, match=r"build both models first. Received: .*built=False and False"):
        transfer_weights(plain, twin)
    for model in (plain, twin, again):
        model(X)
    transfer_weights(plain, twin)
    np.testing.assert_array_equal(out(twin), out(plain))
    for layer in (twin.first, twin.block.layers[0]):
        exact(layer)
    transfer_weights(twin, again)
    np.testing.assert_array_equal(out(again), out(twin))
    assert not np.array_equal(out(again), out(plain))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3)]),
         r"the models differ. Received: small \(Sequential\) with 3 layers; sequential\w* \(Sequential\) with 2 layers"),
        (lambda: keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Dense(2)]),
         r"the models differ at point. Received: point \(Conv2D\) with 0 layers; dense\w* \(Dense\)"),
        (lambda: keras.Sequential([layers.Input((8, 8, 1)), DOConv2D(4, (3, 2)), layers.Conv2D(2, 1)]),
         r"the weights of wide differ. Received: \[\(\(3, 3, 1, 4\), 'float32'\).*; \[\(\(3, 2, 1, 4\)"),
    ],
)  # fmt: skip
def test_models_that_are_no_twins_are_refused_and_stay_as_they_are(make: Any, text: str) -> None:
    twin = make()
    before = [to_numpy(v) for v in twin.variables]
    with pytest.raises(ValueError, match=text):
        transfer_weights(small(), twin)
    assert all(np.array_equal(a, to_numpy(b)) for a, b in zip(before, twin.variables, strict=True))


class Standardised(layers.Conv2D):
    """A user's class: weight standardisation, with an argument of its own."""

    def __init__(self, filters: int, kernel_size: Any, *, epsilon: float = 1e-3, **options: Any) -> None:
        super().__init__(filters, kernel_size, **options)
        self.epsilon = epsilon

    def call(self, x: Any) -> Any:
        kernel = self.kernel
        deviation = keras.ops.std(kernel, axis=(0, 1, 2), keepdims=True) + self.epsilon
        return self.convolution_op(x, (kernel - keras.ops.mean(kernel, axis=(0, 1, 2), keepdims=True)) / deviation)

    def get_config(self) -> dict:
        return super().get_config() | {"epsilon": self.epsilon}


class Own(layers.Conv2D):
    """A user's class that stores its kernel under another name."""

    def build(self, shape: Any) -> None:
        self.compute_output_shape(shape)
        self.mine = self.add_weight(shape=(3, 3, shape[-1], self.filters), name="mine")


def test_a_users_class_is_converted_saved_and_folded(tmp_path: Path) -> None:
    plain = keras.Sequential([layers.Input((8, 8, 1)), Standardised(4, 3, epsilon=0.5, name="own")])
    model = overparameterize(plain)
    layer = model.get_layer("own")
    assert isinstance(layer, Standardised)
    assert (layer.epsilon, layer.d_mul) == (0.5, 9)
    assert type(layer) is do_class(Standardised)
    np.testing.assert_array_equal(out(model), out(plain))
    exact(layer)
    assert not np.array_equal(out(model), out(plain))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(out(keras.models.load_model(tmp_path / "model.keras")), out(model))
    folded = fold(model)
    assert type(folded.get_layer("own")) is Standardised
    np.testing.assert_array_equal(out(folded), out(model))


class Derived(DOConv2D):
    """A user's class over a DO layer."""


class Named(DOConv2D):
    """The same, with the class it folds into."""

    plain_class = Standardised


def test_a_class_derived_from_a_do_layer_says_what_it_folds_into() -> None:
    model = keras.Sequential([layers.Input((8, 8, 1)), Derived(4, 3, name="derived")])
    with pytest.raises(ValueError, match=r"must say as `plain_class` what it folds into. Received: derived: Derived"):
        fold(model)
    named = fold(keras.Sequential([layers.Input((8, 8, 1)), Named(4, 3, name="named")]))
    assert type(named.get_layer("named")) is Standardised


def test_a_users_class_without_the_kernel_is_refused_by_name() -> None:
    model = keras.Sequential([layers.Input((8, 8, 1)), Own(4, 3, use_bias=False, name="own")])
    with pytest.raises(
        TypeError, match=r"Own cannot be over-parameterized: its build adds no weight named 'kernel'.*own"
    ):
        overparameterize(model)
    with pytest.raises(TypeError, match=r"plain must be a class of Keras's convolutions. Received: .*Dense"):
        do_class(layers.Dense)


def test_plain_weights_do_not_load_into_the_overparameterized_model(tmp_path: Path) -> None:
    plain, path = small(), tmp_path / "plain.weights.h5"
    plain.save_weights(path)
    model = overparameterize(small())
    text = "wide expects W and D: load the weights of a plain model into the plain model, and over-parameterize it afterwards"
    with pytest.raises(ValueError, match=text):
        model.load_weights(path)
    loaded = small()
    loaded.load_weights(path)
    np.testing.assert_array_equal(out(overparameterize(loaded)), out(plain))
    model.save_weights(tmp_path / "do.weights.h5")
    with pytest.raises(ValueError, match="objects could not be loaded"):
        plain.load_weights(tmp_path / "do.weights.h5")
    store: dict[str, Any] = {}
    plain.get_layer("wide").save_own_variables(store)
    with pytest.raises(ValueError, match=r"wide expects W and D: .* Received: 2 variables in place of 3"):
        model.get_layer("wide").load_own_variables(store)


def test_more_than_variables_is_carried_over() -> None:
    """Statistics, vocabularies: what Keras's layers keep beside their variables."""
    norm = layers.Normalization()
    norm.adapt(X)
    plain = keras.Sequential([layers.Input((8, 8, 1)), norm, layers.Conv2D(2, 3)])
    np.testing.assert_array_equal(out(overparameterize(plain)), out(plain))
    text = layers.TextVectorization(output_sequence_length=6)
    text.adapt(["the quick brown fox", "the lazy dog"])
    words = keras.Sequential([layers.Input((), dtype="string"), text, layers.Embedding(12, 3), layers.Conv1D(2, 3)])
    given = tf.constant(["the quick dog", "brown"])
    np.testing.assert_array_equal(out(overparameterize(words), given), out(words, given))


def test_a_layer_shared_with_a_wrapper_stays_one() -> None:
    shared = layers.Conv2D(1, 3, padding="same", name="shared")
    start = layers.Input((2, 8, 8, 1))
    inside = layers.TimeDistributed(shared, name="wrapper")(start)
    plain = keras.Model(start, shared(inside[:, 0]))
    model = overparameterize(plain)
    assert model.get_layer("wrapper").layer is model.get_layer("shared")
    assert isinstance(model.get_layer("shared"), DOConv2D)
    x = np.stack([X, X[:, ::-1]], 1)
    np.testing.assert_array_equal(out(model, x), out(plain, x))


class Custom(keras.Model):
    """A functional model with a method of its own and a constructor that Keras cannot call."""

    def __init__(self, filters: int) -> None:
        start = layers.Input((8, 8, 1))
        super().__init__(start, layers.Conv2D(filters, 3, name="conv")(start))

    def own(self) -> str:
        return "own"


def test_a_class_that_is_lost_is_said(caplog: pytest.LogCaptureFixture) -> None:
    plain = Custom(2)
    model = overparameterize(plain)
    np.testing.assert_array_equal(out(model), out(plain))
    (message,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "a Custom became a Functional, without the methods of its class" in message


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method implemented")
@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_a_quantized_model_is_folded(mode: str) -> None:
    """`quantize` of a model quantizes its dense layers, and leaves convolutions, DO-Conv layers among them."""
    model = overparameterize(
        keras.Sequential(
            [layers.Input((8, 8, 1)), layers.Conv2D(2, 3, name="conv"), layers.Flatten(), layers.Dense(2, name="dense")]
        )
    )
    exact(model.get_layer("conv"))
    model.quantize(mode)
    assert isinstance(model.get_layer("conv"), DOConv2D)
    folded = fold(model)
    assert folded.get_layer("dense").quantization_mode == mode
    np.testing.assert_array_equal(out(folded), out(model))


def test_inside_a_distribution_strategy() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    plain = small()
    with strategy.scope():
        model = overparameterize(plain)
        model.compile(keras.optimizers.SGD(0.1), "mse")
    np.testing.assert_array_equal(out(model), out(plain))
    model.fit(X, np.zeros((4, 6, 6, 2), np.float32), batch_size=2, verbose=0)
    assert to_numpy(model.get_layer("wide").D).any()
    exact(model.get_layer("wide"))
    with strategy.scope():
        folded = fold(model)
    np.testing.assert_array_equal(out(folded), out(model))


SCRIPT = """
import keras, numpy as np
from doconv_keras import fold, overparameterize  # ours

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype("float32")
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.Conv2D(1, 3)])
model = overparameterize(model)  # ours
model.compile(keras.optimizers.Adam(1e-2), "mse")
losses = model.fit(x, np.ones((4, 4, 4, 1)), epochs=10, shuffle=False, verbose=0).history["loss"]
trained = model.predict(x, verbose=0)
model = fold(model)  # ours
model.save(file)
"""


def test_a_training_script_changes_in_three_lines(tmp_path: Path) -> None:
    lines = SCRIPT.splitlines()
    theirs = [line for line in lines if not line.endswith("# ours")]
    assert len(lines) - len(theirs) == 3
    plain: dict[str, Any] = {"file": tmp_path / "plain.keras"}
    ours: dict[str, Any] = {"file": tmp_path / "ours.keras"}
    exec("\n".join(theirs), plain)
    exec(SCRIPT, ours)
    # The same kernels, in another program, which may add up in another order.
    np.testing.assert_allclose(ours["losses"][0], plain["losses"][0], rtol=1e-6)
    assert ours["losses"][-1] < 0.9 * ours["losses"][0]
    assert abs(ours["losses"][-1] - plain["losses"][-1]) > 1e-3
    loaded = keras.models.load_model(ours["file"])
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in plain["model"].layers]
    # Composed in float32 by the model and in float64 by `fold`: a few units of 2**-24.
    np.testing.assert_allclose(loaded.predict(ours["x"], verbose=0), ours["trained"], rtol=1e-5, atol=1e-6)
