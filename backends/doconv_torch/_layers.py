"""The layers: a mixin over PyTorch's own convolutions that stores `W` and `D` and composes their `weight`.

State-dict keys are `W`, `D` and `bias` in canonical shapes. `D` holds `D_delta`, what is added to the identity, as in the
authors' files. A kernel of one tap has no `D`: the layer is the plain convolution, its `W` of shape `(C_out, C_in/G, 1)`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_1_t, _size_2_t, _size_3_t
from torch.nn.modules.conv import _ConvNd

from doconv_core import composition
from doconv_core.geometry import ConvGeometry, depth_multiplier
from doconv_torch._arrays import to_numpy, to_tensor
from doconv_torch._compose import compose


class DOConvMixin(_ConvNd):
    """What turns a class of PyTorch convolutions into its over-parameterized form.

    Attributes:
        W: Parameter, `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`.
        D: Parameter `(C_in, K, S)` holding `D_delta`, or None where the kernel has one tap.
        d_mul: `S`.
        weight: the composed kernel, computed at each access. Assigning a tensor to it starts the layer anew from that
            kernel; changing it in place changes a temporary and is lost.
    """

    W: nn.Parameter
    D: nn.Parameter | None
    d_mul: int
    plain_class: ClassVar[type[_ConvNd]]
    __jit_unused_properties__: ClassVar = ["weight", "geometry"]

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # a Parameter in the plain layer
        W, D = self.W, self.D
        device = W.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                flat = compose(W, D, self.groups, transposed=self.transposed)
        else:
            flat = compose(W, D, self.groups, transposed=self.transposed)
        return flat.reshape(*flat.shape[:2], *self.kernel_size)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight" and "W" in self._parameters:
            self.start_from(value)
        else:
            super().__setattr__(name, value)

    @property
    def geometry(self) -> ConvGeometry:
        """Sizes and options in canonical form; a string padding counts as none."""
        padding = [0] * len(self.kernel_size) if isinstance(self.padding, str) else self.padding
        return ConvGeometry(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            kernel_size=tuple(self.kernel_size),
            stride=tuple(self.stride),
            padding=tuple((size, size) for size in padding),  # type: ignore[arg-type]
            dilation=tuple(self.dilation),
            groups=self.groups,
            transposed=self.transposed,
            output_padding=tuple(self.output_padding),
            padding_mode=self.padding_mode,
            d_mul=self.d_mul,
        )

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Start anew from a plain kernel: `W[..., :K] = weight`, `D` zeros, so that the composed kernel equals `weight`.

        Columns of `W` that the identity does not reach (`S` no multiple of `K`) are drawn as `reset_parameters` would.

        Raises:
            ValueError: `weight` is not of the composed kernel's shape.
        """
        geometry = self.geometry
        if tuple(weight.shape) != geometry.kernel_shape:
            raise ValueError(
                f"weight must have shape {geometry.kernel_shape}. Received: {tuple(weight.shape)}, {geometry.describe()}"
            )
        taps, surplus = geometry.taps, self.d_mul % geometry.taps
        self.W[..., :taps] = weight.reshape(*weight.shape[:2], taps)
        self.W[..., taps : self.d_mul - surplus] = 0
        if surplus:
            bound = (self.W.shape[1] * self.d_mul) ** -0.5
            self.W[..., -surplus:].uniform_(-bound, bound)
        if self.D is not None:
            self.D.zero_()

    def reset_parameters(self) -> None:
        """As the plain layer with `S` taps: the same distribution, and at `S == K` the same numbers from the same seed."""
        if "W" not in self._parameters:
            super().reset_parameters()  # the plain constructor, before `attach`
            return
        nn.init.kaiming_uniform_(self.W, a=math.sqrt(5))
        if self.D is not None:
            nn.init.zeros_(self.D)
        if self.bias is not None:
            bound = (self.W.shape[1] * self.W.shape[2]) ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, d_mul={self.d_mul}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Classes made by `do_class` have no name to be imported by: pickle the class they were made from."""
        if do_class(self.plain_class) is type(self) and self.plain_class not in EXPLICIT:
            return _blank, (self.plain_class,), self.__getstate__()
        return super().__reduce_ex__(protocol)


def attach(conv: _ConvNd, d_mul: int) -> None:
    """Replace the plain `weight` of a convolution whose class is its DO form already; the function does not change."""
    weight = conv._parameters.pop("weight")
    assert weight is not None
    options: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    taps = math.prod(conv.kernel_size)
    conv.d_mul = d_mul
    conv.register_parameter("W", nn.Parameter(torch.empty(*weight.shape[:2], d_mul, **options), weight.requires_grad))
    D = nn.Parameter(torch.empty(conv.in_channels, taps, d_mul, **options), weight.requires_grad) if taps > 1 else None
    conv.register_parameter("D", D)
    # The order of the plain layer's parameters, which optimizers rely on: kernel before bias.
    if "bias" in conv._parameters:
        conv._parameters["bias"] = conv._parameters.pop("bias")
    assert isinstance(conv, DOConvMixin)
    conv.start_from(weight.detach())


def _construct(conv: _ConvNd, d_mul: int | None) -> None:
    """The end of a layer's constructor, after the plain one."""
    multiplier = depth_multiplier(conv.kernel_size, d_mul, received=_received(conv, d_mul))
    attach(conv, multiplier)
    assert isinstance(conv, DOConvMixin)
    conv.geometry  # noqa: B018  # every check that PyTorch's constructor leaves out
    if multiplier != math.prod(conv.kernel_size):
        conv.reset_parameters()


