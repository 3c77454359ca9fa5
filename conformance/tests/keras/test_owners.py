"""Models whose layers make their convolutions themselves: blocks, wrappers, subclassed models, as new models and in place."""

import collections
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from doconv_keras import fold, inspect_model, overparameterize
from doconv_keras._arrays import to_numpy
from doconv_keras._layers import DOConvMixin
from doconv_keras._transfer import walk

TRAINS = keras.backend.backend() != "numpy"
X = np.random.default_rng(0).integers(-3, 4, (4, 10, 10, 3)).astype(np.float32)
Pair = collections.namedtuple("Pair", "one other")


@keras.saving.register_keras_serializable("test_owners")
class Block(layers.Layer):
    """The usual residual block: serializable, its convolutions in a list, a dict, a tuple and an attribute."""

    def __init__(self, filters: int, **options: Any) -> None:
        super().__init__(**options)
        self.filters = filters
        self.convs = [layers.Conv2D(filters, 3, padding="same") for _ in range(2)]
        self.by_name = {"deep": layers.DepthwiseConv2D(3, padding="same")}
        self.pair = Pair(layers.Conv2D(filters, (1, 3), padding="same"), layers.ReLU())
        self.norm = layers.BatchNormalization()

    def call(self, x: Any, training: bool = False) -> Any:
        for conv in self.convs:
            x = keras.ops.relu(conv(x))
        x = self.pair.other(self.pair.one(x))
        return self.norm(self.by_name["deep"](x), training=training)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"filters": self.filters}


class Late(layers.Layer):
    """It makes its layers in `build`."""

    def build(self, shape: Any) -> None:
        self.conv = layers.Conv2D(shape[-1], 3, padding="same")
        self.conv.build(shape)

    def call(self, x: Any) -> Any:
        return self.conv(x)


