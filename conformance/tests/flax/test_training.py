"""Training: the layers follow the core's own steps, and no column of `W` and `D` is dead."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import doconv_flax
from doconv_conformance.layer_checks.training import LEARNING_RATE, TRAININGS, Training, expected
from doconv_conformance.verdicts.judge import judge
from doconv_core import Layout

Params = dict[str, np.ndarray]
# Flax's ConvTranspose has no groups; none of the trainings needs them there.
by_name = pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.name)


def layout(training: Training) -> Layout:
    return Layout("flax", training.geometry)


def given(training: Training, dtype: str) -> Params:
    """The training's start in Flax's layout and under its names."""
    place, start = layout(training), training.start
    params = {"kernel": place.w_from_canonical(start["W"]), "D": place.d_from_canonical(start["D_delta"])}
    return {name: value.astype(dtype) for name, value in (params | {"bias": start["bias"]}).items()}


def arguments(training: Training, dtype: str) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    g = training.geometry
    options: dict[str, Any] = {
        "strides": g.stride, "kernel_dilation": g.dilation, "padding": "VALID", "param_dtype": jnp.dtype(dtype)
    }  # fmt: skip
    if not g.transposed:
        return "Conv", g.kernel_size, options | {"feature_group_count": g.groups}
    # "VALID" appends what a stride larger than the kernel leaves over; these pairs are the full output.
    full = [(d * (k - 1),) * 2 for d, k in zip(g.dilation, g.kernel_size, strict=True)]
    return "ConvTranspose", g.kernel_size, options | {"padding": full}


def steps(api: str, params: Params | None, training: Training, dtype: str, count: int) -> tuple[Params, Params]:
    """Parameters before and after `count` steps with optax; None starts from the layer's own initialiser."""
    name, size, options = arguments(training, dtype)
    g, place = training.geometry, layout(training)
    batches = [(place.activation_from_canonical(x).astype(dtype), place.activation_from_canonical(y).astype(dtype))
               for x, y in zip(training.x[:count], training.target, strict=False)]  # fmt: skip
    tx = optax.sgd(LEARNING_RATE)
    if api == "linen":
        module = getattr(doconv_flax.linen, f"DO{name}")(g.out_channels, size, d_mul=g.d_mul, **options)
        params = module.init(jax.random.key(0), batches[0][0])["params"] if params is None else params

        def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
            gradients = jax.grad(lambda p: 0.5 * jnp.sum((module.apply({"params": p}, x) - y) ** 2))(params)
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        run, now, state = jax.jit(step), params, tx.init(params)
        for x, y in batches:
            now, state = run(now, state, x, y)
        return jax.tree.map(np.asarray, (dict(params), dict(now)))
    cls = getattr(doconv_flax.nnx, f"DO{name}")
    layer = cls(g.in_channels, g.out_channels, size, d_mul=g.d_mul, rngs=nnx.Rngs(0), **options)
    for key, value in (params or {}).items():
        getattr(layer, key)[...] = jnp.asarray(value)
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(layer)))
    optimizer = nnx.Optimizer(layer, tx, wrt=nnx.Param)

    @nnx.jit
    def step_in_place(layer: nnx.Module, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> None:
        optimizer.update(layer, nnx.grad(lambda layer: 0.5 * jnp.sum((layer(x) - y) ** 2))(layer))

    for x, y in batches:
        step_in_place(layer, optimizer, x, y)
    return before, jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(layer)))


@pytest.mark.parametrize(("api", "dtype"), [("linen", "float64"), ("linen", "float32"), ("nnx", "float32")])
@by_name
def test_ten_steps_follow_the_core(training: Training, api: str, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        _, params = steps(api, given(training, dtype), training, dtype, len(training.x))
    place = layout(training)
    outputs = {
        "W": place.w_to_canonical(params["kernel"]), "D_delta": place.d_to_canonical(params["D"]), "bias": params["bias"]
    }  # fmt: skip
    judgement = judge(expected(training, dtype), outputs, exact=False)
    assert judgement["verdict"] == "within_bound", judgement["reason"]


def moved(training: Training, before: Params, after: Params) -> tuple[np.ndarray, np.ndarray]:
    """Which columns of `W` and of `D` have moved in each of their entries, and that the others have in none."""
    place, result = layout(training), []
    for name, canonical in (("kernel", place.w_to_canonical), ("D", place.d_to_canonical)):
        changed = canonical(before[name] != after[name])
        changed = changed.reshape(-1, changed.shape[-1])
        assert (changed.all(0) | ~changed.any(0)).all()
        result.append(changed.all(0))
    return result[0], result[1]


@by_name
def test_one_step_moves_what_has_a_gradient_and_two_move_everything(training: Training) -> None:
    """At `D_delta = 0`, with `g = dL/dW'`: `dL/dW = g E` and `dL/dD_delta = sum over the kernels of g W`.

    So a column of `W` moves where `E` has a one in it, which surplus columns (`S` no multiple of `K`) have not; a column of `D`
    where `W` is not zero. A fresh `W` is zero nowhere. A layer made from a kernel has zeros in its second and later tiles, and
    random numbers in its surplus columns. What stands still in the first step meets a partner that has moved in the second.
    """
    g = training.geometry
    columns = np.arange(g.d_mul)
    in_tile, in_first = columns < g.d_mul - g.d_mul % g.taps, columns < g.taps

    def converted() -> Params:
        name, size, options = arguments(training, "float32")
        x = layout(training).activation_from_canonical(training.x[0]).astype("float32")
        model = getattr(nn, name)(g.out_channels, size, **options)
        spec = doconv_flax.linen.conv_spec(model, x)
        plain = model.init(jax.random.key(0), x)["params"]
        return doconv_flax.linen.overparameterize(plain, spec, d_mul=g.d_mul)

    for start, in_D in ((None, np.ones_like(in_tile)), (converted(), in_first | ~in_tile)):
        np.testing.assert_array_equal(moved(training, *steps("linen", start, training, "float32", 1)), [in_tile, in_D])
        assert np.all(moved(training, *steps("linen", start, training, "float32", 2)))


def test_surplus_columns_are_among_the_trainings() -> None:
    assert any(training.geometry.d_mul % training.geometry.taps for training in TRAININGS)
