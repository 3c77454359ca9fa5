"""The same training step in each framework: one module for each, imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

import numpy as np
from networks import Network, Start
from recipe import Recipe

FRAMEWORKS = ("torch", "keras", "flax")


class Trainer(Protocol):
    """A network in training. Arrays are NumPy's, `(N, C, H, W)`, whatever the framework's order of axes.

    Attributes:
        parameters: how many numbers are trained.
    """

    parameters: int

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        """One step of SGD with momentum; the loss before it."""
        ...

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Logits `(N, classes)` or images, by the statistics of the training."""
        ...

    def fold(self) -> None:
        """Turn DO layers into plain ones. Nothing happens to a plain network."""
        ...


def trainer(
    framework: str,
    network: Network,
    start: Start,
    recipe: Recipe,
    variant: str,
    classes: int,
    channels: int,
    device: str,
) -> Trainer:
    """A network that starts from `start`, in the framework's own layers.

    Args:
        framework: "torch", "keras" or "flax".
        network: the tree of layers.
        start: its initial weights.
        recipe: batch size, momentum and weight decay.
        variant: "do" over-parameterizes every convolution, "do-plain-stem" all but the first.
        classes: 0 where the targets are images.
        channels: of the input.
        device: the framework's own name of it, as "cpu" or "cuda".
    """
    if framework not in FRAMEWORKS:
        raise ValueError(f"the framework must be one of {', '.join(FRAMEWORKS)}. Received: {framework!r}")
    module = import_module(f"frameworks.{framework}")
    made: Trainer = module.Trainer(network, start, recipe, variant, classes, channels, device)
    return made