class Net(keras.Model):
    """A subclassed model with an argument and no `get_config`, a graph within it, and a block in that."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = Block(width)
        self.body = keras.Sequential([layers.Conv2D(width, 3), layers.ReLU(), Block(width), layers.Conv2D(width, 1)])
        start = layers.Input((8, 8, width))
        inside = layers.Conv2D(width, 3, strides=2)(start)
        self.graph = keras.Model(start, keras.layers.TimeDistributed(layers.Conv1D(width, 3))(inside))
        self.head = layers.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.graph(self.body(self.block(x, training=training), training=training))
        return self.head(keras.ops.mean(x, (1, 2)))


class NoArguments(Net):
    """One that can be made again, as its constructor takes nothing."""

    def __init__(self) -> None:
        super().__init__(4)


def functional() -> keras.Model:
    start = layers.Input((10, 10, 3))
    x = Block(4, name="block")(layers.Conv2D(4, 3, name="stem")(start))
    x = layers.TimeDistributed(layers.Conv1D(3, 3, name="inner"), name="wrapper")(Late(name="late")(x))
    return keras.Model(start, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def block_only() -> keras.Model:
    return keras.Sequential([layers.Input((10, 10, 3)), Block(4), layers.GlobalAveragePooling2D(), layers.Dense(2)])


CASES: dict[str, tuple[Callable[[], keras.Model], bool, int]] = {
    "functional": (functional, False, 7),
    "block": (block_only, False, 4),
    "no arguments": (NoArguments, False, 11),
    "block in place": (block_only, True, 4),
    "subclassed in place": (lambda: Net(4), True, 11),
}
each = pytest.mark.parametrize(("make", "in_place", "count"), CASES.values(), ids=CASES)


def out(model: Any, x: np.ndarray = X) -> np.ndarray:
    return to_numpy(model(x))


def built(make: Callable[[], keras.Model]) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = make()
    model(X)
    return model


def convs(model: Any) -> dict[str, Any]:
    return {path: layer for path, layer in walk(model) if isinstance(layer, DOConvMixin) and layer.D is not None}


def train(model: Any) -> None:
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.fit(X, np.ones((4, 2), np.float32), epochs=2, verbose=0)


def make_exact(model: Any) -> None:
    """Parameters whose composition is exact in float32, so that folding changes no bit."""
    for conv in convs(model).values():
        conv.W.assign(np.round(to_numpy(conv.W) * 64) / 64)
        conv.D.assign(np.full(conv.D.shape, 0.25))


@each
def test_it_starts_equal_trains_folds_and_loads_into_the_plain_model(
    make: Callable[[], keras.Model], in_place: bool, count: int, tmp_path: Path
) -> None:
    plain = built(make)
    before, kinds = out(plain), [type(layer) for _, layer in walk(plain)]
    paths = [variable.path for variable in plain.variables]
    model = overparameterize(plain, in_place=in_place)
    assert (model is plain) is in_place
    np.testing.assert_array_equal(out(model), before)
    assert len(convs(model)) == count
    assert sum(state.startswith("DO") for state in inspect_model(model).values()) == count
    if TRAINS:
        start = [(to_numpy(conv.W), to_numpy(conv.D)) for conv in convs(model).values()]
        train(model)
        for (W, D), (path, conv) in zip(start, convs(model).items(), strict=True):
            assert (to_numpy(conv.W) != W).any(), path
            assert (to_numpy(conv.D) != D).any(), path
        assert in_place or np.array_equal(out(plain), before)
    make_exact(model)
    trained = out(model)
    assert not np.array_equal(trained, before)
    folded = fold(model, in_place=in_place)
    assert (folded is model) is in_place
    np.testing.assert_array_equal(out(folded), trained)
    assert [type(layer) for _, layer in walk(folded)] == kinds
    assert [variable.path for variable in folded.variables] == paths
    folded.save_weights(tmp_path / "folded.weights.h5")
    fresh = built(make)
    fresh.load_weights(tmp_path / "folded.weights.h5")
    np.testing.assert_array_equal(out(fresh), trained)
    if TRAINS:
        train(folded)


@each
def test_its_weights_are_saved_and_loaded(
    make: Callable[[], keras.Model], in_place: bool, count: int, tmp_path: Path
) -> None:
    model, other = (overparameterize(built(make), in_place=in_place) for _ in range(2))
    make_exact(model)
    model.save_weights(tmp_path / "do.weights.h5")
    other.load_weights(tmp_path / "do.weights.h5")
    np.testing.assert_array_equal(out(other), out(model))


@keras.saving.register_keras_serializable("test_owners")
class Saved(Net):
    """A subclassed model as Keras saves it."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(width)
        self.width = width

    def get_config(self) -> dict[str, Any]:
        return {"width": self.width}


@pytest.mark.parametrize(("make", "in_place"), [(functional, False), (block_only, True), (lambda: Saved(4), False)])
@pytest.mark.filterwarnings("ignore:`build")
def test_it_is_saved_and_loaded_as_a_model(make: Callable[[], keras.Model], in_place: bool, tmp_path: Path) -> None:
    """Though Keras makes an owner of convolutions by its constructor, which makes plain ones."""
    model = overparameterize(built(make), d_mul=12, where=lambda path, _: "depthwise" not in path, in_place=in_place)
    if TRAINS:
        train(model)
    make_exact(model)
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone(X)
    clone.set_weights(model.get_weights())
    for other in (keras.models.load_model(tmp_path / "model.keras", custom_objects={"Late": Late}), clone):
        np.testing.assert_array_equal(out(other), out(model))
        assert [conv.d_mul for conv in convs(other).values()] == [12] * len(convs(model))
        folded = fold(other)
        np.testing.assert_array_equal(out(folded), out(model))
        assert [type(layer) for _, layer in walk(folded)] == [type(layer) for _, layer in walk(built(make))]


