"""One step of training on integers, whose every sum is exact: it gives the same numbers on any devices.

Run as a program, `python -m conformance.tests.flax.sharded PROCESS PORT FOLDER` is one of two processes that train together.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, gamma
from doconv_flax import linen as do
from doconv_flax import nnx as do_nnx

Specs = dict[str, dict[str, PartitionSpec]]
P = PartitionSpec
REPLICATED: Specs = {name: {"kernel": P(), "bias": P()} for name in ("one", "two")}
OUTPUTS: Specs = {name: {"kernel": P(None, None, None, "model"), "bias": P("model")} for name in ("one", "two")}
INPUTS: Specs = {name: {"kernel": P(None, None, "model"), "bias": P()} for name in ("one", "two")}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(8, (3, 2), name="two")(nn.Conv(8, (3, 3), name="one")(x))


class NnxNet(nnx.Module):
    def __init__(self) -> None:
        self.one, self.two = (nnx.Conv(8, 8, (3, width), rngs=nnx.Rngs(0)) for width in (3, 2))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.two(self.one(x))


def integers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


X = integers(0, 8, 4, 4, 8)
PLAIN: dict[str, dict[str, np.ndarray]] = {
    name: {"kernel": integers(seed, 3, width, 8, 8), "bias": integers(seed + 1, 8)}
    for name, seed, width in (("one", 1, 3), ("two", 3, 2))
}
SPEC = do.conv_spec(Net(), X)


def place(tree: Any, mesh: Mesh | None, specs: Specs) -> Any:
    """The arrays as the specs say; on the first device without a mesh."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, tree)

    def put(array: np.ndarray, spec: PartitionSpec) -> jax.Array:
        return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])

    return {
        layer: {name: put(array, specs[layer][name]) for name, array in leaves.items()}
        for layer, leaves in tree.items()
    }


def start(mesh: Mesh | None, specs: Specs, d_mul: int | None, api: str = "linen") -> Any:
    """Over-parameterized parameters with `D` of integers, laid out as `overparameterize` lays it out."""
    plain = place(PLAIN, mesh, specs)
    if api == "linen":
        params = do.overparameterize(plain, SPEC, d_mul=d_mul)
    else:
        model = NnxNet()
        nnx.update(model, plain)
        params = arrays(do_nnx.overparameterize(model, d_mul=d_mul))
    for seed, leaves in enumerate(params.values(), 5):
        D = integers(seed, *leaves["D"].shape)
        leaves["D"] = jax.make_array_from_callback(D.shape, leaves["D"].sharding, lambda index, D=D: D[index])
        W = leaves["kernel"]  # surplus columns are random numbers
        leaves["kernel"] = jax.jit(jnp.round, out_shardings=W.sharding)(W)
    return params


def loss(apply: Callable[..., jax.Array]) -> Callable[[Any, jax.Array], jax.Array]:
    return lambda params, x: (apply({"params": params}, x)[:, :2] * x[:, 2:]).sum()


def by_fold(variables: Any, x: jax.Array) -> jax.Array:
    return Net().apply({"params": do.fold(variables["params"], SPEC)}, x)


def step(params: Any, x: jax.Array, apply: Callable[..., jax.Array] = by_fold) -> Any:
    """One step of gradient descent; the parameters stay where they are."""
    tx = optax.sgd(2.0**-8)

    def update(params: Any, x: jax.Array) -> Any:
        updates, _ = tx.update(jax.grad(loss(apply))(params, x), tx.init(params))
        return optax.apply_updates(params, updates)

    return jax.jit(update, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params))(params, x)


def arrays(model: NnxNet) -> Any:
    return nnx.to_pure_dict(nnx.state(model))


def nnx_model(params: Any) -> NnxNet:
    """With the parameters that `start` gives."""
    d_mul = None if params["one"]["kernel"].ndim == 4 else params["one"]["D"].shape[-2]
    model = do_nnx.overparameterize(NnxNet(), d_mul=d_mul)
    nnx.update(model, params)
    return model


def nnx_step(params: Any, x: jax.Array) -> Any:
    """As `step`, by what nnx offers for it."""
    model = nnx_model(params)
    optimizer = nnx.Optimizer(model, optax.sgd(2.0**-8), wrt=nnx.Param)

    @nnx.jit
    def update(model: NnxNet, optimizer: nnx.Optimizer, x: jax.Array) -> None:
        optimizer.update(model, nnx.grad(lambda model: (model(x)[:, :2] * x[:, 2:]).sum())(model))

    update(model, optimizer, x)
    return arrays(model)


def nnx_fold(params: Any) -> Any:
    return arrays(do_nnx.fold(nnx_model(params)))


STEPS: dict[str, Callable[..., Any]] = {"linen": step, "nnx": nnx_step}
FOLDS: dict[str, Callable[..., Any]] = {"linen": lambda params: do.fold(params, SPEC), "nnx": nnx_fold}


def equal(one: Any, other: Any) -> None:
    """The parts of arrays that lie in this process are those of the other arrays, which are here as a whole."""

    def check(sharded: jax.Array, whole: jax.Array) -> None:
        assert sharded.shape == whole.shape
        for shard in sharded.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(whole)[shard.index])

    jax.tree.map(check, one, other)


def one_of_two(process: int, port: int, folder: str) -> None:
    """Train on all devices of two processes, save, restore laid out in another way, fold; compare with one device."""
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 8, 4)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    x = jax.make_array_from_callback(X.shape, NamedSharding(mesh, P("data")), lambda index: X[index])
    for d_mul, api in itertools.product((None, 13), STEPS):
        params = start(mesh, OUTPUTS, d_mul, api)
        for leaf in jax.tree.leaves(params):
            assert leaf.sharding.device_set == set(jax.devices())
        alone = start(None, REPLICATED, d_mul)
        params, alone = STEPS[api](params, x), step(alone, X)
        equal(params, alone)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(f"{folder}/{api}-{d_mul}", params)
            checkpointer.wait_until_finished()
            blank = start(mesh, INPUTS, d_mul, api)
            restored = checkpointer.restore(f"{folder}/{api}-{d_mul}", blank)
        assert restored["one"]["D"].sharding.spec == P(None, None, None, "model")
        equal(restored, alone)
        folded, want = FOLDS[api](restored), do.fold(alone, SPEC)
        assert folded["one"]["kernel"].sharding.is_equivalent_to(NamedSharding(mesh, INPUTS["one"]["kernel"]), 4)
        sizes = do.fold(jax.tree.map(abs, alone), SPEC)
        for layer in folded:  # composed by JAX in float32, as no process has all the numbers; the other in float64
            n, u = alone[layer]["D"].shape[-2] + 2, UNIT_ROUNDOFF["float32"]
            mine = folded[layer]["kernel"].addressable_shards[0]
            there, size = (np.asarray(tree[layer]["kernel"])[mine.index] for tree in (want, sizes))
            assert (abs(np.asarray(mine.data) - there) <= (gamma(n, u) + u) * size).all()
    print("the same as on one device")


if __name__ == "__main__":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    one_of_two(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
