"""What a layer does as one of Keras's: configs, files, symbols, types, regularizers, refusals. Runs on each of its backends."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import doconv_keras
from doconv_keras import DOConv2D, fold, overparameterize
from doconv_keras._arrays import to_numpy
from doconv_keras._layers import DEPTHWISE, EXPLICIT, DOConvMixin

BACKEND = keras.backend.backend()
PLAIN = sorted(EXPLICIT, key=lambda cls: cls.__name__)
each_class = pytest.mark.parametrize("plain", PLAIN, ids=lambda cls: cls.__name__)


def exact(layer: Any) -> None:
    """`W` in 64ths and `D` in 16ths, so that with small integers as input every sum is exact in float32, in any order."""
    layer.W.assign(np.round(to_numpy(layer.W).astype(np.float32) * 64) / 64)
    layer.D.assign(np.random.default_rng(1).integers(-4, 5, layer.D.shape) / 16)


def make(plain: type, over: bool = True, **options: Any) -> Any:
    """A built layer, over-parameterized with a `D`, and a fitting input of small integers."""
    options = {"kernel_size": 3, "name": "layer"} | options
    if "filters" in plain.__init__.__code__.co_varnames:
        options["filters"] = 4
    layer = (EXPLICIT[plain] if over else plain)(**options)
    shape = (6, 5, 7)[: layer.rank]
    x = np.random.default_rng(0).integers(
        -3, 4, (2, *shape, 3) if layer.data_format == "channels_last" else (2, 3, *shape)
    )
    layer.build(x.shape)
    if over:
        exact(layer)
    return layer, x.astype(np.float32)


def out(layer: Any, x: np.ndarray) -> np.ndarray:
    return to_numpy(keras.ops.cast(layer(x), "float32"))


@each_class
def test_config_and_weights_bring_a_layer_back(plain: type) -> None:
    layer, x = make(plain, d_mul=31, d_regularizer=keras.regularizers.L2(0.5), padding="same")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.name, again.d_mul, again.d_regularizer.l2) == ("layer", 31, 0.5)
    again.build(x.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(out(again, x), out(layer, x))


@each_class
def test_fold_gives_the_plain_class_with_the_composed_kernel(plain: type) -> None:
    layer, x = make(plain, activation="relu", use_bias=True)
    layer.bias.assign(np.arange(layer.bias.shape[0], dtype=np.float32))
    folded = fold(layer)
    assert (type(folded), folded.name) == (plain, "layer")
    assert set(layer.get_config()) - set(folded.get_config()) == {"d_mul", "d_regularizer"}
    np.testing.assert_array_equal(out(folded, x), out(layer, x))
    np.testing.assert_array_equal(out(overparameterize(folded), x), out(folded, x))


@each_class
def test_shapes_without_numbers(plain: type) -> None:
    layer, x = make(plain, padding="same")
    assert tuple(layer.compute_output_shape(x.shape)) == out(layer, x).shape
    unknown = keras.KerasTensor((None, *[None] * layer.rank, 3))
    symbolic = layer(unknown)
    assert tuple(symbolic.shape) == (None, *[None] * layer.rank, out(layer, x).shape[-1])
    model = keras.Sequential([keras.Input((*[None] * layer.rank, 3)), layer])
    np.testing.assert_array_equal(out(model, x), out(layer, x))
    larger = np.concatenate([x, x], axis=1)
    assert out(model, larger).shape[1] == 2 * out(model, x).shape[1]


@each_class
def test_channels_first_is_channels_last_transposed_where_the_platform_has_it(plain: type) -> None:
    last, x = make(plain)
    first, _ = make(plain, data_format="channels_first")
    first.set_weights(last.get_weights())
    refused = None
    try:
        want = out(make(plain, over=False, data_format="channels_first")[0], np.moveaxis(x, -1, 1))
    except Exception as error:
        refused = error
    if refused:
        with pytest.raises(type(refused)) as caught:
            out(first, np.moveaxis(x, -1, 1))
        assert str(caught.value).replace("DO", "") == str(refused)
    else:
        got = out(first, np.moveaxis(x, -1, 1))
        assert got.shape == want.shape
        if not plain.__name__.startswith("Separable"):  # its pointwise kernel is as it was drawn
            np.testing.assert_array_equal(np.moveaxis(got, 1, -1), out(last, x))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"])
def test_dtype_policies(policy: str) -> None:
    if policy == "float64" and BACKEND == "jax":
        pytest.skip("JAX has float64 by a switch for the process; the suite's port turns it on")
    layer, x = make(keras.layers.Conv2D, dtype=policy)
    kinds = keras.DTypePolicy(policy)
    assert {v.dtype for v in layer.weights} == {kinds.variable_dtype}
    assert keras.backend.standardize_dtype(layer.kernel.dtype) == kinds.compute_dtype
    x = x.astype("float64") if policy == "float64" else x
    y = layer(x)
    if not (policy == "float64" and BACKEND == "numpy"):  # computes in float32
        assert keras.backend.standardize_dtype(y.dtype) == kinds.compute_dtype
    folded = fold(layer)
    assert folded.kernel.dtype == kinds.variable_dtype
    assert folded.dtype_policy.name == policy


def test_a_model_saves_and_loads(tmp_path: Path) -> None:
    layer, x = make(keras.layers.Conv2D, d_mul=10, kernel_regularizer="l2")
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, keras.layers.SeparableConv2D(2, 3, name="sep")])
    model = overparameterize(model)
    before = out(model, x)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [type(layer) for layer in loaded.layers] == [DOConv2D, doconv_keras.DOSeparableConv2D]
    assert loaded.layers[0].d_mul == 10
    np.testing.assert_array_equal(out(loaded, x), before)
    assert keras.saving.get_registered_name(DOConv2D) == "doconv_keras>DOConv2D"

    model.save_weights(tmp_path / "model.weights.h5")
    for v in loaded.weights:
        v.assign(np.zeros(v.shape))
    loaded.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(out(loaded, x), before)
    np.testing.assert_array_equal(out(keras.models.clone_model(loaded), x).shape, before.shape)

    folded = fold(model)
    folded.save(tmp_path / "folded.keras")
    assert "doconv" not in folded.to_json()
    again = keras.models.load_model(tmp_path / "folded.keras")
    np.testing.assert_array_equal(out(again, x), out(folded, x))


@each_class
def test_regularizers_act_on_w_and_d(plain: type) -> None:
    name = "depthwise_regularizer" if issubclass(plain, DEPTHWISE) else "kernel_regularizer"
    layer, _ = make(plain, **{name: keras.regularizers.L2(2.0)}, d_regularizer=keras.regularizers.L1(3.0))
    want = 2 * np.square(to_numpy(layer.W)).sum() + 3 * np.abs(to_numpy(layer.D)).sum()
    assert sum(to_numpy(loss) for loss in layer.losses) == want


@each_class
def test_a_constraint_of_the_kernel_is_refused_unless_it_has_one_tap(plain: type) -> None:
    name = "depthwise_constraint" if issubclass(plain, DEPTHWISE) else "kernel_constraint"
    with pytest.raises(ValueError, match=r"a kernel constraint would act on W .* Received: .*NonNeg.*d_mul=None"):
        make(plain, **{name: "non_neg"})
    options = {"filters": 2} if not plain.__name__.startswith("Depthwise") else {}
    pointwise = EXPLICIT[plain](kernel_size=1, d_mul=7, **{name: "non_neg"}, **options)
    pointwise.build((None, *(6, 5, 7)[: pointwise.rank], 3))
    assert (pointwise.d_mul, pointwise.D) == (1, None)
    assert getattr(pointwise, pointwise._kernel_name) is pointwise.W


def test_lora_and_quantisation_are_refused_as_clearly_as_in_the_plain_layer() -> None:
    layer, _ = make(keras.layers.Conv2D)
    plain, _ = make(keras.layers.Conv2D, over=False)
    with pytest.raises(ValueError, match=r"a DO-Conv layer has no LoRA: fold it first. Received: enable_lora on layer"):
        layer.enable_lora(2)
    for mode in ("int8", "float8"):
        refusals = []
        for each in (plain, layer):
            with pytest.raises(NotImplementedError) as caught:
                each.quantize(mode)
            refusals.append(str(caught.value).replace("DOConv2D", "Conv2D"))
        assert refusals[0] == refusals[1]


class KeepsKernel(keras.layers.Conv2D):
    """A user's class that reads its kernel in `build` and uses what it was then."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.keep()

    def keep(self) -> None:
        self.kept = self.kernel

    def call(self, x: Any) -> Any:
        return keras.ops.conv(x, self.kept)


