"""What `conv_spec`, `overparameterize` and `fold` accept, report and refuse."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.core import FrozenDict, freeze
from flax.errors import ScopeVariableNotFoundError

from conformance.tests.flax.architectures import LINEN, NNX
from doconv_flax import linen as do_linen
from doconv_flax import nnx as do_nnx

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32))

STALE = r"(?s)(pytree structure error|Dict key mismatch).*\bD\b"  # in the words of optax and of older versions of JAX


class Net(nn.Module):
    """Three convolutions, one of one tap."""

    conv: type = nn.Conv

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(4, (3, 3), name="first")(x)
        x = self.conv(4, (1, 1), name="point")(x)
        return self.conv(4, (3, 2), name="last", feature_group_count=2)(x)


def net() -> tuple[nn.Module, dict, dict]:
    model = Net()
    return model, model.init(jax.random.key(0), X)["params"], do_linen.conv_spec(model, X)


class NnxNet(nnx.Module):
    def __init__(self, conv: type = nnx.Conv) -> None:
        rngs = nnx.Rngs(0)
        self.first = conv(4, 4, (3, 3), rngs=rngs)
        self.point = nnx.Conv(4, 4, (1, 1), rngs=rngs)
        self.last = nnx.Conv(4, 4, (3, 2), feature_group_count=2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.point(self.first(x)))


def trees_equal(one: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), one, other)


def test_both_report_what_they_touched_and_what_not(caplog: pytest.LogCaptureFixture) -> None:
    _, params, spec = net()
    wanted = {
        "first": "Conv 3x3, d_mul=9",
        "point": "plain Conv 1x1: a kernel of one tap has no D",
        "last": "plain Conv 3x2",
    }
    with caplog.at_level(logging.INFO, "doconv"):
        over = do_linen.overparameterize(params, spec, where="f*")
    assert do_linen.inspect_model(over, spec) == wanted
    assert caplog.messages == [f"{path}: {text}" for path, text in wanted.items()]
    caplog.clear()
    with caplog.at_level(logging.INFO, "doconv"):
        model = do_nnx.overparameterize(NnxNet(), where=lambda path, layer: layer.kernel_size == (3, 3))
    wanted = {"first": "DOConv 3x3, d_mul=9", "last": wanted["last"], "point": wanted["point"]}
    assert do_nnx.inspect_model(model) == wanted
    assert caplog.messages == [f"{path}: {text}" for path, text in wanted.items()]
    caplog.clear()
    with caplog.at_level(logging.INFO, "doconv"):
        do_nnx.fold(model)
    assert caplog.messages == ["first: folded"]


def test_the_rest_can_follow_and_then_nothing_is_left() -> None:
    _, params, spec = net()
    over = do_linen.overparameterize(params, spec, where=["first"])
    assert "D" not in over["last"]
    over = do_linen.overparameterize(over, spec, d_mul=9)
    assert (over["first"]["D"].shape, over["last"]["kernel"].shape) == ((3, 3, 9, 4), (9, 2, 4))
    nothing = r"nothing is left to over-parameterize. Received: first: Conv 3x3, d_mul=9; .*; last: Conv 3x2, d_mul=9"
    with pytest.raises(ValueError, match=nothing):
        do_linen.overparameterize(over, spec)
    model = do_nnx.overparameterize(do_nnx.overparameterize(NnxNet(), where="first"))
    with pytest.raises(
        ValueError, match=r"nothing is left .* Received: first: DOConv 3x3, d_mul=9; last: DOConv 3x2, d_mul=6"
    ):
        do_nnx.overparameterize(model)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"d_mul": 8}, ValueError, r"d_mul must be at least 9, .* Received: first: kernel_size=\(3, 3\), d_mul=8"),
        ({"d_mul": 9.0}, TypeError, "d_mul must be an integer, not float. Received: first: .*d_mul=9.0"),
        ({"where": "conv*"}, ValueError, r"`where` selects no convolution. Received: 'conv\*'; the paths are first, "),
        (
            {"where": "point"},
            ValueError,
            "nothing is left .* Received: point: plain Conv 1x1: a kernel of one tap has no D",
        ),
    ],
)
def test_bad_options_are_named_and_nothing_is_changed(options: dict, error: type[Exception], text: str) -> None:
    _, params, spec = net()
    with pytest.raises(error, match=text):
        do_linen.overparameterize(params, spec, **options)
    model = NnxNet()
    before = nnx.graphdef(model)
    with pytest.raises(error, match=text):
        do_nnx.overparameterize(model, **options)
    assert nnx.graphdef(model) == before


def test_other_things_than_models_are_named() -> None:
    _, params, spec = net()
    with pytest.raises(TypeError, match=r"model must be a flax.linen.Module. Received: NnxNet"):
        do_linen.conv_spec(NnxNet(), X)
    for verb in (do_nnx.overparameterize, do_nnx.fold, do_nnx.inspect_model):
        with pytest.raises(TypeError, match=r"model must be a flax.nnx.Module. Received: Net"):
            verb(Net())
    with pytest.raises(TypeError, match=r"params must be nested dicts of arrays. Received: list"):
        do_linen.fold([params])
    with pytest.raises(ValueError, match=r"the model has no convolution. Received: "):
        do_nnx.overparameterize(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"the model has no convolution. Received: "):
        do_linen.overparameterize(params, do_linen.conv_spec(nn.Dense(3), X))
    with pytest.raises(
        ValueError, match=r"no kernel of the layer 'first'; give the collection \"params\". Received: params"
    ):
        do_linen.overparameterize({"params": params}, spec)
    wrong = params | {"first": {"kernel": jnp.ones((3, 3, 4, 5))}}
    with pytest.raises(ValueError, match=r"kernel of 'first' must have shape \(3, 3, 4, 4\). Received: \(3, 3, 4, 5\)"):
        do_linen.overparameterize(wrong, spec)


def test_a_single_layer_converts_in_place_and_back() -> None:
    layer = nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0))
    y = layer(X)
    assert do_nnx.overparameterize(layer) is layer
    assert (type(layer), layer.d_mul) == (do_nnx.DOConv, 9)
    np.testing.assert_array_equal(layer(X), y)
    assert do_nnx.fold(layer) is layer
    assert type(layer) is nnx.Conv
    assert do_nnx.fold(layer) is layer
    np.testing.assert_array_equal(layer(X), y)
    point = do_nnx.DOConv(4, 6, (1, 1), d_mul=7, rngs=nnx.Rngs(0))
    assert (point.D, point.d_mul, type(do_nnx.fold(point))) == (None, 1, nnx.Conv)
    model = nn.Conv(6, (3, 3))
    params = model.init(jax.random.key(0), X)["params"]
    over = do_linen.overparameterize(params, do_linen.conv_spec(model, X))
    assert set(over) == {"kernel", "D", "bias"}
    trees_equal(do_linen.DOConv(6, (3, 3)).apply({"params": over}, X), model.apply({"params": params}, X))
    trees_equal(do_linen.fold(over), params)


def test_kinds_of_trees_and_leaves_are_kept() -> None:
    _, params, spec = net()
    frozen = do_linen.overparameterize(freeze(params), spec)
    assert isinstance(frozen, FrozenDict)
    assert isinstance(do_linen.fold(frozen), FrozenDict)
    arrays = jax.tree.map(np.asarray, params)
    for d_mul in (None, 10):
        over = do_linen.overparameterize(arrays, spec, d_mul=d_mul)
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(over))
        folded = do_linen.fold(over)
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(folded))
        trees_equal(folded, arrays)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    over = do_linen.overparameterize(half, spec, d_mul=10)
    assert {leaf.dtype for leaf in jax.tree.leaves(over)} == {jnp.dtype(jnp.bfloat16)}
    trees_equal(do_linen.fold(over), half)
    empty = {**params, "empty": {}}
    assert do_linen.fold(do_linen.overparameterize(empty, spec))["empty"] == {}


def test_surplus_columns_are_drawn_by_the_key_and_do_not_change_the_function() -> None:
    _, params, spec = net()
    one, same, other = (do_linen.overparameterize(params, spec, d_mul=11, key=key)["first"]["kernel"]
                        for key in (None, jax.random.key(0), jax.random.key(1)))  # fmt: skip
    trees_equal(one, same)
    assert (one[9:] != other[9:]).all()
    assert one[9:].all()
    trees_equal(one[:9], other[:9])
    models = [do_nnx.overparameterize(NnxNet(), d_mul=11, key=key) for key in (None, jax.random.key(1))]
    assert (models[0].first.kernel[9:] != models[1].first.kernel[9:]).all()


def test_transposed_layers_are_folded_as_the_spec_says() -> None:
    model = nn.ConvTranspose(4, (3, 2), transpose_kernel=True)
    spec = do_linen.conv_spec(model, X)
    over = do_linen.overparameterize(model.init(jax.random.key(0), X)["params"], spec, d_mul=7)
    rng = np.random.default_rng(1)  # small integers: every sum is exact
    over = jax.tree.map(lambda leaf: jnp.asarray(rng.integers(-3, 4, leaf.shape), leaf.dtype), over)
    x = jnp.round(X)
    y = do_linen.DOConvTranspose(4, (3, 2), transpose_kernel=True, d_mul=7).apply({"params": over}, x)
    by_spec = do_linen.fold(over, spec)
    np.testing.assert_array_equal(model.apply({"params": by_spec}, x), y)
    trees_equal(do_linen.fold(over, transpose_kernel=True), by_spec)
    assert (do_linen.fold(over)["kernel"] != by_spec["kernel"]).any()  # square: its shapes do not say it
    with pytest.raises(ValueError, match=r"a: kernel and D .* Received: shapes \(3, 3, 5, 4\) and \(3, 3, 9, 4\)"):
        do_linen.fold({"a": {"kernel": jnp.ones((3, 3, 5, 4)), "D": jnp.ones((3, 3, 9, 4))}})


@pytest.mark.parametrize(
    ("kernel", "D"),
    [
        ((3, 5, 3, 4, 4), (3, 5, 3, 9, 4)),  # layers stacked on the second axis
        ((3, 3, 4, 4), (3, 3, 10, 4)),
        ((10, 4, 4), (3, 3, 9, 4)),
        ((5, 4, 4), (3, 2, 5, 4)),  # S < K
        ((4, 4), (9, 4)),
    ],
)
def test_kernels_and_ds_that_do_not_belong_together_are_named(kernel: tuple, D: tuple) -> None:
    with pytest.raises(
        ValueError, match=r"a: kernel and D do not belong together; axes that stack layers must come first"
    ):
        do_linen.fold({"a": {"kernel": jnp.ones(kernel), "D": jnp.ones(D)}})


class Standardised(nn.Conv):
    """A user's subclass: the kernel is standardised on its way to the convolution."""

    def param(self, name: str, *args: Any, **options: Any) -> Any:
        value = super().param(name, *args, **options)
        return (value - value.mean((0, 1, 2), keepdims=True)) * 2 if name == "kernel" else value


