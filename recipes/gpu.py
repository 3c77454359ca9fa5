"""A task on one GPU in minutes: `python recipes/gpu.py six-layers-full --out runs.csv --seconds 400` (PyTorch).

Small networks leave a large GPU idle, so all seeds of a variant and rate train side by side: each on a stream of its own, all
steps captured in one CUDA graph. Batches, initial kernels and rates are those of `train.py`, and so are the rows. The first run
that the time did not suffice for is named. With `--device cpu` the same steps run one after the other, for the tests.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import recipe as recipes
import rows as runs
import torch
import train
from data import Data, load
from recipe import Recipe


class Group:
    """Networks of one variant and rate, one for each seed, that take their steps together."""

    def __init__(
        self, recipe: Recipe, data: Data, variant: str, rate: float, seeds: Sequence[int], ratio: float, device: str
    ) -> None:
        self.recipe, self.data, self.seeds, self.device = recipe, data, seeds, torch.device(device)
        self.steps = recipe.steps(len(data.train), variant, ratio)
        self.trainers = [train.new_trainer(recipe, data, "torch", variant, seed, device) for seed in seeds]
        self.x, self.y = (torch.from_numpy(array).to(self.device) for array in (data.train.x, data.train.y))
        orders = np.stack([_order(data, seed, recipe.batch, self.steps) for seed in seeds])
        self.order = torch.from_numpy(orders).to(self.device)  # (seeds, steps, batch)
        rates = [train.rate_at(recipe, rate, step, self.steps) for step in range(self.steps)]
        self.rates = torch.tensor(rates, device=self.device)
        self.position = torch.zeros(1, dtype=torch.long, device=self.device)
        self.losses = torch.zeros(len(seeds), self.steps, device=self.device)
        self.velocities = [[torch.zeros_like(p) for p in each.model.parameters()] for each in self.trainers]

    def one(self, number: int) -> None:
        """A step of one network, on the current stream, without a look at any value."""
        made = self.trainers[number]
        parameters = list(made.model.parameters())
        chosen = self.order[number].index_select(0, self.position)[0]
        loss = made.loss(made.model(self.x.index_select(0, chosen)), self.y.index_select(0, chosen))
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            velocities = self.velocities[number]
            torch._foreach_mul_(velocities, self.recipe.momentum)
            torch._foreach_add_(velocities, gradients)
            torch._foreach_sub_(
                parameters, torch._foreach_mul(velocities, self.rates.index_select(0, self.position)[0])
            )
            self.losses[number].index_copy_(0, self.position, loss.detach()[None])

    def all(self) -> None:
        for number in range(len(self.seeds)):
            self.one(number)
        self.position += 1

    def run(self, deadline: float) -> bool:
        """All steps; False where the time was over before."""
        for each in self.trainers:
            each.model.train()
        step = self._captured() if self.device.type == "cuda" else self.all
        for number in range(int(self.position), self.steps):
            step()
            if number % 500 == 0:
                self._wait()
                if time.monotonic() > deadline:
                    return False
        self._wait()
        return True

    def seconds_per_step(self, steps: int = 200) -> float:
        """Of the whole group, beyond the capture; the networks are trained on, so use a group of its own for this."""
        step = self._captured() if self.device.type == "cuda" else self.all
        times = []
        for _ in range(5):
            self._wait()
            began = time.perf_counter()
            for _ in range(steps // 5):
                step()
            self._wait()
            times.append(time.perf_counter() - began)
            self.position.zero_()
        return statistics.median(times) / (steps // 5)

    def rows(self, variant: str, rate: float, stage: str, seconds: float) -> list[runs.Row]:
        """A row for each seed, as `train.train` makes it; the seconds are the group's, shared evenly."""
        part = self.data.test if stage == "final" else self.data.validation
        rows = []
        for seed, made, losses in zip(self.seeds, self.trainers, self.losses.cpu().numpy(), strict=True):
            diverged = not np.isfinite(losses).all()
            before = after = math.nan
            if not diverged:
                before = train.score(made.predict(part.x), part, self.data.kind)
                made.fold()
                after = train.score(made.predict(part.x), part, self.data.kind)
            curve = ";".join(f"{stretch.mean():.5g}" for stretch in np.array_split(losses, train.POINTS))
            rows.append(runs.Row(
                self.recipe.name, "torch", variant, rate, seed, stage, self.steps, round(before, 4), round(after, 4), diverged,
                made.parameters, math.nan, round(seconds / len(self.seeds), 3), _name(self.device), runs.commit(),
                runs.versions("torch"), curve,
            ))  # fmt: skip
        return rows

    def _captured(self) -> object:
        """The steps of all networks as one CUDA graph, each network on its own stream."""
        main, streams = torch.cuda.Stream(), [torch.cuda.Stream() for _ in self.seeds]

        def forked() -> None:
            for stream in streams:
                stream.wait_stream(main)
            for number, stream in enumerate(streams):
                with torch.cuda.stream(stream):
                    self.one(number)
            for stream in streams:
                main.wait_stream(stream)
            self.position += 1

        main.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(main):
            for _ in range(3):
                forked()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=main):
            forked()
        torch.cuda.synchronize()
        return graph.replay

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    recipe = recipes.load(options.task)
    torch.backends.cudnn.benchmark = True
    if recipe.weight_decay or recipe.data.get("crop") or recipe.data.get("flip"):
        raise SystemExit(f"{recipe.name}: weight decay and augmentation are not captured here; use train.py")
    data = load(**recipe.data, folder=options.data)
    if options.epochs:
        recipe = replace(recipe, epochs=options.epochs)
    began = time.monotonic()
    deadline = began + options.seconds
    seconds = {
        v: Group(recipe, data, v, 0.0, range(options.seeds), 1, options.device).seconds_per_step()
        for v in ("plain", "do")
    }
    ratio = max(1.0, seconds["do"] / seconds["plain"])
    print(f"a step of {options.seeds} networks: plain {seconds['plain'] * 1e3:.3f} ms, do {seconds['do'] * 1e3:.3f} ms, "
          f"ratio {ratio:.3f}", flush=True)  # fmt: skip
    done = {row.key: row for row in runs.read_rows(options.out)}
    groups: dict[tuple[str, float, str], list[int]] = {}
    narrow = replace(recipe, grid={"seeds": options.seeds}, final={"seeds": options.seeds})
    for planned in (train.grid, train.finals):
        groups = {}
        for variant, rate, seed, at in planned(narrow, done.values(), "torch"):
            if (recipe.name, "torch", variant, rate, seed, at) not in done:
                groups.setdefault((variant, rate, at), []).append(seed)
        for (variant, rate, at), seeds in groups.items():
            group, start = Group(recipe, data, variant, rate, seeds, ratio, options.device), time.monotonic()
            if not group.run(deadline):
                print(f"the time is over: {variant}, rate {rate:g}, {at} was not finished", flush=True)
                return
            rows = group.rows(variant, rate, at, time.monotonic() - start)
            for row in rows:
                runs.append_row(options.out, row)
                done[row.key] = row
            shown = ", ".join(f"{row.metric:.2f}" for row in rows)
            print(f"{time.monotonic() - began:.0f} s {variant}, rate {rate:g}, {at}: {shown}", flush=True)


def _order(data: Data, seed: int, size: int, steps: int) -> np.ndarray:
    """`(steps, size)`: which examples `Data.batches` puts into each batch."""
    whole, rows = len(data.train) // size, list[np.ndarray]()
    for epoch in range(-(-steps // whole)):
        order = np.random.default_rng([seed, 2, epoch]).permutation(len(data.train))
        rows.append(order[: whole * size].reshape(whole, size))
    return np.concatenate(rows)[:steps]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else runs.device_name("cpu")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=recipes.names())
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after about this long")
    parser.add_argument("--seeds", type=int, default=8)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
