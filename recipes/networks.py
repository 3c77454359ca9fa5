"""The networks, once for every framework: a tree of layers, and the kernels that all frameworks start from.

`frameworks/` build these trees with their own layers. Paddings are symmetric, `kernel // 2` on each side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Conv:
    """A convolution with bias. `out` 0: as many channels as come in."""

    out: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Norm:
    """Batch normalisation, epsilon 1e-5, running statistics moved by a tenth."""


@dataclass(frozen=True)
class Relu:
    pass


@dataclass(frozen=True)
class GlobalPool:
    """The mean over all positions: `(N, C)`."""


@dataclass(frozen=True)
class Dense:
    out: int


@dataclass(frozen=True)
class Residual:
    """`body(x) + shortcut(x)`; an empty shortcut is `x`."""

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()


Layer = Conv | Norm | Relu | GlobalPool | Dense | Residual
Network = tuple[Layer, ...]
Start = dict[str, np.ndarray]  # for each Conv and Dense, by the order of `walk`: "0.weight", "0.bias", "1.weight", ...


def build(name: str, classes: int, *, width: int = 16, blocks: int = 1) -> Network:
    """A network by its name in `recipes.toml`."""
    if name == "six-layers":
        return (*_stack(width, (1, 1, 2, 1, 2, 1)), GlobalPool(), Dense(classes))
    if name == "sample":
        return (Conv(16, stride=2), Relu(), Conv(16, stride=2), Relu(), Conv(10, stride=2), Relu(), GlobalPool())
    if name == "denoiser":
        return (Residual((*_stack(width, (1, 1, 1, 1)), Conv(1))),)
    if name == "resnet-cifar":
        return _resnet(classes, width, blocks)
    raise ValueError(f"the network must be six-layers, sample, denoiser or resnet-cifar. Received: {name!r}")


def walk(network: Network) -> Iterator[Conv | Dense]:
    """The layers that have weights, in the order of computation; a shortcut after its body."""
    for layer in network:
        if isinstance(layer, Conv | Dense):
            yield layer
        elif isinstance(layer, Residual):
            yield from walk(layer.body)
            yield from walk(layer.shortcut)


def start(network: Network, channels: int, seed: int, initialization: str = "he") -> Start:
    """Initial weights `(out, in/groups, *kernel)` and biases, float32.

    "he": weights uniform with variance `2 / fan_in`, biases zero (He et al., 2015). "pytorch": both uniform in
    `+-1/sqrt(fan_in)`, what `nn.Conv2d` does by itself; through many layers without normalisation the signal dies out.
    """
    if initialization not in ("he", "pytorch"):
        raise ValueError(f"the initialization must be he or pytorch. Received: {initialization!r}")
    rng, tensors = np.random.default_rng([seed, 1]), {}
    for index, (layer, inputs) in enumerate(_with_inputs(network, channels)):
        conv = isinstance(layer, Conv)
        shape = (layer.out, inputs // layer.groups, layer.kernel, layer.kernel) if conv else (layer.out, inputs)
        bound = math.prod(shape[1:]) ** -0.5
        he = initialization == "he"
        tensors[f"{index}.weight"] = rng.uniform(-bound, bound, shape).astype(np.float32) * np.float32(
            6**0.5 if he else 1
        )
        tensors[f"{index}.bias"] = rng.uniform(-bound, bound, layer.out).astype(np.float32) * np.float32(not he)
    return tensors


def _with_inputs(network: Network, channels: int) -> Iterator[tuple[Conv | Dense, int]]:
    """As `walk`, each layer with the channels that it reads."""
    for layer in network:
        if isinstance(layer, Conv | Dense):
            yield layer, channels
            channels = layer.out
        elif isinstance(layer, Residual):
            yield from _with_inputs(layer.body, channels)
            yield from _with_inputs(layer.shortcut, channels)
            *_, last = walk(layer.body)
            channels = last.out


def _stack(width: int, strides: tuple[int, ...]) -> Network:
    return tuple(layer for stride in strides for layer in (Conv(width, stride=stride), Relu()))


def _resnet(classes: int, width: int, blocks: int) -> Network:
    """ResNet of depth `6 * blocks + 2` (He et al., 2015, section 4.2), shortcuts by 1x1 convolutions."""
    layers: list[Layer] = [Conv(width, bias=False), Norm(), Relu()]
    for stage in range(3):
        for block in range(blocks):
            stride, out = 2 if stage and not block else 1, width * 2**stage
            body = (Conv(out, stride=stride, bias=False), Norm(), Relu(), Conv(out, bias=False), Norm())
            shortcut = (Conv(out, 1, stride, bias=False), Norm()) if stride == 2 else ()
            layers += [Residual(body, shortcut), Relu()]
    return (*layers, GlobalPool(), Dense(classes))
