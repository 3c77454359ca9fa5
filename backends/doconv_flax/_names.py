"""Which axis of `W`, of `D` and of the folded kernel lies on which mesh axis, from the names given to the plain kernel.

A kernel is `(*stacked, *kernel_size, C_in/G, C_out)`, `W` `(*stacked, S, C_in/G, C_out)` where `S != K`, and `D`
`(*stacked, *kernel_size, S, C_in)`. Names may be fewer than axes, as in a `PartitionSpec`: axes without one are not sharded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def _all(names: Sequence[Any], ndim: int) -> Names:
    return (*names, *[None] * (ndim - len(names)))


def _mesh_axes(name: Any) -> tuple[Any, ...]:
    if name is None:
        return ()
    return name if isinstance(name, tuple) else (name,)
