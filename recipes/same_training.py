"""The loss of every step in each framework, from the same kernels and batches.

    for framework in torch keras flax; do python recipes/same_training.py --framework $framework --out losses.csv; done
    python recipes/report.py recipes/results/*.csv --losses losses.csv

A row per step goes to the CSV file: framework, variant, step, loss.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import recipe as recipes
import train
from data import load
from frameworks import FRAMEWORKS

from doconv_conformance.files import write_text

COLUMNS = ("framework", "variant", "step", "loss")


def losses(task: str, framework: str, variant: str, steps: int) -> list[float]:
    """Of the first steps of a task at its lowest rate, seed 0."""
    recipe = recipes.load(task)
    data = load(**recipe.data)
    trainer = train.new_trainer(recipe, data, framework, variant, 0, "cpu")
    batches = islice(train.endless(data, 0, recipe.batch), steps)
    rates = [train.rate_at(recipe, min(recipe.rates), step, steps) for step in range(steps)]
    return [trainer.step(batch.x, batch.y, rate) for batch, rate in zip(batches, rates, strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=recipes.names(), default="six-layers")
    parser.add_argument("--framework", choices=FRAMEWORKS, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True, help="its rows of this framework are replaced")
    options = parser.parse_args(arguments)
    kept = [row for row in read(options.out) if row["framework"] != options.framework]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    for variant in ("plain", "do"):
        for step, loss in enumerate(losses(options.task, options.framework, variant, options.steps)):
            writer.writerow({"framework": options.framework, "variant": variant, "step": step, "loss": loss})
    write_text(options.out, stream.getvalue())


def read(path: Path) -> list[dict[str, str]]:
    """The rows of such a file; none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


if __name__ == "__main__":
    main()
