"""Train a task of `recipes.toml`: `python recipes/train.py six-layers --framework torch`.

The learning rate of each variant is chosen on validation pictures, then the variants are trained with fresh seeds and tested.
One row per run goes to a CSV file, whole or not at all: a command that was killed goes on where it was, in a run of more than
five minutes (--keep-every) inside that run.

`torchrun --standalone --nproc-per-node N recipes/train.py ... --cost R` shares every batch among N processes; Flax uses all
devices it sees.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Thread

import detection
import networks
import numpy as np
import recipe as recipes
from data import Data, Part, downloaded, load
from frameworks import FRAMEWORKS, Trainer, trainer
from pictures import VOID
from progress import Progress
from recipe import Recipe
from rows import Row, append_row, commit, device_name, read_rows, versions

from doconv_conformance.files import write_text

FRESH = 1000  # seeds of the final runs start here: none of them has chosen a rate
POINTS = 20  # of a loss curve


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    work = Work(options)
    done = {row.key: row for row in read_rows(work.out)}
    first = work.first = _join_processes(options)
    began, runs, number, made = time.monotonic(), _count(work.recipe), 0, 0
    for stage in (grid, finals):
        planned = stage(work.recipe, done.values(), options.framework)
        left = [run for run in planned if work.key(run) not in done]
        number += len(planned) - len(left)
        for row in _each(work, left):
            number, made, done[row.key] = number + 1, made + 1, row
            if first:
                append_row(work.out, row)
                work.progress(row.run).remove()
                minutes = (time.monotonic() - began) / made * (runs - number) / 60
                print(f"{number}/{runs} {row.variant}, rate {row.rate:g}, seed {row.seed}, {row.stage}: {row.metric:.2f}, "
                      f"{minutes:.0f} min left", file=sys.stderr)  # fmt: skip


Run = tuple[str, float, int, str]  # variant, rate, seed, stage


class Work:
    """What all runs of a command share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.recipe = options, _narrowed(recipes.load(options.task), options)
        self.out = options.out or Path(f"{self.recipe.name}-{options.framework}.csv")
        self.data = _load(self.recipe, options)
        timed = "plain-equal-time" in self.recipe.variants
        self.ratio = cost_ratio(self.recipe, self.data, options, self.out) if timed else 1.0
        self.first = True  # of the processes of a run, the one that writes

    def key(self, run: Run) -> tuple[object, ...]:
        return self.recipe.name, self.options.framework, *run

    def progress(self, run: Run) -> Progress:
        variant, rate, seed, stage = run
        every = self.options.keep_every if self.first else math.inf
        return Progress(self.out.with_suffix(".running") / f"{variant}-{rate:g}-{seed}-{stage}", every)

    def train(self, run: Run) -> Row:
        options = self.options
        return train(self.recipe, self.data, options.framework, *run, self.ratio, options.device, self.progress(run))


def _each(work: Work, left: Sequence[Run]) -> Iterator[Row]:
    """The rows of the runs that are left, in their order, from so many processes as `--jobs` says."""
    if work.options.jobs == 1:
        yield from map(work.train, left)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // work.options.jobs)))
    context = multiprocessing.get_context("spawn")
    with context.Pool(work.options.jobs, _begin, (work.options,)) as pool:
        yield from pool.imap(_train, left)


def _begin(options: argparse.Namespace) -> None:
    """A process of `--jobs`: it reads the data once, and ends with the command, however that ends."""
    global _work
    Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()  # type: ignore[union-attr]
    _work = Work(options)


def _train(run: Run) -> Row:
    return _work.train(run)


def _load(recipe: Recipe, options: argparse.Namespace) -> Data:
    if not options.download:
        return load(**recipe.data, folder=options.data)
    try:
        read = downloaded(recipe.data["name"], options.framework, options.data or Path("downloads"))
    except (ImportError, RuntimeError, ValueError) as error:
        raise SystemExit(f"--download: {error}") from error
    return load(**recipe.data, read=read)


def _join_processes(options: argparse.Namespace) -> bool:
    """Join the processes that `torchrun` has started; whether this is the first of them, which writes the rows.

    All have read what is done when this returns, so that they agree on what is left.
    """
    if options.framework != "torch" or "WORLD_SIZE" not in os.environ:
        return True
    import torch.distributed as dist

    if options.jobs > 1:
        raise SystemExit("--jobs is for runs side by side, torchrun for the processes of one run: give one of them")
    dist.init_process_group()
    dist.barrier()
    return dist.get_rank() == 0


