"""What the runs say: `python recipes/report.py recipes/results/*.csv` rewrites docs/evidence.md between its markers.

Differences are paired by seed: both sides of a pair start from the same kernels and see the same batches. The interval is
Student's, 95%. Differences within their interval stay in the table.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import recipe as recipes
import same_training
from data import KINDS, kind_of
from rows import Row, read_rows
from train import FRESH, best_rate

from doconv_conformance.files import insert_between, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
FIGURE = PAGE.with_name("evidence.svg")
BEGIN, END = "<!-- results: written by python recipes/report.py -->", "<!-- /results -->"
# Of the losses in three frameworks: the widest below, so that all three are seen where they lie on each other.
LINES = {"torch": {"lw": 5, "alpha": 0.3}, "keras": {"lw": 2, "ls": "--"}, "flax": {"lw": 1, "ls": ":"}}
EQUAL = 1e-9  # where two losses are the same number, a logarithmic axis shows this
COLOURS = {"plain": "#6b7280", "do": "#d9480f", "do-plain-stem": "#1971c2", "plain-equal-time": "#2b8a3e",
           "plain-longer": "#862e9c"}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and half the width of its 95% interval."""

    mean: float
    half: float
    pairs: int

    def __str__(self) -> str:
        text = (
            f"{self.mean:+.2f} ± {self.half:.2f}"
            if abs(self.mean) + self.half >= 0.2
            else f"{self.mean:+.3f} ± {self.half:.3f}"
        )
        return f"**{text}**" if abs(self.mean) > self.half else text


def paired(left: dict[int, float], right: dict[int, float]) -> Difference:
    """`left - right` over the seeds that both have.

    Raises:
        ValueError: fewer than two pairs.
    """
    from scipy.stats import t

    values = [left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())]
    if len(values) < 2:
        raise ValueError(f"an interval needs two pairs or more. Received: {len(values)}")
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Difference(statistics.mean(values), float(t.ppf(0.975, len(values) - 1)) * error, len(values))


def tasks_table(rows: Sequence[Row]) -> list[str]:
    """What each task is; the other tables have only its name in `recipes.toml`."""
    tasks = sorted({row.task for row in rows})
    return ["| task | what is trained |", "|---|---|", *(_line(task, recipes.load(task).about) for task in tasks), ""]


def table(rows: Sequence[Row]) -> list[str]:
    """One line per task, framework and comparison, in Markdown."""
    lines = ["| task | on | comparison | difference | pairs | folded - unfolded |", "|---|---|---|---|---|---|"]
    for task, on, mine in _groups(rows):
        for name, left, right in _comparisons(mine):
            pair = _finals(mine, *left), _finals(mine, *right)
            if len(pair[0].keys() & pair[1].keys()) < 2:
                continue
            unit = "dB" if _metric(task).endswith("dB") else "points"
            difference = paired(*pair)
            failed = [f"{side[0]} {lost}" for side in (left, right) if (lost := _failures(mine, *side))]
            count = f"{difference.pairs}; failed: {', '.join(failed)}" if failed else str(difference.pairs)
            lines.append(_line(task, on, name, f"{difference} {unit}", count, f"{_folding(mine, left[0]):.4f}"))
    return lines


def rates_table(rows: Sequence[Row]) -> list[str]:
    """The validation metric by learning rate: means over the grid's seeds, the chosen rate in bold."""
    lines = list[str]()
    for task, on, mine in _groups(rows):
        grid = [row for row in mine if row.stage == "grid"]
        rates = sorted({row.rate for row in grid})
        if len(rates) < 2:
            continue
        lines += ["", f"{task} ({on}):", ""]
        lines += [
            "| validation, by rate | " + " | ".join(f"{rate:g}" for rate in rates) + " |",
            "|---" * (len(rates) + 1) + "|",
        ]
        for variant in _variants(grid):
            best = best_rate(grid, recipes.load(task), grid[0].framework, variant)
            cells = [_mean_cell(grid, variant, rate, rate == best) for rate in rates]
            lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return lines