def _received(conv: _ConvNd, d_mul: int | None) -> str:
    return (
        f"in_channels={conv.in_channels}, out_channels={conv.out_channels}, kernel_size={conv.kernel_size}, "
        f"groups={conv.groups}, d_mul={d_mul!r}"
    )


class DOConv1d(DOConvMixin, nn.Conv1d):  # type: ignore[misc]  # `weight` is composed
    """Over-parameterized `torch.nn.Conv1d`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: the depth multiplier `S`, at least the number of taps `K`; `None` means `K`. A kernel of one tap is not
            over-parameterized, whatever `d_mul` says.

    Shapes: input and output as `torch.nn.Conv1d`; `W` `(C_out, C_in/G, S)`, `D` `(C_in, K, S)`, `weight` the composed kernel
    `W' = W E^T + D o W` (Cao et al., arXiv 2006.12030, section 3).

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps, a size is not positive; and whatever `torch.nn.Conv1d` raises.
    """

    plain_class = nn.Conv1d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: str | _size_1_t = 0,
        dilation: _size_1_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        d_mul: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        _construct(self, d_mul)


class DOConv2d(DOConvMixin, nn.Conv2d):  # type: ignore[misc]  # `weight` is composed
    """Over-parameterized `torch.nn.Conv2d`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: the depth multiplier `S`, at least the number of taps `K`; `None` means `K`. A kernel of one tap is not
            over-parameterized, whatever `d_mul` says.

    Shapes: input and output as `torch.nn.Conv2d`; `W` `(C_out, C_in/G, S)`, `D` `(C_in, K, S)`, `weight` the composed kernel
    `W' = W E^T + D o W` (Cao et al., arXiv 2006.12030, section 3).

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps, a size is not positive; and whatever `torch.nn.Conv2d` raises.
    """

    plain_class = nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: str | _size_2_t = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        d_mul: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        _construct(self, d_mul)


class DOConv3d(DOConvMixin, nn.Conv3d):  # type: ignore[misc]  # `weight` is composed
    """Over-parameterized `torch.nn.Conv3d`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: the depth multiplier `S`, at least the number of taps `K`; `None` means `K`. A kernel of one tap is not
            over-parameterized, whatever `d_mul` says.

    Shapes: input and output as `torch.nn.Conv3d`; `W` `(C_out, C_in/G, S)`, `D` `(C_in, K, S)`, `weight` the composed kernel
    `W' = W E^T + D o W` (Cao et al., arXiv 2006.12030, section 3).

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps, a size is not positive; and whatever `torch.nn.Conv3d` raises.
    """

    plain_class = nn.Conv3d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: str | _size_3_t = 0,
        dilation: _size_3_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        d_mul: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        _construct(self, d_mul)


