"""The layers: one mixin over Keras's own convolutions.

It gives the plain layer's `call` the composed kernel where that reads `kernel` (a separable layer: `depthwise_kernel`). `W` is
the plain layer's variable of that name (at `S == K` of the plain shape, so that seeds and initialisers give the plain layer's
kernel), `D` one more variable that holds `D_delta`. Both are composed in their own dtype, and only the composed kernel is cast
to the compute dtype.
"""

from __future__ import annotations

import inspect
import math
import random
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
from keras import layers, ops

from doconv_core import ConvGeometry, Layout, composition
from doconv_core.blocked import compose_blocked
from doconv_core.geometry import depth_multiplier
from doconv_keras._arrays import to_numpy
from doconv_keras._compose import compose

if TYPE_CHECKING:  # the mixin stands before a class of Keras's, whose attributes it reads
    from keras.layers import Layer as Mixed
else:
    Mixed = object
PACKAGE = "doconv_keras"
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D, *SEPARABLE)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
EXPLICIT: dict[type[layers.Layer], Any] = {}  # the classes below, by those that they replace


class DOConvMixin(Mixed):
    """What turns a class of Keras's convolutions into its over-parameterized form.

    Attributes:
        W: variable, the plain kernel's shape at `S == K`; else its spatial axes are one axis of size `S`.
        D: variable `(*kernel_size, S, C_in)` holding `D_delta`, or None where the kernel has one tap.
        d_mul: `S`.
        kernel: the composed kernel, `W' = (E + D_delta) ∘ W` (Cao et al., arXiv 2006.12030, section 3), in the compute dtype.
            Of a separable layer it is `depthwise_kernel`. It is composed each time it is read, so it cannot be assigned
            (`start_from` does that), nor read in a `build` method, which would keep what it is before training.
        plain_class: the class it replaces.
    """

    plain_class: ClassVar[type[layers.Layer]]
    _kernel_name: ClassVar[str]
    _building = False

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
                "a kernel constraint would act on W and not on the composed kernel: remove it. "
                f"Received: {constraint!r}, {received}"
            )

    @property
    def _taps(self) -> int:
        return math.prod(self.kernel_size)

    def build(self, input_shape: Any) -> None:
        self._building = True
        try:
            super().build(input_shape)
        finally:
            self._building = False
        if self.D is None and self._taps > 1:  # only a class of the user's own can do that
            raise TypeError(
                f"{self.plain_class.__name__} cannot be over-parameterized: its build adds no weight named "
                f"{self._kernel_name!r}. Received: {self.name}"
            )

    def add_weight(self, shape: Any = None, initializer: Any = None, dtype: Any = None, **options: Any) -> Any:
        if options.get("name") != self._kernel_name or self._taps == 1:
            return super().add_weight(shape=shape, initializer=initializer, dtype=dtype, **options)
        w_shape = tuple(shape) if self.d_mul == self._taps else (self.d_mul, *shape[-2:])
        options["autocast"] = False
        W = super().add_weight(shape=w_shape, initializer=initializer, dtype=dtype, **options)
        d_options = {"regularizer": self.d_regularizer, "trainable": options.get("trainable", True), "autocast": False}
        d_shape = (*self.kernel_size, self.d_mul, options_of(self, shape)["in_channels"])
        self.D = super().add_weight(shape=d_shape, initializer="zeros", dtype=dtype, name="D", **d_options)
        return W

    @property
    def W(self) -> Any:
        return self._kernel

    def _composed_kernel(self) -> Any:
        if getattr(self, "_kernel", None) is None:
            raise AttributeError(f"You must build the layer before accessing `{self._kernel_name}`.")
        if self.D is None:
            return self._kernel
        reader = sys._getframe(1)
        if self._building or reader.f_code.co_name == "build":
            raise TypeError(
                f"{self._kernel_name} of a DO-Conv layer is composed each time it is read, and what a build method keeps of it "
                f"would stay as it is: read it in `call`. Received: {self.name}, read by {reader.f_code.co_qualname}"
            )
        W, D = ops.convert_to_tensor(self._kernel), ops.convert_to_tensor(self.D)
        return ops.cast(compose(W, D, transposed=isinstance(self, TRANSPOSED)), self.compute_dtype)

    def _store_kernel(self, variable: Any) -> None:
        if not self._building:  # a depthwise or transposed layer's build assigns its variable
            raise AttributeError(
                f"{self._kernel_name} of a DO-Conv layer is composed and cannot be assigned: call start_from(kernel). "
                f"Received: {type(variable).__name__} for {self.name}"
            )
        self._kernel = variable

    def layout(self) -> Layout:
        """How this layer, once built, stores its tensors (sizes only: padding counts as none)."""
        geometry = ConvGeometry(**options_of(self, self._kernel.shape), d_mul=self.d_mul)
        return Layout("keras", geometry, depthwise=isinstance(self, DEPTHWISE))

    def start_from(self, kernel: Any, seed: int | None = None) -> None:
        """Start again from a plain kernel, of the composed kernel's shape: `W[..., :K] = kernel`, `D` zeros.

        Columns of `W` that the identity does not reach (`S` no multiple of `K`) are drawn as `doconv_core.start` does, from
        `seed` or, as Keras draws its own default seeds, from what `keras.utils.set_random_seed` sets.

        Raises:
            ValueError: the layer is not built, or `kernel` is of another shape.
        """
        if not self.built:
            raise ValueError(f"build the layer first. Received: {self.name}")
        layout = self.layout()
        canonical = layout.kernel_to_canonical(to_numpy(kernel))
        rng = None
        if self.d_mul % self._taps:
            rng = np.random.default_rng(random.getrandbits(32) if seed is None else seed)
        W, D = composition.start_from_kernel(canonical, layout.geometry, rng)
        self._kernel.assign(layout.w_from_canonical(W))
        if D is not None:
            self.D.assign(layout.d_from_canonical(D))

    def folded_kernel(self) -> np.ndarray:
        """The plain layer's kernel: composed by `doconv_core` in float64 and rounded once, as every backend folds."""
        layout = self.layout()
        W = layout.w_to_canonical(to_numpy(self.W))
        D = None if self.D is None else layout.d_to_canonical(to_numpy(self.D))
        return layout.kernel_from_canonical(compose_blocked(W, D, layout.geometry))

    def enable_lora(self, *args: Any, **options: Any) -> None:
        raise ValueError(f"a DO-Conv layer has no LoRA: fold it first. Received: enable_lora on {self.name}")

    # Keras's convolutions store what `kernel` gives, which here is composed and would lose `D`.
    def save_own_variables(self, store: Any) -> None:
        layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        own = len(self._trainable_variables) + len(self._non_trainable_variables)
        # Keras files a plain layer's weights under the name of its class, so here none are found; alone, one is missing.
        if self.D is not None and len(store.keys()) in (0, own - 1):
            raise ValueError(
                f"{self.name} expects W and D: load the weights of a plain model into the plain model, and over-parameterize "
                f"it afterwards. Received: {len(store.keys())} variables in place of {own}"
            )
        layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.regularizers.serialize(self.d_regularizer)
        return super().get_config() | {"d_mul": self.d_mul, "d_regularizer": regularizer}


