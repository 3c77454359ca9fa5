"""DO-Conv layers for `flax.linen`.

Each overrides only `param`: where the plain layer asks for its kernel it is given the composed one. `W` keeps the name `kernel`
(and, at `S == K`, the plain kernel's shape); one more leaf of the collection "params", `D`, holds `D_delta` as
`(*kernel_size, S, C_in)`. It is zeros at the start and draws no random number, so the kernel starts as the plain layer's.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from doconv_flax._compose import compose, d_shape, w_shape

__all__ = ["DOConv", "DOConvTranspose", "fold"]


class DOConv(nn.Conv):
    """Over-parameterized `flax.linen.Conv`: the same attributes, and `d_mul` by keyword only.

    Attributes:
        d_mul: the depth multiplier `S`, at least the number of taps `K`; `None` means `K`. A kernel of one tap has no `D`.

    Shapes: input and output as `flax.linen.Conv`. Params: `kernel` `(*kernel_size, C_in/G, features)` where `S == K`, else
    `(S, C_in/G, features)`; `D` `(*kernel_size, S, C_in)`; `bias` `(features,)`. The convolution's kernel is
    `W' = W E^T + D o W` (Cao et al., arXiv 2006.12030, section 3), composed in `param_dtype`.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps.
    """

    d_mul: int | None = dataclasses.field(default=None, kw_only=True)

    @nn.nowrap
    def param(self, name: str, init_fn: Any, *init_args: Any, **options: Any) -> Any:
        if name != "kernel":
            return super().param(name, init_fn, *init_args, **options)
        shape, dtype, *rest = init_args
        kernel = super().param(name, init_fn, w_shape(shape, shape[:-2], self.d_mul), dtype, *rest, **options)
        return _composed(self, kernel, shape, dtype, shape[-2] * self.feature_group_count)


class DOConvTranspose(nn.ConvTranspose):
    """Over-parameterized `flax.linen.ConvTranspose`: the same attributes, and `d_mul` by keyword only.

    Attributes:
        d_mul: as in `DOConv`.

    Shapes: as `flax.linen.ConvTranspose`. Params: `kernel` `(*kernel_size, C_in, features)`, with `transpose_kernel`
    `(*kernel_size, features, C_in)`, its spatial axes one of `S` where `S != K`; `D` `(*kernel_size, S, C_in)`.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps.
    """

    d_mul: int | None = dataclasses.field(default=None, kw_only=True)

    @nn.nowrap
    def param(self, name: str, init_fn: Any, *init_args: Any, **options: Any) -> Any:
        if name != "kernel":
            return super().param(name, init_fn, *init_args, **options)
        shape, dtype, *rest = init_args
        kernel = super().param(name, init_fn, w_shape(shape, shape[:-2], self.d_mul), dtype, *rest, **options)
        in_channels = shape[-1] if self.transpose_kernel else shape[-2]
        return _composed(self, kernel, shape, dtype, in_channels, transpose_kernel=self.transpose_kernel)


def _composed(
    module: nn.Module,
    kernel: jax.Array,
    plain: tuple[int, ...],
    dtype: Any,
    in_channels: int,
    *,
    transpose_kernel: bool = False,
) -> jax.Array:
    kernel_size = plain[:-2]
    if math.prod(kernel_size) == 1:
        return kernel
    shape = d_shape(kernel.shape, kernel_size, in_channels)
    D = module.variable("params", "D", jnp.zeros, shape, dtype).value
    return compose(kernel, D, transpose_kernel=transpose_kernel)


def fold(params: Any, *, transpose_kernel: bool = False) -> Any:
    """The parameters of the plain model: every `kernel` that has a `D` beside it becomes the composed kernel.

    Pure and traceable: `model.apply({"params": fold(p)}, x)` trains any plain model on over-parameterized parameters. Outside
    a trace, NumPy arrays and float32 leaves are composed by `doconv_core` in float64 and rounded once, as every backend folds.

    Args:
        params: a tree of dicts with arrays at the leaves.
        transpose_kernel: whether the input channels are the last axis of the kernels (transposed layers with that option).

    Returns:
        A new tree without `D`; what has no `D` is passed on.
    """
    if not isinstance(params, dict):
        return params
    if "kernel" in params and "D" in params:
        rest = {name: value for name, value in params.items() if name != "D"}
        return rest | {"kernel": _fold_leaf(params["kernel"], params["D"], transpose_kernel)}
    return {name: fold(value, transpose_kernel=transpose_kernel) for name, value in params.items()}


def _fold_leaf(kernel: Any, D: Any, transpose_kernel: bool) -> Any:
    if isinstance(kernel, jax.core.Tracer) or isinstance(D, jax.core.Tracer):
        return compose(kernel, D, transpose_kernel=transpose_kernel)
    return jnp.asarray(fold_arrays(np.asarray(kernel), np.asarray(D), transpose_kernel=transpose_kernel))


def fold_arrays(kernel: np.ndarray, D: np.ndarray, *, transpose_kernel: bool = False) -> np.ndarray:
    """`compose` in NumPy by the core, in Flax's layout: float64 accumulation, rounded once to the dtype of `kernel`."""
    from doconv_core import ConvGeometry, Layout
    from doconv_core import compose as compose_core

    kernel_size, in_channels = D.shape[:-2], D.shape[-1]
    local, out = kernel.shape[-2:]
    options: dict[str, Any] = {"transposed": True, "out_channels": local} if transpose_kernel else {"out_channels": out}
    groups = 1 if transpose_kernel else in_channels // local
    geometry = ConvGeometry(
        in_channels=in_channels, kernel_size=kernel_size, groups=groups, d_mul=D.shape[-2], **options
    )
    layout = Layout("flax", geometry, transpose_kernel=transpose_kernel)
    weight = compose_core(layout.w_to_canonical(kernel), layout.d_to_canonical(D), geometry)
    return layout.kernel_from_canonical(weight)
