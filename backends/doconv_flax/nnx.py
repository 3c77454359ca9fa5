"""DO-Conv layers for `flax.nnx`.

`kernel` holds `W` (at `S == K` in the plain kernel's shape), `D` holds `D_delta` as `(*kernel_size, S, C_in)`. A call runs the
plain layer's own `__call__` on a view of the layer that holds the composed kernel.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.linear import default_kernel_init

from doconv_flax._compose import compose, d_shape, w_shape
from doconv_flax.linen import fold_arrays

__all__ = ["DOConv", "DOConvTranspose", "fold"]


class DOConv(nnx.Conv):
    """Over-parameterized `flax.nnx.Conv`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: the depth multiplier `S`, at least the number of taps `K`; `None` means `K`. A kernel of one tap has no `D`.

    Shapes: input and output as `flax.nnx.Conv`. `kernel` `(*kernel_size, C_in/G, C_out)` where `S == K`, else
    `(S, C_in/G, C_out)`; `D` `(*kernel_size, S, C_in)`, or None. The convolution's kernel is `W' = W E^T + D o W`
    (Cao et al., arXiv 2006.12030, section 3), composed in `param_dtype`.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps.
    """

    def __init__(
        self, *args: Any, d_mul: int | None = None, kernel_init: Any = default_kernel_init, **options: Any
    ) -> None:
        super().__init__(*args, kernel_init=_for_taps(kernel_init, d_mul), **options)
        _add_d(self)

    def __call__(self, inputs: jax.Array, *args: Any, **options: Any) -> jax.Array:
        return nnx.Conv.__call__(_view(self, composed_kernel(self)), inputs, *args, **options)


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
        self, *args: Any, d_mul: int | None = None, kernel_init: Any = default_kernel_init, **options: Any
    ) -> None:
        super().__init__(*args, kernel_init=_for_taps(kernel_init, d_mul), **options)
        _add_d(self)

    def __call__(self, inputs: jax.Array, *args: Any, **options: Any) -> jax.Array:
        return nnx.ConvTranspose.__call__(_view(self, composed_kernel(self)), inputs, *args, **options)


def composed_kernel(layer: DOConv | DOConvTranspose) -> jax.Array:
    """The composed kernel `(*kernel_size, C_in/G, C_out)` of a layer."""
    if layer.D is None:
        return layer.kernel[...]
    return compose(layer.kernel[...], layer.D[...], transpose_kernel=getattr(layer, "transpose_kernel", False))


def fold(layer: DOConv | DOConvTranspose) -> nnx.Conv | nnx.ConvTranspose:
    """The plain layer with the composed kernel: a new `nnx.Conv` or `nnx.ConvTranspose`; the layer stays as it is.

    Composed by `doconv_core` in float64 and rounded once, as every backend folds.

    Raises:
        TypeError: `layer` is not a DO-Conv layer.
    """
    if not isinstance(layer, DOConv | DOConvTranspose):
        raise TypeError(f"layer must be a DOConv or DOConvTranspose. Received: {type(layer).__name__}")
    cls = nnx.Conv if isinstance(layer, DOConv) else nnx.ConvTranspose
    shared = ("strides", "padding", "kernel_dilation", "use_bias", "mask", "dtype", "param_dtype", "precision",
              "promote_dtype", "preferred_element_type")  # fmt: skip
    own = (
        ("input_dilation", "feature_group_count", "conv_general_dilated") if cls is nnx.Conv else ("transpose_kernel",)
    )
    options = {name: getattr(layer, name) for name in shared + own}
    plain = nnx.eval_shape(
        lambda: cls(layer.in_features, layer.out_features, layer.kernel_size, rngs=nnx.Rngs(0), **options)
    )
    kernel = layer.kernel[...]
    if layer.D is not None:
        transpose_kernel = getattr(layer, "transpose_kernel", False)
        kernel = jnp.asarray(
            fold_arrays(np.asarray(kernel), np.asarray(layer.D[...]), transpose_kernel=transpose_kernel)
        )
    plain.kernel = nnx.Param(kernel)
    if layer.bias is not None:
        plain.bias = nnx.Param(layer.bias[...])
    return plain


def _for_taps(kernel_init: Any, d_mul: int | None) -> Any:
    """An initialiser that draws `W` where the plain layer asks for its kernel."""
    return lambda key, shape, dtype: kernel_init(key, w_shape(shape, shape[:-2], d_mul), dtype)


def _add_d(layer: DOConv | DOConvTranspose) -> None:
    if int(np.prod(layer.kernel_size)) == 1:
        layer.D = nnx.data(None)
        return
    shape = d_shape(layer.kernel[...].shape, layer.kernel_size, layer.in_features)
    layer.D = nnx.Param(jnp.zeros(shape, layer.param_dtype))


def _view(layer: nnx.Module, kernel: jax.Array) -> Any:
    return SimpleNamespace(**vars(layer) | {"kernel": kernel})
