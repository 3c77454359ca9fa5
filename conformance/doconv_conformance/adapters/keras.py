"""doconv_keras as a port: `python -m doconv_conformance.adapters.keras [WAY]`, on the Keras backend of KERAS_BACKEND."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import doconv_core
import doconv_keras
from doconv_conformance.adapters.ways.keras import WAYS
from doconv_conformance.adapters.ways.table import way_of
from doconv_conformance.port import Port, Tensors, Unsupported, serve
from doconv_core import Layout
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad_vjp
from doconv_keras._arrays import to_numpy

BACKEND = keras.backend.backend()
PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
LIMITS = [
    ({"transposed": True, "grouped": True}, "Keras's transposed convolutions have no groups"),
    ({"strided": True, "dilated": True}, "Keras refuses strides together with dilations"),
]
if BACKEND == "tensorflow":
    LIMITS.append(({"transposed": True, "dilated": True}, "TensorFlow has no dilated transposed convolution"))
if BACKEND == "numpy":
    LIMITS.append(({"operation": "backward"}, "Keras's numpy backend has no gradients"))
    LIMITS.append(({"dtype": "float64"}, "Keras's numpy backend computes in float32"))


# The gradient of a bias is a plain sum, which these backends form in the type itself, measured.
REDUCTION = {
    "tensorflow": {"bfloat16": "bfloat16"},
    "jax": {"bfloat16": "bfloat16", "float16": "float16"},
}


class KerasPort(Port):
    """Padding is NumPy's before a layer without padding, cropping comes after a transposed one."""

    version = f"doconv {doconv_core.__version__}, keras {keras.__version__}"

    def __init__(self, way: str = "") -> None:
        default = next(iter(WAYS[BACKEND]))
        declared = way_of("keras", way or default, BACKEND)
        self.way = WAYS[BACKEND][declared.name]()
        self.name = f"keras-{BACKEND}" if declared.name == default else f"keras-{BACKEND}/{way}"
        self.supports = declared.supports([{"when": when, "reason": reason} for when, reason in LIMITS])
        # On the CPU TensorFlow's float16 convolutions add up in float16, measured on a kernel gradient.
        half = "float16" if BACKEND == "tensorflow" else "float32"
        self.numerics = {
            "algorithm": "direct",
            "accumulator": {"float64": "float64", "float32": "float32", "float16": half, "bfloat16": "float32"},
            "reduction": REDUCTION.get(BACKEND, {}),
            # PyTorch's float16 transposed convolutions on the CPU round every product of matrices before they add them up.
            "scatter": {"float16": "float16"} if BACKEND == "torch" else {},
        } | declared.numerics

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        x = np.zeros((1, geometry.in_channels, *[1] * geometry.spatial_rank), inputs["W"].dtype)
        layer = build(geometry, inputs | {"x": x})
        return {"weight": layer.layout().kernel_to_canonical(to_numpy(layer.kernel))}

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        with self.scope(geometry):
            return {"y": self.run(build(geometry, inputs), geometry, inputs["x"])}

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        with self.scope(geometry):
            layer = build(geometry, inputs)
        with self.scope(geometry, plain=True):
            plain = doconv_keras.fold(layer)
            weight = layer.layout().kernel_to_canonical(to_numpy(plain.weights[0]))
            outputs = {"weight": weight, "y": self.run(plain, geometry, inputs["x"])}
            return outputs | ({"bias": to_numpy(plain.bias)} if plain.use_bias else {})

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        x = np.zeros((1, geometry.in_channels, *[1] * geometry.spatial_rank), inputs["weight"].dtype)
        layer = build(geometry, {"x": x, "weight": inputs["weight"]})
        layout = layer.layout()
        layer.start_from(layout.kernel_from_canonical(inputs["weight"]), seed=0)
        outputs = {"W": layout.w_to_canonical(to_numpy(layer.W))}
        outputs["weight"] = layout.kernel_to_canonical(to_numpy(layer.kernel))
        return outputs | ({} if layer.D is None else {"D_delta": layout.d_to_canonical(to_numpy(layer.D))})

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        padded, grad_y = pad(inputs["x"], geometry), np.moveaxis(inputs["grad_y"], 1, -1)
        with self.scope(geometry):
            layer = build(geometry, inputs, "backward")
            call = Call(layer, geometry, inputs["x"].shape)
            grad_x, *others = map(to_numpy, self.way.backward(layer, call, padded, grad_y))
        layout = layer.layout()
        named = dict(zip([variable.name for variable in layer.variables], others, strict=True))
        grad_x = np.moveaxis(grad_x, -1, 1)
        if not geometry.transposed:
            grad_x = pad_vjp(grad_x.astype(np.float64), geometry.padding, geometry.padding_mode)
        outputs = {"grad_x": grad_x.astype(inputs["x"].dtype), "grad_W": layout.w_to_canonical(named["kernel"])}
        if "D" in named:
            outputs["grad_D_delta"] = layout.d_to_canonical(named["D"])
        if "bias" in named:
            outputs["grad_bias"] = named["bias"]
        return outputs

    def run(self, layer: Any, geometry: ConvGeometry, x: np.ndarray) -> np.ndarray:
        """The layer's output, canonical."""
        y = self.way.forward(layer, Call(layer, geometry, x.shape), pad(x, geometry))
        return np.moveaxis(to_numpy(y), -1, 1)

    def scope(self, geometry: ConvGeometry, *, plain: bool = False) -> Any:
        """Where the way makes and runs layers of a geometry."""
        refuse(geometry, "", "")
        layout = Layout("keras", geometry, depthwise=is_depthwise(geometry))
        shapes = {"kernel": layout.w_from_canonical(np.empty(geometry.w_shape)).shape}
        if plain:
            shapes = {"kernel": layout.kernel_from_canonical(np.empty(geometry.kernel_shape)).shape}
        elif geometry.has_d:
            shapes["D"] = layout.d_from_canonical(np.empty(geometry.d_shape)).shape
        return self.way.scope(shapes)


