"""Flax, linen. Where there are several devices of the kind, each takes its share of every batch."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import detection
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as orbax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from networks import Concat, Conv, Dense, GlobalPool, Layer, MaxPool, Network, Norm, Relu, Residual, Start, Up
from pictures import VOID
from recipe import Recipe

from doconv_flax import linen as do

State = dict[str, Any]


class Trainer:
    def __init__(
        self, network: Network, start: Start, recipe: Recipe, variant: str, kind: str, channels: int, device: str
    ) -> None:
        self.kind = kind
        mesh = Mesh(np.array(jax.devices(device)), ("data",))
        self.shared, self.replicated = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
        self.model = Net(network, jnp.bfloat16 if recipe.precision == "bfloat16" else None)
        x = jnp.zeros((1, 64, 64, channels))
        variables = jax.eval_shape(partial(self.model.init, train=False), jax.random.key(0), x)
        params = {name: _weights(start, name, leaves) for name, leaves in variables["params"].items()}
        self.statistics = {
            name: {key: np.full(leaf.shape, key == "var", np.float32) for key, leaf in leaves.items()}
            for name, leaves in variables.get("batch_stats", {}).items()
        }
        self.spec = None
        if variant.startswith("do"):
            self.spec = do.conv_spec(self.model, x, train=False)
            where = None if variant == "do" else (lambda path, _: path != "conv0")
            params = do.overparameterize(params, self.spec, where=where)
        self.params = jax.device_put(params, self.replicated)
        self.statistics = jax.device_put(self.statistics, self.replicated)
        decay = optax.add_decayed_weights(recipe.weight_decay, lambda p: jax.tree.map(lambda leaf: leaf.ndim > 1, p))
        self.optimizer = optax.chain(decay, optax.trace(recipe.momentum))
        self.slots = self.optimizer.init(self.params)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        self.devices = len(jax.tree.leaves(self.params)[0].sharding.device_set)
        self._step, self._predict = jax.jit(self._one_step), jax.jit(self._output)

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        state = (self.params, self.statistics, self.slots)
        batch = jax.device_put((_last(x), _last(y)), self.shared)
        state, loss = self._step(state, *batch, np.float32(rate))
        self.params, self.statistics, self.slots = state
        return float(loss)

    def predict(self, x: np.ndarray) -> np.ndarray:
        parts = [self._predict(self.params, self.statistics, _last(x[i : i + 500])) for i in range(0, len(x), 500)]
        output = np.concatenate([np.asarray(part) for part in parts])
        return np.moveaxis(output, -1, 1)

    def save(self, folder: Path) -> None:
        with orbax.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder.absolute() / "state", (self.params, self.statistics, self.slots))

    def restore(self, folder: Path) -> None:
        with orbax.StandardCheckpointer() as checkpointer:
            state = checkpointer.restore(folder.absolute() / "state", (self.params, self.statistics, self.slots))
        self.params, self.statistics, self.slots = state

    def fold(self) -> None:
        if self.spec is not None:
            self.params, self.spec = do.fold(self.params, self.spec), None

    def _plain(self, params: State) -> State:
        return params if self.spec is None else do.fold(params, self.spec)

    def _output(self, params: State, statistics: State, x: jax.Array) -> jax.Array:
        return self.model.apply({"params": self._plain(params), "batch_stats": statistics}, x, train=False)

    def _one_step(
        self, state: tuple[State, State, Any], x: jax.Array, y: jax.Array, rate: jax.Array
    ) -> tuple[tuple[State, State, Any], jax.Array]:
        params, statistics, slots = state

        def loss(params: State) -> tuple[jax.Array, State]:
            variables = {"params": self._plain(params), "batch_stats": statistics}
            output, changed = self.model.apply(variables, x, train=True, mutable=["batch_stats"])
            return self._loss(output, y), changed.get("batch_stats", {})

        (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, slots = self.optimizer.update(gradients, slots, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        return (params, statistics, slots), value

    def _loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        if self.kind == "images":
            return ((output - target) ** 2).mean()
        if self.kind == "boxes":
            return detection.loss(jnp, output, target).mean()
        counts = target != VOID
        losses = optax.softmax_cross_entropy_with_integer_labels(output, jnp.where(counts, target, 0))
        return losses.mean(where=counts)


class Net(nn.Module):
    """The tree in linen's layers; `conv0`, `dense1`, ... are numbered in the order of computation."""

    network: Network
    dtype: Any  # of the computation; None is the parameters'

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return self._sequential(self.network, x, train, count()).astype(jnp.float32)

    def _sequential(self, network: Network, x: jax.Array, train: bool, numbers: count[int]) -> jax.Array:
        for layer in network:
            x = self._layer(layer, x, train, numbers)
        return x

    def _layer(self, layer: Layer, x: jax.Array, train: bool, numbers: count[int]) -> jax.Array:
        match layer:
            case Conv(out, kernel, stride, groups, bias):
                padding, name = [(kernel // 2, kernel // 2)] * 2, f"conv{next(numbers)}"
                options = {"feature_group_count": groups, "use_bias": bias, "dtype": self.dtype, "name": name}
                return nn.Conv(out, (kernel, kernel), (stride, stride), padding, **options)(x)
            case Dense(out):
                return nn.Dense(out, dtype=self.dtype, name=f"dense{next(numbers)}")(x)
            case Norm():
                return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)(x)
            case Relu():
                return nn.relu(x)
            case MaxPool(kernel):
                margin = (kernel - 1) // 2
                return nn.max_pool(x, (kernel, kernel), (2, 2), [(margin, margin)] * 2)
            case Up():
                return x.repeat(2, 1).repeat(2, 2)
            case GlobalPool():
                return x.mean((1, 2))
            case Residual(body, shortcut):
                y = self._sequential(body, x, train, numbers)
                return y + self._sequential(shortcut, x, train, numbers)
            case Concat(branches):
                return jnp.concatenate([self._sequential(branch, x, train, numbers) for branch in branches], -1)
        raise TypeError(f"not a layer: {layer!r}")


def _weights(start: Start, name: str, leaves: State) -> State:
    """A layer's parameters from the common start; those of a batch normalisation are ones and zeros."""
    if "kernel" not in leaves:
        return {key: np.full(leaf.shape, key == "scale", np.float32) for key, leaf in leaves.items()}
    number = name.removeprefix("conv").removeprefix("dense")
    weight = start[f"{number}.weight"]
    kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
    return {"kernel": kernel} | ({"bias": start[f"{number}.bias"]} if "bias" in leaves else {})


def _last(array: np.ndarray) -> np.ndarray:
    """Channels last, where there are channels."""
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array
