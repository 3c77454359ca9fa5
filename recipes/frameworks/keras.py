"""Keras, on whichever backend `KERAS_BACKEND` names. On JAX, each of several devices takes its share of every batch."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import detection
import keras
import numpy as np
from keras import KerasTensor, layers, ops
from networks import Concat, Conv, Dense, GlobalPool, Layer, MaxPool, Network, Norm, Relu, Residual, Start, Up
from pictures import VOID
from recipe import Recipe

from doconv_keras import fold, overparameterize


class Trainer:
    def __init__(
        self, network: Network, start: Start, recipe: Recipe, variant: str, kind: str, channels: int, device: str
    ) -> None:
        if device != "cpu":
            raise ValueError(
                f"Keras chooses its device by itself; give cpu, or let it see only one. Received: {device!r}"
            )
        self.kind = kind
        if keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) > 1:
            keras.distribution.set_distribution(keras.distribution.DataParallel())
        keras.config.set_dtype_policy("mixed_bfloat16" if recipe.precision == "bfloat16" else "float32")
        self.model = build(network, start, channels)
        if variant.startswith("do"):
            where = None if variant == "do" else (lambda path, layer: layer.name != "conv0")
            self.model = overparameterize(self.model, where=where)
        self.model.compile(Momentum(0.0, momentum=recipe.momentum, decay=recipe.weight_decay), _loss(kind))
        self.parameters = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)
        several = keras.distribution.distribution() is not None
        self.devices = len(self.model.trainable_variables[0].value.sharding.device_set) if several else 1

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        self.model.optimizer.learning_rate.assign(rate)
        self.model.reset_metrics()
        results = self.model.train_on_batch(_last(x), _last(y), return_dict=True)
        return float(results["loss"])

    def predict(self, x: np.ndarray) -> np.ndarray:
        parts = [self.model(_last(x[i : i + 500]), training=False) for i in range(0, len(x), 500)]
        output = np.concatenate([ops.convert_to_numpy(part) for part in parts])
        return np.moveaxis(output, -1, 1)

    def fold(self) -> None:
        if any("DOConv" in type(layer).__name__ for layer in self.model._flatten_layers()):
            self.model = fold(self.model)

    def save(self, folder: Path) -> None:
        self.model.save(folder / "model.keras")

    def restore(self, folder: Path) -> None:
        self.model = keras.saving.load_model(folder / "model.keras")


@keras.saving.register_keras_serializable("recipes")
def boxes_loss(target: KerasTensor, output: KerasTensor) -> KerasTensor:
    return detection.loss(ops, output, target)


def _loss(kind: str) -> Any:
    if kind == "classes" or kind == "masks":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID)
    return boxes_loss if kind == "boxes" else "mse"


@keras.saving.register_keras_serializable("recipes")
class Momentum(keras.optimizers.SGD):
    """SGD as PyTorch and optax define it: the velocity adds up gradients, the rate of the step scales it, and kernels decay."""

    def __init__(self, learning_rate: float, decay: float, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.decay = decay

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay": self.decay}

    def update_step(self, gradient: KerasTensor, variable: keras.Variable, learning_rate: KerasTensor) -> None:
        velocity = self.momentums[self._get_variable_index(variable)]
        if self.decay and len(variable.shape) > 1:
            gradient = ops.add(gradient, ops.multiply(variable, self.decay))
        self.assign(velocity, ops.add(ops.multiply(velocity, self.momentum), gradient))
        self.assign_sub(variable, ops.multiply(ops.cast(learning_rate, variable.dtype), velocity))


def build(network: Network, start: Start, channels: int) -> keras.Model:
    """The tree as a functional model, with the given weights and an output of float32."""
    builder = _Builder()
    x = keras.Input((None, None, channels))
    output = builder.sequential(network, x)
    model = keras.Model(x, layers.Activation("linear", dtype="float32")(output))
    for number, layer in enumerate(builder.weighted):
        weight = start[f"{number}.weight"]
        kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        layer.set_weights([kernel, start[f"{number}.bias"]] if layer.use_bias else [kernel])
    return model


class _Builder:
    """Applies layers in the order of computation, which numbers the weights."""

    def __init__(self) -> None:
        self.weighted: list[layers.Layer] = []
        self.numbers = count()

    def sequential(self, network: Network, x: KerasTensor) -> KerasTensor:
        for layer in network:
            x = self.layer(layer, x)
        return x

    def layer(self, layer: Layer, x: KerasTensor) -> KerasTensor:
        match layer:
            case Conv(out, kernel, stride, groups, bias):
                padded = layers.ZeroPadding2D(kernel // 2)(x) if kernel > 1 else x
                name = f"conv{next(self.numbers)}"
                self.weighted.append(layers.Conv2D(out, kernel, stride, groups=groups, use_bias=bias, name=name))
                return self.weighted[-1](padded)
            case Dense(out):
                self.weighted.append(layers.Dense(out))
                return self.weighted[-1](x)
            case Norm():
                return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
            case Relu():
                return layers.ReLU()(x)
            case MaxPool(kernel):
                padded = layers.ZeroPadding2D(kernel // 2)(x) if kernel % 2 else x
                return layers.MaxPooling2D(kernel, 2)(padded)
            case Up():
                return layers.UpSampling2D()(x)
            case GlobalPool():
                return layers.GlobalAveragePooling2D()(x)
            case Residual(body, shortcut):
                y = self.sequential(body, x)
                return layers.Add()([y, self.sequential(shortcut, x)])
            case Concat(branches):
                return layers.Concatenate()([self.sequential(branch, x) for branch in branches])
        raise TypeError(f"not a layer: {layer!r}")


def _last(array: np.ndarray) -> np.ndarray:
    """Channels last, where there are channels."""
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array
