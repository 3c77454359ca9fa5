"""The networks, once for every framework: a tree of layers, and the kernels that all frameworks start from.

`frameworks/` build these trees with their own layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Conv:
    """A convolution, padded by `kernel // 2` on each side."""

    out: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Norm:
    """Batch normalisation, epsilon 1e-5, running statistics moved by a tenth.

    A step is the same in every framework; the running variance is PyTorch's unbiased one there, and the biased one elsewhere.
    """


@dataclass(frozen=True)
class Relu:
    pass


@dataclass(frozen=True)
class MaxPool:
    """The largest of `kernel` by `kernel` values, every second position; an odd kernel is padded by zeros, after a `Relu`."""

    kernel: int = 2


@dataclass(frozen=True)
class Up:
    """Every pixel twice in both directions."""


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


@dataclass(frozen=True)
class Concat:
    """The outputs of all branches, one after the other along the channels; an empty branch is `x`."""

    branches: tuple[tuple[Layer, ...], ...]


Layer = Conv | Norm | Relu | MaxPool | Up | GlobalPool | Dense | Residual | Concat
Network = tuple[Layer, ...]
Start = dict[
    str, np.ndarray
]  # for each Conv and Dense, in the order of computation: "0.weight", "0.bias", "1.weight", ...


def build(name: str, classes: int, **sizes: Any) -> Network:
    """A network by its name in `recipes.toml`; `sizes` are the arguments of its function here."""
    if name not in NETWORKS:
        raise ValueError(f"the network must be one of {', '.join(NETWORKS)}. Received: {name!r}")
    return NETWORKS[name](classes, **sizes)


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
    """The layers that have weights, in the order of computation, with the channels that each reads."""
    for layer in network:
        if isinstance(layer, Conv | Dense):
            yield layer, channels
        for part in _parts(layer):
            yield from _with_inputs(part, channels)
        channels = _out((layer,), channels)


def _parts(layer: Layer) -> tuple[Network, ...]:
    """What a layer is made of, in the order of computation: a shortcut after its body."""
    match layer:
        case Residual(body, shortcut):
            return body, shortcut
        case Concat(branches):
            return branches
    return ()


def _out(network: Network, channels: int) -> int:
    """How many channels come out of a network that reads `channels`."""
    for layer in network:
        match layer:
            case Conv(out) | Dense(out):
                channels = out
            case Residual(body):
                channels = _out(body, channels)
            case Concat(branches):
                channels = sum(_out(branch, channels) for branch in branches)
    return channels


def _six_layers(classes: int, width: int) -> Network:
    return (*_stack(width, (1, 1, 2, 1, 2, 1)), GlobalPool(), Dense(classes))


def _sample(_: int) -> Network:
    """The network of the authors' sample, https://github.com/yangyanli/DO-Conv."""
    return (Conv(16, stride=2), Relu(), Conv(16, stride=2), Relu(), Conv(10, stride=2), Relu(), GlobalPool())


def _denoiser(_: int, width: int) -> Network:
    return (Residual((*_stack(width, (1, 1, 1, 1)), Conv(1))),)


def _resnet_cifar(classes: int, blocks: int, width: int = 16, version: int = 1) -> Network:
    """ResNet of depth `6 * blocks + 2` (He et al., 2015, section 4.2), shortcuts by 1x1 convolutions.

    In version 2 the normalisation comes first (He et al., 2016).
    """
    if version not in (1, 2):
        raise ValueError(f"the version must be 1 or 2. Received: {version!r}")
    layers: list[Layer] = [Conv(width, bias=False)]
    layers += _ready() if version == 1 else ()
    for stage in range(3):
        for block in range(blocks):
            make = _basic if version == 1 else _basic_v2
            layers += make(width * 2**stage, 2 if stage and not block else 1)
    layers += _ready() if version == 2 else ()
    return (*layers, GlobalPool(), Dense(classes))


def _resnet(classes: int, blocks: Sequence[int], bottleneck: bool, width: int = 64) -> Network:
    """ResNet for large pictures (He et al., 2015, table 1); a bottleneck strides in its 3x3 convolution, as in torchvision."""
    layers: list[Layer] = [Conv(width, 7, 2, bias=False), *_ready(), MaxPool(3)]
    for stage, count in enumerate(blocks):
        for block in range(count):
            out, stride = width * 2**stage, 2 if stage and not block else 1
            layers += _bottleneck(out, stride, not block) if bottleneck else _basic(out, stride)
    return (*layers, GlobalPool(), Dense(classes))


def _unet(classes: int, width: int, depth: int) -> Network:
    """U-Net (Ronneberger et al., 2015), padded and normalised; the edge of a picture is a multiple of `2**depth`."""

    def level(width: int, deeper: int) -> Network:
        twice = (Conv(width, bias=False), *_ready(), Conv(width, bias=False), *_ready())
        if not deeper:
            return twice
        below = (MaxPool(), *level(2 * width, deeper - 1), Up(), Conv(width))
        return (*twice, Concat(((), below)), *twice)

    return (*level(width, depth), Conv(classes, 1))


def _detector(classes: int, width: int) -> Network:
    """A small detector after FCOS (Tian et al., 2019) with one level of stride 4, read by `detection.py`."""
    layers: list[Layer] = []
    for out, stride in ((width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1)):
        layers += [Conv(out, stride=stride, bias=False), *_ready()]
    tower = (Conv(4 * width, bias=False), *_ready(), Conv(4 * width, bias=False), *_ready())
    return (*layers, Concat(((*tower, Conv(classes)), (*tower, Conv(5)))))


NETWORKS: dict[str, Callable[..., Network]] = {
    "six-layers": _six_layers, "sample": _sample, "denoiser": _denoiser, "resnet-cifar": _resnet_cifar, "resnet": _resnet,
    "unet": _unet, "detector": _detector,
}  # fmt: skip


def _stack(width: int, strides: tuple[int, ...]) -> Network:
    return tuple(layer for stride in strides for layer in (Conv(width, stride=stride), Relu()))


def _ready() -> Network:
    return Norm(), Relu()


def _basic(out: int, stride: int) -> Network:
    body = (Conv(out, stride=stride, bias=False), *_ready(), Conv(out, bias=False), Norm())
    return Residual(body, _projection(out, stride) if stride == 2 else ()), Relu()


def _basic_v2(out: int, stride: int) -> Network:
    """Where the size changes, body and shortcut read the same normalised input."""
    body = (Conv(out, stride=stride, bias=False), *_ready(), Conv(out, bias=False))
    if stride == 1:
        return (Residual((*_ready(), *body)),)
    return *_ready(), Residual(body, (Conv(out, 1, stride, bias=False),))


def _bottleneck(width: int, stride: int, first: bool) -> Network:
    body = (Conv(width, 1, bias=False), *_ready(), Conv(width, stride=stride, bias=False), *_ready())
    return Residual(
        (*body, Conv(4 * width, 1, bias=False), Norm()), _projection(4 * width, stride) if first else ()
    ), Relu()


def _projection(out: int, stride: int) -> Network:
    return Conv(out, 1, stride, bias=False), Norm()