class Grown(layers.Layer):
    """It makes one convolution or none, as a variable of its module says."""

    number = 1

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts = [layers.Conv2D(3, 3) for _ in range(self.number)] + [layers.ReLU()]

    def call(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        return x


@pytest.mark.filterwarnings("ignore:`build")
def test_a_class_that_makes_other_layers_than_those_saved_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = overparameterize(keras.Sequential([layers.Input((10, 10, 3)), Grown()]))
    model.save(tmp_path / "model.keras")
    monkeypatch.setattr(Grown, "number", 0)
    with pytest.raises(ValueError, match=r"Grown makes other layers .* Received: ReLU in place of a convolution"):
        keras.models.load_model(tmp_path / "model.keras", custom_objects={"Grown": Grown})


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="this Keras has no RematScope")
def test_rematerialization_stays() -> None:
    with keras.RematScope(mode="full"):
        plain = keras.Sequential([layers.Conv2D(2, 3), layers.TimeDistributed(layers.Conv1D(2, 3)), layers.Dense(1)])
    model = overparameterize(plain)
    assert [layer._remat_mode for _, layer in walk(model)] == [plain._remat_mode] * 5


def test_unbuilt_models() -> None:
    for make, in_place in ((lambda: Block(3), False), (lambda: Block(3), True), (lambda: Net(3), True)):
        model = overparameterize(make(), in_place=in_place)
        assert not model.built
        model(X)
        assert len(convs(model)) == sum(state.startswith("DO") for state in inspect_model(model).values()) > 3
        make_exact(model)
        before = out(model)
        np.testing.assert_array_equal(out(fold(model, in_place=in_place)), before)


def test_where_and_what_is_converted_already() -> None:
    plain = built(functional)
    part = overparameterize(plain, where="block/*", d_mul=12)
    assert {conv.d_mul for conv in convs(part).values()} == {12}
    whole = overparameterize(part)
    assert len(convs(whole)) == 7
    assert [path for path, conv in convs(whole).items() if conv.d_mul == 12] == list(convs(part))
    np.testing.assert_array_equal(out(whole), out(plain))


def test_flags_and_policies_of_inner_layers_stay() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        plain, net = built(block_only), built(NoArguments)
    finally:
        keras.config.set_dtype_policy("float32")
    plain.layers[0].convs[0].trainable = False
    plain.layers[0].convs[1].kernel.trainable = False
    model = overparameterize(plain)
    block = model.layers[0]
    assert block.norm.compute_dtype == block.convs[0].compute_dtype == "bfloat16"
    assert [v.trainable for v in block.convs[0].variables] == [False] * 3
    assert [block.convs[1].W.trainable, block.convs[1].D.trainable, block.convs[1].bias.trainable] == [
        False,
        False,
        True,
    ]
    assert [layer.name for _, layer in walk(model)] == [layer.name for _, layer in walk(plain)]
    np.testing.assert_array_equal(out(model).astype(np.float32), out(plain).astype(np.float32))
    assert overparameterize(net).compute_dtype == "bfloat16"
    kept = overparameterize(plain, in_place=True)
    assert [v.trainable for v in kept.layers[0].convs[0].variables] == [False] * 3


@pytest.mark.skipif(not TRAINS, reason="Keras's numpy backend does not train")
def test_in_place_a_compiled_model_forgets_what_it_was_compiled_to() -> None:
    model = built(lambda: Net(4))
    train(model)
    before = model.predict(X, verbose=0)
    overparameterize(model, in_place=True)
    assert not model.compiled
    with pytest.raises(ValueError, match=r"compile\(\)"):
        model.fit(X, np.ones((4, 2), np.float32), verbose=0)
    # The same kernels, as D is zeros; `predict` is traced again and may add up in another order: some units of 2**-24.
    np.testing.assert_allclose(model.predict(X, verbose=0), before, rtol=1e-6)
    make_exact(model)
    assert np.abs(model.predict(X, verbose=0) - before).max() > 1e-3


