"""DO-Conv layers for `flax.nnx`.

`kernel` holds `W` (at `S == K` in the plain kernel's shape), `D` stores `D_delta` as `(*kernel_size, S, C_in)`. A call runs the
plain layer's own `__call__` on a view of the layer that holds the composed kernel, which a `mask` then multiplies: its shape is
the plain kernel's whatever `d_mul` is. Partitioning metadata (`kernel_metadata`, `nnx.with_partitioning`) names the axes of the
plain kernel; `W` and `D` get the names that follow from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from flax.nnx.nn.linear import default_bias_init, default_kernel_init
from jax import lax

from doconv_core.geometry import depth_multiplier
from doconv_flax._compose import compose, d_shape, w_shape
from doconv_flax._sharding import channel_axis, d_names, w_names

Sizes = int | Sequence[int]
Nothing: Mapping[str, Any] = MappingProxyType({})


class DOConv(nnx.Conv):
    """Over-parameterized `flax.nnx.Conv`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: the depth multiplier `S`, at least the number of taps `K`; `None` means `K`. A kernel of one tap has no `D`.

    Shapes: input and output as `flax.nnx.Conv`. `kernel` `(*kernel_size, C_in/G, C_out)` where `S == K`, else
    `(S, C_in/G, C_out)`; `D` `(*kernel_size, S, C_in)`, or None. The convolution's kernel is `W' = (E + D_delta) ∘ W`
    (Cao et al., arXiv 2006.12030, section 3), composed in `param_dtype`.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Sizes,
        strides: Sizes | None = 1,
        *,
        padding: Any = "SAME",
        input_dilation: Sizes | None = 1,
        kernel_dilation: Sizes | None = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        mask: jax.Array | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Any = default_kernel_init,
        bias_init: Any = default_bias_init,
        conv_general_dilated: Any = lax.conv_general_dilated,
        promote_dtype: Any = dtypes.promote_dtype,
        preferred_element_type: Any = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = Nothing,
        bias_metadata: Mapping[str, Any] = Nothing,
        d_mul: int | None = None,
    ) -> None:
        super().__init__(
            in_features, out_features, kernel_size, strides, padding=padding, input_dilation=input_dilation,
            kernel_dilation=kernel_dilation, feature_group_count=feature_group_count, use_bias=use_bias, mask=mask,
            dtype=dtype, param_dtype=param_dtype, precision=precision, kernel_init=_for_taps(kernel_init, d_mul),
            bias_init=bias_init, conv_general_dilated=conv_general_dilated, promote_dtype=promote_dtype,
            preferred_element_type=preferred_element_type, rngs=rngs,
            kernel_metadata=_for_columns(kernel_metadata, kernel_size, d_mul), bias_metadata=bias_metadata,
        )  # fmt: skip
        add_d(self)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """As `flax.nnx.Conv.__call__`: `(*batch, *space, C_in)` to `(*batch, *output space, C_out)`."""
        return nnx.Conv.__call__(_View(self), inputs, out_sharding)

    @property
    def d_mul(self) -> int:
        """`S`."""
        return 1 if self.D is None else self.D.shape[-2]


class DOConvTranspose(nnx.ConvTranspose):
    """Over-parameterized `flax.nnx.ConvTranspose`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: as in `DOConv`.

    Shapes: as `flax.nnx.ConvTranspose`. `kernel` `(*kernel_size, C_in, C_out)`, with `transpose_kernel`
    `(*kernel_size, C_out, C_in)`, its spatial axes one of `S` where `S != K`; `D` `(*kernel_size, S, C_in)`, or None.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Sizes,
        strides: Sizes | None = None,
        *,
        padding: Any = "SAME",
        kernel_dilation: Sizes | None = None,
        use_bias: bool = True,
        mask: jax.Array | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        precision: Any = None,
        kernel_init: Any = default_kernel_init,
        bias_init: Any = default_bias_init,
        transpose_kernel: bool = False,
        promote_dtype: Any = dtypes.promote_dtype,
        preferred_element_type: Any = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = Nothing,
        bias_metadata: Mapping[str, Any] = Nothing,
        d_mul: int | None = None,
    ) -> None:
        super().__init__(
            in_features, out_features, kernel_size, strides, padding=padding, kernel_dilation=kernel_dilation,
            use_bias=use_bias, mask=mask, dtype=dtype, param_dtype=param_dtype, precision=precision,
            kernel_init=_for_taps(kernel_init, d_mul), bias_init=bias_init, transpose_kernel=transpose_kernel,
            promote_dtype=promote_dtype, preferred_element_type=preferred_element_type, rngs=rngs,
            kernel_metadata=_for_columns(kernel_metadata, kernel_size, d_mul), bias_metadata=bias_metadata,
        )  # fmt: skip
        add_d(self)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """As `flax.nnx.ConvTranspose.__call__`."""
        return nnx.ConvTranspose.__call__(_View(self), inputs)

    @property
    def d_mul(self) -> int:
        """`S`."""
        return 1 if self.D is None else self.D.shape[-2]


def composed_kernel(layer: DOConv | DOConvTranspose) -> jax.Array:
    """The composed kernel `(*kernel_size, C_in/G, C_out)` of a layer, differentiable."""
    kernel, groups = layer.kernel[...], getattr(layer, "feature_group_count", 1)
    if layer.D is None:
        return kernel
    if kernel.shape[-1] % groups:  # no layer: the convolution refuses any kernel of this shape, in its own words
        return jnp.zeros(layer.kernel_shape, kernel.dtype)
    return compose(kernel, layer.D[...], transpose_kernel=getattr(layer, "transpose_kernel", False))


def add_d(layer: Any, D: jax.Array | None = None) -> None:
    """Give a layer its `D`, zeros if it is not given: a Variable of the kernel's own type, or None for a kernel of one tap."""
    if math.prod(layer.kernel_size) == 1:
        layer.D = nnx.data(None)
        return
    kernel, spatial = layer.kernel, len(layer.kernel_size)
    if D is None:
        D = jnp.zeros(d_shape(kernel.shape, layer.kernel_size, layer.in_features), kernel.dtype)
    known = kernel.get_metadata()
    metadata = {name: known[name] for name in ("mesh", "sharding_rules", "eager_sharding") if name in known}
    if isinstance(known.get("out_sharding"), tuple):
        dense = getattr(layer, "feature_group_count", 1) == 1
        channels = channel_axis(dense, getattr(layer, "transpose_kernel", False))
        names = known["out_sharding"]
        metadata["out_sharding"] = d_names(names, kernel.ndim, D.ndim - spatial - 2, spatial, channels)
    layer.D = type(kernel)(D, **metadata)


def _for_taps(kernel_init: Any, d_mul: int | None) -> Any:
    """An initialiser that draws `W` where the plain layer asks for its kernel."""

    def init(key: jax.Array, plain: tuple[int, ...], *rest: Any) -> Any:
        value = kernel_init(key, w_shape(plain, plain[:-2], d_mul), *rest)
        if not isinstance(value, nnx.VariableMetadata):
            return value
        return replace(value, metadata=_for_columns(value.metadata, plain[:-2], d_mul))

    return init


def _for_columns(metadata: Mapping[str, Any], kernel_size: Sizes, d_mul: int | None) -> Mapping[str, Any]:
    """The kernel's metadata with names for the axes of `W`."""
    size = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
    if not metadata or depth_multiplier(size, d_mul) == math.prod(size):
        return metadata
    names = {name: metadata[name] for name in ("out_sharding", "sharding", "sharding_names") if name in metadata}
    return {
        **metadata,
        **{name: w_names(axes, len(size) + 2, len(size)) for name, axes in names.items() if isinstance(axes, tuple)},
    }


class _View:
    """A layer as the plain layer's `__call__` wants it. Assigning to the layer itself would be an error inside a trace."""

    def __init__(self, layer: DOConv | DOConvTranspose) -> None:
        vars(self).update(vars(layer))
        self.layer = layer

    @property
    def kernel(self) -> jax.Array:
        """Composed when it is asked for, so that what the plain layer refuses before is refused as it does."""
        return composed_kernel(self.layer)