def test_a_kernel_that_is_read_in_build_is_refused() -> None:
    plain = keras.Sequential([keras.Input((8, 8, 3)), KeepsKernel(2, 3)])
    with pytest.raises((TypeError, ValueError), match=r"read it in `call`. Received: .*, read by KeepsKernel.keep"):
        overparameterize(plain)
    wrapped = keras.layers.SpectralNormalization(DOConv2D(2, 3, name="conv"))
    with pytest.raises(TypeError, match=r"read it in `call`. Received: conv, read by SpectralNormalization.build"):
        wrapped.build((None, 8, 8, 3))


@each_class
def test_a_kernel_cannot_be_assigned(plain: type) -> None:
    layer, x = make(plain)
    before = out(layer, x)
    for value in (to_numpy(layer.W), layer.W):
        with pytest.raises(
            AttributeError, match=r"cannot be assigned: call start_from\(kernel\). Received: .* for layer"
        ):
            setattr(layer, layer._kernel_name, value)
    np.testing.assert_array_equal(out(layer, x), before)


def test_a_layer_that_is_not_built_has_no_kernel() -> None:
    for layer in (DOConv2D(2, 3), doconv_keras.DOSeparableConv2D(2, 3)):
        # On Keras's torch backend a layer is a module of PyTorch's, which has an error of its own.
        text = "has no attribute" if BACKEND == "torch" else "You must build the layer before accessing"
        with pytest.raises(AttributeError, match=f"{text} .{layer._kernel_name}"):
            getattr(layer, layer._kernel_name)