class DOConvTranspose1d(DOConvMixin, nn.ConvTranspose1d):  # type: ignore[misc]  # `weight` is composed
    """Over-parameterized `torch.nn.ConvTranspose1d`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: as in `DOConv1d`.

    Shapes: input and output as `torch.nn.ConvTranspose1d`; `W` `(C_in, C_out/G, S)`, `D` `(C_in, K, S)`, `weight` the
    composed kernel `W'[i, o, k] = sum_s (E + D)[i, k, s] W[i, o, s]`, an extension of the paper's layer.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps, a size is not positive; and whatever `torch.nn.ConvTranspose1d`
            raises.
    """

    plain_class = nn.ConvTranspose1d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: _size_1_t = 0,
        output_padding: _size_1_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_1_t = 1,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        d_mul: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype,
        )  # fmt: skip
        _construct(self, d_mul)


class DOConvTranspose2d(DOConvMixin, nn.ConvTranspose2d):  # type: ignore[misc]  # `weight` is composed
    """Over-parameterized `torch.nn.ConvTranspose2d`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: as in `DOConv2d`.

    Shapes: input and output as `torch.nn.ConvTranspose2d`; `W` `(C_in, C_out/G, S)`, `D` `(C_in, K, S)`, `weight` the
    composed kernel `W'[i, o, k] = sum_s (E + D)[i, k, s] W[i, o, s]`, an extension of the paper's layer.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps, a size is not positive; and whatever `torch.nn.ConvTranspose2d`
            raises.
    """

    plain_class = nn.ConvTranspose2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: _size_2_t = 0,
        output_padding: _size_2_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_2_t = 1,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        d_mul: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype,
        )  # fmt: skip
        _construct(self, d_mul)


class DOConvTranspose3d(DOConvMixin, nn.ConvTranspose3d):  # type: ignore[misc]  # `weight` is composed
    """Over-parameterized `torch.nn.ConvTranspose3d`: the same arguments, and `d_mul` by keyword only.

    Args:
        d_mul: as in `DOConv3d`.

    Shapes: input and output as `torch.nn.ConvTranspose3d`; `W` `(C_in, C_out/G, S)`, `D` `(C_in, K, S)`, `weight` the
    composed kernel `W'[i, o, k] = sum_s (E + D)[i, k, s] W[i, o, s]`, an extension of the paper's layer.

    Raises:
        TypeError: `d_mul` is not an integer.
        ValueError: `d_mul` is below the number of taps, a size is not positive; and whatever `torch.nn.ConvTranspose3d`
            raises.
    """

    plain_class = nn.ConvTranspose3d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: _size_3_t = 0,
        output_padding: _size_3_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_3_t = 1,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        d_mul: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode,
            device, dtype,
        )  # fmt: skip
        _construct(self, d_mul)


EXPLICIT: dict[type[_ConvNd], type[_ConvNd]] = {
    cls.plain_class: cls
    for cls in (DOConv1d, DOConv2d, DOConv3d, DOConvTranspose1d, DOConvTranspose2d, DOConvTranspose3d)
}


@cache
def do_class(plain: type[_ConvNd]) -> type[_ConvNd]:
    """The DO form of a class of convolutions, a user's subclass included: one class for each, made once."""
    if plain in EXPLICIT:
        return EXPLICIT[plain]
    return type(f"DO{plain.__name__}", (DOConvMixin, plain), {"plain_class": plain, "__module__": plain.__module__})


def _blank(plain: type[_ConvNd]) -> _ConvNd:
    cls = do_class(plain)
    return cls.__new__(cls)


@torch.no_grad()
def fold_layer(conv: DOConvMixin) -> None:
    """Turn one layer, in place, into the plain convolution of its composed kernel.

    Composed by `doconv_core` in float64 and rounded once, so that every backend and the command line fold to the same values.
    """
    W = conv.W
    weight = composition.compose(to_numpy(W), None if conv.D is None else to_numpy(conv.D), conv.geometry)
    folded = nn.Parameter(to_tensor(weight, W.device), W.requires_grad)
    for name in ("W", "D"):
        conv._parameters.pop(name)
    del conv.d_mul
    conv.__class__ = conv.plain_class  # type: ignore[assignment]
    conv.register_parameter("weight", folded)
    conv._parameters["bias"] = conv._parameters.pop("bias")
