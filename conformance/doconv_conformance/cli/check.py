"""`doconv check`: the suite against any program that speaks the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    program: Annotated[list[str], typer.Argument(help="The program and its arguments, after --.")],
    stage: Annotated[str | None, typer.Option(help="One stage only.")] = None,
    case: Annotated[str | None, typer.Option(help="One case: its id, or the beginning of it.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep every case's inputs and outputs in this folder.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer.")] = 60.0,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file.")] = None,
) -> None:
    """Check a port: doconv check -- PROGRAM ARGS.

    Exit status: 0 it agrees with the reference, 1 it does not, 2 unusable arguments. With --case the files of the case stay in
    the folder of --keep, by default ./doconv-case.
    """
    from doconv_conformance.cases import select
    from doconv_conformance.cli.terminal import report, run_all, writable
    from doconv_conformance.runner import Backend

    try:
        pairs = select(stage, case)
        writable(json)
    except ValueError as error:
        typer.echo(f"doconv check: {error}", err=True)
        raise typer.Exit(2) from None
    folder = keep or (Path("doconv-case") if case else None)
    runs = run_all([Backend("port", tuple(program))], pairs, keep=folder, timeout=timeout)
    raise typer.Exit(report(runs, runs[0].results, json))