def test_surplus_columns_are_drawn_as_the_seed_says() -> None:
    plain, _ = make(keras.layers.Conv2D, over=False)
    drawn = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        drawn.append(to_numpy(overparameterize(plain, d_mul=13).W))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0][9:] != drawn[2][9:]).all()
    assert (drawn[0][9:] != 0).all()


@pytest.mark.skipif(BACKEND == "numpy", reason="Keras's numpy backend does not train")
@pytest.mark.parametrize("jit", [False, True])
def test_a_model_trains_compiled_or_not(jit: bool) -> None:
    if jit and BACKEND == "torch":
        pytest.skip("torch.compile needs a C++ compiler and a minute; doconv_torch is tested under it")
    x = np.random.default_rng(0).integers(-3, 4, (8, 6, 6, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Flatten()])
    model = overparameterize(model)
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=jit)
    history = model.fit(x, np.zeros((8, 64), np.float32), batch_size=4, epochs=3, verbose=0, shuffle=False)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert to_numpy(model.get_layer("conv").D).any()
    exact(model.get_layer("conv"))
    bias = model.get_layer("conv").bias
    bias.assign(np.round(to_numpy(bias) * 64) / 64)
    np.testing.assert_array_equal(out(fold(model), x), model.predict(x, verbose=0))


