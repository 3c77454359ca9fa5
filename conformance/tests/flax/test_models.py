"""Whole models: over-parameterized without a change of their outputs, trained, folded, loaded into the plain architecture."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from sklearn.datasets import load_digits

import doconv_flax
from conformance.tests.flax.architectures import LINEN, NNX
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, gamma
from doconv_flax._fold import fold_kernel

STEPS, BATCH = 10, 16
MULTIPLIERS = {"resnet": None, "scan and remat": 20, "shared": None}


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `(count, 8, 8, 1)` in [0, 1] and their classes."""
    data = load_digits()
    return (data.images[:count, ..., None] / 16).astype(np.float32), data.target[:count].astype(np.int32)


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    pictures, classes = digits(STEPS * BATCH)
    return list(zip(np.split(pictures, STEPS), np.split(classes, STEPS), strict=True))


def loss(logits: jax.Array, classes: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean()


def optimizer() -> optax.GradientTransformation:
    return optax.sgd(0.05, momentum=0.9)


class Trained:
    """A linen model's variables at the start and after ten steps on `W` and `D`, by `fold` in the loss."""

    def __init__(self, name: str) -> None:
        self.model = LINEN[name]()
        x = digits(BATCH)[0]
        self.spec = doconv_flax.linen.conv_spec(self.model, x, True)
        self.plain = self.model.init(jax.random.key(0), x, True)
        params = doconv_flax.linen.overparameterize(self.plain["params"], self.spec, d_mul=MULTIPLIERS[name])
        self.start = self.plain | {"params": params}
        self.end = self.train(self.start)

    def train(self, variables: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in variables.items() if name != "params"}
        tx = optimizer()

        @jax.jit
        def step(params: Any, rest: Any, state: Any, x: jax.Array, classes: jax.Array) -> Any:
            def objective(params: Any) -> Any:
                given = {"params": doconv_flax.linen.fold(params, self.spec)} | rest
                logits, changed = self.model.apply(given, x, True, mutable=list(rest))
                return loss(logits, classes), changed

            (value, rest), gradients = jax.value_and_grad(objective, has_aux=True)(params)
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), rest, state, value

        params, state = variables["params"], tx.init(variables["params"])
        for x, classes in batches():
            params, rest, state, value = step(params, rest, state, x, classes)
            assert np.isfinite(value)
        return {"params": params} | rest

    def outputs(self, params: Any, rest: dict[str, Any], x: np.ndarray, train: bool) -> jax.Array:
        variables = rest | {"params": params}
        return (
            self.model.apply(variables, x, train, mutable=["batch_stats"])[0]
            if train
            else self.model.apply(variables, x, False)
        )


@pytest.fixture(scope="module", params=LINEN)
def linen(request: pytest.FixtureRequest) -> Trained:
    return Trained(request.param)


def pairs(params: Any) -> dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]:
    """Every kernel with its `D`."""
    flat = flatten_dict(params)
    return {names[:-1]: (np.asarray(flat[(*names[:-1], "kernel")]), np.asarray(leaf))
            for names, leaf in flat.items() if names[-1] == "D"}  # fmt: skip


def rounded(kernel: np.ndarray, D: np.ndarray) -> list[np.ndarray]:
    """Both to 8 bits, `D` scaled up to 1/4: their composition is exact in float32."""
    return [
        (np.round(value * 2.0 ** (8 - np.frexp(np.abs(value).max())[1])) * largest / 2**8).astype(np.float32)
        for value, largest in ((kernel, 1.0), (D, 0.25))
    ]


def check_kernel(kernel: np.ndarray, D: np.ndarray, composed: np.ndarray, folded: np.ndarray, transposed: bool) -> None:
    """How far the kernel composed in float32 and the one that `fold` composes in float64 and rounds once may be apart.

    Both are sums of `S` products, the tiles of `W` and one addition more; the second is rounded to float32 at the end.
    """
    sizes = fold_kernel(np.abs(kernel).astype(np.float64), np.abs(D).astype(np.float64), transpose_kernel=transposed)
    n, single, double = D.shape[-2] + 2, UNIT_ROUNDOFF["float32"], UNIT_ROUNDOFF["float64"]
    bound = (gamma(n, single) + gamma(n, double) + single * (1 + gamma(n, double))) * sizes
    assert (np.abs(composed.astype(np.float64) - folded) <= bound).all()
    forgetful = fold_kernel(kernel, np.zeros_like(D), transpose_kernel=transposed)
    assert (np.abs(forgetful.astype(np.float64) - folded) > bound).any()  # the bound tells a fold that forgets `D`


