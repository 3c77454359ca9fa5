"""Over-parameterize, train, save, restore and fold on many devices and in two processes: the numbers of one device."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from conformance.tests.flax import sharded
from conformance.tests.flax.sharded import FOLDS, INPUTS, OUTPUTS, REPLICATED, SPEC, STEPS, X, equal, start, step
from conformance.tests.two_processes import outputs_of_two
from doconv_flax import compose, start_from
from doconv_flax import linen as do_linen
from doconv_flax import nnx as do_nnx

ROOT = Path(__file__).parents[3]
WAYS = {
    "data": ((8, 1), REPLICATED), "parameters, by outputs": ((1, 8), OUTPUTS), "parameters, by inputs": ((1, 8), INPUTS),
    "both": ((4, 2), OUTPUTS),
}  # fmt: skip


def mesh(shape: tuple[int, ...], kind: AxisType = AxisType.Auto) -> Any:
    return jax.make_mesh(shape, ("data", "model"), axis_types=(kind,) * 2)


@pytest.mark.parametrize("api", STEPS)
@pytest.mark.parametrize("d_mul", [None, 13])
@pytest.mark.parametrize("way", WAYS)
def test_eight_devices_give_the_numbers_of_one(way: str, d_mul: int | None, api: str, tmp_path: Path) -> None:
    shape, specs = WAYS[way]
    devices = mesh(shape)
    x = jax.device_put(X, NamedSharding(devices, P("data")))
    params, alone = start(devices, specs, d_mul, api), start(None, REPLICATED, d_mul)
    axis = "model" if specs is INPUTS else None
    for layer in ("one", "two"):
        assert params[layer]["D"].sharding == NamedSharding(devices, P(None, None, None, axis))
        columns = (None, None) if d_mul is None else (None,)
        wanted = P(*columns, *(*specs[layer]["kernel"], None, None, None, None)[2:4])
        assert params[layer]["kernel"].sharding.is_equivalent_to(NamedSharding(devices, wanted), len(wanted))
    trained, want = STEPS[api](params, x), step(alone, X)
    equal(trained, want)
    if api == "linen":
        equal(step(params, x, do_linen.OverParameterized(sharded.Net(), d_mul=d_mul).apply), want)
    assert all(
        (leaf != before).any() for leaf, before in zip(jax.tree.leaves(want), jax.tree.leaves(alone), strict=True)
    )
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", trained)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "params", start(mesh((2, 4)), INPUTS, d_mul, api))
    folded = FOLDS[api](restored)
    equal(folded, do_linen.fold(want, SPEC))
    assert folded["one"]["kernel"].sharding.is_equivalent_to(NamedSharding(mesh((2, 4)), P(None, None, "model")), 4)


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    outputs = outputs_of_two("conformance.tests.flax.sharded", tmp_path, timeout=300)
    assert all("the same as on one device" in output for output in outputs)


def integers(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(len(shape)).integers(-2, 3, shape), jnp.float32)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("d_mul", [None, 12])
@pytest.mark.parametrize("spec", [P(None, None, None, "model"), P(None, None, "model")])
def test_where_types_say_how_arrays_are_split(spec: P, d_mul: int | None, groups: int) -> None:
    """JAX's explicit sharding mode: composing, its gradients and folding keep the split of the plain kernel."""
    devices = mesh((1, 4), AxisType.Explicit)
    plain, ours = integers(3, 3, 8 // groups, 16), integers(3, 3, d_mul or 9, 8)
    with jax.set_mesh(devices):
        kernel = jax.device_put(plain, NamedSharding(devices, spec))
        W, D = jax.jit(lambda kernel: start_at(kernel, d_mul))(kernel)
        eager = start_at(kernel, d_mul)
        for traced, made in zip((W, D), eager, strict=True):
            assert traced.sharding.is_equivalent_to(made.sharding, made.ndim)
        D = D + jax.device_put(ours, D.sharding)
        composed, pull = jax.vjp(jax.jit(compose), W, D)
        assert composed.sharding.is_equivalent_to(NamedSharding(devices, spec), 4)
        gradients = pull(composed)
        folded = do_linen.fold({"kernel": W, "D": D})["kernel"]
        assert folded.sharding.is_equivalent_to(NamedSharding(devices, spec), 4)
    want, pull = jax.vjp(compose, *start_at(plain, d_mul, ours))
    equal((composed, folded, gradients), (want, want, pull(want)))


def start_at(kernel: jax.Array, d_mul: int | None, D: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    W, zeros = start_from(kernel, 8, d_mul=d_mul)
    assert zeros is not None
    return W, zeros if D is None else D


@pytest.mark.parametrize("d_mul", [None, 12])
def test_nnx_layers_where_types_say_how_arrays_are_split(d_mul: int | None) -> None:
    devices = mesh((1, 4), AxisType.Explicit)
    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, None, None, "model"))
    with jax.set_mesh(devices):
        x = jax.device_put(integers(8, 6, 6, 8), NamedSharding(devices, P("data")))
        for groups in (1, 2):
            made = nnx.Conv(8, 16, (3, 3), feature_group_count=groups, kernel_init=init, rngs=nnx.Rngs(0))
            split = P("data", None, None, "model")
            y = made(x, out_sharding=split)
            do_nnx.overparameterize(made, d_mul=d_mul)
            np.testing.assert_array_equal(made(x, out_sharding=split), y)
            layer = do_nnx.DOConv(
                8, 16, (3, 3), d_mul=d_mul, feature_group_count=groups, kernel_init=init, rngs=nnx.Rngs(0)
            )
            assert layer(x, out_sharding=split).sharding.spec == split
            assert do_nnx.fold(made).kernel[...].sharding.spec == P(None, None, None, "model")


def test_what_is_committed_to_no_device_stays_so() -> None:
    """Otherwise it could not be used with arrays on another device."""
    params = nn.Conv(4, (3, 3)).init(jax.random.key(0), X)["params"]
    spec = do_linen.conv_spec(nn.Conv(4, (3, 3)), X)
    for d_mul in (None, 12):
        over = do_linen.overparameterize(params, spec, d_mul=d_mul)
        assert not any(leaf.committed for leaf in jax.tree.leaves((over, do_linen.fold(over, spec))))
        there = jax.device_put(params, jax.devices()[3])
        over = do_linen.overparameterize(there, spec, d_mul=d_mul)
        for leaf in jax.tree.leaves((over, do_linen.fold(over, spec))):
            assert leaf.devices() == {jax.devices()[3]}


def test_a_mesh_axis_that_splits_w_and_d_splits_one_axis_of_the_kernel() -> None:
    """`D` cut along its taps, `W` along its output channels, as a user may put them where no names are given."""
    devices = mesh((1, 4))
    W, D = integers(13, 2, 8), integers(4, 3, 13, 2)
    cut = {
        "kernel": jax.device_put(W, NamedSharding(devices, P(None, None, "model"))),
        "D": jax.device_put(D, NamedSharding(devices, P("model"))),
    }
    folded = do_linen.fold({"conv": cut})["conv"]["kernel"]
    np.testing.assert_array_equal(folded, do_linen.fold({"conv": {"kernel": W, "D": D}})["conv"]["kernel"])
    assert folded.sharding.is_equivalent_to(NamedSharding(devices, P(None, None, None, "model")), 4)
