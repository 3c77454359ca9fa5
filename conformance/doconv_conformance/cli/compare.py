"""`doconv compare`: every installed backend against the core, and the backends with each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from doconv_conformance.judge import Result
    from doconv_conformance.runner import Backend

BACKENDS = ("torch", "keras", "flax")


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
    from doconv_conformance.cases import select
    from doconv_conformance.cli.terminal import report, run_all, writable
    from doconv_conformance.runner import pairwise

    try:
        names = _names(backend)
        pairs = select(stage)
        picture = _picture(image, figure) if image else None
        writable(json)
    except ValueError as error:
        typer.echo(f"doconv compare: {error}", err=True)
        raise typer.Exit(2) from None
    runs = run_all([_backend(name) for name in names], pairs)
    results = [result for run in runs for result in run.results] + pairwise(runs, pairs)
    if picture is not None:
        results += _run_picture(picture, names, figure)
    raise typer.Exit(report(runs, results, json))


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
