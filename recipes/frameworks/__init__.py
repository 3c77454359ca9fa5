"""The same training step in each framework: one module for each, imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from networks import Network, Start
from recipe import Recipe

FRAMEWORKS = ("torch", "keras", "flax")


class Trainer(Protocol):
    """A network in training. Arrays are NumPy's, `(N, C, H, W)`, whatever the framework's order of axes.

    Attributes:
        parameters: how many numbers are trained.
        devices: how many share each batch.
    """

    parameters: int
    devices: int

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        """One step of SGD with momentum; the loss before it."""
        ...

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The network's output by the statistics of the training, float32."""
        ...

    def fold(self) -> None:
        """Turn DO layers into plain ones. Nothing happens to a plain network."""
        ...

    def save(self, folder: Path) -> None:
        """Write the network and the optimizer into a folder, by the framework's own tools."""
        ...

    def restore(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        ...


def trainer(
    framework: str,
    network: Network,
    start: Start,
    recipe: Recipe,
    variant: str,
    kind: str,
    channels: int,
    device: str,
) -> Trainer:
    """A network that starts from `start`, in the framework's own layers.

    Args:
        framework: "torch", "keras" or "flax".
        network: the tree of layers.
        start: its initial weights.
        recipe: momentum, weight decay and precision.
        variant: "do" over-parameterizes every convolution, "do-plain-stem" all but the first.
        kind: what is learnt, of `data.KINDS`.
        channels: of the input.
        device: the framework's own name of it, as "cpu" or "cuda".
    """
    if framework not in FRAMEWORKS:
        raise ValueError(f"the framework must be one of {', '.join(FRAMEWORKS)}. Received: {framework!r}")
    module = import_module(f"frameworks.{framework}")
    made: Trainer = module.Trainer(network, start, recipe, variant, kind, channels, device)
    return made
