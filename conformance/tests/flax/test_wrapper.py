"""`OverParameterized(Net())`: the plain model on composed kernels, wherever linen lets a module stand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.errors import ScopeParamNotFoundError
from flax.traverse_util import flatten_dict, unflatten_dict

from conformance.tests.flax.architectures import LINEN
from doconv_flax import linen as do
from doconv_flax._linen_wrapper import _cached

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32))
RNGS = {"params": jax.random.key(0), "dropout": jax.random.key(1)}


class Net(nn.Module):
    """What a model has: batch statistics, dropout, groups, one tap, a transposed layer stored the other way round."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x)))
        x = nn.Dropout(0.5, deterministic=not train)(nn.Conv(4, (3, 2), feature_group_count=2)(x))
        return nn.Conv(2, (1, 1))(nn.ConvTranspose(4, (2, 2), (2, 2), transpose_kernel=True)(x))


class Autoencoder(nn.Module):
    """Methods of its own, and one convolution that only the second reaches."""

    def setup(self) -> None:
        self.down = nn.Conv(4, (3, 3))
        self.up = nn.ConvTranspose(4, (3, 3), transpose_kernel=True)

    def encode(self, x: jax.Array) -> jax.Array:
        return nn.relu(self.down(x))

    def decode(self, x: jax.Array) -> jax.Array:
        return self.up(x)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decode(self.encode(x))

    def peep(self, x: jax.Array) -> jax.Array:
        return self.encode(x) + self.up.get_variable("params", "kernel").sum()

    def reach(self, x: jax.Array) -> jax.Array:
        return self.encode(x) + (0 if self.is_initializing() else self.up(x))


def with_random_d(params: Any, seed: int = 2) -> Any:
    """As if trained: every `D` small random numbers."""
    flat, rng = flatten_dict(params), np.random.default_rng(seed)
    random = {names: jnp.asarray(0.1 * rng.normal(size=leaf.shape).astype(np.float32))
              for names, leaf in flat.items() if names[-1] == "D"}  # fmt: skip
    assert random
    return unflatten_dict(flat | random)


def equal(one: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), one, other)


def composed(params: Any, spec: do.ConvSpec) -> Any:
    """The plain model's parameters, composed in a trace as the wrapper composes them."""
    return jax.jit(lambda params: do.fold(params, spec))(params)


def check(plain: nn.Module, wrapped: nn.Module, *args: Any, composed_twice: bool = False) -> Any:
    """Same start; then, with any `D`, what the plain model computes with the composed kernels, gradients included.

    (A gradient through two compositions of one kernel is a sum, rounded in another place than that of one.)
    """
    before, variables = plain.init(RNGS, *args), wrapped.init(RNGS, *args)
    spec = do.conv_spec(wrapped, *args)
    equal(do.fold(variables["params"], spec), before["params"])
    rest = {name: value for name, value in variables.items() if name != "params"}
    equal(rest, {name: value for name, value in before.items() if name != "params"})
    params = with_random_d(variables["params"])
    y = jax.jit(lambda variables: wrapped.apply(variables, *args))({"params": params} | rest)
    want = jax.jit(lambda variables: plain.apply(variables, *args))({"params": composed(params, spec)} | rest)
    equal(y, want)
    assert (y != plain.apply(before, *args)).any()

    def loss(model: nn.Module, params: Any) -> jax.Array:
        return (model.apply({"params": params} | rest, *args) ** 2).sum()

    got = jax.jit(jax.grad(lambda params: loss(wrapped, params)))(params)
    if not composed_twice:
        equal(got, jax.jit(jax.grad(lambda params: loss(plain, do.fold(params, spec))))(params))
    assert all(leaf.any() for names, leaf in flatten_dict(got).items() if names[-1] == "D")
    return params


@pytest.mark.parametrize("d_mul", [None, 12])
def test_a_model_with_everything(d_mul: int | None) -> None:
    params = check(Net(), do.OverParameterized(Net(), d_mul=d_mul), X)
    assert {path: leaf.shape[-2] for path, leaf in flatten_dict(params, sep="/").items() if path.endswith("/D")} == {
        "Conv_0/D": d_mul or 9, "Conv_1/D": d_mul or 6, "ConvTranspose_0/D": d_mul or 4,
    }  # fmt: skip
    assert "D" not in params["Conv_2"]


@pytest.mark.parametrize("name", LINEN)
def test_known_architectures(name: str) -> None:
    check(LINEN[name](), do.OverParameterized(LINEN[name]()), X[..., :1], False)