def refuse(geometry: ConvGeometry, operation: str, dtype: str) -> None:
    facts = {
        "operation": operation,
        "dtype": dtype,
        "transposed": geometry.transposed,
        "grouped": geometry.groups > 1,
        "strided": max(geometry.stride) > 1,
        "dilated": max(geometry.dilation) > 1,
    }
    for when, reason in LIMITS:
        if all(facts[key] == value for key, value in when.items()):
            raise Unsupported(reason)


def build(geometry: ConvGeometry, inputs: Tensors, operation: str = "") -> Any:
    """The DO layer of the geometry, with the case's parameters where they are given."""
    compute = str(inputs["x"].dtype)
    refuse(geometry, operation, compute)
    variable = str(inputs.get("W", inputs.get("weight")).dtype)
    layer = blank(geometry, compute if compute == variable else f"mixed_{compute}", "bias" in inputs)
    layout = layer.layout()
    if "W" in inputs:
        layer.W.assign(layout.w_from_canonical(inputs["W"]))
    if "D_delta" in inputs:
        layer.D.assign(layout.d_from_canonical(inputs["D_delta"]))
    if "bias" in inputs:
        layer.bias.assign(inputs["bias"])
    return layer


@cache
def blank(geometry: ConvGeometry, policy: str, bias: bool) -> Any:
    """A built layer; one for all numbers of a geometry, so that JAX compiles it once."""
    shared = {"strides": geometry.stride, "dilation_rate": geometry.dilation, "d_mul": geometry.d_mul,
              "use_bias": bias, "dtype": keras.DTypePolicy(policy), "padding": "valid"}  # fmt: skip
    rank = geometry.spatial_rank
    multiplier = geometry.out_channels // geometry.in_channels
    if geometry.transposed:
        cls = getattr(doconv_keras, f"DOConv{rank}DTranspose")
        layer = cls(geometry.out_channels, geometry.kernel_size, output_padding=geometry.output_padding, **shared)
    elif is_depthwise(geometry):
        cls = getattr(doconv_keras, f"DODepthwiseConv{rank}D")
        layer = cls(geometry.kernel_size, depth_multiplier=multiplier, **shared)
    else:
        cls = getattr(doconv_keras, f"DOConv{rank}D")
        layer = cls(geometry.out_channels, geometry.kernel_size, groups=geometry.groups, **shared)
    layer.build((None, *[None] * rank, geometry.in_channels))
    return layer


def is_depthwise(geometry: ConvGeometry) -> bool:
    """Whether a depthwise layer of Keras's has this geometry."""
    square = len(set(geometry.stride)) == 1
    return geometry.groups == geometry.in_channels > 1 and geometry.spatial_rank < 3 and square


def pad(x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Channels last, padded by the case's pairs."""
    x = np.moveaxis(x, 1, -1)
    if geometry.transposed:
        return np.ascontiguousarray(x)
    return np.pad(x, [(0, 0), *geometry.padding, (0, 0)], mode=PAD_MODES[geometry.padding_mode])  # type: ignore[call-overload]


def crop(y: Any, geometry: ConvGeometry, x_shape: tuple[int, ...]) -> Any:
    """A transposed layer's full output without the rows that the padding drops."""
    if not geometry.transposed:
        return y
    size = geometry.output_size(x_shape[2:])
    ends = [slice(low, low + count) for (low, _), count in zip(geometry.padding, size, strict=True)]
    return y[(slice(None), *ends)]


@dataclass(frozen=True)
class Call:
    """A layer and the cropping of its case, as one function."""

    layer: Any
    geometry: ConvGeometry
    x_shape: tuple[int, ...]

    def __call__(self, x: Any) -> Any:
        return crop(self.layer(x), self.geometry, self.x_shape)


if __name__ == "__main__":
    keras.config.disable_traceback_filtering()
    if BACKEND in ("jax", "numpy"):  # Keras's numpy backend convolves with JAX
        import jax

        jax.config.update("jax_enable_x64", True)
    serve(KerasPort(*sys.argv[1:2]))
