"""How each way of the Flax backend runs a layer: as a linen module, as an nnx module, and as a function of JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Function = Callable[..., Any]


class Compiled:
    """The layer is called with the parameters in a function that `jax.jit` compiles, and so are its gradients.

    Attributes:
        stacked: whether the layer is called with two sets of parameters, stacked, the second of which counts.
    """

    stacked = False

    def linen(self, module: nn.Module, x: jax.Array) -> jax.Array:
        """Inside another module that holds it."""
        return module(x)

    def nnx(self, module: Any, x: jax.Array) -> jax.Array:
        return module(x)

    def function(self, call: Function) -> Function:
        """What differentiates: `call(params, x)`, or its like."""
        return call

    def run(self, function: Function) -> Function:
        """What runs: a function of the parameters, the input and perhaps the gradient of the output."""
        return jax.jit(function)

    def place(self, params: Any) -> Any:
        """The parameters where the way keeps them."""
        return params


class Eager(Compiled):
    def run(self, function: Function) -> Function:
        return function


class Vmap(Compiled):
    stacked = True

    def linen(self, module: nn.Module, x: jax.Array) -> jax.Array:
        lifted = nn.vmap(call, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None)
        return lifted(module, x)

    def nnx(self, module: Any, x: jax.Array) -> jax.Array:
        return nnx.vmap(call, in_axes=(0, None))(module, x)


class Scan(Compiled):
    stacked = True

    def linen(self, module: nn.Module, x: jax.Array) -> jax.Array:
        def step(module: nn.Module, carry: Any, x: jax.Array) -> Any:
            return carry, module(x)

        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "in_axes": nn.broadcast}
        return nn.scan(step, length=2, **axes)(module, None, x)[1]

    def nnx(self, module: Any, x: jax.Array) -> jax.Array:
        return nnx.scan(call, in_axes=(0, None), out_axes=0)(module, x)


class Remat(Compiled):
    def linen(self, module: nn.Module, x: jax.Array) -> jax.Array:
        return nn.remat(call)(module, x)

    def nnx(self, module: Any, x: jax.Array) -> jax.Array:
        return nnx.remat(call)(module, x)


def call(module: Any, x: jax.Array) -> jax.Array:
    return module(x)


class Sharded(Compiled):
    """Each array is cut along its last axes that the devices divide."""

    def run(self, function: Function) -> Function:
        compiled = jax.jit(function)

        def run(params: dict[str, jax.Array], *arrays: jax.Array) -> Any:
            mesh = devices_for(params["kernel"].shape[-1])
            return compiled(self.place(params), *(put(array, mesh) for array in arrays))

        return run

    def place(self, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        mesh = devices_for(params["kernel"].shape[-1])
        return jax.tree.map(lambda array: put(array, mesh), params)


def put(array: jax.Array, mesh: Mesh) -> jax.Array:
    """Cut along the last axis that the devices divide."""
    axes = [axis for axis, size in enumerate(array.shape) if size % mesh.size == 0]
    names = ["devices" if axis == (axes or [None])[-1] else None for axis in range(array.ndim)]
    return jax.device_put(array, NamedSharding(mesh, P(*names)))


def devices_for(size: int) -> Mesh:
    """As many of the devices as divide `size`, in one row: JAX's gradients of grouped kernels are wrong on two axes."""
    devices = jax.devices()
    count = max(count for count in range(1, len(devices) + 1) if size % count == 0)
    return Mesh(np.asarray(devices[:count]), ("devices",))


class ShardMap(Compiled):
    """Every device has the parameters and a part of the batch."""

    def function(self, call: Function) -> Function:
        def mapped(params: Any, x: jax.Array) -> jax.Array:
            specs = {"in_specs": (P(), P("devices")), "out_specs": P("devices")}
            return jax.shard_map(call, mesh=devices_for(len(x)), **specs)(params, x)

        return mapped

    def run(self, function: Function) -> Function:
        compiled = jax.jit(function)

        def run(params: Any, *arrays: jax.Array) -> Any:
            mesh = devices_for(len(arrays[0]))
            cut = jax.device_put(arrays, NamedSharding(mesh, P("devices")))
            return compiled(jax.device_put(params, NamedSharding(mesh, P())), *cut)

        return run


class Exported(Compiled):
    def run(self, function: Function) -> Function:
        compiled = jax.jit(function)

        def run(*arrays: Any) -> Any:
            stored = jax.export.export(compiled)(*arrays).serialize()
            return jax.export.deserialize(stored).call(*arrays)

        return run


class Holder(nn.Module):
    """A layer inside a module, where Flax's lifted transforms want it."""

    layer: nn.Module
    way: Compiled

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.way.linen(self.layer, x)


def stack(params: Any) -> Any:
    """Two sets of parameters: others, and these."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf + 1, leaf]), params)


WAYS: dict[str, type[Compiled]] = {
    "compiled": Compiled,
    "eager": Eager,
    "vmap": Vmap,
    "scan": Scan,
    "remat": Remat,
    "sharded": Sharded,
    "shard-map": ShardMap,
    "exported": Exported,
}
