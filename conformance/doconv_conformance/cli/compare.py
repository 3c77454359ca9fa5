"""`doconv compare`: every installed backend against the core, and the backends with each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from doconv_conformance.judge import Result
    from doconv_conformance.runner import Backend, Run

BACKENDS = ("torch", "keras", "flax")
# Worst first: the verdict that a line of the table shows.
SEVERITY = ("mismatch", "crashed", "timeout", "inaccurate", "within_bound", "exact", "unsupported")


def compare(
    backend: Annotated[str | None, typer.Option(help="Backends, separated by commas; default: all installed.")] = None,
    stage: Annotated[str | None, typer.Option(help="One stage of the suite only.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Send this picture through a network on every backend, too.")
    ] = None,
    figure: Annotated[Path, typer.Option(help="Where the figure of --image goes (.png, .svg or .pdf).")] = Path(
        "compare.png"
    ),
    json: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
) -> None:
    """Compare backends with the reference and with each other.

    Exit status: 0 all agree, 1 a mismatch, 2 unusable arguments.
    """
    from rich.console import Console

    from doconv_conformance.cases import select
    from doconv_conformance.judge import disagreements, summarise, to_json
    from doconv_conformance.runner import pairwise

    try:
        names = _names(backend)
        pairs = select(stage)
        picture = _picture(image, figure) if image else None
        if json and not json.parent.is_dir():
            raise ValueError(f"the folder of {json} does not exist")
    except ValueError as error:
        typer.echo(f"doconv compare: {error}", err=True)
        raise typer.Exit(2) from None
    runs = _run_all(names, pairs)
    results = [result for run in runs for result in run.results] + pairwise(runs, pairs)
    if picture is not None:
        results += _run_picture(picture, names, figure)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(_table(results))
    for run in runs:
        start, total = run.seconds.get("start", 0.0), run.seconds.get("total", 0.0)
        console.print(
            f"{run.backend.name}: {run.hello.get('version', 'did not start')}; {total:.1f} s, {start:.1f} s of it to start"
        )
    wrong = disagreements(results)
    for line in wrong[:10]:
        console.print(line, markup=False)
    if len(wrong) > 10:
        console.print(f"... and {len(wrong) - 10} more")
    summary = summarise(results)
    console.print("All agree." if summary["agree"] else "They do not agree.")
    if json:
        _write(json, to_json(results))
    raise typer.Exit(0 if summary["agree"] else 1)


def _names(backend: str | None) -> list[str]:
    """The backends asked for, or those whose framework is installed."""
    from importlib.util import find_spec

    if backend is None:
        names = [name for name in BACKENDS if find_spec(name)]
        if not names:
            raise ValueError("no framework is installed: pip install 'doconv-core[torch]', or keras, or flax")
        return names
    names = [name.strip() for name in backend.split(",")]
    unknown = [name for name in names if name not in BACKENDS]
    if unknown:
        raise ValueError(f"--backend must be of {', '.join(BACKENDS)}. Received: {', '.join(unknown)}")
    return names


def _run_all(names: list[str], pairs: Any) -> list[Run]:
    """Each backend in its own process, side by side, with a progress bar on a terminal."""
    from concurrent.futures import ThreadPoolExecutor

    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    from doconv_conformance.runner import run_cases

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn(""), transient=True) as progress:
        progress.disable = not progress.console.is_terminal

        def run(name: str) -> Run:
            task = progress.add_task(name, total=len(pairs))
            return run_cases(_backend(name), pairs, progress=lambda: progress.advance(task))

        with ThreadPoolExecutor(len(names)) as pool:
            return list(pool.map(run, names))


def _picture(image: Path, figure: Path) -> Any:
    from importlib.util import find_spec

    from doconv_conformance.picture import load_picture

    if not (find_spec("matplotlib") and find_spec("PIL")):
        raise ValueError("--image needs matplotlib and pillow: pip install 'doconv-core[report]'")
    if figure.suffix not in (".png", ".svg", ".pdf") or not figure.parent.is_dir():
        raise ValueError(f"--figure must end in .png, .svg or .pdf, in a folder that exists. Received: {figure}")
    return load_picture(image)


def _run_picture(picture: Any, names: list[str], figure: Path) -> list[Result]:
    from rich.progress import Progress

    from doconv_conformance.figure import write_figure
    from doconv_conformance.picture import LAYERS, run_picture

    with Progress(transient=True) as progress:
        progress.disable = not progress.console.is_terminal
        task = progress.add_task("picture", total=2 * len(LAYERS) * len(names))
        run = run_picture(picture, [_backend(name) for name in names], progress=lambda: progress.advance(task))
    if run.maps:
        write_figure(run, figure)
        typer.echo(f"figure: {figure}")
    return run.results


def _backend(name: str) -> Backend:
    from doconv_conformance.runner import python_backend

    return python_backend(name, f"doconv_conformance.adapters.{name}")


def _table(results: list[Result]) -> Any:
    from rich.table import Table

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


def _write(path: Path, report: dict[str, Any]) -> None:
    """Under a temporary name first, so that an interrupted run leaves the old file."""
    import json
    import os

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(path)
