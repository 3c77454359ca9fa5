"""doconv_torch as a port: `python -m doconv_conformance.adapters.torch [WAY]`, on the device that DOCONV_DEVICE names.

The public layers, one thread; TF32 and sums in reduced precision are off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import doconv_core
import doconv_torch
from doconv_conformance.adapters.ways.table import way_of
from doconv_conformance.adapters.ways.torch import WAYS
from doconv_conformance.port import Port, Tensors, serve
from doconv_core.geometry import ConvGeometry
from doconv_torch._arrays import to_numpy, to_tensor

DEVICE = os.environ.get("DOCONV_DEVICE", "cpu")
LAYERS = {
    False: (doconv_torch.DOConv1d, doconv_torch.DOConv2d, doconv_torch.DOConv3d),
    True: (doconv_torch.DOConvTranspose1d, doconv_torch.DOConvTranspose2d, doconv_torch.DOConvTranspose3d),
}
PLAIN = {
    False: (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    True: (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
}
# What PyTorch may compute in another way than it is asked to, by default or by what somebody set.
SWITCHES = {
    "torch.backends.cudnn.allow_tf32": False,
    "torch.backends.cudnn.benchmark": False,
    "torch.backends.cudnn.deterministic": True,
    "torch.backends.cuda.matmul.allow_tf32": False,
    "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction": False,
    "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction": False,
}
ACCUMULATORS = {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"}
NUMERICS: dict[str, dict[str, Any]] = {
    "cpu": {
        "algorithm": "direct",
        "accumulator": ACCUMULATORS,
        # Its float16 transposed convolutions, and in 3-D its bfloat16 gradients of inputs, round every product of
        # matrices before they add them up; its float16 gradients of a bias the sums of the images (measured).
        "scatter": {"float16": "float16", "bfloat16": "bfloat16"},
        "reduction": {"float16": "float16"},
        # Its float16 gradients of 3-D kernels add up the images in float16 (measured).
        "kernel_gradient": {"float16": "float16"},
    },
    # cuDNN without TF32, of its deterministic algorithms; tensor cores add up in float32.
    "cuda": {"algorithm": "direct", "accumulator": ACCUMULATORS},
}


class TorchPort(Port):
    """Mixed precision runs under autocast; asymmetric padding is `functional.pad` before the layer, cropping after it."""

    version = f"doconv {doconv_core.__version__}, torch {torch.__version__}"

    def __init__(self, way: str = "eager", switches: Mapping[str, Any] | None = None) -> None:
        declared = way_of("torch", way)
        self.name = "torch" if way == "eager" else f"torch/{way}"
        self.device = torch.cuda.get_device_name() if DEVICE == "cuda" else DEVICE
        self.supports = declared.supports()
        self.numerics = NUMERICS[DEVICE] | declared.numerics | {"switches": dict(switches or {})}
        self.way = WAYS[way]()

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"weight": to_numpy(self.layer(geometry, inputs).weight)}

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        module = Padded(self.layer(geometry, inputs), geometry)
        return {"y": to_numpy(self.way.forward(module, to_tensor(inputs["x"], DEVICE)))}

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        module = Padded(self.layer(geometry, inputs), geometry)
        grad_x, named = self.way.backward(module, *(to_tensor(inputs[name], DEVICE) for name in ("x", "grad_y")))
        names = {"grad_W": "layer.W", "grad_D_delta": "layer.D", "grad_bias": "layer.bias"}
        gradients = {"grad_x": grad_x} | {name: named[key] for name, key in names.items() if key in named}
        return {name: to_numpy(gradient) for name, gradient in gradients.items()}

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        plain = self.way.fold(self.layer(geometry, inputs))
        assert type(plain) is PLAIN[geometry.transposed][geometry.spatial_rank - 1]
        weight = to_numpy(plain.weight)
        bias = {} if plain.bias is None else {"bias": to_numpy(plain.bias)}
        y = self.way.forward(Padded(plain, geometry), to_tensor(inputs["x"], DEVICE))
        return {"weight": weight, "y": to_numpy(y)} | bias

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        weight = to_tensor(inputs["weight"], DEVICE)
        conv = build(PLAIN[geometry.transposed][geometry.spatial_rank - 1], geometry, weight.dtype, bias=False)
        with torch.no_grad():
            conv.weight.copy_(weight)
        if not geometry.has_d:  # stays plain: its W is its kernel
            return {"W": inputs["weight"].reshape(geometry.w_shape), "weight": to_numpy(conv.weight)}
        doconv_torch.overparameterize(conv, d_mul=geometry.d_mul)
        return {"W": to_numpy(conv.W), "D_delta": to_numpy(conv.D), "weight": to_numpy(conv.weight)}

    def layer(self, geometry: ConvGeometry, inputs: Tensors) -> Any:
        return self.way.prepare(layer(geometry, inputs))


def build(cls: type[nn.Module], geometry: ConvGeometry, dtype: torch.dtype, *, bias: bool, **options: Any) -> Any:
    """A layer of `cls` without padding: `run` pads and crops."""
    return cls(
        geometry.in_channels, geometry.out_channels, geometry.kernel_size, stride=geometry.stride, dilation=geometry.dilation,
        groups=geometry.groups, bias=bias, dtype=dtype, device=DEVICE, **options,
    )  # fmt: skip


def layer(geometry: ConvGeometry, inputs: Tensors) -> Any:
    """The DO layer with the case's parameters."""
    W = to_tensor(inputs["W"], DEVICE)
    cls = LAYERS[geometry.transposed][geometry.spatial_rank - 1]
    conv = build(cls, geometry, W.dtype, bias="bias" in inputs, d_mul=geometry.d_mul)
    parameters = {"W": W}
    for name, key in (("D", "D_delta"), ("bias", "bias")):
        if key in inputs:
            parameters[name] = to_tensor(inputs[key])
    conv.load_state_dict(parameters)
    return conv


class Padded(nn.Module):
    """A layer with the padding of a case around it."""

    def __init__(self, layer: nn.Module, geometry: ConvGeometry) -> None:
        super().__init__()
        self.layer, self.geometry = layer, geometry

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return run(self.layer, self.geometry, x)


def run(conv: Any, geometry: ConvGeometry, x: torch.Tensor) -> torch.Tensor:
    """The layer on `x`, with the case's padding."""
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


def set_switches(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Set attributes by their dotted names; what was found and what was set, for the report."""
    report = {}
    for path, value in wanted.items():
        owner, name = path.rpartition(".")[::2]
        target = sys.modules["torch"]
        for part in owner.split(".")[1:]:
            target = getattr(target, part)
        found = getattr(target, name)
        setattr(target, name, value)
        report[path] = {"found": found if isinstance(found, bool | str) else str(found), "set": value}
    return report


if __name__ == "__main__":
    if DEVICE == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    torch.set_num_threads(1)
    serve(TorchPort(*sys.argv[1:2], switches=set_switches(SWITCHES)))
