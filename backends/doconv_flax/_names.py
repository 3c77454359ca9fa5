"""Which axis of `W`, of `D` and of the folded kernel lies on which mesh axis, from the names given to the plain kernel.

A kernel is `(*stacked, *kernel_size, C_in/G, C_out)`, `W` `(*stacked, S, C_in/G, C_out)` where `S != K`, and `D`
`(*stacked, *kernel_size, S, C_in)`. Names may be fewer than axes, as in a `PartitionSpec`: what is left out is not sharded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Names = tuple[Any, ...]


def w_names(names: Sequence[Any], ndim: int, spatial: int) -> Names:
    """Of `W` where `S != K`, for those of a plain kernel of `ndim` axes: its one axis of columns is not sharded."""
    names = _all(names, ndim)
    return (*names[: -2 - spatial], None, *names[-2:])


def plain_names(names: Sequence[Any], ndim: int, spatial: int) -> Names:
    """The inverse of `w_names`, for a `W` of `ndim` axes."""
    names = _all(names, ndim)
    return (*names[:-3], *[None] * spatial, *names[-2:])


def d_names(names: Sequence[Any], ndim: int, stacked: int, spatial: int, channels: int | None) -> Names:
    """Of `D`: its input channels lie where the kernel's do, so that composing needs no communication.

    Args:
        names: of the plain kernel, or of `W`.
        ndim: its number of axes.
        stacked: how many of them stack layers.
        spatial: number of spatial axes.
        channels: its axis that holds all input channels; None where groups share it.
    """
    names = _all(names, ndim)
    return (*names[:stacked], *[None] * (spatial + 1), None if channels is None else names[channels])


def _all(names: Sequence[Any], ndim: int) -> Names:
    return (*names, *[None] * (ndim - len(names)))