@pytest.mark.parametrize("train", [True, False])
def test_linen_outputs_are_the_same_after_overparameterize(linen: Trained, train: bool) -> None:
    x, before = digits(BATCH)[0], linen.plain["params"]
    folded = doconv_flax.linen.fold(linen.start["params"], linen.spec)
    composed = jax.jit(lambda params: doconv_flax.linen.fold(params, linen.spec))(linen.start["params"])
    for params in (folded, composed):
        jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other, strict=True), params, before)
    want = linen.outputs(before, linen.plain, x, train)
    np.testing.assert_array_equal(linen.outputs(composed, linen.plain, x, train), want)
    converted = [path for path, entry in linen.spec.items() if np.prod(entry.kernel_size) > 1]
    assert sorted("/".join(path) for path in pairs(linen.start["params"])) == sorted(converted)


def test_linen_steps_train_every_w_and_d_and_folded_kernels_are_within_the_bound(linen: Trained) -> None:
    start, end = pairs(linen.start["params"]), pairs(linen.end["params"])
    folded = flatten_dict(doconv_flax.linen.fold(linen.end["params"], linen.spec))
    composed = flatten_dict(jax.jit(lambda p: doconv_flax.linen.fold(p, linen.spec))(linen.end["params"]))
    for path, (kernel, D) in end.items():
        assert (kernel != start[path][0]).any(), path
        assert D.any(), path
        name = (*path, "kernel")
        transposed = linen.spec["/".join(path)].transpose_kernel
        check_kernel(kernel, D, np.asarray(composed[name]), np.asarray(folded[name]), transposed)


def test_the_folded_linen_model_equals_the_unfolded_one_and_loads_into_the_plain_one(linen: Trained) -> None:
    """The two differ in the rounding of their kernels and in nothing else, so with an exact composition in nothing at all."""
    flat, x = flatten_dict(linen.end["params"]), digits(BATCH)[0]
    for path, values in pairs(linen.end["params"]).items():
        flat |= {
            (*path, name): jnp.asarray(value) for name, value in zip(("kernel", "D"), rounded(*values), strict=True)
        }
    params = unflatten_dict(flat)
    folded = doconv_flax.linen.fold(params, linen.spec)
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (folded, linen.plain["params"])]
    assert shapes[0] == shapes[1]
    unfolded = linen.outputs(jax.jit(lambda p: doconv_flax.linen.fold(p, linen.spec))(params), linen.end, x, False)
    np.testing.assert_array_equal(linen.outputs(folded, linen.end, x, False), unfolded)
    again = doconv_flax.linen.fold(folded, linen.spec)
    assert all(jax.tree.leaves(jax.tree.map(lambda one, other: one is other, again, folded)))


def build(make: Callable[..., nnx.Module]) -> nnx.Module:
    return make(rngs=nnx.Rngs(0))


@pytest.fixture(scope="module", params=NNX)
def trained(request: pytest.FixtureRequest) -> tuple[Callable[..., nnx.Module], nnx.Module]:
    """How the plain model is built, and the over-parameterized one after its ten steps. Tests work on clones."""
    model = doconv_flax.nnx.overparameterize(build(NNX[request.param]), d_mul=MULTIPLIERS[request.param])
    state = nnx.Optimizer(model, optimizer(), wrt=nnx.Param)

    @nnx.jit
    def step(model: nnx.Module, state: nnx.Optimizer, x: jax.Array, classes: jax.Array) -> jax.Array:
        value, gradients = nnx.value_and_grad(lambda model: loss(model(x), classes))(model)
        state.update(model, gradients)
        return value

    model.train()
    assert all(np.isfinite(step(model, state, *batch)) for batch in batches())
    model.eval()
    return NNX[request.param], model


def layers(model: nnx.Module) -> dict[str, Any]:
    return {".".join(map(str, path)): node for path, node in nnx.iter_graph(model)
            if isinstance(node, doconv_flax.nnx.DOConv | doconv_flax.nnx.DOConvTranspose)}  # fmt: skip


@pytest.mark.parametrize("name", NNX)
def test_nnx_outputs_are_the_same_after_overparameterize(name: str) -> None:
    plain, model, x = build(NNX[name]), build(NNX[name]), digits(BATCH)[0]
    assert doconv_flax.nnx.overparameterize(model, d_mul=MULTIPLIERS[name]) is model
    for mode in ("train", "eval"):  # batch statistics, then the running ones that resulted
        getattr(plain, mode)()
        getattr(model, mode)()
        np.testing.assert_array_equal(model(x), plain(x))
    assert list(doconv_flax.nnx.inspect_model(model)) == list(doconv_flax.nnx.inspect_model(plain))
    assert len(layers(model)) == sum("1x1" not in text for text in doconv_flax.nnx.inspect_model(plain).values())


