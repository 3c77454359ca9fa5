"""doconv_torch as a port: the public layers, one thread, TF32 off."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

import doconv_core
import doconv_torch
from doconv_conformance.port import EVERYTHING, Port, Tensors, serve
from doconv_core.geometry import ConvGeometry
from doconv_torch._arrays import to_numpy, to_tensor

LAYERS = {
    False: (doconv_torch.DOConv1d, doconv_torch.DOConv2d, doconv_torch.DOConv3d),
    True: (doconv_torch.DOConvTranspose1d, doconv_torch.DOConvTranspose2d, doconv_torch.DOConvTranspose3d),
}
PLAIN = {
    False: (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    True: (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
}


class TorchPort(Port):
    """Mixed precision runs under autocast; asymmetric padding is `functional.pad` before the layer, cropping after it."""

    name = "torch"
    version = f"doconv {doconv_core.__version__}, torch {torch.__version__}"
    supports: ClassVar = EVERYTHING
    numerics: ClassVar = {
        "algorithm": "direct",
        "accumulator": {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"},
        # On the CPU its float16 transposed convolutions, and in 3-D its bfloat16 gradients of inputs, round every product of
        # matrices before they add them up; its float16 gradients of a bias the sums of the images (measured).
        "scatter": {"float16": "float16", "bfloat16": "bfloat16"},
        "reduction": {"float16": "float16"},
        # Its float16 gradients of 3-D kernels add up the images in float16 (measured).
        "kernel_gradient": {"float16": "float16"},
        "switches": {
            "torch.backends.cudnn.allow_tf32": {"found": torch.backends.cudnn.allow_tf32, "set": False},
            "torch.backends.cuda.matmul.allow_tf32": {"found": torch.backends.cuda.matmul.allow_tf32, "set": False},
        },
    }

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"weight": to_numpy(layer(geometry, inputs).weight)}

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"y": to_numpy(run(layer(geometry, inputs), geometry, to_tensor(inputs["x"])))}

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        conv, x = layer(geometry, inputs), to_tensor(inputs["x"]).requires_grad_()
        run(conv, geometry, x).backward(to_tensor(inputs["grad_y"]))
        named = {"grad_x": x, "grad_W": conv.W, "grad_D_delta": conv.D, "grad_bias": conv.bias}
        return {name: to_numpy(tensor.grad) for name, tensor in named.items() if tensor is not None}

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        conv = doconv_torch.fold(layer(geometry, inputs))
        assert type(conv) is PLAIN[geometry.transposed][geometry.spatial_rank - 1]
        outputs = {"weight": conv.weight, "y": run(conv, geometry, to_tensor(inputs["x"]))}
        return {name: to_numpy(tensor) for name, tensor in (outputs | named_bias(conv)).items()}

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        weight = to_tensor(inputs["weight"])
        conv = build(PLAIN[geometry.transposed][geometry.spatial_rank - 1], geometry, weight.dtype, bias=False)
        with torch.no_grad():
            conv.weight.copy_(weight)
        if not geometry.has_d:  # stays plain: its W is its kernel
            return {"W": inputs["weight"].reshape(geometry.w_shape), "weight": to_numpy(conv.weight)}
        doconv_torch.overparameterize(conv, d_mul=geometry.d_mul)
        return {"W": to_numpy(conv.W), "D_delta": to_numpy(conv.D), "weight": to_numpy(conv.weight)}


def build(cls: type[nn.Module], geometry: ConvGeometry, dtype: torch.dtype, *, bias: bool, **options: Any) -> Any:
    """A layer of `cls` without padding: `run` pads and crops."""
    return cls(
        geometry.in_channels, geometry.out_channels, geometry.kernel_size, stride=geometry.stride, dilation=geometry.dilation,
        groups=geometry.groups, bias=bias, dtype=dtype, **options,
    )  # fmt: skip


def layer(geometry: ConvGeometry, inputs: Tensors) -> Any:
    """The DO layer with the case's parameters."""
    W = to_tensor(inputs["W"])
    cls = LAYERS[geometry.transposed][geometry.spatial_rank - 1]
    conv = build(cls, geometry, W.dtype, bias="bias" in inputs, d_mul=geometry.d_mul)
    parameters = {"W": W}
    for name, key in (("D", "D_delta"), ("bias", "bias")):
        if key in inputs:
            parameters[name] = to_tensor(inputs[key])
    conv.load_state_dict(parameters)
    return conv


def run(conv: Any, geometry: ConvGeometry, x: torch.Tensor) -> torch.Tensor:
    """The layer on `x`, with the case's padding; under autocast where the parameters are of a wider type."""
    parameter = next(conv.parameters())
    context = nullcontext() if parameter.dtype == x.dtype else torch.autocast("cpu", x.dtype)
    with context:
        if not geometry.transposed:
            ends = [end for pair in reversed(geometry.padding) for end in pair]
            mode = "constant" if geometry.padding_mode == "zeros" else geometry.padding_mode
            return conv(functional.pad(x, ends, mode=mode) if any(ends) else x)
        if all(low == high >= 0 for low, high in geometry.padding) and all(
            extra < max(stride, dilation)
            for extra, stride, dilation in zip(geometry.output_padding, geometry.stride, geometry.dilation, strict=True)
        ):
            conv.padding, conv.output_padding = tuple(low for low, _ in geometry.padding), geometry.output_padding
            return conv(x)
        full = conv(x)
        ends = []
        for (low, high), extra in zip(reversed(geometry.padding), reversed(geometry.output_padding), strict=True):
            ends += [-low, extra - high]
        y = functional.pad(full, ends)
        if conv.bias is None or max(ends) <= 0:
            return y
        appended = 1 - functional.pad(torch.ones_like(full[:1, :1]), ends)  # rows beyond the full output are the bias
        return y + appended * conv.bias.to(y.dtype).view(-1, *[1] * geometry.spatial_rank)


def named_bias(conv: nn.Module) -> dict[str, torch.Tensor]:
    return {} if conv.bias is None else {"bias": conv.bias}


if __name__ == "__main__":
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(1)
    serve(TorchPort())