def same_rate_table(rows: Sequence[Row]) -> list[str]:
    """Both sides at one learning rate, on the validation pictures, paired by seed: what there is before a rate is chosen."""
    lines = list[str]()
    for task, on, mine in _groups(rows):
        grid = [row for row in mine if row.stage == "grid"]
        for rate in sorted({row.rate for row in grid}):
            sides = {
                v: {r.seed: r.metric for r in grid if (r.variant, r.rate, r.failed) == (v, rate, False)}
                for v in _variants(grid)
            }
            cells = [_pair_cell(sides.get("do", {}), sides.get(other, {})) for other in ("plain", "plain-equal-time")]
            if any(cells):
                lines.append(_line(task, on, f"{rate:g}", *cells))
    head = ["| task | on | rate | DO - plain | DO - plain, equal time |", "|---|---|---|---|---|"]
    return ["", "Both sides at the same learning rate, on validation pictures:", "", *head, *lines] if lines else []


def draw(rows: Sequence[Row], path: Path) -> None:
    """For each task: the validation metric against the rate, and the loss against steps and against time."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "doconv"
    from matplotlib.figure import Figure

    groups = _groups(rows)
    figure = Figure(figsize=(12, 3.4 * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), 3, squeeze=False)
    for (task, on, mine), (by_rate, by_step, by_time) in zip(groups, axes, strict=True):
        for variant in _variants(mine):
            style = {"color": COLOURS[variant], "label": variant, "lw": 1.6}
            _draw_rates(by_rate, [row for row in mine if row.variant == variant and row.stage == "grid"], style)
            finals = [row for row in mine if row.variant == variant and row.stage == "final" and not row.failed]
            if not finals:
                continue
            curve = np.mean([[float(value) for value in row.curve.split(";")] for row in finals], axis=0)
            share = np.linspace(0, 1, len(curve) + 1)[1:]
            by_step.plot(share * finals[0].steps, curve, **style)
            if variant != "plain-longer":  # how many steps, not how long, is its question
                by_time.plot(share * statistics.median(map(_seconds, finals)), curve, **style)
        by_rate.set(title=f"{task}, {on}", xlabel="learning rate", ylabel=f"validation {_metric(task)}", xscale="log")
        tried = sorted({row.rate for row in mine})
        by_rate.set_xticks(tried, [f"{rate:g}" for rate in tried])
        by_rate.minorticks_off()
        by_step.set(xlabel="steps", ylabel="training loss", yscale="log")
        by_time.set(xlabel="seconds", ylabel="training loss", yscale="log")
        by_rate.legend(frameon=False, fontsize=8)
        if not by_step.lines:
            by_step.set_axis_off()
            by_time.set_axis_off()
            by_step.text(0, 0.5, "no runs at a chosen rate yet", transform=by_step.transAxes)
        for axis in (by_rate, by_step, by_time):
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
    figure.savefig(path, metadata={"Date": None})


def _draw_rates(axis: Axes, grid: Sequence[Row], style: dict[str, Any]) -> None:
    """The mean of the runs that did not fail, a hollow point where others did."""
    scores: dict[float, list[float]] = {}
    for row in grid:
        if not row.failed:
            scores.setdefault(row.rate, []).append(row.metric)
    rates = sorted(scores)
    axis.plot(rates, [statistics.mean(scores[rate]) for rate in rates], "o-", **style)
    partly = sorted({row.rate for row in grid if row.failed} & scores.keys())
    hollow = {"mfc": "white", "mec": style["color"], "zorder": 3}
    axis.plot(partly, [statistics.mean(scores[rate]) for rate in partly], "o", **hollow)


def draw_losses(file: Path, path: Path) -> None:
    """The losses of `same_training.py`: the curves of the frameworks over each other, and how far each is from PyTorch's."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "doconv"
    from matplotlib.figure import Figure

    curves: dict[tuple[str, str], list[float]] = {}
    for row in same_training.read(file):
        curves.setdefault((row["framework"], row["variant"]), []).append(float(row["loss"]))
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (framework, variant), curve in curves.items():
        style = {"color": COLOURS[variant], "label": f"{variant}, {framework}", **LINES[framework]}
        left.plot(curve, **style)
        if framework != "torch":
            away = np.abs(np.array(curve) / curves["torch", variant] - 1)
            right.plot(np.maximum(away, EQUAL), **{**style, "lw": 1.2})
    left.set(xlabel="step", ylabel="training loss", yscale="log", title="the loss of every step")
    right.set(xlabel="step", ylabel="relative", yscale="log", title="difference from PyTorch's loss")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE, help="its text between the markers is replaced")
    parser.add_argument("--losses", type=Path, help="of same_training.py; drawn beside the page")
    options = parser.parse_args(arguments)
    rows = [row for file in options.files for row in read_rows(file)]
    if not rows:
        raise SystemExit(f"no runs in {', '.join(map(str, options.files))}")
    folded = [abs(row.folded_metric - row.metric) for row in rows if not row.failed]
    failed = sum(row.failed for row in rows)
    summary = (
        f"{len(rows)} runs, {failed} of which failed. Folding changed the metric of the others by at most "
        f"{max(folded, default=math.nan):.4f}."
    )
    result = "\n".join([*tasks_table(rows), *table(rows), "", summary, *same_rate_table(rows), *rates_table(rows)])
    write_text(options.page, insert_between(options.page.read_text("utf-8"), result, BEGIN, END))
    draw(rows, options.page.with_suffix(".svg"))
    if options.losses:
        draw_losses(options.losses, options.page.with_name("same-training.svg"))
    print(result)


