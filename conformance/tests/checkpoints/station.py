"""One framework's station on the journey of `test_travel.py`: `python station.py torch|keras|linen|nnx`.

Reads one JSON object per line and does what it names, in this order: "load" a portable file, "train" a number of steps,
write the output for the inputs to "y", "save" to a portable file, save the folded model to "fold". Answers with one JSON
object per line, with the text of an error if the file was "refused".

The same model in every framework, each with its own names for the layers:
conv 3x3 - batch norm - grouped conv 3x2 (d_mul 8 > 6 taps) - depthwise conv 3x3, multiplier 2 - transposed conv 2x2, stride 2 -
conv 1x1 - mean over all positions - linear; ReLU between the convolutions.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

EPSILON = 1e-3
RATE = 0.25
DATA = np.load(Path(sys.argv[2]))
X, TARGET = DATA["x"], DATA["target"]  # (N, 3, 8, 8) and (N, 4)


class Torch:
    NAMES: ClassVar = {"0": "conv", "1": "bn", "3": "grouped", "5": "depthwise", "7": "up", "9": "one", "12": "fc"}

    def __init__(self) -> None:
        import torch
        from torch import nn

        import doconv_torch

        torch.set_num_threads(1)
        self.torch, self.backend = torch, doconv_torch
        self.model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, eps=EPSILON), nn.ReLU(),
            doconv_torch.DOConv2d(8, 12, (3, 2), groups=2, d_mul=8), nn.ReLU(),
            nn.Conv2d(12, 24, 3, groups=12), nn.ReLU(),
            nn.ConvTranspose2d(24, 6, 2, stride=2), nn.ReLU(),
            doconv_torch.DOConv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
        )  # fmt: skip
        doconv_torch.overparameterize(self.model)

    def load(self, path: str) -> None:
        self.backend.load_checkpoint(path, self.model, name_map=self.NAMES)

    def save(self, path: str) -> None:
        self.backend.save_checkpoint(self.model, path, name_map=self.NAMES)

    def fold(self, path: str) -> None:
        import copy

        folded = self.backend.fold(copy.deepcopy(self.model))
        self.backend.save_checkpoint(folded, path, name_map=self.NAMES)

    def train(self, steps: int) -> None:
        optimizer = self.torch.optim.SGD(self.model.parameters(), RATE)
        self.model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            ((self.model(self.torch.from_numpy(X)) - self.torch.from_numpy(TARGET)) ** 2).mean().backward()
            optimizer.step()

    def run(self) -> np.ndarray:
        self.model.eval()
        with self.torch.no_grad():
            return self.model(self.torch.from_numpy(X)).numpy()


class Keras:
    NAMES = ((r"layer_(.*)", r"\1"),)

    def __init__(self) -> None:
        import keras
        from keras import layers

        import doconv_keras

        self.keras, self.backend = keras, doconv_keras
        self.model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                doconv_keras.DOConv2D(8, 3, padding="same", name="layer_conv"),
                layers.BatchNormalization(epsilon=EPSILON, name="layer_bn"),
                layers.ReLU(),
                doconv_keras.DOConv2D(12, (3, 2), groups=2, d_mul=8, activation="relu", name="layer_grouped"),
                doconv_keras.DODepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="layer_depthwise"),
                doconv_keras.DOConv2DTranspose(6, 2, strides=2, activation="relu", name="layer_up"),
                layers.Conv2D(5, 1, name="layer_one"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(4, name="layer_fc"),
            ]
        )

    def load(self, path: str) -> None:
        self.backend.load_checkpoint(path, self.model, name_map=self.NAMES)

    def save(self, path: str) -> None:
        self.backend.save_checkpoint(self.model, path, name_map=self.NAMES)

    def fold(self, path: str) -> None:
        self.backend.save_checkpoint(self.backend.fold(self.model), path, name_map=self.NAMES)

    def train(self, steps: int) -> None:
        import tensorflow as tf

        x = np.moveaxis(X, 1, -1)
        for _ in range(steps):
            with tf.GradientTape() as tape:
                loss = self.keras.ops.mean((self.model(x, training=True) - TARGET) ** 2)
            variables = self.model.trainable_variables
            for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
                variable.assign_sub(RATE * gradient)

    def run(self) -> np.ndarray:
        return self.keras.ops.convert_to_numpy(self.model(np.moveaxis(X, 1, -1), training=False))


class Linen:
    @staticmethod
    def name_map(path: str) -> str:
        return path.removeprefix("net_")

    def __init__(self) -> None:
        import jax
        from flax import linen as nn

        from doconv_flax import linen

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x: Any, train: bool = False) -> Any:
                x = nn.Conv(8, (3, 3), name="net_conv")(x)
                x = nn.BatchNorm(use_running_average=not train, epsilon=EPSILON, name="net_bn")(x)
                x = linen.DOConv(12, (3, 2), feature_group_count=2, padding="VALID", d_mul=8, name="net_grouped")(
                    nn.relu(x)
                )
                x = nn.Conv(24, (3, 3), feature_group_count=12, padding="VALID", name="net_depthwise")(nn.relu(x))
                x = nn.ConvTranspose(6, (2, 2), (2, 2), padding="VALID", name="net_up")(nn.relu(x))
                x = nn.Conv(5, (1, 1), name="net_one")(nn.relu(x))
                return nn.Dense(4, name="net_fc")(x.mean((1, 2)))

        self.jax, self.backend, self.model = jax, linen, Net()
        self.x = jax.numpy.asarray(np.moveaxis(X, 1, -1))
        variables = self.model.init(jax.random.key(0), self.x)
        self.spec = linen.conv_spec(self.model, self.x)
        # The model's own DO layer has its D already; the plain ones get theirs here.
        self.plain = [path for path, entry in self.spec.items() if entry.d_mul is None and path != "net_one"]
        params = linen.overparameterize(variables["params"], self.spec, where=self.plain)
        self.variables = {**variables, "params": params}
        self.step, self.apply = jax.jit(self._step), jax.jit(self._apply)

    def load(self, path: str) -> None:
        self.variables = self.backend.load_checkpoint(path, self.variables, self.spec, name_map=self.name_map)

    def save(self, path: str) -> None:
        self.backend.save_checkpoint(self.variables, path, self.spec, name_map=self.name_map)

    def fold(self, path: str) -> None:
        folded = {**self.variables, "params": self.backend.fold(self.variables["params"], self.spec)}
        self.backend.save_checkpoint(folded, path, self.spec, name_map=self.name_map)

    def _plain(self, params: Any) -> Any:
        """The params that the model reads: its own DO layer's as they are, the others folded."""
        own = {name: params[name] for name in params if name not in self.plain}
        return self.backend.fold({name: params[name] for name in self.plain}) | own

    def _step(self, variables: Any) -> Any:
        def loss(params: Any) -> Any:
            given = {**variables, "params": self._plain(params)}
            y, updated = self.model.apply(given, self.x, train=True, mutable=["batch_stats"])
            return ((y - TARGET) ** 2).mean(), updated

        gradients, updated = self.jax.grad(loss, has_aux=True)(variables["params"])
        params = self.jax.tree.map(lambda p, g: p - RATE * g, variables["params"], gradients)
        return {**updated, "params": params}

    def _apply(self, variables: Any) -> Any:
        return self.model.apply({**variables, "params": self._plain(variables["params"])}, self.x)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.variables = self.step(self.variables)

    def run(self) -> np.ndarray:
        return np.asarray(self.apply(self.variables))


