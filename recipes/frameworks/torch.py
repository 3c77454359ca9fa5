"""PyTorch. Under `torchrun` each process takes its share of every batch (DistributedDataParallel)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import detection
import numpy as np
import torch
import torch.distributed as dist
from networks import Concat, Conv, Dense, GlobalPool, Layer, MaxPool, Network, Norm, Relu, Residual, Start, Up
from pictures import VOID
from recipe import Recipe
from torch import Tensor, nn

from doconv_torch import fold, overparameterize


class Trainer:
    def __init__(
        self, network: Network, start: Start, recipe: Recipe, variant: str, kind: str, channels: int, device: str
    ) -> None:
        self.device, self.kind, self.half = torch.device(device), kind, recipe.precision == "bfloat16"
        self.model = build(network, start, channels).to(self.device)
        if variant.startswith("do"):
            stem = next(module for module in self.model.modules() if isinstance(module, nn.Conv2d))
            overparameterize(self.model, where=lambda _, conv: variant == "do" or conv is not stem)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.devices = dist.get_world_size() if dist.is_initialized() else 1
        self.forward = nn.parallel.DistributedDataParallel(self.model) if dist.is_initialized() else self.model

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad()
        with self._cast():
            output = self.forward(self._tensor(_share(x)))
        loss = self.loss(output.float(), self._tensor(_share(y)))
        loss.backward()
        self.optimizer.step()
        return _mean(loss.detach())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        if self.kind == "images":
            return nn.functional.mse_loss(output, target)
        if self.kind == "boxes":
            return detection.loss(torch, output.movedim(1, -1), target.movedim(1, -1)).mean()
        return nn.functional.cross_entropy(output, target, ignore_index=VOID)

    @torch.no_grad()
    def predict(self, x: np.ndarray) -> np.ndarray:
        self.model.eval()
        with self._cast():
            return np.concatenate([self.model(part).float().cpu().numpy() for part in self._tensor(x).split(500)])

    def save(self, folder: Path) -> None:
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, folder / "state.pt")

    def restore(self, folder: Path) -> None:
        state = torch.load(folder / "state.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def fold(self) -> None:
        if any("DOConv" in type(module).__name__ for module in self.model.modules()):
            fold(self.model)

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _share(batch: np.ndarray) -> np.ndarray:
    """What this process takes of a batch."""
    if not dist.is_initialized():
        return batch
    if len(batch) % dist.get_world_size():
        raise ValueError(f"a batch of {len(batch)} can't be shared evenly by {dist.get_world_size()} processes")
    return np.split(batch, dist.get_world_size())[dist.get_rank()]


def _mean(loss: Tensor) -> float:
    """Over all processes."""
    if dist.is_initialized():
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    return loss.item()


def build(network: Network, start: Start, channels: int) -> nn.Sequential:
    """The tree in PyTorch's layers, with the given weights."""
    numbers = iter(range(len(start)))
    return _Builder(start, numbers).sequential(network, channels)[0]


class _Builder:
    """Makes layers in the order of computation, which numbers the weights."""

    def __init__(self, start: Start, numbers: Iterator[int]) -> None:
        self.start, self.numbers = start, numbers

    def sequential(self, network: Network, channels: int) -> tuple[nn.Sequential, int]:
        layers = []
        for layer in network:
            made, channels = self.layer(layer, channels)
            layers.append(made)
        return nn.Sequential(*layers), channels

    def layer(self, layer: Layer, channels: int) -> tuple[nn.Module, int]:
        match layer:
            case Conv(out, kernel, stride, groups, bias):
                conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=bias)
                return self._with_weights(conv), out
            case Dense(out):
                return self._with_weights(nn.Linear(channels, out)), out
            case Norm():
                return nn.BatchNorm2d(channels), channels
            case Relu():
                return nn.ReLU(), channels
            case MaxPool(kernel):
                return nn.MaxPool2d(kernel, 2, (kernel - 1) // 2), channels
            case Up():
                return nn.Upsample(scale_factor=2), channels
            case GlobalPool():
                return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels
            case Residual(body, shortcut):
                made, out = self.sequential(body, channels)
                return _Residual(made, self.sequential(shortcut, channels)[0]), out
            case Concat(branches):
                parts = [self.sequential(branch, channels) for branch in branches]
                return _Concat(part for part, _ in parts), sum(out for _, out in parts)
        raise TypeError(f"not a layer: {layer!r}")

    @torch.no_grad()
    def _with_weights(self, module: nn.Conv2d | nn.Linear) -> nn.Module:
        number = next(self.numbers)
        module.weight.copy_(torch.from_numpy(self.start[f"{number}.weight"]))
        if module.bias is not None:
            module.bias.copy_(torch.from_numpy(self.start[f"{number}.bias"]))
        return module


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class _Concat(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], 1)
