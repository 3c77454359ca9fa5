"""Where arrays made from a kernel lie: on the kernel's devices, split as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from doconv_flax._names import Names


def sharding_beside(kernel: Any, rename: Callable[[Names], Names]) -> Sharding | None:
    """The sharding of an array that belongs to a kernel; None where JAX is to decide.

    Args:
        kernel: an array, concrete or traced.
        rename: from the names of the kernel's axes to those of the array's axes.
    """
    if isinstance(kernel, jax.core.Tracer):
        sharding: Sharding | None = explicit_sharding(kernel)
    else:  # what is not committed to its device follows what is
        sharding = kernel.sharding if isinstance(kernel, jax.Array) and kernel.committed else None
    if isinstance(sharding, NamedSharding):
        spec = PartitionSpec(*rename(tuple(sharding.spec)))
        return NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)
    if sharding is None or len(sharding.device_set) == 1:
        return sharding
    devices: list[Any] = list(sharding.device_set)
    devices.sort(key=lambda device: device.id)
    return NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec())


def explicit_sharding(array: Any) -> NamedSharding | None:
    """How the array is split where its type says it (JAX's explicit sharding mode), else None."""
    sharding: NamedSharding = jax.typeof(array).sharding
    return sharding if sharding.mesh.explicit_axes else None
