"""`doconv compare`: every installed backend against the core, and the backends with each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doconv_conformance.cli.reports import Dtype, Html, Json, Junit, Stage

if TYPE_CHECKING:
    from doconv_conformance.protocol.session import Backend
    from doconv_conformance.running.picture import PictureRun

BACKENDS = ("torch", "keras", "flax")
# The CPU, also where there is a GPU: the reference's bounds are those of what is declared, and GPUs round in other ways.
# DOCONV_QUICK lets a port compile for the little that the cases need.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "DOCONV_QUICK": "1"}


def compare(
    backend: Annotated[str | None, typer.Option(help="Backends, separated by commas; default: all installed.")] = None,
    stage: Stage = None,
    dtype: Dtype = None,
    python: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: the interpreter of another environment for a backend.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Send this picture through a network on every backend, too.")
    ] = None,
    figure: Annotated[Path, typer.Option(help="Where the figure of --image goes (.png, .svg or .pdf).")] = Path(
        "compare.png"
    ),
    json: Json = None,
    html: Html = None,
    junit: Junit = None,
) -> None:
    """Compare backends with the reference and with each other.

    Exit status: 0 all agree, 1 a mismatch, 2 unusable arguments.
    """
    import time

    from doconv_conformance.cases.table import select
    from doconv_conformance.cli.reports import of_dtypes
    from doconv_conformance.cli.terminal import conclude, run_all
    from doconv_conformance.files import check_writable
    from doconv_conformance.running.pairwise import pairwise
    from doconv_conformance.running.picture import STEPS, PictureRun, send_picture

    began = time.monotonic()
    try:
        backends = _backends(backend, python or [])
        pairs = of_dtypes(select(stage), dtype)
        picture = PictureRun(_picture(image, figure), [item.name for item in backends]) if image else None
        check_writable(json, html, junit, figure if image else None)
    except ValueError as error:
        typer.echo(f"doconv compare: {error}", err=True)
        raise typer.Exit(2) from None

    then = (lambda session, step: send_picture(session, picture, step)) if picture else None
    try:
        runs = run_all(backends, pairs, then=then, more=STEPS if picture else 0)
    except OSError as error:
        typer.echo(f"doconv compare: {error}", err=True)
        raise typer.Exit(2) from None
    compared = time.monotonic()
    others = pairwise(runs, pairs)
    if picture:
        _finish_picture(picture, figure)
        others += picture.results
    done = time.monotonic()
    seconds = {"total": done - began, "ports": compared - began, "with each other": done - compared}
    status = conclude(runs, others, seconds, to_json=json, to_html=html, to_junit=junit, picture=picture)
    if picture and picture.maps:
        typer.echo(f"figure: {figure}")
    raise typer.Exit(status)


def _backends(backend: str | None, python: list[str]) -> list[Backend]:
    """The backends asked for, or those whose framework is installed or has an interpreter of its own."""
    from importlib.util import find_spec

    from doconv_conformance.running.runner import python_backend

    interpreters = dict(_interpreter(item) for item in python)
    if backend is None:
        names = [name for name in BACKENDS if name in interpreters or find_spec(name)]
        if not names:
            raise ValueError("no framework is installed: pip install 'doconv-core[torch]', or keras, or flax")
    else:
        names = [name.strip() for name in backend.split(",")]
    if unknown := [name for name in (*names, *interpreters) if name not in BACKENDS]:
        raise ValueError(f"--backend must be of {', '.join(BACKENDS)}. Received: {', '.join(unknown)}")
    if len(set(names)) < len(names):
        raise ValueError(f"--backend names one twice. Received: {backend}")
    return [
        python_backend(name, f"doconv_conformance.adapters.{name}", env=ENVIRONMENT, python=interpreters.get(name, ""),
                       install=f"pip install 'doconv-core[{name}]'")
        for name in names
    ]  # fmt: skip


def _interpreter(item: str) -> tuple[str, str]:
    import shutil

    name, _, path = item.partition("=")
    if not shutil.which(path):
        raise ValueError(f"--python must be NAME=PATH with a program at PATH. Received: {item}")
    return name, path


def _picture(image: Path, figure: Path) -> Any:
    from importlib.util import find_spec

    from doconv_conformance.running.picture import load_picture

    if not (find_spec("matplotlib") and find_spec("PIL")):
        raise ValueError("--image needs matplotlib and pillow: pip install 'doconv-core[report]'")
    if figure.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--figure must end in .png, .svg or .pdf. Received: {figure}")
    if figure.resolve() == image.resolve():
        raise ValueError(f"the figure would replace the picture. Received: --image {image} --figure {figure}")
    return load_picture(image)


def _finish_picture(picture: PictureRun, figure: Path) -> None:
    from doconv_conformance.reports.figure import write_figure
    from doconv_conformance.running.picture import compare_maps

    compare_maps(picture)
    if picture.maps:
        write_figure(picture, figure)