def test_nnx_steps_train_every_w_and_d_and_folded_kernels_are_within_the_bound(trained: tuple) -> None:
    make, model = trained
    multiplier = next(iter(layers(model).values())).d_mul
    start = layers(
        doconv_flax.nnx.overparameterize(build(make), d_mul=multiplier if make is NNX["scan and remat"] else None)
    )
    folded = doconv_flax.nnx.fold(nnx.clone(model))
    plain = {
        ".".join(map(str, path)): node
        for path, node in nnx.iter_graph(folded)
        if isinstance(node, nnx.Conv | nnx.ConvTranspose)
    }
    for path, layer in layers(model).items():
        kernel, D = np.asarray(layer.kernel[...]), np.asarray(layer.D[...])
        assert (kernel != start[path].kernel[...]).any(), path
        assert D.any(), path
        compose, transposed = doconv_flax.nnx.composed_kernel, getattr(layer, "transpose_kernel", False)
        stacked = D.ndim - len(layer.kernel_size) - 2
        composed = (nnx.vmap(compose) if stacked else compose)(layer)
        check_kernel(kernel, D, np.asarray(composed), np.asarray(plain[path].kernel[...]), transposed)


def test_the_folded_nnx_model_equals_the_unfolded_one_and_loads_into_the_plain_one(trained: tuple) -> None:
    """As for linen; and the folded model is the plain one down to its graph, with its shared layers and tied kernels."""
    make, model = trained
    model, x = nnx.clone(model), digits(BATCH)[0]
    for layer in layers(model).values():
        kernel, D = rounded(np.asarray(layer.kernel[...]), np.asarray(layer.D[...]))
        layer.kernel[...], layer.D[...] = jnp.asarray(kernel), jnp.asarray(D)
    unfolded = model(x)
    assert doconv_flax.nnx.fold(doconv_flax.nnx.fold(model)) is model
    np.testing.assert_array_equal(model(x), unfolded)
    plain = build(make)
    plain.eval()
    assert nnx.graphdef(model) == nnx.graphdef(plain)
    assert jax.tree.structure(nnx.state(model)) == jax.tree.structure(nnx.state(plain))
    nnx.update(plain, nnx.state(model))
    np.testing.assert_array_equal(plain(x), unfolded)


def test_ties_stay_ties() -> None:
    model = doconv_flax.nnx.overparameterize(build(NNX["shared"]))
    assert model.again is model.first
    assert model.second.kernel is model.first.kernel
    assert model.second.D is model.first.D
    model.second.bias[...] += 1
    folded = doconv_flax.nnx.fold(model)
    assert type(folded.second) is nnx.Conv
    assert folded.second.kernel is folded.first.kernel
    assert not np.array_equal(folded.second.bias[...], folded.first.bias[...])


def test_a_linen_layer_called_twice_is_one_entry() -> None:
    model = LINEN["shared"]()
    spec = doconv_flax.linen.conv_spec(model, jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32), train=True)
    assert list(spec) == ["stem/layers_0", "twice", "normed/layer_instance"]


SCRIPT = """
import jax, numpy as np, optax
from flax import nnx
from doconv_flax.nnx import fold, overparameterize  # ours

x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
model = nnx.Sequential(nnx.Conv(4, 8, (3, 3), rngs=nnx.Rngs(0)), nnx.relu, nnx.Conv(8, 1, (3, 3), rngs=nnx.Rngs(1)))
overparameterize(model)  # ours
optimizer = nnx.Optimizer(model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer):
    loss, gradients = nnx.value_and_grad(lambda model: ((model(x) - 1) ** 2).mean())(model)
    optimizer.update(model, gradients)
    return loss


losses = [float(step(model, optimizer)) for _ in range(10)]
trained = model(x)
fold(model)  # ours
state = nnx.to_pure_dict(nnx.state(model))
"""


def test_an_nnx_training_script_changes_in_three_lines() -> None:
    lines = SCRIPT.splitlines()
    theirs = [line for line in lines if not line.endswith("# ours")]
    assert len(lines) - len(theirs) == 3
    plain: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    exec("\n".join(theirs), plain)
    exec(SCRIPT, ours)
    assert ours["losses"][0] == plain["losses"][0]
    assert ours["losses"][-1] < 0.9 * ours["losses"][0]
    assert ours["losses"][-1] != plain["losses"][-1]
    nnx.update(plain["model"], ours["state"])
    # Composed in float32 by the model and in float64 by `fold`: a few units of 2**-24.
    np.testing.assert_allclose(plain["model"](ours["x"]), ours["trained"], rtol=1e-5, atol=1e-6)
