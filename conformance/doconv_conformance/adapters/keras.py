"""doconv_keras as a port, on the Keras backend that the environment variable KERAS_BACKEND names."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

import doconv_core
import doconv_keras
from doconv_conformance.port import OPERATIONS, Port, Tensors, Unsupported, serve
from doconv_core.geometry import PADDING_MODES, ConvGeometry
from doconv_core.padding import pad_vjp

BACKEND = keras.backend.backend()
PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
LIMITS = [
    ({"transposed": True, "grouped": True}, "Keras's transposed convolutions have no groups"),
    ({"transposed": True, "dilated": True}, "TensorFlow has no dilated transposed convolution"),
]
if BACKEND == "numpy":
    LIMITS.append(({"operation": "backward"}, "Keras's numpy backend has no gradients"))


class KerasPort(Port):
    """Padding is NumPy's before a layer without padding, cropping comes after a transposed one."""

    name = f"keras-{BACKEND}"
    version = f"doconv {doconv_core.__version__}, keras {keras.__version__}"

    def __init__(self) -> None:
        self.supports = {
            "operations": list(OPERATIONS),
            "spatial_ranks": [1, 2, 3],
            "transposed": True,
            "groups": True,
            "padding_modes": list(PADDING_MODES),
            "dtypes": {
                "float64": ["float64"],
                "float32": ["float32"],
                "bfloat16": ["float32", "bfloat16"],
                "float16": ["float32", "float16"],
            },
            "unsupported": [{"when": when, "reason": reason} for when, reason in LIMITS],
        }
        # TensorFlow's float16 convolutions on the CPU add up in float16, measured on a kernel gradient.
        half = "float16" if BACKEND == "tensorflow" else "float32"
        self.numerics = {
            "algorithm": "direct",
            "accumulator": {"float64": "float64", "float32": "float32", "float16": half, "bfloat16": "float32"},
            "reduction": {"bfloat16": "bfloat16"},  # the gradient of a bias, measured
        }

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        x = np.zeros((1, geometry.in_channels, *[1] * geometry.spatial_rank), inputs["W"].dtype)
        layer = build(geometry, inputs | {"x": x})
        return {"weight": layer.layout().kernel_to_canonical(ops.convert_to_numpy(layer.kernel))}

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        layer = build(geometry, inputs)
        return {"y": to_canonical(crop(layer(pad(inputs["x"], geometry)), geometry, inputs["x"].shape))}

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        layer = build(geometry, inputs)
        plain = doconv_keras.fold_layer(layer)
        y = crop(plain(pad(inputs["x"], geometry)), geometry, inputs["x"].shape)
        kernel = ops.convert_to_numpy(plain.weights[0])
        outputs = {"weight": layer.layout().kernel_to_canonical(kernel), "y": to_canonical(y)}
        return outputs | ({"bias": ops.convert_to_numpy(plain.bias)} if plain.use_bias else {})

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        x = np.zeros((1, geometry.in_channels, *[1] * geometry.spatial_rank), inputs["weight"].dtype)
        layer = build(geometry, {"x": x, "weight": inputs["weight"]})
        layout = layer.layout()
        layer.start_from(layout.kernel_from_canonical(inputs["weight"]), seed=0)
        outputs = {"W": layout.w_to_canonical(ops.convert_to_numpy(layer.W))}
        outputs["weight"] = layout.kernel_to_canonical(ops.convert_to_numpy(layer.kernel))
        return outputs | ({} if layer.D is None else {"D_delta": layout.d_to_canonical(ops.convert_to_numpy(layer.D))})

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        layer = build(geometry, inputs)
        padded, grad_y = pad(inputs["x"], geometry), np.moveaxis(inputs["grad_y"], 1, -1)
        gradients = GRADIENTS[BACKEND](layer, padded, lambda y: crop(y, geometry, inputs["x"].shape), grad_y)
        layout = layer.layout()
        named = dict(zip([variable.name for variable in layer.trainable_variables], gradients[1:], strict=True))
        grad_x = np.moveaxis(np.asarray(gradients[0]), -1, 1)
        if not geometry.transposed:
            grad_x = pad_vjp(grad_x.astype(np.float64), geometry.padding, geometry.padding_mode)
        outputs = {
            "grad_x": grad_x.astype(inputs["x"].dtype),
            "grad_W": layout.w_to_canonical(np.asarray(named["kernel"])),
        }
        if "D" in named:
            outputs["grad_D_delta"] = layout.d_to_canonical(np.asarray(named["D"]))
        if "bias" in named:
            outputs["grad_bias"] = np.asarray(named["bias"])
        return outputs


