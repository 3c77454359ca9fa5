"""What the commands show on a terminal, how they run ports, and the files of reports that they write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from doconv_conformance.cases.table import Case
from doconv_conformance.files import write_json, write_text
from doconv_conformance.protocol import smoke
from doconv_conformance.protocol.session import PortSession
from doconv_conformance.reports import html, junit
from doconv_conformance.reports.build import worst
from doconv_conformance.running.picture import PictureRun
from doconv_conformance.running.runner import Backend, Run, run_cases
from doconv_conformance.verdicts.judge import Result, disagreements

SHOWN = 10
TIMES = {
    "start": "to start",
    "port": "its answers",
    "picture": "the picture",
    "reference": "our reference",
    "judge": "judging",
}
COLOURS = {"mismatch": "red", "crashed": "red", "timeout": "red", "inaccurate": "yellow", "unsupported": "dim"}


def run_all(
    backends: Sequence[Backend],
    pairs: Sequence[tuple[Case, str]],
    *,
    then: Callable[[PortSession, Callable[[], None]], None] | None = None,
    more: int = 0,
    own: Mapping[str, Sequence[tuple[Case, str]]] | None = None,
    **options: Any,
) -> list[Run]:
    """Each port in its own process, side by side, with a progress bar on a terminal.

    Args:
        backends: the ports.
        pairs: the cases.
        then: what to do with a session after its cases; it calls its second argument `more` times.
        more: the steps of `then`.
        own: by their names, the cases of ports that run others than `pairs`.
        options: of `run_cases`.
    """
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), transient=True) as progress:
        progress.disable = not progress.console.is_terminal

        def run(backend: Backend) -> Run:
            cases = (own or {}).get(backend.name, pairs)
            task = progress.add_task(backend.name, total=len(cases) + more)

            def step() -> None:
                progress.advance(task)

            after = (lambda session: then(session, step)) if then else None
            return run_cases(backend, cases, progress=step, then=after, **options)

        with ThreadPoolExecutor(min(len(backends), max(3, os.cpu_count() or 1))) as pool:
            return list(pool.map(run, backends))


def show(report: Mapping[str, Any]) -> int:
    """Print the report: table, time, smoke cases, diagnosis, what disagrees. Returns the exit status, 0 or 1."""
    console = Console(width=None if Console().is_terminal else 120)
    console.print(_table(report["results"]))
    for line in _times(report):
        console.print(line, markup=False, highlight=False)
    for port in report["ports"]:
        if port["smoke"]:
            text = f"{port['backend']}: the smoke case failed: {port['smoke']}. {smoke.ADVICE.capitalize()}."
            console.print(text, markup=False, style="red")
    for diagnosis in report["diagnosis"]:
        head = f"{diagnosis['backend']}: {diagnosis['consistent_with']} ({len(diagnosis['cases'])} rows)"
        for text in (
            head,
            f"  look at: {diagnosis['look_at']}",
            *(f"  {line}" for line in diagnosis.get("detail", ())),
        ):
            console.print(text, markup=False, highlight=False)
    wrong = disagreements(Result(**row) for row in report["results"])
    for line in wrong[:SHOWN]:
        console.print(line, markup=False, highlight=False)
    if len(wrong) > SHOWN:
        console.print(f"... and {len(wrong) - SHOWN} more")
    agree = report["summary"]["agree"]
    console.print("All agree." if agree else "They do not agree.")
    return 0 if agree else 1


def write(
    report: Mapping[str, Any],
    *,
    to_json: Path | None = None,
    to_html: Path | None = None,
    to_junit: Path | None = None,
    picture: PictureRun | None = None,
) -> None:
    """Write the files of the report that are asked for; the page shows the figure of `picture`."""
    if to_json:
        write_json(to_json, report)
    if to_junit:
        write_text(to_junit, junit.render(report))
    if to_html:
        write_text(to_html, html.render(report, figure=_small_figure(picture) if picture and picture.maps else b""))


def _small_figure(picture: PictureRun) -> bytes:
    from doconv_conformance.reports.figure import write_figure

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.jpg"
        write_figure(picture, path, dpi=80)
        return path.read_bytes()


def _table(results: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("backend", "operation", "cases", "verdict", "share of bound", "r", "seconds")
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in results:
        groups.setdefault((row["backend"], row["operation"]), []).append(row)
    for (name, operation), rows in groups.items():
        line = worst(rows)
        cases = f"{line['cases']}" + (f" (+{line['unsupported']} unsupported)" if line["unsupported"] else "")
        colour = COLOURS.get(line["verdict"], "green")
        numbers = [f"{line[name]:.3f}" if line[name] is not None else "" for name in ("bound_fraction", "r")]
        verdict = f"[{colour}]{line['verdict']}[/]"
        table.add_row(escape(name), operation, cases, verdict, *numbers, f"{line['seconds']:.1f}")
    return table


def _times(report: Mapping[str, Any]) -> list[str]:
    """Where the time went: a line a port, and one for the whole."""
    lines = []
    for port in report["ports"]:
        seconds = port["seconds"]
        parts = [f"{seconds[name]:.1f} {text}" for name, text in TIMES.items() if name in seconds]
        version = port["hello"].get("version", "did not start")
        lines.append(f"{port['backend']} ({version}): {seconds['total']:.1f} s = {', '.join(parts)}")
    seconds = report["seconds"]
    parts = [f"{value:.1f} {name}" for name, value in seconds.items() if name != "total"]
    return [*lines, f"in all {seconds['total']:.1f} s{', of it ' if parts else ''}{', '.join(parts)}"]