class Hidden(layers.Layer):
    """Its convolution is an attribute, and what uses it is a function."""

    def __init__(self) -> None:
        super().__init__()
        conv = layers.Conv2D(2, 3)
        self.conv, self.apply_to = conv, lambda x: conv(x)

    def call(self, x: Any) -> Any:
        return self.apply_to(x)


class Holder:
    def __init__(self, conv: Any) -> None:
        self.conv = conv


class Elsewhere(layers.Layer):
    """The same by an object that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(2, 3)
        self.holder = Holder(self.conv)

    def call(self, x: Any) -> Any:
        return self.holder.conv(x)


class Keeps(layers.Layer):
    """It keeps the kernel of its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(2, 3)

    def build(self, shape: Any) -> None:
        self.conv.build(shape)
        self.mine = self.conv.kernel

    def call(self, x: Any) -> Any:
        return keras.ops.conv(x, self.mine)


class Forgetful(layers.Layer):
    """Its config says less than its constructor was given."""

    def __init__(self, many: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.convs = [layers.Conv2D(2, 3) for _ in range(many)]

    def call(self, x: Any) -> Any:
        for conv in self.convs:
            x = conv(x)
        return x

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


def biased_twice() -> keras.Model:
    start = layers.Input((10, 10, 3))
    conv = layers.Conv2D(2, 3, name="stem")
    return keras.Model(start, keras.ops.add(conv(start), conv.bias))


def by_method(of: Callable[[Any], Any]) -> keras.Model:
    model = One(layers.Conv2D(2, 3, name="stem"))
    model.apply_to = of(model.layer)
    return model


def lambda_twice() -> keras.Model:
    conv = layers.Conv2D(3, 3, padding="same", name="stem")
    return keras.Sequential([layers.Input((10, 10, 3)), conv, layers.Lambda(lambda x: conv(x), name="again")])


def patched() -> keras.Model:
    conv = layers.Conv2D(3, 3, name="stem")
    conv.call = lambda x: 2 * layers.Conv2D.call(conv, x)
    return keras.Sequential([layers.Input((10, 10, 3)), conv])


class Doubled(keras.Sequential):
    """Of a Sequential with a constructor of its own Keras's config has the layers, which that makes, too."""

    def __init__(self, width: int) -> None:
        super().__init__([layers.Conv2D(width, 3)], name="doubled")

    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        return 2 * super().call(x)


@pytest.mark.parametrize(
    ("make", "in_place", "text"),
    [
        (Hidden, False, "gave its convolution to something other than an attribute, a list or a dict.* Received: conv2d"),
        (Elsewhere, False, "gave its convolution to something other than an attribute, a list or a dict.* Received: conv2d"),
        (Hidden, True, r"go on using the old conv2d\w*. Received: Hidden.apply_to"),
        (Elsewhere, True, r"go on using the old conv2d\w*. Received: Elsewhere.holder"),
        (lambda: by_method(functools.partial), True, r"go on using the old stem. Received: One.apply_to"),
        (lambda: by_method(lambda conv: conv.__call__), True, r"go on using the old stem. Received: One.apply_to"),
        (lambda_twice, False, r"again has a function that would go on using the old stem. Received: a Lambda"),
        (lambda: One(lambda_twice()), True, r"again holds a function.* go on using the old stem. Received: Lambda.function"),
        (patched, False, "a `call` set on an object would be lost: give it to a class. Received: stem"),
        (lambda: One(patched().layers[0]), True, "a `call` set on an object would be lost.* Received: stem"),
        (Keeps, False, r"read it in `call`. Received: .*, read by Keeps.build"),
        (Keeps, True, r"keeps\w* keeps the kernel of conv2d\w*, which would no longer be that layer's. Received: Keeps.mine"),
        (lambda: keras.Sequential([layers.Input((10, 10, 3)), layers.SpectralNormalization(layers.Conv2D(2, 3))]), False,
         r"read by SpectralNormalization.build"),
        (lambda: layers.SpectralNormalization(layers.Conv2D(2, 3)), True, r"keeps the kernel of .*SpectralNormalization"),
        (lambda: Net(4), False, r"net\w* cannot be made again .*in_place=True.* Received: Net; Net has no get_config"),
        (lambda: Forgetful(2), False, r"not made again with the layers that it has. Received: Forgetful with 2 layers, by"),
        (functional, True, "a Sequential or functional model has a graph, which cannot be changed in place"),
        (lambda: keras.Sequential([layers.Conv2D(2, 3)]), True, "has a graph, which cannot be changed in place"),
        (lambda: layers.Conv2D(2, 3), True, "a layer cannot be made another in place: leave out `in_place`. Received: Conv2D"),
        (biased_twice, False, r"add\w* is given a variable of stem, and would go on using the old one.* Received: stem/bias"),
        (lambda: Doubled(4), False, "doubled: a Doubled would become a Sequential, without its own `call`"),
    ],
)  # fmt: skip
def test_what_a_swap_would_not_reach_is_refused(make: Any, in_place: bool, text: str) -> None:
    model = make()
    before = out(model)
    with pytest.raises((ValueError, TypeError), match=text):
        overparameterize(model, in_place=in_place)
    assert not convs(model)
    np.testing.assert_array_equal(out(model), before)


class Tripled(keras.Sequential):
    def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        return 3 * super().call(x)


def test_a_class_derived_from_sequential_is_kept() -> None:
    plain = Tripled([layers.Input((10, 10, 3)), layers.Conv2D(2, 3)])
    model = overparameterize(plain)
    assert type(model) is Tripled
    np.testing.assert_array_equal(out(model), out(plain))


class Scaled(layers.Conv2D):
    scale = 1

    def call(self, x: Any) -> Any:
        return self.scale * super().call(x)


@pytest.mark.parametrize("in_place", [False, True])
def test_what_was_set_on_a_layer_after_it_was_made_stays(in_place: bool) -> None:
    layer, block = Scaled(4, 3), Block(4)
    plain = One(keras.Sequential([layer, block])) if in_place else Tripled([layers.Input((10, 10, 3)), layer, block])
    layer.scale, block.word, plain.number = 5, "kept", 0.5
    before = out(plain)
    model = overparameterize(plain, in_place=in_place)
    for each in (model, fold(model, in_place=in_place)):
        np.testing.assert_allclose(out(each), before, 1e-5, 1e-5)
        assert (each.number, [vars(inner).get("word") for _, inner in walk(each)].count("kept")) == (0.5, 1)


@pytest.mark.parametrize("in_place", [False, True])
def test_what_was_set_on_a_variable_after_its_layer_was_made_stays(in_place: bool) -> None:
    plain: Any = One(built(lambda: keras.Sequential([layers.Conv2D(2, 3, autocast=False), layers.Dense(2)])))
    conv, dense = plain.layer.layers
    conv.kernel.regularizer = dense.kernel.regularizer = keras.regularizers.L2(0.5)
    conv.bias.constraint = dense.kernel.constraint = keras.constraints.NonNeg()
    losses = [float(to_numpy(loss)) for loss in plain.losses]
    whole = plain if in_place else plain.layer
    for change in (overparameterize, fold):
        whole = change(whole, in_place=in_place)
        conv, dense = whole.layer.layers if in_place else whole.layers
        # The same numbers; where they lie otherwise in memory, they may be added in another order.
        assert [float(to_numpy(loss)) for loss in whole.losses] == pytest.approx(losses)
        assert (conv.bias.constraint, conv.autocast) == (dense.kernel.constraint, False) != (None, False)
    conv.kernel.constraint = keras.constraints.NonNeg()
    with pytest.raises(ValueError, match="has a constraint of its kernel"):
        overparameterize(whole, in_place=in_place)


class Teacher(keras.Model):
    """Layers of one name, as an average of a network's weights has them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = keras.Sequential([layers.Input((10, 10, 3)), layers.Conv2D(2, 3, name="conv")], name="net")
        self.average = keras.models.clone_model(self.network)
        self.convs = [layers.Conv2D(2, 3, name="conv") for _ in range(3)]

    def call(self, x: Any) -> Any:
        for conv in self.convs:
            x = conv(x)
        return x + (self.network(X) + self.average(X))[:, 2:-2, 2:-2]


@pytest.mark.parametrize("in_place", [False, True])
def test_layers_of_one_name_are_all_converted_and_all_folded(in_place: bool) -> None:
    model = overparameterize(built(Teacher), in_place=in_place)
    paths = ["net/conv", "net#2/conv", "conv", "conv#2", "conv#3"]
    assert [*inspect_model(model)] == [*convs(model)] == paths
    folded = fold(model, in_place=in_place)
    assert [*inspect_model(folded)] == paths
    assert not convs(folded)


class Gan(keras.Model):
    """Models that another one holds, too."""

    def __init__(self) -> None:
        super().__init__()
        self.judge = keras.Sequential([layers.Input((8, 8, 2)), layers.Conv2D(2, 3)])
        self.maker = keras.Sequential([layers.Input((10, 10, 3)), layers.Conv2D(2, 3)])
        self.both = keras.Sequential([self.maker, self.judge])

    def call(self, x: Any) -> Any:
        return self.both(x)


@pytest.mark.parametrize("in_place", [False, True])
def test_models_within_that_another_holds_stay_the_same_models(in_place: bool) -> None:
    plain: Any = built(Gan)
    plain.judge.word, before = "kept", out(plain)
    model: Any = overparameterize(plain, in_place=in_place)
    np.testing.assert_array_equal(out(model), before)
    assert len(convs(model)) == len(inspect_model(model)) == 2
    for each in (model, fold(model, in_place=in_place)):
        assert (each.both.layers, each.judge.word) == ([each.maker, each.judge], "kept")
        np.testing.assert_array_equal(out(each), to_numpy(each.judge(each.maker(X))))


@keras.saving.register_keras_serializable("test_owners")
class Normed(layers.Conv2D):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.norm = layers.BatchNormalization()

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.norm.build(self.compute_output_shape(shape))

    def call(self, x: Any) -> Any:
        return self.norm(super().call(x))


@keras.saving.register_keras_serializable("test_owners")
class Twofold(layers.Conv2D):
    """A convolution that owns another one."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.more = layers.DepthwiseConv2D(3)
        self.more.build(self.compute_output_shape(shape))

    def call(self, x: Any) -> Any:
        return self.more(super().call(x))


class One(keras.Model):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def call(self, x: Any) -> Any:
        return self.layer(x)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: layers.Conv2D(2, 3, activation=layers.PReLU(shared_axes=(1, 2))), 1),
        (lambda: Normed(2, 3), 1),
        (lambda: Twofold(2, 3), 2),
    ],
)
def test_what_a_layer_owns_is_neither_lost_nor_shared(
    make: Callable[[], Any], count: int, in_place: bool, tmp_path: Path
) -> None:
    layer = make()
    plain = One(layer) if in_place else keras.Sequential([layers.Input((10, 10, 3)), layer])
    out(plain)
    (_, owned), *_ = list(walk(layer))[1:]
    owned.set_weights([weight + 0.5 for weight in owned.get_weights()])
    owned.trainable = False
    before = out(plain)
    model = overparameterize(plain, in_place=in_place)
    np.testing.assert_array_equal(out(model), before)
    assert len(convs(model)) == count
    make_exact(model)
    (_, theirs), *_ = [pair for pair in walk(model) if pair[1].name == owned.name]
    assert (theirs is owned, theirs.trainable) == (in_place and count == 1, False)
    expected = out(model)
    if not in_place:
        np.testing.assert_array_equal(out(plain), before)
        model.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(out(keras.models.load_model(tmp_path / "model.keras")), expected)
    folded = fold(model, in_place=in_place)
    np.testing.assert_allclose(out(folded), expected, 1e-5, 1e-5)
    assert not convs(folded)