@pytest.mark.skipif(BACKEND not in ("tensorflow", "jax"), reason="Keras has several steps per execution on these only")
def test_several_steps_per_execution_are_as_many_steps() -> None:
    x = np.random.default_rng(0).integers(-3, 4, (8, 6, 6, 3)).astype(np.float32)
    trained = []
    for count in (1, 2):
        keras.utils.set_random_seed(0)
        model = overparameterize(keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3, name="conv")]))
        exact(model.get_layer("conv"))
        model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False, steps_per_execution=count)
        model.fit(x, np.zeros((8, 4, 4, 4), np.float32), batch_size=2, verbose=0, shuffle=False)
        trained.append([to_numpy(variable) for variable in model.get_layer("conv").variables])
    for one, two in zip(*trained, strict=True):
        # Two steps in one program may add up in another order: a few units of 2**-24 for each.
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(BACKEND == "numpy", reason="Keras's numpy backend does not train")
def test_a_loss_scale_that_overflows_leaves_the_layer_and_one_that_does_not_trains_it() -> None:
    x = np.random.default_rng(0).integers(-3, 4, (2, 6, 6, 3)).astype(np.float32)
    conv = keras.layers.Conv2D(4, 3, name="conv", dtype="mixed_float16")
    model = overparameterize(keras.Sequential([keras.Input((6, 6, 3)), conv]))
    layer = model.get_layer("conv")
    exact(layer)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**30)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "mse", jit_compile=False)
    for scale, moves in ((2.0**30, False), (2.0**10, True)):
        optimizer.dynamic_scale.assign(scale)
        before = [to_numpy(variable) for variable in (layer.W, layer.D)]
        model.train_on_batch(x, np.zeros((2, 4, 4, 4), np.float32))
        after = [to_numpy(variable) for variable in (layer.W, layer.D)]
        assert [not np.array_equal(*pair) for pair in zip(before, after, strict=True)] == [moves, moves]
        assert all(np.isfinite(values).all() and values.dtype == np.float32 for values in after)
        assert float(optimizer.dynamic_scale) == (scale if moves else scale / 2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TFLite converts models of TensorFlow")
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_tflite_converts_a_model_unfolded_and_folded() -> None:
    import tensorflow as tf

    layers = [keras.layers.Conv2D(4, 3, groups=2), keras.layers.DepthwiseConv2D(2), keras.layers.Conv2DTranspose(3, 2)]
    model = overparameterize(keras.Sequential([keras.Input((6, 6, 2)), *layers]))
    x = np.random.default_rng(0).integers(-3, 4, (1, 6, 6, 2)).astype(np.float32)
    for layer in model.layers:
        exact(layer)
        layer.W.assign(np.round(to_numpy(layer.W) * 4) / 4)
    for converted in (model, fold(model)):
        content = tf.lite.TFLiteConverter.from_keras_model(converted).convert()
        interpreter = tf.lite.Interpreter(model_content=content)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_array_equal(y, model.predict(x, verbose=0))


@pytest.mark.skipif(BACKEND != "jax", reason="`stateless_call` is how JAX runs a Keras model")
def test_stateless_calls_under_jax() -> None:
    import jax

    layer, x = make(keras.layers.Conv2D)
    values = [v.value for v in layer.trainable_variables]

    def loss(values: list) -> Any:
        return layer.stateless_call(values, [], x)[0].sum()

    gradients = jax.jit(jax.grad(loss))(values)
    assert [g.shape for g in gradients] == [v.shape for v in layer.trainable_variables]
    assert all(np.asarray(g).any() for g in gradients)
    doubled = layer.stateless_call([2 * v for v in values], [], x)[0]
    assert not np.allclose(doubled, layer(x))


def test_the_layers_are_a_mixin_over_keras_own() -> None:
    for plain, cls in EXPLICIT.items():
        assert issubclass(cls, DOConvMixin)
        assert doconv_keras.do_class(plain) is cls