def _comparisons(rows: Sequence[Row]) -> list[tuple[str, tuple[str, float], tuple[str, float]]]:
    """What is compared, each side at its best rate: equal steps, equal time, more steps, the stem plain."""
    first = rows[0]
    recipe = recipes.load(first.task)
    best = {v: best_rate(rows, recipe, first.framework, v) for v in _variants([r for r in rows if r.stage == "grid"])}
    named = (
        ("DO - plain", "do", "plain"),
        ("DO - plain in equal time, {} times the steps", "do", "plain-equal-time"),
        ("DO - plain with {} times the steps", "do", "plain-longer"),
        ("DO with a plain stem - plain", "do-plain-stem", "plain"),
    )
    steps = {row.variant: row.steps for row in rows if not row.diverged}
    return [
        (name.format(f"{steps[b] / steps[a]:.2f}"), (a, best[a]), (b, best[b]))
        for name, a, b in named
        if {a, b} <= best.keys() & steps.keys()
    ]


def _finals(rows: Iterable[Row], variant: str, rate: float) -> dict[int, float]:
    chosen = (row for row in rows if row.variant == variant and row.rate == rate and row.stage == "final")
    return {row.seed: row.metric for row in chosen if row.seed >= FRESH and not row.failed}


def _failures(rows: Iterable[Row], variant: str, rate: float) -> int:
    return sum((row.variant, row.rate, row.stage, row.failed) == (variant, rate, "final", True) for row in rows)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _pair_cell(left: dict[int, float], right: dict[int, float]) -> str:
    pairs = len(left.keys() & right.keys())
    return f"{paired(left, right)} ({pairs} pairs)" if pairs > 1 else ""


def _seconds(row: Row) -> float:
    """Processor time, or wall time where a GPU computed."""
    return row.wall_seconds if math.isnan(row.cpu_seconds) else row.cpu_seconds


def _mean_cell(rows: Iterable[Row], variant: str, rate: float, best: bool) -> str:
    runs = [row for row in rows if row.variant == variant and row.rate == rate]
    if any(row.failed for row in runs):
        return f"failed {sum(row.failed for row in runs)} of {len(runs)}"
    text = f"{statistics.mean(row.metric for row in runs):.2f}" if runs else ""
    return f"**{text}**" if best else text


def _groups(rows: Iterable[Row]) -> list[tuple[str, str, list[Row]]]:
    """The runs that may be compared: of a task, and what they ran on."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        half = "" if row.precision == "float32" else f", {row.precision}"
        groups.setdefault((row.task, f"{row.framework}, {row.device}{half}"), []).append(row)
    return [(task, on, mine) for (task, on), mine in sorted(groups.items())]


def _metric(task: str) -> str:
    return KINDS[kind_of(recipes.load(task).data["name"])]


def _folding(rows: Iterable[Row], variant: str) -> float:
    """By how much folding changed the metric of any run of a variant, at most."""
    return max(abs(row.folded_metric - row.metric) for row in rows if row.variant == variant and not row.failed)


def _variants(rows: Iterable[Row]) -> list[str]:
    present = {row.variant for row in rows}
    return [variant for variant in recipes.VARIANTS if variant in present]


if __name__ == "__main__":
    main()