class Unnamed(layers.Layer):
    """Its config has more than its constructor takes; only the model that it is in can be made again."""

    def __init__(self, conv: Any, name: str) -> None:
        super().__init__(name=name)
        self.conv = conv

    def call(self, x: Any) -> Any:
        return self.conv(x)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"conv": self.conv, "more": 1}


class Whole(keras.Model):
    """A functional model with a constructor of its own, which its config is for, and which compiles it."""

    def __init__(self, width: int, **options: Any) -> None:
        start = layers.Input((10, 10, 3))
        x = Unnamed(layers.Conv2D(width, 3, name="owned"), name="unnamed")(start)
        super().__init__(start, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)), **options)
        self.width = width
        self.compile("sgd", "mse")

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "width": self.width}


@pytest.mark.filterwarnings("ignore:The structure of")
def test_a_model_is_made_by_its_own_constructor_where_its_layers_cannot_be() -> None:
    plain = built(lambda: Whole(4))
    plain.layers[1].conv.trainable = False
    before = out(plain)
    model = overparameterize(plain)
    np.testing.assert_array_equal(out(model), before)
    assert isinstance(model, Whole)
    assert (model.compiled, list(convs(model))) == (False, ["unnamed/owned"])
    assert [layer.trainable for _, layer in walk(model)] == [layer.trainable for _, layer in walk(plain)]
    make_exact(model)
    folded = fold(model)
    np.testing.assert_array_equal(out(folded), out(model))
    assert type(folded) is Whole
    np.testing.assert_array_equal(out(plain), before)


