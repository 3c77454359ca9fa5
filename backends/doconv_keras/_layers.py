"""The layers: one mixin over Keras's own convolutions.

It gives the plain layer's `call` the composed kernel where that reads `kernel`. `W` is the plain layer's variable "kernel" (at
`S == K` of the plain shape, so that seeds and initialisers give the plain layer's kernel), `D` one more variable that holds
`D_delta`. Both are composed in their own dtype, and only the composed kernel is cast to the compute dtype.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from doconv_core import ConvGeometry, Layout, composition
from doconv_core.geometry import depth_multiplier
from doconv_keras._arrays import to_numpy
from doconv_keras._compose import compose

PACKAGE = "doconv_keras"


class DOConvMixin:
    """What turns one of Keras's convolutions into its over-parameterized form.

    Attributes:
        W: variable, the plain kernel's shape at `S == K`; else its spatial axes are one axis of size `S`.
        D: variable `(*kernel_size, S, C_in)` holding `D_delta`, or None where the kernel has one tap.
        d_mul: `S`.
        kernel: the composed kernel, `W' = W E^T + D o W` (Cao et al., arXiv 2006.12030, section 3), in the compute dtype.
    """

    plain_class: type[keras.layers.Layer]

    def __init__(self, *args: Any, d_mul: int | None = None, d_regularizer: Any = None, **options: Any) -> None:
        if options.get("lora_rank"):
            raise ValueError(f"a DO-Conv layer has no LoRA: fold it first. Received: lora_rank={options['lora_rank']}")
        super().__init__(*args, **options)
        received = f"kernel_size={self.kernel_size}, d_mul={d_mul!r}"
        self.d_mul = depth_multiplier(self.kernel_size, d_mul, received=received)
        self.d_regularizer = keras.regularizers.get(d_regularizer)
        self.D: Any = None
        constraint = getattr(self, "kernel_constraint", None) or getattr(self, "depthwise_constraint", None)
        if constraint is not None and self._taps > 1:
            raise ValueError(
                "a kernel constraint would act on W and not on the composed kernel: leave it away. "
                f"Received: {constraint!r}, {received}"
            )

    @property
    def _taps(self) -> int:
        return math.prod(self.kernel_size)

    def add_weight(self, shape: Any = None, initializer: Any = None, dtype: Any = None, **options: Any) -> Any:
        if options.get("name") != "kernel" or self._taps == 1:
            return super().add_weight(shape=shape, initializer=initializer, dtype=dtype, **options)
        w_shape = tuple(shape) if self.d_mul == self._taps else (self.d_mul, *shape[-2:])
        options["autocast"] = False
        W = super().add_weight(shape=w_shape, initializer=initializer, dtype=dtype, **options)
        d_options = {"regularizer": self.d_regularizer, "trainable": options.get("trainable", True), "autocast": False}
        d_shape = (*self.kernel_size, self.d_mul, self._in_channels(tuple(shape)))
        self.D = super().add_weight(shape=d_shape, initializer="zeros", dtype=dtype, name="D", **d_options)
        return W

    @property
    def W(self) -> Any:
        return self._kernel

    @property
    def kernel(self) -> Any:
        if getattr(self, "_kernel", None) is None:
            raise AttributeError("You must build the layer before accessing `kernel`.")
        if self.D is None:
            return self._kernel
        W, D = ops.convert_to_tensor(self._kernel), ops.convert_to_tensor(self.D)
        return ops.cast(compose(W, D, transposed=self._transposed), self.compute_dtype)

    @kernel.setter
    def kernel(self, variable: Any) -> None:
        self._kernel = variable

    @property
    def _transposed(self) -> bool:
        return "Transpose" in self.plain_class.__name__

    @property
    def _depthwise(self) -> bool:
        return "Depthwise" in self.plain_class.__name__

    def _in_channels(self, kernel_shape: tuple[int, ...]) -> int:
        if self._transposed:
            return kernel_shape[-1]
        return kernel_shape[-2] * (1 if self._depthwise else self.groups)

    def layout(self) -> Layout:
        """How this layer, once built, stores its tensors (sizes only: padding counts as none)."""
        first, second = self._kernel.shape[-2:]
        in_channels = self._in_channels(tuple(self._kernel.shape))
        groups = in_channels if self._depthwise else getattr(self, "groups", 1)
        out_channels = first if self._transposed else first * second if self._depthwise else second
        geometry = ConvGeometry(
            in_channels=in_channels, out_channels=out_channels, kernel_size=self.kernel_size, stride=self.strides,
            dilation=self.dilation_rate, groups=groups, transposed=self._transposed, d_mul=self.d_mul,
        )  # fmt: skip
        return Layout("keras", geometry, depthwise=self._depthwise)

    def start_from(self, kernel: Any, seed: int | None = None) -> None:
        """Start anew from a plain kernel, of the composed kernel's shape: `W[..., :K] = kernel`, `D` zeros.

        Columns of `W` that the identity does not reach (`S` no multiple of `K`) are drawn as `doconv_core.start` does.

        Raises:
            ValueError: the layer is not built, or `kernel` is of another shape.
        """
        if not self.built:
            raise ValueError(f"build the layer first. Received: {self.name}")
        layout = self.layout()
        canonical = layout.kernel_to_canonical(to_numpy(kernel))
        W, D = composition.start_from_kernel(canonical, layout.geometry, np.random.default_rng(seed))
        self._kernel.assign(layout.w_from_canonical(W))
        if D is not None:
            self.D.assign(layout.d_from_canonical(D))

    def enable_lora(self, *args: Any, **options: Any) -> None:
        raise ValueError(f"a DO-Conv layer has no LoRA: fold it first. Received: enable_lora on {self.name}")

    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.regularizers.serialize(self.d_regularizer)
        return super().get_config() | {"d_mul": self.d_mul, "d_regularizer": regularizer}


def _replaces(plain: type) -> Any:
    """Class decorator: the signature of the layer replaced, with `d_mul` and `d_regularizer` by keyword only."""

    def decorate(cls: type) -> type:
        own = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ("d_mul", "d_regularizer")
        ]
        parameters = list(inspect.signature(plain.__init__).parameters.values())
        position = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_KEYWORD), len(parameters))
        parameters[position:position] = own

        def __init__(self: Any, *args: Any, **options: Any) -> None:
            super(cls, self).__init__(*args, **options)

        __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[misc]
        cls.plain_class = plain  # type: ignore[attr-defined]
        cls.__doc__ = f"""Over-parameterized `keras.layers.{plain.__name__}`: the same arguments, and by keyword only:

    Args:
        d_mul: the depth multiplier `S`, at least the number of taps `K` of the kernel; `None` means `K`. A kernel of one tap is
            not over-parameterized.
        d_regularizer: of `D`; the kernel's regularizer acts on `W`.

    Shapes: input and output as `keras.layers.{plain.__name__}`; variables as `DOConvMixin` says.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps; a kernel constraint or LoRA is asked for.
    """
        return keras.saving.register_keras_serializable(PACKAGE)(cls)

    return decorate


@_replaces(keras.layers.Conv1D)
class DOConv1D(DOConvMixin, keras.layers.Conv1D): ...


@_replaces(keras.layers.Conv2D)
class DOConv2D(DOConvMixin, keras.layers.Conv2D): ...


@_replaces(keras.layers.Conv3D)
class DOConv3D(DOConvMixin, keras.layers.Conv3D): ...


@_replaces(keras.layers.DepthwiseConv1D)
class DODepthwiseConv1D(DOConvMixin, keras.layers.DepthwiseConv1D): ...


@_replaces(keras.layers.DepthwiseConv2D)
class DODepthwiseConv2D(DOConvMixin, keras.layers.DepthwiseConv2D): ...


@_replaces(keras.layers.Conv1DTranspose)
class DOConv1DTranspose(DOConvMixin, keras.layers.Conv1DTranspose): ...


@_replaces(keras.layers.Conv2DTranspose)
class DOConv2DTranspose(DOConvMixin, keras.layers.Conv2DTranspose): ...


@_replaces(keras.layers.Conv3DTranspose)
class DOConv3DTranspose(DOConvMixin, keras.layers.Conv3DTranspose): ...


def fold_layer(layer: Any) -> keras.layers.Layer:
    """The plain layer with the composed kernel: a new, built layer of the same name; the given one stays as it is.

    Composed by `doconv_core` in float64 and rounded once, as every backend folds.

    Raises:
        TypeError: `layer` is not a DO-Conv layer.
        ValueError: it is not built.
    """
    if not isinstance(layer, DOConvMixin):
        raise TypeError(f"layer must be a DO-Conv layer. Received: {type(layer).__name__}")
    if not layer.built:
        raise ValueError(f"build the layer first. Received: {layer.name}")
    config = layer.get_config()
    del config["d_mul"], config["d_regularizer"]
    plain = layer.plain_class.from_config(config)
    layout = layer.layout()
    channels = layout.geometry.in_channels
    unknown = [None] * layer.rank
    last = layer.data_format == "channels_last"
    plain.build((None, *unknown, channels) if last else (None, channels, *unknown))
    W = layout.w_to_canonical(to_numpy(layer.W))
    D = None if layer.D is None else layout.d_to_canonical(to_numpy(layer.D))
    weight = layout.kernel_from_canonical(composition.compose(W, D, layout.geometry))
    plain.kernel.assign(weight)
    if layer.use_bias:
        plain.bias.assign(to_numpy(layer.bias))
    return plain
