"""How each way of the Keras backend runs a layer, on the engine (Keras's own backend) that has it.

A way is given the layer, its call (the layer and the cropping of its case) and channels-last arrays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

Call = Callable[[Any], Any]
Gradients = list[Any]  # of the input, then of the layer's variables


class Way:
    """The layer is called; the base of the others."""

    def scope(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        """Where layers are made, run and folded; `shapes` are those of their kernel and `D`."""
        return nullcontext()

    def forward(self, layer: Any, call: Call, x: np.ndarray) -> Any:
        return call(x)

    def backward(self, layer: Any, call: Call, x: np.ndarray, grad_y: np.ndarray) -> Gradients:
        raise NotImplementedError


class TensorflowEager(Way):
    def backward(self, layer: Any, call: Call, x: np.ndarray, grad_y: np.ndarray) -> Gradients:
        import tensorflow as tf

        return tape(layer, call, tf.convert_to_tensor(x), tf.convert_to_tensor(grad_y))


def tape(layer: Any, call: Call, x: Any, grad_y: Any) -> Gradients:
    import tensorflow as tf

    with tf.GradientTape() as recorded:
        recorded.watch(x)
        y = call(x)
    return recorded.gradient(y, [x, *values(layer)], output_gradients=grad_y)


class TensorflowFunction(Way):
    xla = False

    def forward(self, layer: Any, call: Call, x: np.ndarray) -> Any:
        import tensorflow as tf

        return tf.function(call, jit_compile=self.xla)(tf.convert_to_tensor(x))

    def backward(self, layer: Any, call: Call, x: np.ndarray, grad_y: np.ndarray) -> Gradients:
        import tensorflow as tf

        compiled = tf.function(lambda x, grad_y: tape(layer, call, x, grad_y), jit_compile=self.xla)
        return compiled(tf.convert_to_tensor(x), tf.convert_to_tensor(grad_y))


class TensorflowXla(TensorflowFunction):
    xla = True


class Mirrored(Way):
    """Two replicas on two logical CPUs, each with its half of the batch."""

    replicas = 2

    def __init__(self) -> None:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * self.replicas)
        self.strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(self.replicas)])

    def scope(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        return self.strategy.scope()

    def forward(self, layer: Any, call: Call, x: np.ndarray) -> Any:
        parts = self.strategy.run(call, (self.cut(x),))
        return self.join(parts, len(x))

    def backward(self, layer: Any, call: Call, x: np.ndarray, grad_y: np.ndarray) -> Gradients:
        def step(x: Any, grad_y: Any) -> Any:
            return tape(layer, call, x, grad_y)

        alone = len(x) == 1  # every replica has the sample then, and only the first a gradient
        grads = self.cut(np.concatenate([grad_y, 0 * grad_y])) if alone else self.cut(grad_y)
        grad_x, *others = self.strategy.run(step, (self.cut(x), grads))
        return [self.join(grad_x, len(x)), *(self.strategy.reduce("SUM", grad, axis=None) for grad in others)]

    def cut(self, array: np.ndarray) -> Any:
        import tensorflow as tf

        parts = [array] * self.replicas if len(array) == 1 else np.array_split(array, self.replicas)

        def part(context: Any) -> Any:
            return tf.convert_to_tensor(parts[context.replica_id_in_sync_group])

        return self.strategy.experimental_distribute_values_from_function(part)

    def join(self, parts: Any, batch: int) -> np.ndarray:
        local = self.strategy.experimental_local_results(parts)
        return np.concatenate([np.asarray(part) for part in local[: 1 if batch == 1 else None]])


class JaxCompiled(Way):
    """The layer as a function of its variables' values and the input."""

    def __init__(self) -> None:
        self.functions: dict[Any, Any] = {}

    def forward(self, layer: Any, call: Call, x: np.ndarray) -> Any:
        return self.run(("forward", layer, call), stateless(layer, call))(values(layer), x)

    def backward(self, layer: Any, call: Call, x: np.ndarray, grad_y: np.ndarray) -> Gradients:
        import jax

        def vjp(given: Any, x: Any, grad_y: Any) -> Any:
            return jax.vjp(stateless(layer, call), given, x)[1](grad_y)

        others, grad_x = self.run(("backward", layer, call), vjp)(values(layer), x, grad_y)
        return [grad_x, *others]

    def run(self, key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled, once for all numbers of a layer."""
        import jax

        return self.functions.setdefault(key, jax.jit(function))


class JaxEager(JaxCompiled):
    def run(self, key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        return function


def stateless(layer: Any, call: Call) -> Callable[..., Any]:
    def function(given: Any, x: Any) -> Any:
        with keras.StatelessScope(list(zip(layer.variables, given, strict=True))):
            return call(x)

    return function


class JaxSharded(JaxCompiled):
    """keras.distribution.ModelParallel: each variable is cut along its last axis that the devices divide."""

    def scope(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        import jax

        distribution = keras.distribution
        count = max(count for count in range(1, jax.device_count() + 1) if shapes["kernel"][-1] % count == 0)
        mesh = distribution.DeviceMesh((1, count), ("batch", "model"), distribution.list_devices()[:count])
        layouts = distribution.LayoutMap(mesh)
        for name, shape in shapes.items():
            axes = [axis for axis, size in enumerate(shape) if size % count == 0]
            layouts[f".*/{name}"] = tuple(
                "model" if axis == (axes or [None])[-1] else None for axis in range(len(shape))
            )
        return distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch").scope()


class TorchEager(Way):
    def backward(self, layer: Any, call: Call, x: np.ndarray, grad_y: np.ndarray) -> Gradients:
        for value in values(layer):
            value.grad = None
        tensor = ops.convert_to_tensor(x).clone().requires_grad_()
        self.forward(layer, call, tensor).backward(ops.convert_to_tensor(grad_y))
        return [tensor.grad, *(value.grad for value in values(layer))]


class TorchCompiled(TorchEager):
    def forward(self, layer: Any, call: Call, x: Any) -> Any:
        import torch

        torch._dynamo.reset()
        return torch.compile(call)(ops.convert_to_tensor(x))


class Exported(Way):
    """A model of the layer, stored and loaded again without Keras."""

    form, suffix = "tf_saved_model", ""

    def forward(self, layer: Any, call: Call, x: np.ndarray) -> Any:
        model_input = keras.Input(batch_shape=x.shape, dtype=layer.compute_dtype)
        model = keras.Model(model_input, call(model_input))
        model(ops.convert_to_tensor(x))  # ONNX is of a model that was called
        signature = [keras.InputSpec(shape=x.shape, dtype=layer.compute_dtype)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"layer{self.suffix}"
            model.export(path, format=self.form, verbose=False, input_signature=signature)
            return self.load(path, x)

    def load(self, path: Path, x: np.ndarray) -> Any:
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))  # its variables live as long as it does
        return loaded.serve(tf.convert_to_tensor(x))


class TorchExported(Exported):
    form, suffix = "torch", ".pt2"

    def load(self, path: Path, x: np.ndarray) -> Any:
        import torch

        return torch.export.load(path).module()(torch.from_numpy(x))


class Onnx(Exported):
    form, suffix = "onnx", ".onnx"

    def load(self, path: Path, x: np.ndarray) -> Any:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x})[0]


def values(layer: Any) -> list[Any]:
    return [variable.value for variable in layer.variables]


WAYS: dict[str, dict[str, type[Way]]] = {
    "tensorflow": {
        "eager": TensorflowEager,
        "compiled": TensorflowFunction,
        "compiled-xla": TensorflowXla,
        "exported": Exported,
        "replicated": Mirrored,
    },
    "jax": {"compiled": JaxCompiled, "eager": JaxEager, "exported": Exported, "sharded": JaxSharded},
    "torch": {"eager": TorchEager, "compiled": TorchCompiled, "exported": TorchExported, "onnx": Onnx},
    "numpy": {"eager": Way},
}