class Nnx:
    def __init__(self) -> None:
        from flax import nnx

        from doconv_flax import nnx as backend

        class Net(nnx.Module):
            def __init__(self, rngs: nnx.Rngs) -> None:
                self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
                self.bn = nnx.BatchNorm(8, epsilon=EPSILON, rngs=rngs)
                self.grouped = backend.DOConv(8, 12, (3, 2), padding="VALID", feature_group_count=2, d_mul=8, rngs=rngs)
                self.depthwise = nnx.Conv(12, 24, (3, 3), padding="VALID", feature_group_count=12, rngs=rngs)
                self.up = nnx.ConvTranspose(24, 6, (2, 2), strides=(2, 2), padding="VALID", rngs=rngs)
                self.one = nnx.Conv(6, 5, (1, 1), rngs=rngs)
                self.fc = nnx.Linear(5, 4, rngs=rngs)

            def __call__(self, x: Any) -> Any:
                x = nnx.relu(self.bn(self.conv(x)))
                for layer in (self.grouped, self.depthwise, self.up):
                    x = nnx.relu(layer(x))
                return self.fc(self.one(x).mean((1, 2)))

        self.nnx, self.backend, self.model = nnx, backend, Net(nnx.Rngs(0))
        backend.overparameterize(self.model)
        self.apply = nnx.jit(lambda model: model(np.moveaxis(X, 1, -1)))
        self.step = nnx.jit(self._step)

    def load(self, path: str) -> None:
        self.backend.load_checkpoint(path, self.model)

    def save(self, path: str) -> None:
        self.backend.save_checkpoint(self.model, path)

    def fold(self, path: str) -> None:
        folded = self.nnx.clone(self.model)
        self.backend.fold(folded)
        self.backend.save_checkpoint(folded, path)

    @staticmethod
    def _step(model: Any) -> None:
        import jax
        from flax import nnx

        gradients = nnx.grad(lambda m: ((m(np.moveaxis(X, 1, -1)) - TARGET) ** 2).mean())(model)
        nnx.update(model, jax.tree.map(lambda p, g: p - RATE * g, nnx.state(model, nnx.Param), gradients))

    def train(self, steps: int) -> None:
        self.model.train()
        for _ in range(steps):
            self.step(self.model)

    def run(self) -> np.ndarray:
        self.model.eval()
        return np.asarray(self.apply(self.model))


if __name__ == "__main__":
    station = {"torch": Torch, "keras": Keras, "linen": Linen, "nnx": Nnx}[sys.argv[1]]()
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {"done": list(request)}
        if "load" in request:
            try:
                station.load(request["load"])
            except ValueError as error:
                answer["refused"] = str(error)
        if "train" in request:
            station.train(request["train"])
        if "y" in request:
            np.save(request["y"], station.run())
        if "save" in request:
            station.save(request["save"])
        if "fold" in request:
            station.fold(request["fold"])
        print(json.dumps(answer), flush=True)