def test_a_training_script_changes_in_three_lines() -> None:
    """The wrapper, the import, `fold` at the end; the script is Flax's own, with batch statistics and dropout."""

    def train(model: nn.Module) -> tuple[Any, list[float]]:
        variables = model.init(RNGS, X, True)
        params, stats, tx = variables["params"], variables["batch_stats"], optax.sgd(0.05, momentum=0.9)
        state, losses = tx.init(params), []

        @jax.jit
        def step(params: Any, stats: Any, state: Any, key: jax.Array) -> Any:
            def loss(params: Any) -> Any:
                given = {"params": params, "batch_stats": stats}
                y, changed = model.apply(given, X, True, rngs={"dropout": key}, mutable=["batch_stats"])
                return jnp.mean((y - 1) ** 2), changed["batch_stats"]

            (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), stats, state, value

        for index in range(20):
            params, stats, state, value = step(params, stats, state, jax.random.key(index))
            losses.append(float(value))
        return {"params": params, "batch_stats": stats}, losses

    wrapper = do.OverParameterized(Net())
    (_, plain), (variables, ours) = train(Net()), train(wrapper)
    assert ours[0] == plain[0]
    assert ours[-1] < 0.9 * ours[0]
    assert ours[-1] != plain[-1]
    folded = do.fold(variables["params"], do.conv_spec(wrapper, X))
    want = wrapper.apply(variables, X)
    # The wrapper composes in float32 and `fold` in float64: the kernels differ by some units of 2**-24, which further layers
    # and the normalisation pass on; a kernel that is not the composed one is off by a tenth and more.
    np.testing.assert_allclose(Net().apply(variables | {"params": folded}, X), want, rtol=1e-5, atol=1e-5)


def test_methods_of_the_module_are_methods_of_the_wrapper() -> None:
    wrapped, plain = do.OverParameterized(Autoencoder()), Autoencoder()
    params = with_random_d(wrapped.init(RNGS, X)["params"])
    spec = do.conv_spec(wrapped, X)
    kernels = composed(params, spec)
    code = jax.jit(lambda params: wrapped.apply({"params": params}, X, method="encode"))(params)
    equal(code, jax.jit(lambda params: plain.apply({"params": params}, X, method="encode"))(kernels))
    decode = jax.jit(lambda params, code: wrapped.bind({"params": params}).decode(code))
    equal(decode(params, code), jax.jit(lambda p, c: plain.apply({"params": p}, c, method="decode"))(kernels, code))
    with pytest.raises(AttributeError, match=r'"OverParameterized" object has no attribute "nothing"'):
        wrapped.apply({"params": params}, X, method="nothing")
    with pytest.raises(AttributeError, match="has no attribute"):
        wrapped.down  # noqa: B018


class Compact(nn.Module):
    """A method that makes its layers where it runs: on the wrapper it would find `W` under the layer's name."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(4, (3, 3))(x)


@pytest.mark.parametrize("method", [Compact.__call__, Compact().__call__, "__call__"])
def test_a_method_may_be_given_as_a_function(method: Any) -> None:
    wrapped, plain = do.OverParameterized(Compact()), Compact()
    for init in (
        wrapped.init,
        wrapped.lazy_init,
        lambda *args, **options: wrapped.init_with_output(*args, **options)[1],
    ):
        assert "D" in init(RNGS, X, method=method)["params"]["Conv_0"]
    params = with_random_d(wrapped.init(RNGS, X, method=method)["params"])
    kernels = composed(params, do.conv_spec(wrapped, X))
    equal(
        jax.jit(lambda params: wrapped.apply({"params": params}, X, method=method))(params),
        jax.jit(lambda params: plain.apply({"params": params}, X))(kernels),
    )


def test_what_is_called_on_the_module_within_is_refused() -> None:
    """It would run on `W` alone, whose shape is the kernel's."""
    wrapped = do.OverParameterized(Autoencoder())
    params = with_random_d(wrapped.init(RNGS, X)["params"])
    with pytest.raises(ValueError, match=r"call the wrapper, not the model in it. Received: down"):
        wrapped.apply({"params": params}, X, method=lambda wrapper, x: (wrapper(x), wrapper.module.encode(x)))
    with pytest.raises(AttributeError) as raised:
        wrapped.apply({"params": params}, X, method=lambda wrapper, x: wrapper.down(x))
    assert raised.value.__notes__[0] == "Of Autoencoder's attributes a wrapper has the public methods."


def test_what_is_no_plain_linen_module_is_refused() -> None:
    with pytest.raises(TypeError, match="the module is over-parameterized already"):
        do.OverParameterized(do.OverParameterized(Net())).init(RNGS, X)
    layer = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0))
    for given, received in ((Net, "Received: <class .*Net'>"), (layer, r"Received: Conv\(")):
        with pytest.raises(TypeError, match=rf"must be a flax.linen module, not its class\. {received}"):
            do.OverParameterized(given).init(RNGS, X)