def grid(recipe: Recipe, _done: Iterable[Row] = (), _framework: str = "") -> list[Run]:
    """The runs that choose a rate, seed by seed over all variants, so that what is compared runs side by side."""
    seeds = range(recipe.grid["seeds"])
    return [(variant, rate, seed, "grid") for seed in seeds for rate in recipe.rates for variant in recipe.variants]


def finals(recipe: Recipe, done: Iterable[Row], framework: str) -> list[Run]:
    """The runs with fresh seeds, each variant at the rate that the grid in `done` has chosen."""
    rows, seeds = list(done), range(FRESH, FRESH + recipe.final["seeds"])
    best = {variant: best_rate(rows, recipe, framework, variant) for variant in recipe.variants}
    return [(variant, best[variant], seed, "final") for seed in seeds for variant in recipe.variants]


def best_rate(rows: Iterable[Row], recipe: Recipe, framework: str, variant: str) -> float:
    """The rate with the best mean on validation pictures; a run that failed counts as the worst possible."""
    scores: dict[float, list[float]] = {}
    for row in rows:
        if (row.task, row.framework, row.variant, row.stage) == (recipe.name, framework, variant, "grid"):
            scores.setdefault(row.rate, []).append(-math.inf if row.failed else row.metric)
    return max(sorted(scores), key=lambda rate: statistics.mean(scores[rate]))


def train(
    recipe: Recipe,
    data: Data,
    framework: str,
    variant: str,
    rate: float,
    seed: int,
    stage: str,
    ratio: float,
    device: str,
    progress: Progress | None = None,
) -> Row:
    """One run, from the initial kernels to the folded metric.

    Args:
        recipe: the task.
        data: its pictures.
        framework: "torch", "keras" or "flax".
        variant: one of `recipe.VARIANTS`.
        rate: the peak learning rate.
        seed: of the initial kernels, the order and the augmentation.
        stage: "grid" tests on the validation pictures, "final" on the test pictures.
        ratio: how many times a DO step costs a plain one, for "plain-equal-time".
        device: the framework's name of it.
        progress: where a state of the run is kept, and perhaps one to go on from.
    """
    progress = progress or Progress(Path(), math.inf)
    made = new_trainer(recipe, data, framework, variant, seed, device)
    steps = recipe.steps(len(data.train), variant, ratio)
    progress.resume(made)
    losses, before = progress.losses, (time.process_time(), time.perf_counter())

    def spent() -> tuple[float, float]:
        now = time.process_time(), time.perf_counter()
        return tuple(done + end - start for done, end, start in zip(progress.seconds, now, before, strict=True))  # type: ignore[return-value]

    for batch in islice(endless(data, seed, recipe.batch, len(losses)), steps - len(losses)):
        losses.append(made.step(batch.x, batch.y, rate_at(recipe, rate, len(losses), steps)))
        if not math.isfinite(losses[-1]):
            break
        if progress.due():
            progress.keep(made, spent())
    seconds = spent()
    diverged = not math.isfinite(losses[-1])
    part = data.test if stage == "final" else data.validation
    metric = folded = math.nan
    if not diverged:
        metric = score(made.predict(part.x), part, data.kind)
        made.fold()
        folded = score(made.predict(part.x), part, data.kind)
    shared = f", each batch shared by {made.devices}" if made.devices > 1 else ""
    curve = ";".join(f"{np.mean(stretch):.5g}" for stretch in np.array_split(losses, min(POINTS, len(losses))))
    return Row(
        recipe.name, framework, variant, rate, seed, stage, len(losses), round(metric, 4), round(folded, 4), diverged,
        made.parameters, round(seconds[0], 2), round(seconds[1], 2), device_name(device) + shared, commit(),
        versions(framework), curve, recipe.precision,
    )  # fmt: skip


def new_trainer(recipe: Recipe, data: Data, framework: str, variant: str, seed: int, device: str) -> Trainer:
    """The network of a run before its first step."""
    network = networks.build(**recipe.network, classes=data.classes)
    channels = data.train.x.shape[1]
    start = networks.start(network, channels, seed, recipe.initialization)
    return trainer(framework, network, start, recipe, variant, data.kind, channels, device)


def rate_at(recipe: Recipe, peak: float, step: int, steps: int) -> float:
    """The learning rate of a step: the peak, or half a cosine from it to zero."""
    return peak if recipe.schedule == "constant" else peak * 0.5 * (1 + math.cos(math.pi * step / steps))


