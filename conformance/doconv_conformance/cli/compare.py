"""`doconv compare`: every installed backend against the core, and the backends with each other."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doconv_conformance.cli.files import (
    READING,
    Choice,
    Dialect,
    Ema,
    Exclude,
    KernelSize,
    Key,
    Like,
    Prefix,
    Transposed,
    hints_from,
    say,
)
from doconv_conformance.cli.reports import CaseId, Dtype, Html, Json, Junit, Stage

if TYPE_CHECKING:
    from doconv_conformance.running.picture import PictureRun

BACKENDS = ("torch", "keras", "flax")
ON_GPU = ("torch", "flax")


def compare(
    backend: Annotated[str | None, typer.Option(help="Backends, separated by commas; default: all installed.")] = None,
    way: Annotated[
        str | None,
        typer.Option(
            help="Ways of running the backends, separated by commas, or all; default: as called, in Flax under jit."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    full: Annotated[bool, typer.Option(help="Run every case that a way supports, not only some of them.")] = False,
    stage: Stage = None,
    case: CaseId = None,
    dtype: Dtype = None,
    python: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: the interpreter of another environment for a backend.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Also send this picture through a network on every backend.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=READING,
            help="Compare the layers of this model, its own parameters and geometry, in place of the suite's cases.",
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=READING,
            help="Recorded inputs of its layers (.safetensors or .npz): one array (N, C, ...) per layer, named as the layer.",
        ),
    ] = None,
    dialect: Dialect = None,
    kernel_size: KernelSize = None,
    transposed: Transposed = None,
    like: Like = None,
    exclude: Exclude = None,
    prefix: Prefix = None,
    key: Key = None,
    ema: Ema = False,
    figure: Annotated[
        Path, typer.Option(help="Where the figure of --image or --checkpoint goes (.png, .svg or .pdf).")
    ] = Path("compare.png"),
    extended: Annotated[
        bool,
        typer.Option("--extended", help="Ask for everything that `doconv check` asks for: three times as many cases."),
    ] = False,
    json: Json = None,
    html: Html = None,
    junit: Junit = None,
) -> None:
    """Compare backends with the reference and with each other.

    With --checkpoint: every over-parameterized layer of a model on every backend, forward, backward and folded, in float32,
    bfloat16 and float16, worst first; and what folding and each type lose.

    Exit status: 0 all agree, 1 a mismatch, 2 unusable arguments.
    """
    import time

    from doconv_conformance.cases.table import select
    from doconv_conformance.cli.reports import of_dtypes
    from doconv_conformance.cli.terminal import conclude, run_all
    from doconv_conformance.files import check_writable
    from doconv_conformance.running.pairwise import pairwise
    from doconv_conformance.running.picture import STEPS, PictureRun, send_picture
    from doconv_conformance.running.ways import TIMEOUT, by_way, idle_ways, select_ways

    ways = [name.strip() for name in way.split(",")] if way else None
    suites = {"--stage": stage, "--case": case, "--image": image, "--full": full, "--extended": extended}
    readings = {
        "--inputs": inputs, "--dialect": dialect, "--kernel-size": kernel_size, "--transposed": transposed, "--like": like,
        "--exclude": exclude, "--prefix": prefix, "--key": key, "--ema": ema,
    }  # fmt: skip
    if useless := [name for name, value in (suites if checkpoint else readings).items() if value not in (None, False)]:
        without = "has no effect with" if checkpoint else "is for"
        raise _unusable(f"{', '.join(useless)} {without} --checkpoint")
    if checkpoint:
        from doconv_conformance.cli.compare_checkpoint import Files, compare_checkpoint

        files = Files(checkpoint, inputs, like, figure, json, html, junit)
        hints = partial(hints_from, kernel_size, transposed, like=like, exclude=exclude, prefix=prefix)
        try:
            status = compare_checkpoint(
                files, Choice(dialect, key, ema), hints, partial(_backends, backend, python or [], device),
                ways=ways, device=device, dtype=dtype,
            )  # fmt: skip
        except typer.BadParameter as error:
            raise _unusable(error.message) from None
        except (ValueError, OSError, ImportError, MemoryError) as error:
            raise _unusable(str(error)) from None
        raise typer.Exit(status)

    began = time.monotonic()
    try:
        names, interpreters = _backends(backend, python or [], device)
        pairs = of_dtypes(select(stage, case, extended=extended), dtype)
        chosen = select_ways(names, pairs, ways, device=device, full=full, interpreters=interpreters)
        ports = [item for item in chosen if item.pairs]
        backends = [item.port for item in ports]
        picture = PictureRun(_picture(image, figure), [item.name for item in backends]) if image else None
        check_writable(json, html, junit, figure if image else None, inputs=[image])
    except ValueError as error:
        raise _unusable(str(error)) from None

    for line in idle_ways(chosen):
        typer.echo(line, err=True)
    then = (lambda session, step: send_picture(session, picture, step)) if picture else None
    own = {item.port.name: item.pairs for item in ports}
    try:
        runs = run_all(backends, pairs, then=then, more=STEPS if picture else 0, own=own, timeout=TIMEOUT)
    except OSError as error:
        raise _unusable(str(error)) from None
    compared = time.monotonic()
    others = [row for group in by_way(runs) for row in pairwise(group, pairs)]
    if picture:
        _finish_picture(picture, figure)
        others += picture.results
    done = time.monotonic()
    seconds = {"total": done - began, "ports": compared - began, "with each other": done - compared}
    # Further questions to a way can each be a compilation.
    status = conclude(
        runs, others, seconds, ask=ways is None, to_json=json, to_html=html, to_junit=junit, picture=picture
    )
    if picture and picture.maps:
        typer.echo(f"figure: {figure}")
    raise typer.Exit(status)


def _unusable(text: str) -> typer.Exit:
    say(f"doconv compare: {text}", err=True)
    return typer.Exit(2)


def _backends(backend: str | None, python: list[str], device: str) -> tuple[list[str], dict[str, str]]:
    """The backends asked for, or those whose framework is installed or has an interpreter of its own; the interpreters."""
    from importlib.util import find_spec

    from doconv_conformance.running.ways import DEVICES

    if device not in DEVICES:
        raise ValueError(f"--device must be one of {', '.join(DEVICES)}. Received: {device}")
    known = BACKENDS if device == "cpu" else ON_GPU
    interpreters = dict(_interpreter(item) for item in python)
    if backend is None:
        names = [name for name in known if name in interpreters or find_spec(name)]
        if not names:
            raise ValueError("no framework is installed: pip install 'doconv-core[torch]', or keras, or flax")
    else:
        names = [name.strip() for name in backend.split(",")]
    if unknown := [name for name in (*names, *interpreters) if name not in known]:
        where = "" if device == "cpu" else f" on {device}"
        hint = " (the core is what they are compared with)" if "core" in unknown else ""
        raise ValueError(f"--backend must be one of {', '.join(known)}{where}{hint}. Received: {', '.join(unknown)}")
    if len(set(names)) < len(names):
        raise ValueError(f"--backend names a backend twice. Received: {backend}")
    return names, interpreters


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