def test_what_a_call_does_not_run_as_a_convolution_it_can_not_read() -> None:
    """Whether a square kernel is transposed only a call of its layer says: reading `W` in its place would be silent."""
    wrapped = do.OverParameterized(Autoencoder())
    params = wrapped.init(RNGS, X)["params"]
    assert Autoencoder().apply(Autoencoder().init(RNGS, X), X, method="peep").shape == (2, 8, 8, 4)
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'sum'"):
        wrapped.apply({"params": params}, X, method="peep")
    with pytest.raises(ScopeParamNotFoundError, match='parameter named "kernel"'):
        wrapped.apply({"params": params}, X, method="reach")


class Around(nn.Module):
    """The wrapper as a part of a model: `kind` says how."""

    kind: str
    wrap: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(4, (1, 1), name="stem")(x)
        if self.kind == "submodule":
            return self.wrap(nn.Conv(4, (3, 3)), name="part")(x)
        if self.kind == "called twice":
            part = self.wrap(nn.Conv(4, (3, 3)), name="part")
            return part(part(x))
        if self.kind == "two methods":
            part = self.wrap(Autoencoder(), name="part")
            return part.decode(part.encode(x))
        if self.kind == "remat":
            return nn.remat(lambda part, x: part(x))(self.wrap(nn.Conv(4, (3, 3)), name="part"), x)
        if self.kind == "vmap":
            run = nn.vmap(lambda part, x: part(x), variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None,
                          axis_size=2)  # fmt: skip
            return run(self.wrap(nn.Conv(4, (3, 3)), name="part"), x).sum(0)
        run = nn.scan(
            lambda part, x, _: (part(x), None), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        return run(self.wrap(nn.Conv(4, (3, 3)), name="part"), x, None)[0]


class Alone(nn.Module):
    """What `OverParameterized` does with scopes and no more."""

    module: nn.Module

    def setup(self) -> None:
        nn.share_scope(self, self.module)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.module(x)

    def encode(self, x: jax.Array) -> jax.Array:
        return self.module.encode(x)

    def decode(self, x: jax.Array) -> jax.Array:
        return self.module.decode(x)


@pytest.mark.parametrize("d_mul", [None, 12])
@pytest.mark.parametrize("kind", ["submodule", "called twice", "two methods", "remat", "vmap", "scan"])
def test_the_wrapper_is_a_module_like_any_other(kind: str, d_mul: int | None) -> None:
    def wrap(module: nn.Module, **options: Any) -> nn.Module:
        return do.OverParameterized(module, d_mul=d_mul, **options)

    params = check(Around(kind, Alone), Around(kind, wrap), X, composed_twice=kind == "called twice")
    # Where they would be without the wrapper: the module in it is made in the model's own call.
    assert set(params) == {"stem", "Autoencoder_0" if kind == "two methods" else "Conv_0"}
    assert "D" not in params["stem"]


class Nested(nn.Module):
    """A plain convolution, one that is wrapped already and a DO layer."""

    part: Any
    layer: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.part(nn.Conv(4, (3, 3), name="wrapped"))(nn.Conv(4, (3, 3), name="plain")(x))
        return self.layer(4, (3, 2), name="layer")(x)


def test_a_wrapper_around_a_model_that_has_one_or_a_do_layer_leaves_those_alone() -> None:
    wrapped = do.OverParameterized(Nested(lambda m: do.OverParameterized(m, d_mul=10), do.DOConv), d_mul=13)
    variables = wrapped.init(RNGS, X)
    wanted = {"plain": 13, "wrapped": 10, "layer": 6}
    assert {name: layer["D"].shape[-2] for name, layer in variables["params"].items()} == wanted
    params, spec = with_random_d(variables["params"]), do.conv_spec(wrapped, X)
    assert {path: entry.d_mul for path, entry in spec.items()} == wanted
    want = jax.jit(Nested(Alone, nn.Conv).apply)({"params": composed(params, spec)}, X)
    equal(jax.jit(wrapped.apply)({"params": params}, X), want)


def test_only_what_where_selects() -> None:
    wrapped = do.OverParameterized(Net(), where="Conv_?")
    params = wrapped.init(RNGS, X)["params"]
    assert [name for name, layer in params.items() if "D" in layer] == ["Conv_0", "Conv_1"]
    wrapped.apply({**wrapped.init(RNGS, X), "params": params}, X)
    with pytest.raises(ValueError, match=r"`where` selects no convolution. Received: 'nothing'"):
        do.OverParameterized(Net(), where="nothing").init(RNGS, X)
    with pytest.raises(ValueError, match="the model has no convolution"):
        do.OverParameterized(nn.Dense(3)).init(RNGS, X)
    with pytest.raises(
        ValueError, match=r"d_mul must be at least 9, .* Received: Conv_0: kernel_size=\(3, 3\), d_mul=8"
    ):
        do.OverParameterized(Net(), d_mul=8).init(RNGS, X)


def test_parameters_that_are_not_the_wrappers_are_refused() -> None:
    """The plain model's (say from a checkpoint), which would train without `D`; and those of another `d_mul`."""
    plain, wrapped = Net().init(RNGS, X), do.OverParameterized(Net(), d_mul=12)
    with pytest.raises(
        ValueError, match=r"'Conv_0' must have a D of d_mul=12: .* Received: no D: these may be the plain"
    ):
        wrapped.apply(plain, X)
    spec = do.conv_spec(Net(), X)
    with pytest.raises(ValueError, match=r"'Conv_0' must have .* Received: D of shape \(3, 3, 9, 4\)"):
        wrapped.apply({**plain, "params": do.overparameterize(plain["params"], spec)}, X)
    given = {**plain, "params": do.overparameterize(plain["params"], spec, d_mul=12)}
    equal(wrapped.apply(given, X), Net().apply(plain, X))


def test_second_derivatives_and_forward_mode() -> None:
    wrapped = do.OverParameterized(Net())
    variables = wrapped.init(RNGS, X)
    params, spec = with_random_d(variables["params"]), do.conv_spec(wrapped, X)
    rest = {"batch_stats": variables["batch_stats"]}

    def ours(params: Any) -> jax.Array:
        return (wrapped.apply({"params": params} | rest, X) ** 2).sum()

    def plain(params: Any) -> jax.Array:
        return (Net().apply({"params": do.fold(params, spec)} | rest, X) ** 2).sum()

    along = with_random_d(params, 3)
    for function in (
        lambda loss: jax.jvp(loss, (params,), (along,)),
        lambda loss: jax.jvp(jax.grad(loss), (params,), (along,)),  # Hessian times vector
        lambda loss: jax.grad(lambda p: sum((leaf**2).sum() for leaf in jax.tree.leaves(jax.grad(loss)(p))))(params),
    ):
        equal(jax.jit(function, static_argnums=0)(ours), jax.jit(function, static_argnums=0)(plain))


def test_flaxs_own_tools_take_it() -> None:
    wrapped = do.OverParameterized(Net())
    variables = wrapped.init(RNGS, X)
    table = nn.tabulate(wrapped, RNGS, console_kwargs={"width": 200})(X)
    assert table.count("D: ") == 3
    assert table.count("│ Conv_0 ") == 1
    inside = nn.tabulate(Around("two methods", do.OverParameterized), RNGS, console_kwargs={"width": 200})(X)
    assert inside.count("D: ") == 2
    y, changed = wrapped.apply(variables, X, mutable=True)
    equal(changed, variables)
    equal(y, wrapped.apply(variables, X))
    _, state = wrapped.apply(variables, X, capture_intermediates=True, mutable=["intermediates"])
    assert {"Conv_0", "ConvTranspose_0"} <= set(state["intermediates"])
    shapes = jax.eval_shape(wrapped.init, RNGS, X)
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(lambda leaf: leaf.shape, variables)


def test_partitioned_parameters_stay_boxed() -> None:
    init = nn.with_partitioning(nn.initializers.lecun_normal(), ("row", None, "in", "out"))
    wrapped = do.OverParameterized(nn.Conv(4, (3, 3), kernel_init=init), d_mul=12)
    params = wrapped.init(RNGS, X)["params"]
    assert (params["kernel"].names, params["D"].names) == ((None, "in", "out"), ("row", None, None, "in"))
    assert do.fold(params)["kernel"].names == ("row", None, "in", "out")
    equal(wrapped.apply({"params": params}, X), wrapped.apply({"params": nn.meta.unbox(params)}, X))


def test_the_model_is_run_in_the_abstract_once_for_calls_alike() -> None:
    model = nn.Sequential(
        [nn.Conv(4, (3, 3)), lambda x: 2 * x]
    )  # hashed by structure: a linen module with a list is not
    wrapped = do.OverParameterized(model)
    variables = wrapped.init(RNGS, X)
    wrapped.apply(variables, X)
    before = _cached.cache_info()
    wrapped.apply(variables, X + 1)
    jax.jit(wrapped.apply)(variables, X)
    after = _cached.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 0)
    shared = nn.Conv(4, (3, 3), parent=None)
    for layers in ([shared, shared], [nn.Conv(4, (3, 3), parent=None), nn.Conv(4, (3, 3), parent=None)]):
        wrapped = do.OverParameterized(nn.Sequential(layers))
        wrapped.apply(wrapped.init(RNGS, X), X)
    assert _cached.cache_info().misses == after.misses + 2
    masked = do.OverParameterized(nn.Conv(4, (3, 3), mask=jnp.ones((3, 3, 4, 4))))  # an array can't be hashed
    masked.apply(masked.init(RNGS, X), X)
    assert _cached.cache_info().misses == after.misses + 2