class OwnKernel(nn.Conv):
    """A user's subclass that keeps its kernel in a way of its own."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.param("kernel", nn.initializers.ones, (1,) * (x.ndim - 1) + (x.shape[-1],))


class Same(nnx.Conv):
    """A user's subclass with a call of its own."""

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        return 2 * super().__call__(inputs, out_sharding)


def test_linen_subclasses_work_or_are_refused_by_name() -> None:
    model = Net(Standardised)
    spec = do_linen.conv_spec(model, X)
    params = model.init(jax.random.key(0), X)["params"]
    y = model.apply({"params": params}, X)
    over = do_linen.overparameterize(params, spec)
    assert do_linen.inspect_model(over, spec)["first"] == "Standardised 3x3, d_mul=9"
    trees_equal(model.apply({"params": do_linen.fold(over, spec)}, X), y)
    model = nn.Sequential([OwnKernel(4, (3, 3)), nn.Conv(4, (3, 3))])
    params, spec = model.init(jax.random.key(0), X)["params"], do_linen.conv_spec(model, X)
    refusal = (
        r"leave these out .* Received: layers_0: OwnKernel has a kernel of shape \(1, 1, 1, 4\), not \(3, 3, 4, 4\)"
    )
    with pytest.raises(TypeError, match=refusal):
        do_linen.overparameterize(params, spec)
    over = do_linen.overparameterize(params, spec, where=lambda path, entry: not entry.refused)
    assert (set(over["layers_0"]), set(over["layers_1"])) == ({"kernel"}, {"kernel", "D", "bias"})


