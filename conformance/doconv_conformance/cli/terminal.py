"""What the commands show on a terminal, how they run ports, and the files of reports that they write."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.status import Status
from rich.table import Table

from doconv_conformance.cases.table import Case
from doconv_conformance.cli.disagreeing import disagreeing
from doconv_conformance.counting import counted
from doconv_conformance.diagnosis.diagnose import Diagnosis, diagnose_run
from doconv_conformance.files import write_json, write_text
from doconv_conformance.protocol import smoke
from doconv_conformance.protocol.process import port_threads
from doconv_conformance.protocol.session import PortSession
from doconv_conformance.reports import html, junit
from doconv_conformance.reports.build import build, worst
from doconv_conformance.running.picture import PictureRun
from doconv_conformance.running.runner import Backend, Run, run_cases
from doconv_conformance.verdicts.judge import Result
from doconv_core.outputs import is_stream

LINE_EVERY = 10.0
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
    """Each port in its own process, side by side, with progress on stderr: a bar on a terminal, else a line now and then.

    Args:
        backends: the ports.
        pairs: the cases.
        then: what to do with a session after its cases; it calls its second argument `more` times.
        more: the steps of `then`.
        own: by their names, the cases of ports that run others than `pairs`.
        options: of `run_cases`.

    Raises:
        OSError: the suite cannot write its own files.
        KeyboardInterrupt: as it comes; the ports are ended first.
    """
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), transient=True, console=console) as progress:
        progress.disable = not console.is_terminal

        def run(backend: Backend) -> Run:
            cases = (own or {}).get(backend.name, pairs)
            task = progress.add_task(backend.name, total=len(cases) + more)
            lines = Lines(backend.name, len(cases) + more) if progress.disable else None

            def step() -> None:
                progress.advance(task)
                if lines:
                    lines.step()

            after = (lambda session: then(session, step)) if then else None
            return run_cases(backend, cases, progress=step, then=after, **options)

        with port_threads(min(len(backends), max(3, os.cpu_count() or 1))) as threads:
            running = [threads.submit(run, backend) for backend in backends]
            return [item.result() for item in running]


class Lines:
    """Progress where there is no terminal: one line on stderr every ten seconds."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        self.began = self.shown = time.monotonic()

    def step(self) -> None:
        """One more is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.shown >= LINE_EVERY:
            self.shown = now
            print(f"{self.name}: {self.done} of {self.total}, {now - self.began:.0f} s", file=sys.stderr, flush=True)


def conclude(
    runs: Sequence[Run],
    others: Sequence[Result] = (),
    seconds: Mapping[str, float] | None = None,
    *,
    ask: bool = True,
    timeout: float = 60.0,
    to_json: Path | None = None,
    to_html: Path | None = None,
    to_junit: Path | None = None,
    picture: PictureRun | None = None,
) -> int:
    """Write the report, diagnose what failed, write the report again and print it. Returns the exit status, 0 or 1.

    A report is on disk before anything is diagnosed or printed, so that nothing that happens there can lose it; one that goes
    to a pipe or a device is written once, at the end.

    Args:
        runs: of the ports.
        others: as in `build`.
        seconds: as in `build`.
        ask: whether the ports can be asked further questions.
        timeout: seconds for one answer to those.
        to_json: where the report goes.
        to_html: likewise.
        to_junit: likewise.
        picture: its figure goes to the page.
    """
    paths = {"to_json": to_json, "to_html": to_html, "to_junit": to_junit}
    files = {name: path for name, path in paths.items() if path and not is_stream(path)}
    report = build(runs, others, seconds)
    if files and not report["summary"]["agree"]:
        write(report, **files, picture=picture)
    began = time.monotonic()
    diagnoses = _diagnoses(runs, ask, timeout)
    report = build(runs, others, seconds, diagnoses)
    if diagnoses:
        spent = time.monotonic() - began
        report["seconds"] |= {"diagnosis": spent, "total": report["seconds"]["total"] + spent}
    write(report, **paths, picture=picture)
    return show(report)


def _diagnoses(runs: Sequence[Run], ask: bool, timeout: float) -> dict[str, list[Diagnosis]]:
    """What the failures of each port are, with a line on stderr that says what is being tried."""
    failing = [run for run in runs if run.hello and any(row.verdict in ("mismatch", "crashed") for row in run.results)]
    if not failing:
        return {}
    console = Console(stderr=True)
    with console.status("diagnosing") as status:
        if not console.is_terminal:
            print("diagnosing what failed", file=sys.stderr, flush=True)
        found = {}
        for run in failing:
            name = run.backend.name
            found[name] = diagnose_run(run, ask=ask, timeout=timeout, say=partial(_say, status, name))
        return found


def _say(status: Status, name: str, text: str) -> None:
    status.update(escape(f"{name}: {text}"))


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
        head = f"{diagnosis['backend']}: {diagnosis['consistent_with']} ({counted(len(diagnosis['cases']), 'row')})"
        for text in (
            head,
            f"  look at: {diagnosis['look_at']}",
            *(f"  {line}" for line in diagnosis.get("detail", ())),
        ):
            console.print(text, markup=False, highlight=False)
    for line in disagreeing(report["results"]):
        console.print(line, markup=False, highlight=False)
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
    """Where the time went: one line per port, and one for the whole run."""
    lines = []
    for port in report["ports"]:
        seconds = port["seconds"]
        parts = [f"{seconds[name]:.1f} {text}" for name, text in TIMES.items() if name in seconds]
        version = port["hello"].get("version", "did not start")
        lines.append(f"{port['backend']} ({version}): {seconds['total']:.1f} s = {', '.join(parts)}")
    seconds = report["seconds"]
    parts = [f"{value:.1f} {name}" for name, value in seconds.items() if name != "total"]
    return [*lines, f"in all {seconds['total']:.1f} s{', of it ' if parts else ''}{', '.join(parts)}"]
