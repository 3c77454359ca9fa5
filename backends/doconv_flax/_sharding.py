"""How `W`, `D` and the folded kernel lie on devices: which axis on which mesh axis, from the names given to the plain kernel.

A kernel is `(*stacked, *kernel_size, C_in/G, C_out)`, `W` `(*stacked, S, C_in/G, C_out)` where `S != K`, and `D`
`(*stacked, *kernel_size, S, C_in)`. Names may be fewer than axes, as in a `PartitionSpec`: axes without one are not sharded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

Names = tuple[Any, ...]


def w_names(names: Sequence[Any], ndim: int, spatial: int) -> Names:
    """Of `W` where `S != K`, for those of a plain kernel of `ndim` axes: its one axis of columns is not sharded."""
    names = _all(names, ndim)
    return (*names[: -2 - spatial], None, *names[-2:])


def plain_names(names: Sequence[Any], ndim: int, spatial: int, of_d: Sequence[Any] | None = None) -> Names:
    """The inverse of `w_names`, for a `W` of `ndim` axes. The names of the spatial axes stand in those of `D`, if given.

    A mesh axis splits one axis of an array: where `W` has it, it is not taken from `D`.
    """
    names = _all(names, ndim)
    kept = (*names[:-3], *names[-2:])
    taken = {axis for name in kept for axis in _mesh_axes(name)}
    own = _all(of_d or (), ndim + spatial - 1)[-2 - spatial : -2]
    own = tuple(None if taken.intersection(_mesh_axes(name)) else name for name in own)
    return (*kept[:-2], *own, *kept[-2:])


def d_names(names: Sequence[Any], ndim: int, stacked: int, spatial: int, channels: int | None) -> Names:
    """Of `D`: its input channels lie where the kernel's do, so that composing needs no communication.

    Args:
        names: of the plain kernel, or of `W` (which at `S != K` has none for the spatial axes).
        ndim: its number of axes.
        stacked: how many of them stack layers.
        spatial: number of spatial axes.
        channels: what `channel_axis` gives.
    """
    names = _all(names, ndim)
    own = names[stacked:-2] if ndim == stacked + spatial + 2 else (None,) * spatial
    return (*names[:stacked], *own, None, None if channels is None else names[channels])


def channel_axis(dense: bool, transpose_kernel: bool) -> int | None:
    """The axis of a kernel that holds all input channels; None where groups share it and the kernel is not `dense`."""
    if transpose_kernel:
        return -1
    return -2 if dense else None


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


def _all(names: Sequence[Any], ndim: int) -> Names:
    return (*names, *[None] * (ndim - len(names)))


def _mesh_axes(name: Any) -> tuple[Any, ...]:
    if name is None:
        return ()
    return name if isinstance(name, tuple) else (name,)
