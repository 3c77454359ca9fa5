"""What the commands show on a terminal and write as JSON, and how they run ports."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from doconv_conformance.cases import Case
from doconv_conformance.judge import Result, disagreements, summarise, to_json
from doconv_conformance.runner import Backend, Run, run_cases

# Worst first: the verdict that a line of the table shows.
SEVERITY = ("mismatch", "crashed", "timeout", "inaccurate", "within_bound", "exact", "unsupported")
SHOWN = 10


def writable(path: Path | None) -> None:
    """Raise before any work if a report could not be written there.

    Raises:
        ValueError: the folder does not exist.
    """
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"the folder of {path} does not exist")


def run_all(backends: Sequence[Backend], pairs: Sequence[tuple[Case, str]], **options: Any) -> list[Run]:
    """Each port in its own process, side by side, with a progress bar on a terminal."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), transient=True) as progress:
        progress.disable = not progress.console.is_terminal

        def run(backend: Backend) -> Run:
            task = progress.add_task(backend.name, total=len(pairs))
            return run_cases(backend, pairs, progress=lambda: progress.advance(task), **options)

        with ThreadPoolExecutor(len(backends)) as pool:
            return list(pool.map(run, backends))


def report(runs: Sequence[Run], results: Sequence[Result], path: Path | None) -> int:
    """Print the table, the time and what disagrees, write the JSON report, and return the exit status: 0 or 1."""
    console = Console(width=None if Console().is_terminal else 120)
    console.print(_table(results))
    for run in runs:
        start, total = run.seconds.get("start", 0.0), run.seconds.get("total", 0.0)
        console.print(
            f"{run.backend.name}: {run.hello.get('version', 'did not start')}; {total:.1f} s, {start:.1f} s of it to start"
        )
    wrong = disagreements(results)
    for line in wrong[:SHOWN]:
        console.print(line, markup=False)
    if len(wrong) > SHOWN:
        console.print(f"... and {len(wrong) - SHOWN} more")
    summary = summarise(results)
    console.print("All agree." if summary["agree"] else "They do not agree.")
    if path:
        write_json(path, to_json(results))
    return 0 if summary["agree"] else 1


def _table(results: Sequence[Result]) -> Table:
    table = Table("backend", "operation", "cases", "verdict", "share of bound", "r", "seconds")
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.backend, result.operation), []).append(result)
    for (name, operation), rows in groups.items():
        verdict = min((row.verdict for row in rows), key=SEVERITY.index)
        skipped = sum(row.verdict == "unsupported" for row in rows)
        fraction = max((row.bound_fraction for row in rows if row.bound_fraction is not None), default=None)
        r = max((row.r for row in rows if row.r is not None), default=None)
        cases = f"{len(rows) - skipped}" + (f" (+{skipped} unsupported)" if skipped else "")
        colour = {"mismatch": "red", "crashed": "red", "timeout": "red", "inaccurate": "yellow"}.get(verdict, "green")
        numbers = [f"{number:.3f}" if number is not None else "" for number in (fraction, r)]
        table.add_row(
            name, operation, cases, f"[{colour}]{verdict}", *numbers, f"{sum(row.seconds for row in rows):.1f}"
        )
    return table


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Under a temporary name first, so that an interrupted run leaves the old file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(path)
