"""Known architectures, narrow: `MODELS` maps a name to a function that builds one, its parameters drawn from PyTorch's seed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


class Residual(nn.Module):
    """The basic block of ResNet-18, and the bottleneck of ResNet-50."""

    def __init__(self, channels: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        out = width * expansion
        if expansion == 1:
            self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, out, 3, 1, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(width, out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(self.conv2.out_channels)
        self.downsample = None
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "conv3"):
            y = self.bn3(self.conv3(functional.relu(y)))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depths: tuple[int, ...], expansion: int, width: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                blocks.append(Residual(channels, width << stage, 2 if stage and not index else 1, expansion))
                channels = (width << stage) * expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(functional.interpolate(x, scale_factor=4)))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = channels * expansion
        sizes = [(channels, width, 1, 1, 1), (width, width, 3, stride, width), (width, out, 1, 1, 1)]
        layers: list[nn.Module] = []
        for ins, outs, kernel, step, groups in sizes[expansion == 1 :]:
            conv = nn.Conv2d(ins, outs, kernel, step, kernel // 2, groups=groups, bias=False)
            layers += [conv, nn.BatchNorm2d(outs), nn.ReLU6()]
        self.conv = nn.Sequential(*layers[:-1])
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def mobilenet_v2() -> nn.Module:
    settings = [
        (1, 4, 1, 1),
        (6, 8, 2, 1),
        (6, 8, 3, 2),
        (6, 16, 3, 1),
        (6, 24, 2, 2),
    ]  # expansion, channels, repeats, stride
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    channels = 8
    for expansion, out, repeats, stride in settings:
        for index in range(repeats):
            layers.append(InvertedResidual(channels, out, 1 if index else stride, expansion))
            channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand, self.reduce = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.reduce(functional.gelu(self.expand(y)))).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    stem = [nn.Upsample(scale_factor=2), nn.Conv2d(1, 8, 4, stride=4), nn.GroupNorm(1, 8), ConvNeXtBlock(8)]
    second = [nn.GroupNorm(1, 8), nn.Conv2d(8, 16, 2, stride=2), ConvNeXtBlock(16), ConvNeXtBlock(16)]
    return nn.Sequential(*stem, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


class UNet(nn.Module):
    """Two levels down and up; the classes come from the mean of its last map."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.down = nn.ModuleList(self.block(ins, outs) for ins, outs in pairwise((1, *widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(ins, outs, 2, stride=2) for ins, outs in pairwise(widths[::-1]))
        self.merge = nn.ModuleList(self.block(2 * outs, outs) for outs in widths[1::-1])
        self.head = nn.Conv2d(width, CLASSES, 1)

    @staticmethod
    def block(ins: int, outs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(ins, outs, 3, padding="same"), nn.BatchNorm2d(outs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x, output_size=kept[-1].shape[2:]), kept.pop()], 1))
        return self.head(x).mean((2, 3))


class Volume(nn.Module):
    """3-D: the picture is repeated along a depth of four."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 8, (1, 3, 3), stride=(1, 2, 2), groups=2), nn.ReLU(),
            nn.ConvTranspose3d(8, 6, (3, 2, 2), stride=(1, 2, 2), groups=2), nn.ReLU(),
        )  # fmt: skip
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x.unsqueeze(2).expand(-1, -1, 4, -1, -1)).mean((2, 3, 4)))


class Rows(nn.Module):
    """1-D: the rows of the picture are channels."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv1d(8, 12, 5, padding=2, padding_mode="circular")
        self.decode = nn.ConvTranspose1d(12, 8, 3, stride=2, output_padding=1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.decode(functional.relu(self.encode(x.squeeze(1)))).mean(2))


class Tied(nn.Module):
    """`second` has the kernel of `first` and a bias of its own; `first` is used twice, and has a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.first, self.second = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.second.weight = self.first.weight
        self.again = self.first
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.stem, self.first, self.second, self.again):
            x = functional.relu(layer(x))
        return self.fc(x.mean((2, 3)))


class Conv2dSame(nn.Conv2d):
    """A user's subclass that overrides `forward`: TensorFlow's SAME."""

    def forward(self, x: Tensor) -> Tensor:
        ends = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            ends += [total // 2, total - total // 2]
        return functional.conv2d(
            functional.pad(x, ends), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def same() -> nn.Module:
    layers = [Conv2dSame(1, 6, 3, stride=2), nn.ReLU(), Conv2dSame(6, 8, (2, 3), groups=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet((2, 2, 2, 2), 1),
    "resnet50": lambda: ResNet((3, 4, 6, 3), 4),
    "mobilenet_v2": mobilenet_v2,
    "convnext": convnext,
    "unet": UNet,
    "volume": Volume,
    "rows": Rows,
    "tied": Tied,
    "same": same,
}