def build(geometry: ConvGeometry, inputs: Tensors) -> Any:
    """The DO layer of the geometry, built, with the case's parameters where they are given."""
    for when, reason in LIMITS:
        facts = {
            "transposed": geometry.transposed,
            "grouped": geometry.groups > 1,
            "dilated": max(geometry.dilation) > 1,
        }
        if all(facts.get(key) == value for key, value in when.items()):
            raise Unsupported(reason)
    x = inputs["x"]
    parameters = inputs.get("W", inputs.get("weight"))
    compute, variable = str(x.dtype), str(parameters.dtype)
    policy = compute if compute == variable else f"mixed_{compute}"
    shared = {"strides": geometry.stride, "dilation_rate": geometry.dilation, "d_mul": geometry.d_mul,
              "use_bias": "bias" in inputs, "dtype": keras.DTypePolicy(policy), "padding": "valid"}  # fmt: skip
    rank = geometry.spatial_rank
    multiplier = geometry.out_channels // geometry.in_channels
    square = len(set(geometry.stride)) == 1
    if geometry.transposed:
        cls = getattr(doconv_keras, f"DOConv{rank}DTranspose")
        layer = cls(geometry.out_channels, geometry.kernel_size, output_padding=geometry.output_padding, **shared)
    elif geometry.groups == geometry.in_channels > 1 and rank < 3 and square:
        cls = getattr(doconv_keras, f"DODepthwiseConv{rank}D")
        layer = cls(geometry.kernel_size, depth_multiplier=multiplier, **shared)
    else:
        cls = getattr(doconv_keras, f"DOConv{rank}D")
        layer = cls(geometry.out_channels, geometry.kernel_size, groups=geometry.groups, **shared)
    layer.build((None, *[None] * rank, geometry.in_channels))
    layout = layer.layout()
    if "W" in inputs:
        layer.W.assign(layout.w_from_canonical(inputs["W"]))
    if "D_delta" in inputs:
        layer.D.assign(layout.d_from_canonical(inputs["D_delta"]))
    if "bias" in inputs:
        layer.bias.assign(inputs["bias"])
    return layer


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


def to_canonical(y: Any) -> np.ndarray:
    return np.moveaxis(ops.convert_to_numpy(y), -1, 1)


def _tensorflow_gradients(layer: Any, x: np.ndarray, crop_output: Any, grad_y: np.ndarray) -> list[np.ndarray]:
    import tensorflow as tf

    tensor = tf.convert_to_tensor(x)
    variables = [variable.value for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        y = crop_output(layer(tensor))
    gradients = tape.gradient(y, [tensor, *variables], output_gradients=tf.convert_to_tensor(grad_y))
    return [np.asarray(gradient) for gradient in gradients]


def _jax_gradients(layer: Any, x: np.ndarray, crop_output: Any, grad_y: np.ndarray) -> list[np.ndarray]:
    import jax

    def call(tensor: Any, values: Any) -> Any:
        return crop_output(layer.stateless_call(values, [], tensor)[0])

    values = [variable.value for variable in layer.trainable_variables]
    _, vjp = jax.vjp(call, jax.numpy.asarray(x), values)
    grad_x, gradients = vjp(jax.numpy.asarray(grad_y))
    return [np.asarray(gradient) for gradient in (grad_x, *gradients)]


def _torch_gradients(layer: Any, x: np.ndarray, crop_output: Any, grad_y: np.ndarray) -> list[np.ndarray]:
    tensor = ops.convert_to_tensor(x).clone().requires_grad_()
    crop_output(layer(tensor)).backward(ops.convert_to_tensor(grad_y))
    return [ops.convert_to_numpy(t.grad) for t in (tensor, *(v.value for v in layer.trainable_variables))]


GRADIENTS = {"tensorflow": _tensorflow_gradients, "jax": _jax_gradients, "torch": _torch_gradients}

if __name__ == "__main__":
    keras.config.disable_traceback_filtering()
    serve(KerasPort())