def test_a_wrapper_that_keeps_a_kernel_may_stay_with_it() -> None:
    normalised = layers.SpectralNormalization(layers.Conv2D(2, 3, name="plain"), name="wrapper")
    plain = keras.Sequential([layers.Input((10, 10, 3)), normalised, layers.Conv2D(2, 3, name="conv")])
    model = overparameterize(plain, where="conv")
    np.testing.assert_array_equal(out(model), out(plain))
    wrapper = model.get_layer("wrapper")
    assert wrapper.kernel is wrapper.layer.kernel


class Task(keras.Model):
    """The pattern of KerasHub's tasks: layers as attributes first, then the constructor of a functional model."""

    def __init__(self, backbone: keras.Model, classes: int, **options: Any) -> None:
        self.backbone = backbone
        self.head = layers.Dense(classes, name="head")
        start = backbone.input
        super().__init__(start, self.head(layers.GlobalAveragePooling2D()(backbone(start))), **options)
        self.classes = classes

    def get_config(self) -> dict[str, Any]:
        return {"backbone": keras.saving.serialize_keras_object(self.backbone), "classes": self.classes}


def backbone() -> keras.Model:
    start = layers.Input((10, 10, 3))
    x = layers.Conv2D(3, 3, padding="same", name="one")(start)
    return keras.Model(start, layers.Conv2D(4, 3, name="two")(keras.ops.relu(x) + x), name="backbone")


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="a torch module takes no attribute before its constructor was called"
)
def test_functional_subclasses_that_hold_layers_before_they_have_a_graph() -> None:
    keras.utils.set_random_seed(2)
    plain = Task(backbone(), 3)
    model = overparameterize(plain)
    np.testing.assert_array_equal(out(model), out(plain))
    assert list(convs(model)) == ["backbone/one", "backbone/two"]
    for made in (model, Task(overparameterize(plain.backbone), 3)):
        make_exact(made)
        np.testing.assert_array_equal(out(fold(made)), out(made))
        assert not convs(fold(made))
