"""DO-Conv layers for `flax.linen`.

Each overrides only `param`: where the plain layer asks for its kernel it is given the composed one. `W` keeps the name `kernel`
(and, at `S == K`, the plain kernel's shape); one more leaf of the collection "params", `D`, holds `D_delta` as
`(*kernel_size, S, C_in)`. It is zeros at the start and draws no random number, so the kernel starts as the plain layer's.

A `mask` multiplies the composed kernel, so its shape is the plain kernel's whatever `d_mul` is. Partitioning metadata on the
kernel (`nn.with_partitioning`) names the axes of the plain kernel; `W` and `D` get the names that follow from them.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import meta
from flax.errors import ScopeParamShapeError

from doconv_flax._compose import compose, d_shape, w_shape
from doconv_flax._sharding import channel_axis, d_names, w_names


class DOConv(nn.Conv):
    """Over-parameterized `flax.linen.Conv`: the same attributes, and `d_mul` by keyword only.

    Attributes:
        d_mul: the depth multiplier `S`, at least the number of taps `K`; `None` means `K`. A kernel of one tap has no `D`.

    Shapes: input and output as `flax.linen.Conv`. Params: `kernel` `(*kernel_size, C_in/G, features)` where `S == K`, else
    `(S, C_in/G, features)`; `D` `(*kernel_size, S, C_in)`; `bias` `(features,)`. The convolution's kernel is
    `W' = (E + D_delta) ∘ W` (Cao et al., arXiv 2006.12030, section 3), composed in `param_dtype`.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps.
        flax.errors.ScopeParamShapeError: a given `D` is of another shape.
    """

    d_mul: int | None = dataclasses.field(default=None, kw_only=True)

    @nn.nowrap
    def param(self, name: str, init_fn: Any, *init_args: Any, **options: Any) -> Any:
        return _param(partial(super().param, name, **options), self, name, init_fn, init_args)


class DOConvTranspose(nn.ConvTranspose):
    """Over-parameterized `flax.linen.ConvTranspose`: the same attributes, and `d_mul` by keyword only.

    Attributes:
        d_mul: as in `DOConv`.

    Shapes: as `flax.linen.ConvTranspose`. Params: `kernel` `(*kernel_size, C_in, features)`, with `transpose_kernel`
    `(*kernel_size, features, C_in)`, its spatial axes one of `S` where `S != K`; `D` `(*kernel_size, S, C_in)`.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps.
        flax.errors.ScopeParamShapeError: a given `D` is of another shape.
    """

    d_mul: int | None = dataclasses.field(default=None, kw_only=True)

    @nn.nowrap
    def param(self, name: str, init_fn: Any, *init_args: Any, **options: Any) -> Any:
        return _param(partial(super().param, name, **options), self, name, init_fn, init_args)


def _param(ask: Any, module: nn.Conv | nn.ConvTranspose, name: str, init_fn: Any, init_args: Any) -> Any:
    """What the plain layer asks for, by its own `param`, `ask`; in place of its kernel the composed one."""
    if name != "kernel":
        return ask(init_fn, *init_args)
    plain, *rest = init_args
    transpose_kernel, groups = getattr(module, "transpose_kernel", False), getattr(module, "feature_group_count", 1)
    kernel = ask(_with_names(init_fn, plain), w_shape(plain, plain[:-2], module.d_mul), *rest)
    if plain[-1] % groups:  # no layer: the convolution refuses any kernel of this shape, in its own words
        return jnp.zeros(plain, kernel.dtype)
    if math.prod(plain[:-2]) == 1:
        return kernel
    shape = d_shape(kernel.shape, plain[:-2], plain[-1 if transpose_kernel else -2] * groups)

    def zeros() -> Any:
        D, box = jnp.zeros(shape, module.param_dtype), module.get_variable("params", "kernel")
        if not isinstance(box, meta.Partitioned):
            return D
        channels = channel_axis(groups == 1, transpose_kernel)
        return box.replace(value=D, names=d_names(box.names, kernel.ndim, 0, len(plain) - 2, channels))

    D = module.variable("params", "D", zeros).value
    if D.shape != shape:
        raise ScopeParamShapeError("D", module.scope.path_text, D.shape, shape)
    return compose(kernel, D, transpose_kernel=transpose_kernel)


def _with_names(init_fn: Any, plain: tuple[int, ...]) -> Any:
    """An initialiser of `W` whose partitioning names, if any, fit its shape."""

    def init(key: Any, shape: tuple[int, ...], *rest: Any) -> Any:
        value = init_fn(key, shape, *rest)
        if isinstance(value, meta.Partitioned) and shape != plain:
            return value.replace(names=w_names(value.names, len(plain), len(plain) - 2))
        return value

    return init
