"""Prints the first losses in one framework, in a process of its own: `python losses.py FRAMEWORK [RUN ...]`.

A line per run, `{"run": ..., "losses": [...], "devices": ..., "before": ..., "after": ...}`: the digits' recipe on both sides,
and once more from a state kept in the middle; then every other network in a tiny size, over-parameterized, on noise.
"""

import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))

import detection
import networks
import numpy as np
import recipe as recipes
import train
from data import load
from frameworks import Trainer, trainer
from pictures import VOID

DIGITS, TINY = 50, 4  # steps
RECIPE = replace(recipes.load("digits"), batch=48)  # which eight devices share evenly
DATA = load(**RECIPE.data)


def digits(framework: str, variant: str, kept: int = 0) -> tuple[Trainer, np.ndarray, list[float]]:
    """`kept`: after so many steps, the state goes to a folder and into another trainer."""
    made = train.new_trainer(RECIPE, DATA, framework, variant, 0, "cpu")
    losses = steps(made, 0, kept or DIGITS)
    if kept:
        with TemporaryDirectory() as folder:
            made.save(Path(folder))
            made = train.new_trainer(RECIPE, DATA, framework, variant, 1, "cpu")
            made.restore(Path(folder))
        losses += steps(made, kept, DIGITS)
    return made, DATA.test.x, losses


def steps(made: Trainer, first: int, last: int) -> list[float]:
    batches = islice(train.endless(DATA, 0, RECIPE.batch, first), last - first)
    rates = [train.rate_at(RECIPE, 0.05, number, DIGITS) for number in range(first, last)]
    return [made.step(batch.x, batch.y, rate) for batch, rate in zip(batches, rates, strict=True)]


def tiny(framework: str, kind: str, name: str, sizes: dict[str, object]) -> tuple[Any, np.ndarray, list[float]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3, 64, 64)).astype(np.float32)
    masks = rng.integers(0, 5, (8, 64, 64))
    masks[0, :5] = VOID
    boxes = [np.array([[number % 5, 2, 3, 40, 45], [1, 30, 20, 60, 50.0]]) for number in range(8)]
    y = {"classes": rng.integers(0, 5, 8), "masks": masks, "boxes": detection.targets(boxes, 5, 64)}[kind]
    network = networks.build(name, 5, **sizes)
    recipe = replace(RECIPE, weight_decay=1e-3)
    made = trainer(framework, network, networks.start(network, 3, 0), recipe, "do", kind, 3, "cpu")
    if framework == "keras":
        made.model.run_eagerly = True  # to trace these networks takes a minute
    return made, x, [made.step(x, y, 0.02) for _ in range(TINY)]


NETWORKS = {
    "ResNet-8 v1": ("classes", "resnet-cifar", {"blocks": 1, "width": 4}),
    "ResNet-8 v2": ("classes", "resnet-cifar", {"blocks": 1, "width": 4, "version": 2}),
    "ResNet-18 of half its blocks": ("classes", "resnet", {"blocks": [1, 1, 1, 1], "bottleneck": False, "width": 4}),
    "ResNet-50 of one block a stage": ("classes", "resnet", {"blocks": [1, 1, 1, 1], "bottleneck": True, "width": 4}),
    "U-Net": ("masks", "unet", {"width": 4, "depth": 2}),
    "detector": ("boxes", "detector", {"width": 4}),
}


def main(framework: str, *only: str) -> None:
    runs = {"plain": (digits, ("plain",)), "do": (digits, ("do",)), "resumed": (digits, ("do", 23))}
    runs |= {name: (tiny, arguments) for name, arguments in NETWORKS.items()}
    for name in only or runs:
        run, arguments = runs[name]
        made, x, losses = run(framework, *arguments)
        before = made.predict(x)
        made.fold()
        said = {"run": name, "losses": losses, "devices": made.devices, "before": before.tolist()}
        print(json.dumps({**said, "after": made.predict(x).tolist()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
