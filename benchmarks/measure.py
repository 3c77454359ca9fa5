"""Ratios measured in one process: variants take turns, and each round gives one ratio to the baseline of the same round.

The order within a round is drawn: a variant that always followed the same other one would run in the caches that it leaves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

Run = Callable[[], Any]
# The baseline measured against itself. More than this apart, and the machine was too busy for the row's other figures.
CONTROL = "A/A control"
CONTROL_LIMIT = 0.05


def command_line(description: str | None) -> argparse.ArgumentParser:
    """The options of every script here."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="each benchmark once, small, to see that it runs")
    parser.add_argument("--only", default="", help="names of benchmarks that contain this")
    parser.add_argument("--seconds", type=float, default=6.0, help="for one row, about")
    return parser


class Bench:
    """Rows of results. `seconds` is about what one row may take, `quick` runs everything once to see that it runs."""

    def __init__(self, framework: str, *, quick: bool, seconds: float = 6.0, clock: str = "cpu") -> None:
        self.framework = framework + ", memory kept" * (os.environ.get("MALLOC_MMAP_MAX_") == "0")
        self.quick, self.seconds, self.clock = quick, seconds, clock
        self.rows: list[dict[str, Any]] = []

    def compare(self, benchmark: str, case: str, baseline: str, variants: dict[str, Run]) -> dict[str, Any]:
        """Time `variants`, among them the baseline; add a row and give it.

        Ratios are of the process's time on all its cores, which other processes disturb least, or of the wall's (`clock`).
        """
        runs = list(({CONTROL: variants[baseline]} | variants).items())
        for _, run in runs:
            run()
            if not self.quick:
                run()
        cpu: dict[str, list[float]] = {name: [] for name, _ in runs}
        wall: dict[str, list[float]] = {name: [] for name, _ in runs}
        draw, start = random.Random(0), time.perf_counter()
        while not cpu[baseline] or not (self.quick or self._enough(len(cpu[baseline]), start)):
            draw.shuffle(runs)
            for name, run in runs:
                before, cpu_before = time.perf_counter(), time.process_time()
                run()
                cpu[name].append(time.process_time() - cpu_before)
                wall[name].append(time.perf_counter() - before)
        results = {name: _summary(cpu, wall, name, baseline, self.clock) for name in (CONTROL, *variants)}
        control = results.pop(CONTROL)
        row = {"benchmark": benchmark, "framework": self.framework, "case": case, "unit": f"of {baseline}",
               "rounds": len(cpu[baseline]), "control": control["value"],
               "control_is_off": abs(control["value"] - 1) > CONTROL_LIMIT, "results": results}  # fmt: skip
        self._add(row)
        return row

    def _enough(self, rounds: int, start: float) -> bool:
        return rounds >= 200 or (rounds >= 7 and time.perf_counter() - start > self.seconds)

    def note(self, benchmark: str, case: str, unit: str, results: dict[str, float | None]) -> None:
        """Add a row of plain figures; None is "not measured"."""
        values = {name: {"value": value} for name, value in results.items()}
        self._add({"benchmark": benchmark, "framework": self.framework, "case": case, "unit": unit, "results": values})

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        figures = ", ".join(f"{name} {_short(result['value'])}" for name, result in row["results"].items())
        warning = f"  (control {row['control']:.2f}: too busy)" if row.get("control_is_off") else ""
        print(
            f"{row['framework']} {row['benchmark']}, {row['case']}: {figures} {row['unit']}{warning}", file=sys.stderr
        )

    def run(self, benchmarks: Iterable[Callable[..., None]], only: str, *arguments: Any) -> None:
        """Those of the benchmarks whose names contain `only`."""
        for benchmark in benchmarks:
            if only in benchmark.__name__:
                benchmark(self, *arguments)

    def write(self, packages: Iterable[str]) -> None:
        """One JSON object on stdout."""
        report = {"rows": self.rows, "versions": {name: version(name) for name in packages}}
        json.dump(report, sys.stdout)


def machine() -> dict[str, Any]:
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def _summary(
    cpu: dict[str, list[float]], wall: dict[str, list[float]], name: str, baseline: str, clock: str
) -> dict[str, float]:
    """The median of the rounds' ratios, its quartiles, and the medians of the times in milliseconds."""
    times = cpu if clock == "cpu" else wall
    ratios = [time / max(base, 1e-9) for time, base in zip(times[name], times[baseline], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    milliseconds = {"cpu_ms": statistics.median(cpu[name]) * 1e3, "wall_ms": statistics.median(wall[name]) * 1e3}
    return {"value": middle, "low": low, "high": high} | milliseconds


def _short(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}" if value < 1e4 else f"{value:,.0f}"
