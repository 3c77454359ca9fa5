"""`doconv check`: the suite against any program that speaks the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doconv_conformance.cli.reports import CaseId, Html, Json, Junit, Stage


def check(
    program: Annotated[list[str], typer.Argument(help="The program and its arguments, after --.")],
    stage: Stage = None,
    case: CaseId = None,
    keep: Annotated[Path | None, typer.Option(help="Keep every case's files in this folder.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer.", min=0.001)] = 60.0,
    json: Json = None,
    html: Html = None,
    junit: Junit = None,
) -> None:
    """Check a port: doconv check -- PROGRAM ARGS.

    Exit status: 0 it agrees with the reference, 1 it does not, 2 unusable arguments. With --case the files of the case stay in
    the folder of --keep, by default ./doconv-case.
    """
    from doconv_conformance.cases.table import select
    from doconv_conformance.cli.terminal import run_all, show, write
    from doconv_conformance.files import check_writable
    from doconv_conformance.reports.build import build
    from doconv_conformance.running.runner import Backend

    folder = keep or (Path("doconv-case") if case else None)
    try:
        pairs = select(stage, case, extended=True)
        check_writable(json, html, junit)
        if folder and not folder.absolute().parent.is_dir():
            raise ValueError(f"the folder of {folder} does not exist")
    except ValueError as error:
        typer.echo(f"doconv check: {error}", err=True)
        raise typer.Exit(2) from None
    runs = run_all([Backend("port", tuple(program))], pairs, keep=folder, timeout=timeout)
    report = build(runs)
    status = show(report)
    if folder:
        typer.echo(f"files: {folder}")
    write(report, to_json=json, to_html=html, to_junit=junit)
    raise typer.Exit(status)
