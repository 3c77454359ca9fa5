"""The layers: a mixin over PyTorch's own convolutions that stores `W` and `D` and composes their `weight`.

State-dict keys are `W`, `D` and `bias` in canonical shapes. `D` holds `D_delta`, what is added to the identity, as in the
authors' files. A kernel of one tap has no `D`: the layer is the plain convolution, its `W` of shape `(C_out, C_in/G, 1)`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_1_t, _size_2_t, _size_3_t
from torch.nn.modules.conv import _ConvNd

from doconv_core.blocked import compose_blocked
from doconv_core.checkpoint._noted import NOTE, Noted, read_note
from doconv_core.geometry import ConvGeometry
from doconv_torch._arrays import FLOATS, has_no_values, to_numpy, to_tensor
from doconv_torch._compose import CHANNELS_LAST, compose, ordered
from doconv_torch._kept import kernel_of
from doconv_torch._loaders import asked_by_accelerate, refuse_left_out_kernel
from doconv_torch._optimizers import note_layer
from doconv_torch._recompute import remember
from doconv_torch._sharded import is_sharded
from doconv_torch._written import give_out, is_kernel_of_another, only_reads

SWAPS = "torch.nn.utils._named_member_accessor"  # puts tensors in place of a module's, and back, for `functional_call`
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
M = TypeVar("M", bound=nn.Module)
Size = TypeVar("Size", _size_1_t, _size_2_t, _size_3_t)
log = logging.getLogger("doconv")


class DOConvMixin(_ConvNd):
    """What turns a class of PyTorch's convolutions into its over-parameterized form: `isinstance` of it tells a DO layer.

        W'[o, c, k] = sum_s (E + D)[i, k, s] * W[o, c, s]        (Cao et al., arXiv 2006.12030, section 3)

    `E` is the identity, `i` the input channel that output channel `o` reads through its local channel `c`. In a transposed
    convolution, an extension of the paper's layer, `W'[i, o, k] = sum_s (E + D)[i, k, s] * W[i, o, s]`.

    Each layer takes the arguments of the class it replaces and, by keyword only, `d_mul`: the depth multiplier `S`, at least
    the number of taps `K`; `None` means `K`. A kernel of one tap is not over-parameterized, whatever `d_mul` says. Input and
    output are those of the replaced class; the parameters may be of any of its floating point dtypes.

    A user's class derived from a DO layer is folded into `plain_class`; one that overrides `forward` has to name its own.

    Attributes:
        W: Parameter, `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`.
        D: Parameter `(C_in, K, S)` holding `D_delta`, or None where the kernel has one tap.
        d_mul: `S`.
        weight: the composed kernel, computed at each access. Assigning a tensor to it, or writing to it, to a view of it or to
            its `.data`, starts the layer again from that kernel, with `D` zero (not inside compiled code, which has plain
            tensors). Writing to a kernel whose layer has changed since raises.
        plain_class: the class that the layer is folded into.
        channels_last: whether the composed kernel is in that memory format, as the kernel was which the layer was made from.

    Raises:
        TypeError: `d_mul` or a size is not an integer; `dtype` is not bfloat16, float16, float32 or float64.
        ValueError: `d_mul` is below the number of taps, a size is not positive; and whatever the replaced class raises.
    """

    W: nn.Parameter
    D: nn.Parameter | None
    d_mul: int
    plain_class: ClassVar[type[_ConvNd]]
    channels_last: bool = False

    def __init__(self, *arguments: Any, d_mul: int | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        geometry = ConvGeometry(**options_of(self, d_mul))  # checks what the plain constructor leaves to the first call
        weight = self._parameters["weight"]
        if weight is not None and weight.dtype not in FLOATS:
            raise TypeError(f"dtype must be bfloat16, float16, float32 or float64. Received: {weight.dtype}")
        adopt(self, geometry.d_mul, *make_parameters(self, geometry.d_mul))
        if geometry.d_mul != geometry.taps:
            self.reset_parameters()

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # a Parameter in the plain layer
        if torch.compiler.is_compiling():
            return self._compose()
        reader = sys._getframe(1)
        if not only_reads(reader.f_code):
            return give_out(self, self._compose)
        kernel = self._compose()
        # PyTorch would compute something, of no values.
        if type(kernel) is Tensor and kernel.is_meta and not reader.f_locals["input"].is_meta:
            raise RuntimeError(
                "W and D are on the meta device, they were never loaded: a loader that assigns parameters by name leaves out "
                f"the `weight` of a plain checkpoint; load that before `overparameterize`. Received: {self}"
            )
        return kernel

    def _compose(self) -> Tensor:
        return kernel_of(
            self,
            lambda: _kernel(self.W, self.D, self.groups, self.transposed, self.kernel_size, self.channels_last),
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight" and "W" in self._parameters:
            if not torch.compiler.is_compiling() and sys._getframe(1).f_globals["__name__"] == SWAPS:
                raise RuntimeError(
                    "functional_call can't replace the composed `weight` of a DO layer: give its W and D. "
                    f"Received: weight, for {self}"
                )
            if is_kernel_of_another(value, self):
                raise ValueError(
                    "a layer can't be tied by the composed weight of another: tie both parameters, `b.W = a.W; b.D = a.D`, "
                    f"or copy it, `b.weight = a.weight.detach()`. Received: the weight of a DO layer, for {self}"
                )
            self.start_from(value)
            return
        old = self._parameters.get("W") if name == "W" else None
        if old is not None and old.is_meta and isinstance(value, nn.Parameter) and not value.is_meta:
            refuse_left_out_kernel(self)
        super().__setattr__(name, value)

    @property
    def geometry(self) -> ConvGeometry:
        """Sizes and options in canonical form, paddings by name resolved."""
        options = options_of(self, self.d_mul) | {"padding": self.padding, "padding_mode": self.padding_mode}
        return ConvGeometry.from_layer("torch", input_size=self.kernel_size, **options)

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Start again from a plain kernel: `W[..., :K] = weight`, `D` zeros, so that the composed kernel equals `weight`.

        Columns of `W` that the identity does not reach (`S` no multiple of `K`) are drawn as `reset_parameters` would.

        Args:
            weight: of the composed kernel's shape, any real dtype, any device.

        Raises:
            TypeError: `weight` is not a dense tensor of real numbers.
            ValueError: it has another shape, or no values ("meta").
        """
        if not isinstance(weight, Tensor):
            raise TypeError(f"weight must be a tensor. Received: {type(weight).__name__}")
        if weight.layout is not torch.strided or weight.is_complex():
            raise TypeError(f"weight must be a dense tensor of real numbers. Received: {weight.layout}, {weight.dtype}")
        if weight.is_meta and not self.W.is_meta:
            raise ValueError("weight must have values. Received: a tensor on the meta device")
        if text := self._misfit(weight):
            raise ValueError(f"{text}; to change a layer's sizes, fold it before")
        W, D = start_parameters(weight, self.in_channels, self.d_mul)
        if W.shape != self.W.shape:
            raise ValueError(
                f"the layer's sizes were changed, which its W and D do not follow: fold it before. Received: W of shape "
                f"{tuple(self.W.shape)}, {self}"
            )
        for name, value in (("W", W), ("D", D)):
            parameter = self._parameters[name]
            if parameter is None or value is None:
                continue
            if parameter.is_meta and not value.is_meta:  # a loader gives it its first values
                self._parameters[name] = nn.Parameter(value.to(parameter.dtype), parameter.requires_grad)
            else:
                parameter.copy_(value)

    def _misfit(self, weight: Tensor) -> str:
        geometry = ConvGeometry(**options_of(self, self.d_mul))
        shape, right = tuple(weight.shape), geometry.kernel_shape
        return "" if shape == right else f"weight must have shape {right}. Received: {shape}, {geometry.describe()}"

    def reset_parameters(self) -> None:
        """As the plain layer with `S` taps: its distribution, at `S == K` its numbers. A user's class draws its own kernel."""
        if "W" not in self._parameters or self.plain_class.reset_parameters is not _ConvNd.reset_parameters:
            super().reset_parameters()  # in the plain constructor, before `adopt`, or a user's own
            return
        nn.init.kaiming_uniform_(self.W, a=math.sqrt(5))
        if self.D is not None:
            nn.init.zeros_(self.D)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -_bound(self.W), _bound(self.W))

    def _load_from_state_dict(self, *options: Any, **named: Any) -> None:
        """The kernel of a plain checkpoint, after a user's class and hooks, starts the layer as `overparameterize` would."""
        with self.register_load_state_dict_pre_hook(_take_entry), contextlib.suppress(_Misfit):  # the last of the hooks
            super()._load_from_state_dict(*options, **named)

    def _start_from_entry(self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> str:
        """What is wrong with an entry, or nothing: then `W` and `D` are in the place of a `weight`."""
        found = {name: state_dict[prefix + name] for name in ("W", "D") if prefix + name in state_dict}
        weight = state_dict.get(f"{prefix}weight")
        # `torch.distributed.checkpoint` (and `accelerate` by it) puts what the model has already beside what it found.
        if weight is not None and all(_is_own(tensor, self._parameters[name]) for name, tensor in found.items()):
            del state_dict[f"{prefix}weight"]
            if text := self._misfit(weight):
                return prefix + text
            if is_sharded(self.W) and not is_sharded(weight):
                return f"{prefix}weight is a plain kernel, and the layer is sharded: load it before sharding"
            made = zip("WD", start_parameters(weight, self.in_channels, self.d_mul), strict=True)
            state_dict.update((prefix + name, value) for name, value in made if value is not None)
            log.info("%s: started from the plain kernel of the checkpoint", prefix.rstrip("."))
        elif weight is not None:
            return f"{prefix}weight is a plain kernel beside W or D: a layer starts from one or the other"
        note = read_note(metadata)
        if "W" in found and note is not None and note != self._note():
            return (
                f"{prefix}W is of another layer: {note.to_json()} in the metadata of the state dict, which `dict(state_dict)` "
                f"leaves out where entries were renamed. Received: {self}"
            )
        return ""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if asked_by_accelerate():  # which skips what it does not find here; the name makes it raise where a file has it
            destination[f"{prefix}weight"] = self.W
        metadata = getattr(destination, "_metadata", {})
        if prefix[:-1] in metadata:
            metadata[prefix[:-1]][NOTE] = self._note().to_json()

    def _note(self) -> Noted:
        return Noted(tuple(self.kernel_size), self.transposed)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, d_mul={self.d_mul}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Classes made by `do_class` have no name to be imported by: pickle the class they were made from."""
        if type(self) is _forms.get(self.plain_class) and type(self).__module__ != __name__:
            return _blank, (self.plain_class,), self.__getstate__()
        return super().__reduce_ex__(protocol)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        note_layer(self)  # a copy, or a layer from a file

    def __prepare_scriptable__(self) -> None:
        """What `torch.jit.script` asks first: its compiler knows neither composition nor autocast."""
        raise TypeError(f"torch.jit.script can't compile a DO layer: fold the model first. Received: {self}")


class _Misfit(Exception):
    """An entry of a state dict that a layer can't take is listed, and nothing of the layer is loaded."""


def _take_entry(layer: DOConvMixin, *given: Any) -> None:
    if text := layer._start_from_entry(*given[:3]):
        given[-1].append(text)
        raise _Misfit


def check_module(model: object) -> None:
    """Raise TypeError unless a model is one of PyTorch's."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module. Received: {type(model).__name__}")


@torch.fx.wrap
def _kernel(
    W: Tensor, D: Tensor | None, groups: int, transposed: bool, kernel_size: tuple[int, ...], channels_last: bool
) -> Tensor:
    """The composed kernel, never in autocast's type. `torch.fx` keeps it as one call, on the parameters."""

    def composed(W: Tensor, D: Tensor | None) -> Tensor:
        flat = compose(W, D, groups, transposed=transposed)
        return ordered(flat.reshape(*flat.shape[:2], *kernel_size), channels_last)

    kernel = composed(W, D)
    remember(kernel, composed, W, D)
    return kernel


def _is_own(tensor: Tensor, parameter: nn.Parameter | None) -> bool:
    """Whether a tensor of a state dict is the layer's own, or as empty as that."""
    if parameter is None or tensor.is_meta or parameter.is_meta:
        return parameter is not None and tensor.is_meta == parameter.is_meta
    return tensor.data_ptr() == parameter.data_ptr() and tensor.shape == parameter.shape


def start_parameters(weight: Tensor, in_channels: int, d_mul: int) -> tuple[Tensor, Tensor | None]:
    """`W` and `D` of a layer that starts as the plain convolution with kernel `weight`, see `DOConvMixin.start_from`."""
    taps = math.prod(weight.shape[2:])
    W = weight.new_zeros(*weight.shape[:2], d_mul)
    W[..., :taps] = weight.flatten(2)
    if surplus := d_mul % taps:
        W[..., -surplus:].uniform_(-_bound(W), _bound(W))
    return W, weight.new_zeros(in_channels, taps, d_mul) if taps > 1 else None


def _bound(W: Tensor) -> float:
    """`1/sqrt(fan_in)`: that of PyTorch's initialisation for a kernel of `S` taps."""
    return (W.shape[1] * W.shape[2]) ** -0.5


@torch.no_grad()
def make_parameters(conv: _ConvNd, d_mul: int) -> tuple[nn.Parameter, nn.Parameter | None]:
    """`W` and `D` with which a convolution computes the same function.

    `W` is a new Parameter: an earlier graph may still hold the old one in its old shape.
    """
    weight = conv._parameters["weight"]
    assert weight is not None
    W, D = start_parameters(weight, conv.in_channels, d_mul)
    trains = weight.requires_grad
    return nn.Parameter(W, trains), None if D is None else nn.Parameter(D, trains)


def adopt(conv: DOConvMixin, d_mul: int, W: nn.Parameter, D: nn.Parameter | None) -> None:
    """`W` and `D` in place of the plain `weight`."""
    weight = conv._parameters["weight"]
    if weight is not None and weight.ndim in CHANNELS_LAST and not weight.is_contiguous():
        conv.channels_last = weight.is_contiguous(memory_format=CHANNELS_LAST[weight.ndim])
    conv.d_mul = d_mul
    exchange(conv, ("weight",), {"W": W, "D": D})
    note_layer(conv)


def exchange(conv: _ConvNd, old: tuple[str, ...], new: dict[str, nn.Parameter | None]) -> None:
    """Put parameters in the place of others; the order is that of the plain layer, which optimizers rely on."""
    parameters = dict[str, nn.Parameter | None]()
    for name, parameter in conv._parameters.items():
        if name == old[0]:
            parameters |= new
        elif name not in old:
            parameters[name] = parameter
    conv._parameters = parameters  # a shallow copy of the layer has the old ones


def options_of(conv: _ConvNd, d_mul: int | None) -> dict[str, Any]:
    """The options of `ConvGeometry`, but for the padding, on which neither composition nor its checks depend."""
    sizes = ("in_channels", "out_channels", "kernel_size", "groups", "transposed")
    options = {name: getattr(conv, name) for name in sizes} | {"d_mul": d_mul}
    for name in ("stride", "dilation", "output_padding"):
        value = getattr(conv, name)
        options[name] = value * len(conv.kernel_size) if len(value) == 1 else value  # one stands for all axes
    return options


@torch.no_grad()
def fold_weight(conv: DOConvMixin) -> nn.Parameter:
    """The plain `weight` of a layer.

    Composed by `doconv_core` in float64 and rounded once, so that every backend and the command line fold to the same values.
    """
    W, D = conv.W, conv.D
    trains = W.requires_grad or (D is not None and D.requires_grad)
    if has_no_values(W):
        return nn.Parameter(W.new_empty(*W.shape[:2], *conv.kernel_size), trains)
    geometry = ConvGeometry(**options_of(conv, conv.d_mul))
    weight = to_tensor(compose_blocked(to_numpy(W), None if D is None else to_numpy(D), geometry), W.device)
    return nn.Parameter(ordered(weight, conv.channels_last), trains)


def make_plain(conv: DOConvMixin, weight: nn.Parameter) -> None:
    """Turn a layer, in place, into the plain convolution with kernel `weight`."""
    exchange(conv, ("W", "D"), {"weight": weight})
    del conv.d_mul
    vars(conv).pop("channels_last", None)
    conv.__class__ = conv.plain_class  # type: ignore[assignment]


class _Plain(DOConvMixin, Generic[Size]):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size | int = 1,
        padding: str | Size | int = 0, dilation: Size | int = 1, groups: int = 1, bias: bool = True,
        padding_mode: PaddingMode = "zeros", device: Any = None, dtype: Any = None, *, d_mul: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype,
            d_mul=d_mul,
        )  # fmt: skip


class _Transposed(DOConvMixin, Generic[Size]):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size | int = 1, padding: Size | int = 0,
        output_padding: Size | int = 0, groups: int = 1, bias: bool = True, dilation: Size | int = 1,
        padding_mode: PaddingMode = "zeros", device: Any = None, dtype: Any = None, *, d_mul: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype, d_mul=d_mul,
        )  # fmt: skip


class DOConv1d(_Plain[_size_1_t], nn.Conv1d):
    """Over-parameterized `torch.nn.Conv1d`: its arguments, and `d_mul`. Shapes, dtypes, errors: `DOConvMixin`."""

    plain_class = nn.Conv1d


class DOConv2d(_Plain[_size_2_t], nn.Conv2d):
    """Over-parameterized `torch.nn.Conv2d`: its arguments, and `d_mul`. Shapes, dtypes, errors: `DOConvMixin`."""

    plain_class = nn.Conv2d


class DOConv3d(_Plain[_size_3_t], nn.Conv3d):
    """Over-parameterized `torch.nn.Conv3d`: its arguments, and `d_mul`. Shapes, dtypes, errors: `DOConvMixin`."""

    plain_class = nn.Conv3d


class DOConvTranspose1d(_Transposed[_size_1_t], nn.ConvTranspose1d):
    """Over-parameterized `torch.nn.ConvTranspose1d`: its arguments, and `d_mul`. Shapes, dtypes, errors: `DOConvMixin`."""

    plain_class = nn.ConvTranspose1d


class DOConvTranspose2d(_Transposed[_size_2_t], nn.ConvTranspose2d):
    """Over-parameterized `torch.nn.ConvTranspose2d`: its arguments, and `d_mul`. Shapes, dtypes, errors: `DOConvMixin`."""

    plain_class = nn.ConvTranspose2d


class DOConvTranspose3d(_Transposed[_size_3_t], nn.ConvTranspose3d):
    """Over-parameterized `torch.nn.ConvTranspose3d`: its arguments, and `d_mul`. Shapes, dtypes, errors: `DOConvMixin`."""

    plain_class = nn.ConvTranspose3d


_forms: dict[type[_ConvNd], type[_ConvNd]] = {
    cls.plain_class: cls
    for cls in (DOConv1d, DOConv2d, DOConv3d, DOConvTranspose1d, DOConvTranspose2d, DOConvTranspose3d)
}


def do_class(plain: type[_ConvNd]) -> type[_ConvNd]:
    """The DO form of a class of convolutions, a user's subclass included: one class for each, made once."""
    if plain not in _forms:
        members = {"plain_class": plain, "__module__": plain.__module__}
        _forms[plain] = type(f"DO{plain.__name__}", (DOConvMixin, plain), members)
    return _forms[plain]


def _blank(plain: type[_ConvNd]) -> _ConvNd:
    cls = do_class(plain)
    return cls.__new__(cls)