def test_nnx_subclasses_are_refused_by_name() -> None:
    model = NnxNet(Same)
    assert do_nnx.inspect_model(model)["first"] == "plain Same 3x3: a subclass"
    with pytest.raises(TypeError, match=r"subclasses of nnx.Conv .* Received: first: Same"):
        do_nnx.overparameterize(model)
    assert type(model.last) is nnx.Conv
    y = model(X)
    np.testing.assert_array_equal(do_nnx.overparameterize(model, where="last")(X), y)

    class Ours(do_nnx.DOConv):
        pass

    with pytest.raises(TypeError, match=r"subclasses of DOConv .* Received: : Ours"):
        do_nnx.fold(Ours(4, 4, (3, 3), rngs=nnx.Rngs(0)))


def test_kernels_shared_with_others_are_refused_by_name() -> None:
    model = NNX["shared"](rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"shared with something .* Received: second.kernel, first.kernel|again.kernel"
    ):
        do_nnx.overparameterize(model, where="second")
    model = nnx.Dict(down=nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0)))
    model.up = nnx.ConvTranspose(6, 4, (3, 3), transpose_kernel=True, rngs=nnx.Rngs(0))
    model.up.kernel = model.down.kernel
    before = nnx.graphdef(model)
    with pytest.raises(ValueError, match=r"used in another way there.* Received: down.kernel, up.kernel"):
        do_nnx.overparameterize(model)
    assert nnx.graphdef(model) == before


