"""Folding of one kernel: in a trace by `compose`, outside by `doconv_core` in float64, as every backend folds."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from doconv_core import ConvGeometry, Layout
from doconv_core.blocked import compose_blocked
from doconv_flax._compose import compose
from doconv_flax._sharding import plain_names, sharding_beside

Shape = tuple[int, ...]


def stacked_axes(kernel: Shape, D: Shape, *, transpose_kernel: bool) -> int:
    """How many leading axes stack layers (`nn.scan`, `nn.vmap`, `nnx.vmap`), from the shapes of a kernel and its `D`.

    `D` is `(*stacked, *kernel_size, S, C_in)`. Where `S != K` the kernel is `(*stacked, S, C_in/G, C_out)`, so its rank says
    it. Where `S == K` it has the spatial axes of `D`, and those of the kernel are the last ones whose product is `S`. (Axes
    of one element could be counted either way, with the same result.)

    Raises:
        ValueError: the shapes do not belong together.
    """
    multiplier, count, counts = D[-2] if len(D) > 2 else 0, len(kernel) - 3, list[int]()
    if kernel[:-2] == D[:-2]:
        counts = [count for count in range(len(D) - 2) if math.prod(D[count:-2]) == multiplier]
    elif count >= 0 and kernel[count] == multiplier >= math.prod(D[count:-2]) and kernel[:count] == D[:count]:
        counts = [count]
    shapes = f"shapes {tuple(kernel)} and {tuple(D)}"
    if not counts:
        raise ValueError(
            f"kernel and D do not belong together; axes that stack layers must come first. Received: {shapes}"
        )
    fits = D[-1] == kernel[-1] if transpose_kernel else D[-1] % kernel[-2] == 0
    if not fits:
        raise ValueError(
            "kernel and D do not belong together: their input channels differ (a transposed layer with transpose_kernel must "
            f"be folded as one). Received: {shapes}, {transpose_kernel=}"
        )
    return counts[-1]


def belong_together(kernel: Shape, D: Shape) -> bool:
    """Whether by their shapes the two could be a convolution's."""
    for transpose_kernel in (False, True):
        with suppress(ValueError):
            return stacked_axes(kernel, D, transpose_kernel=transpose_kernel) >= 0
    return False


def compose_kernel(kernel: Any, D: Any, *, transpose_kernel: bool = False) -> jax.Array:
    """The composed kernel `(*stacked, *kernel_size, C_in/G, C_out)`, by JAX: traceable and differentiable.

    Args:
        kernel: `(*stacked, *kernel_size, C_in/G, C_out)` where `S == K`, else `(*stacked, S, C_in/G, C_out)`.
        D: `(*stacked, *kernel_size, S, C_in)`.
        transpose_kernel: whether the input channels are the last axis of `kernel`.
    """
    stacked = stacked_axes(kernel.shape, D.shape, transpose_kernel=transpose_kernel)
    function = partial(compose, transpose_kernel=transpose_kernel)
    for _ in range(stacked):  # none for a single layer, which then costs no batch axis
        function = jax.vmap(function)
    return function(kernel, D)


def fold_kernel(kernel: Any, D: Any, *, transpose_kernel: bool = False) -> Any:
    """The composed kernel as in `compose_kernel`; in float64 and rounded once where the numbers are known in this process.

    Returns:
        A NumPy array for NumPy arrays, else a JAX array where `kernel` is; the dtype is that of `kernel`.
    """
    stacked = stacked_axes(kernel.shape, D.shape, transpose_kernel=transpose_kernel)
    plain = (*D.shape[:-2], *kernel.shape[-2:])
    if isinstance(kernel, jax.core.Tracer) or isinstance(D, jax.core.Tracer):
        return compose_kernel(kernel, D, transpose_kernel=transpose_kernel)
    sharding = _plain_sharding(kernel, D, plain, stacked)
    if not (is_here(kernel) and is_here(D)):
        function = partial(compose_kernel, transpose_kernel=transpose_kernel)
        return jax.jit(function, out_shardings=sharding)(kernel, D)
    # NumPy before any reshaping: inside a trace, JAX would make tracers of numbers that are known.
    layers = zip(*(np.asarray(leaf).reshape(-1, *leaf.shape[stacked:]) for leaf in (kernel, D)), strict=True)
    folded = np.stack([_fold_arrays(*layer, transpose_kernel=transpose_kernel) for layer in layers]).reshape(plain)
    return folded if isinstance(kernel, np.ndarray) else jax.device_put(folded, sharding)


def _plain_sharding(kernel: Any, D: Any, plain: Shape, stacked: int) -> Sharding | None:
    ndim, of_d = kernel.ndim, getattr(getattr(D, "sharding", None), "spec", None)
    if kernel.shape == plain:
        return sharding_beside(kernel, lambda names: names)
    return sharding_beside(kernel, lambda names: plain_names(names, ndim, len(plain) - stacked - 2, of_d))


def is_here(leaf: Any) -> bool:
    """Whether the numbers are known, and all in this process."""
    return not isinstance(leaf, jax.core.Tracer) and getattr(leaf, "is_fully_addressable", True)


def _fold_arrays(kernel: np.ndarray, D: np.ndarray, *, transpose_kernel: bool) -> np.ndarray:
    kernel_size, in_channels = D.shape[:-2], D.shape[-1]
    first, second = kernel.shape[-2:]
    geometry = ConvGeometry(
        in_channels=in_channels, out_channels=first if transpose_kernel else second, kernel_size=kernel_size,
        groups=1 if transpose_kernel else in_channels // first, transposed=transpose_kernel, d_mul=D.shape[-2],
    )  # fmt: skip
    layout = Layout("flax", geometry, transpose_kernel=transpose_kernel)
    weight = compose_blocked(layout.w_to_canonical(kernel), layout.d_to_canonical(D), geometry)
    return layout.kernel_from_canonical(weight)
