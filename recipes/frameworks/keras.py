"""Keras, on whichever backend `KERAS_BACKEND` names."""

from __future__ import annotations

from itertools import count

import keras
import numpy as np
from keras import KerasTensor, layers, ops
from networks import Conv, Dense, GlobalPool, Layer, Network, Norm, Relu, Residual, Start
from recipe import Recipe

from doconv_keras import fold, overparameterize


class Trainer:
    def __init__(
        self, network: Network, start: Start, recipe: Recipe, variant: str, classes: int, channels: int, device: str
    ) -> None:
        if device != "cpu":
            raise ValueError(
                f"Keras chooses its device by itself; give cpu, or let it see only one. Received: {device!r}"
            )
        self.classes = classes
        self.model = build(network, start, channels, recipe.weight_decay)
        if variant.startswith("do"):
            where = None if variant == "do" else (lambda path, layer: layer.name != "conv0")
            self.model = overparameterize(self.model, where=where)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if classes else "mse"
        # The metric is the loss without the penalty of the weights, which the other frameworks do not report either.
        self.model.compile(Momentum(0.0, recipe.momentum), loss, metrics=[_metric(classes)])
        self.parameters = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        self.model.optimizer.learning_rate.assign(rate)
        self.model.reset_metrics()
        results = self.model.train_on_batch(_last(x), _last(y), return_dict=True)
        return float(results["value"])

    def predict(self, x: np.ndarray) -> np.ndarray:
        parts = [self.model(_last(x[i : i + 500]), training=False) for i in range(0, len(x), 500)]
        output = np.concatenate([ops.convert_to_numpy(part) for part in parts])
        return output if self.classes else np.moveaxis(output, -1, 1)

    def fold(self) -> None:
        if any("DOConv" in type(layer).__name__ for layer in self.model._flatten_layers()):
            self.model = fold(self.model)


def _metric(classes: int) -> keras.metrics.Metric:
    if classes:
        return keras.metrics.SparseCategoricalCrossentropy(name="value", from_logits=True)
    return keras.metrics.MeanSquaredError(name="value")


class Momentum(keras.optimizers.SGD):
    """SGD as PyTorch and optax define it: the velocity adds up gradients, and the rate of the step scales it."""

    def __init__(self, learning_rate: float, momentum: float) -> None:
        super().__init__(learning_rate, momentum=momentum)

    def update_step(self, gradient: KerasTensor, variable: keras.Variable, learning_rate: KerasTensor) -> None:
        velocity = self.momentums[self._get_variable_index(variable)]
        self.assign(velocity, ops.add(ops.multiply(velocity, self.momentum), gradient))
        self.assign_sub(variable, ops.multiply(ops.cast(learning_rate, variable.dtype), velocity))


def build(network: Network, start: Start, channels: int, weight_decay: float) -> keras.Model:
    """The tree as a functional model, with the given weights."""
    builder = _Builder(weight_decay)
    x = keras.Input((None, None, channels))
    model = keras.Model(x, builder.sequential(network, x))
    for number, layer in enumerate(builder.weighted):
        weight = start[f"{number}.weight"]
        kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        layer.set_weights([kernel, start[f"{number}.bias"]] if layer.use_bias else [kernel])
    return model


class _Builder:
    """Applies layers in the order of `networks.walk`, which numbers the weights."""

    def __init__(self, weight_decay: float) -> None:
        self.weighted: list[layers.Layer] = []
        self.numbers, self.decay = count(), weight_decay

    def sequential(self, network: Network, x: KerasTensor) -> KerasTensor:
        for layer in network:
            x = self.layer(layer, x)
        return x

    def layer(self, layer: Layer, x: KerasTensor) -> KerasTensor:
        match layer:
            case Conv(out, kernel, stride, groups, bias):
                padded = layers.ZeroPadding2D(kernel // 2)(x) if kernel > 1 else x
                options = {"groups": groups, "use_bias": bias, "kernel_regularizer": self._penalty()}
                name = f"conv{next(self.numbers)}"
                self.weighted.append(layers.Conv2D(out, kernel, stride, name=name, **options))
                return self.weighted[-1](padded)
            case Dense(out):
                self.weighted.append(layers.Dense(out, kernel_regularizer=self._penalty()))
                return self.weighted[-1](x)
            case Norm():
                return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
            case Relu():
                return layers.ReLU()(x)
            case GlobalPool():
                return layers.GlobalAveragePooling2D()(x)
            case Residual(body, shortcut):
                y = self.sequential(body, x)
                return layers.Add()([y, self.sequential(shortcut, x)])
        raise TypeError(f"not a layer: {layer!r}")

    def _penalty(self) -> keras.regularizers.Regularizer | None:
        """Half of the weights' squares times the decay: its gradient is what PyTorch's `weight_decay` adds."""
        return keras.regularizers.L2(self.decay / 2) if self.decay else None


def _last(array: np.ndarray) -> np.ndarray:
    """Channels last, where there are channels."""
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array