def options_of(layer: Any, kernel_shape: Sequence[int]) -> dict[str, Any]:
    """The options of `ConvGeometry` but for the padding, by the shape of a layer's kernel or of its `W`."""
    first, second = kernel_shape[-2:]
    if isinstance(layer, TRANSPOSED):
        sizes = {"in_channels": second, "out_channels": first, "groups": getattr(layer, "groups", 1)}
    elif isinstance(layer, DEPTHWISE):
        sizes = {"in_channels": first, "out_channels": first * second, "groups": first}
    else:
        sizes = {"in_channels": first * layer.groups, "out_channels": second, "groups": layer.groups}
    return sizes | {
        "kernel_size": layer.kernel_size,
        "stride": layer.strides,
        "dilation": layer.dilation_rate,
        "transposed": isinstance(layer, TRANSPOSED),
    }


def _replaces(cls: Any) -> Any:
    """Class decorator: the signature of the layer replaced, with `d_mul` and `d_regularizer` by keyword only."""
    plain = cls.__bases__[1]
    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ("d_mul", "d_regularizer")]
    parameters = list(inspect.signature(plain.__init__).parameters.values())
    position = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_KEYWORD), len(parameters))
    parameters[position:position] = own

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        super(cls, self).__init__(*args, **options)

    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    cls.__init__, cls.plain_class = __init__, plain
    cls._kernel_name = "depthwise_kernel" if issubclass(plain, SEPARABLE) else "kernel"
    setattr(cls, cls._kernel_name, property(DOConvMixin._composed_kernel, DOConvMixin._store_kernel))
    part = "depthwise kernel" if issubclass(plain, DEPTHWISE) else "kernel"
    cls.__doc__ = f"""Over-parameterized `{plain.__name__}`: the same arguments, and by keyword only:

    Args:
        d_mul: the depth multiplier `S`, at least the number of taps `K` of the {part}; `None` means `K`. A kernel of one tap is
            not over-parameterized.
        d_regularizer: of `D`; the {part}'s regularizer acts on `W`.

    Shapes: input and output as `{plain.__name__}`; variables as `DOConvMixin` says.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps; a constraint of the {part} or LoRA is asked for.
    """
    name = f"{cls.__module__}.{cls.__qualname__}"  # a user's class may have the name of another one, or of Keras's own
    if cls.__module__ == __name__:
        name, EXPLICIT[plain] = cls.__name__, cls
    return keras.saving.register_keras_serializable(PACKAGE, name)(cls)