def test_an_optimizer_built_before_is_stale_and_says_so() -> None:
    model = NnxNet()
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    both = nnx.Dict(model=model, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"before its optimizer is built.* Received: an optimizer at 'optimizer'"):
        do_nnx.overparameterize(both)
    do_nnx.overparameterize(model)
    gradients = nnx.grad(lambda model: jnp.sum(model(X) ** 2))(model)
    with pytest.raises(ValueError, match=STALE):
        optimizer.update(model, gradients)
    flax_model, params, spec = net()
    tx = optax.adam(1e-3)
    state, over = tx.init(params), do_linen.overparameterize(params, spec)
    gradients = jax.grad(lambda p: jnp.sum(flax_model.apply({"params": do_linen.fold(p, spec)}, X) ** 2))(over)
    with pytest.raises(ValueError, match=STALE):
        tx.update(gradients, state, over)


def test_a_plain_checkpoint_does_not_fit_afterwards_and_is_refused() -> None:
    model, plain = do_nnx.overparameterize(NnxNet(), d_mul=10), nnx.state(NnxNet())
    _, params, _ = net()
    with pytest.raises(ScopeVariableNotFoundError, match=r'No Variable named "D"'):
        Net(do_linen.DOConv).apply({"params": params}, X)
    nnx.update(model, plain)
    with pytest.raises(
        ValueError, match=r"kernel and D do not belong together. Received: shapes \(3, 3, 4, 4\) and \(3, 3, 10, 4\)"
    ):
        model(X)


def test_the_spec_of_a_model_with_its_own_do_layers() -> None:
    model = Net(do_linen.DOConv)
    params, spec = model.init(jax.random.key(0), X)["params"], do_linen.conv_spec(model, X)
    assert {path: entry.d_mul for path, entry in spec.items()} == {"first": 9, "point": 1, "last": 6}
    assert spec["last"].geometry() == do_linen.conv_spec(Net(), X)["last"].geometry(6)
    trees_equal(Net().apply({"params": do_linen.fold(params, spec)}, X), model.apply({"params": params}, X))
    scanned = LINEN["scan and remat"]()
    entry = do_linen.conv_spec(scanned, X[..., :1], True)["VmapConv_0"]
    assert (entry.stacked, entry.groups, entry.kernel_size) == ((2,), 2, (3, 2))