def score(output: np.ndarray, part: Part, kind: str) -> float:
    """The metric of `data.KINDS`; PSNR of images in 0 to 1, IoU over the classes that there are."""
    if kind == "boxes":
        size = part.x.shape[2]
        return 100 * detection.average_precision([detection.found(each, size) for each in output], part.boxes)
    if kind == "images":
        errors = ((output.astype(np.float64) - part.y) ** 2).mean(axis=(1, 2, 3))
        return float((-10 * np.log10(errors)).mean())
    if kind == "masks":
        return 100 * mean_iou(output.argmax(axis=1), part.y)
    return float((output.argmax(axis=1) == part.y).mean() * 100)


def mean_iou(got: np.ndarray, want: np.ndarray) -> float:
    """Intersection over union of each class over all pixels that count, averaged over the classes in `want`."""
    counts = want != VOID
    got, want = got[counts], want[counts]
    pairs = [(got == each, want == each) for each in np.unique(want)]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))


def cost_ratio(recipe: Recipe, data: Data, options: argparse.Namespace, out: Path) -> float:
    """How many times a DO step costs a plain one here, measured once and kept beside the CSV file.

    Interleaved steps, medians; processor time on a CPU, wall time elsewhere.
    """
    kept = out.with_suffix(".cost.json")
    if options.cost:
        return float(options.cost)
    if "WORLD_SIZE" in os.environ:
        raise SystemExit("several processes would each measure another cost: give it by --cost")
    if kept.exists():
        return float(json.loads(kept.read_text("utf-8"))["do / plain"])
    sides = [new_trainer(recipe, data, options.framework, variant, 0, options.device) for variant in ("plain", "do")]
    batch, clock = (
        next(data.batches(0, 0, recipe.batch)),
        time.process_time if options.device == "cpu" else time.perf_counter,
    )
    for _ in range(5):
        for side in sides:
            side.step(batch.x, batch.y, 0.0)
    ratios = []
    for _ in range(60):
        spent = []
        for side in sides:
            began = clock()
            side.step(batch.x, batch.y, 0.0)
            spent.append(clock() - began)
        ratios.append(spent[1] / spent[0])
    ratio = max(1.0, statistics.median(ratios))
    write_text(kept, json.dumps({"do / plain": ratio, "device": device_name(options.device)}))
    return ratio


def endless(data: Data, seed: int, size: int, first: int = 0) -> Iterator[Part]:
    """`Data.batches` of one epoch after the other, from the batch `first`."""
    epoch, within = divmod(first, len(data.train) // size)
    while True:
        yield from islice(data.batches(seed, epoch, size), within, None)
        epoch, within = epoch + 1, 0


def _count(recipe: Recipe) -> int:
    return len(recipe.variants) * (len(recipe.rates) * recipe.grid["seeds"] + recipe.final["seeds"])


def _narrowed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe with what the command line chose of it."""
    changes: dict[str, object] = {}
    for name in ("variants", "rates"):
        if getattr(options, name):
            changes[name] = tuple(getattr(options, name))
    for name in ("grid", "final"):
        if getattr(options, f"{name}_seeds"):
            changes[name] = {"seeds": getattr(options, f"{name}_seeds")}
    if options.precision:
        changes["precision"] = options.precision
    return replace(recipe, **changes)  # type: ignore[arg-type]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=recipes.names())
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch")
    parser.add_argument("--device", default="cpu", help="the framework's name of it (cpu)")
    parser.add_argument("--data", type=Path, help="folder of the data set's files, if not in the usual place")
    parser.add_argument(
        "--download", action="store_true", help="by torchvision (into --data), keras.datasets or TensorFlow Datasets"
    )
    parser.add_argument("--precision", choices=recipes.PRECISIONS, help="of the computation, in place of the recipe's")
    parser.add_argument("--keep-every", type=float, default=300, help="seconds between two states of a run (300)")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each in a process of its own (1)")
    parser.add_argument("--out", type=Path, help="CSV file (TASK-FRAMEWORK.csv)")
    parser.add_argument("--variants", nargs="+", choices=recipes.VARIANTS)
    parser.add_argument("--rates", nargs="+", type=float)
    parser.add_argument("--grid-seeds", type=int)
    parser.add_argument("--final-seeds", type=int)
    parser.add_argument(
        "--cost", type=float, help="how many times a DO step costs a plain one, in place of measuring it"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
