"""The networks of the PyTorch benchmarks, in plain layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def resnet18(width: int = 64, *, stem: str = "imagenet", classes: int = 10) -> nn.Sequential:
    """ResNet-18. `stem` "imagenet": 7x7 of stride 2 and a pool of 3; "cifar": 3x3 and a pool of 2."""
    first = nn.Conv2d(3, width, 7, 2, 3, bias=False) if stem == "imagenet" else nn.Conv2d(3, width, 3, 1, 1, bias=False)
    pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.MaxPool2d(2)
    layers, channels = [first, nn.BatchNorm2d(width), nn.ReLU(), pool], width
    for stage in range(4):
        for block in range(2):
            layers.append(Basic(channels, width * 2**stage, 2 if stage and not block else 1))
            channels = width * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def resnet50(classes: int = 1000) -> nn.Sequential:
    layers, channels = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            layers.append(Bottleneck(channels, 64 * 2**stage, 2 if stage and not block else 1))
            channels = 256 * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def mobilenet_v2(classes: int = 10) -> nn.Sequential:
    layers, channels = [*convolution(3, 32, 3, 2)], 32
    for expansion, out, repeats, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for repeat in range(repeats):
            layers.append(Inverted(channels, out, expansion, 1 if repeat else stride))
            channels = out
    layers += [*convolution(channels, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes)]
    return nn.Sequential(*layers)


def convnext(width: int = 48, classes: int = 10) -> nn.Sequential:
    """ConvNeXt-like: depthwise 7x7, then two 1x1; a patch of 4x4 first and 2x2 between the stages."""
    layers = [nn.Conv2d(3, width, 4, 4)]
    for stage, blocks in enumerate((2, 2, 4, 2)):
        channels = width * 2**stage
        layers += [nn.Conv2d(channels // 2, channels, 2, 2)] if stage else []
        layers += [Next(channels) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def convolution(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def _shortcut(channels: int, out: int, stride: int) -> nn.Module | None:
    return None if stride == 1 and channels == out else convolution(channels, out, 1, stride)[:2]


class Basic(Residual):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        body = nn.Sequential(convolution(channels, out, 3, stride), convolution(out, out, 3)[:2])
        super().__init__(body, _shortcut(channels, out, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class Bottleneck(Basic):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        body = nn.Sequential(
            convolution(channels, width, 1), convolution(width, width, 3, stride), convolution(width, 4 * width, 1)[:2]
        )
        Residual.__init__(self, body, _shortcut(channels, 4 * width, stride))


class Inverted(nn.Module):
    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.body = nn.Sequential(
            convolution(channels, inner, 1) if expansion > 1 else nn.Identity(),
            convolution(inner, inner, 3, stride, groups=inner),
            convolution(inner, out, 1)[:2],
        )
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class Next(Residual):
    def __init__(self, channels: int) -> None:
        depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        super().__init__(nn.Sequential(depthwise, nn.GroupNorm(1, channels), nn.Conv2d(channels, 4 * channels, 1),
                                       nn.GELU(), nn.Conv2d(4 * channels, channels, 1)))  # fmt: skip