@_replaces
class DOConv1D(DOConvMixin, layers.Conv1D): ...


@_replaces
class DOConv2D(DOConvMixin, layers.Conv2D): ...


@_replaces
class DOConv3D(DOConvMixin, layers.Conv3D): ...


@_replaces
class DODepthwiseConv1D(DOConvMixin, layers.DepthwiseConv1D): ...


@_replaces
class DODepthwiseConv2D(DOConvMixin, layers.DepthwiseConv2D): ...


@_replaces
class DOSeparableConv1D(DOConvMixin, layers.SeparableConv1D): ...


@_replaces
class DOSeparableConv2D(DOConvMixin, layers.SeparableConv2D): ...


@_replaces
class DOConv1DTranspose(DOConvMixin, layers.Conv1DTranspose): ...


@_replaces
class DOConv2DTranspose(DOConvMixin, layers.Conv2DTranspose): ...


@_replaces
class DOConv3DTranspose(DOConvMixin, layers.Conv3DTranspose): ...


@cache
def do_class(plain: type[layers.Layer]) -> Any:
    """The DO form of a class of convolutions: Keras's own, or a user's class derived from one of them.

    A derived class is made once and registered, so that a model that contains it saves. Where such a model is loaded by another
    program, call this there first.

    Raises:
        TypeError: the class is no convolution of Keras's, defines `kernel` itself, or reads `_kernel`, which here is `W`, not
            the composed kernel.
    """
    if plain in EXPLICIT:
        return EXPLICIT[plain]
    base = next((base for base in EXPLICIT if inspect.isclass(plain) and issubclass(plain, base)), None)
    if base is None or issubclass(plain, DOConvMixin):
        raise TypeError(f"plain must be a class of Keras's convolutions. Received: {plain!r}")
    form = EXPLICIT[base]
    for cls in plain.__mro__[: plain.__mro__.index(base)]:
        for name, member in vars(cls).items():
            code = getattr(inspect.unwrap(getattr(member, "fget", member)), "__code__", None)
            if name == form._kernel_name or (code and "_kernel" in code.co_names):
                raise TypeError(
                    f"{plain.__name__} cannot be over-parameterized: a convolution must read its kernel as "
                    f"self.{form._kernel_name}. Received: {cls.__name__}.{name}"
                )
    names = {"__module__": plain.__module__, "__qualname__": f"DO{plain.__qualname__}"}
    cls = type(f"DO{plain.__name__}", (DOConvMixin, plain), names)
    return _replaces(cls)
