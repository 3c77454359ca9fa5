"""`doconv check`: the suite against any program that speaks the protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doconv_conformance.cli.reports import CaseId, Dtype, Html, Json, Junit, Stage


def check(
    program: Annotated[
        list[str] | None, typer.Argument(help="The program and its arguments, after --.", show_default=False)
    ] = None,
    stage: Stage = None,
    case: CaseId = None,
    dtype: Dtype = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Print what would be asked, without asking it.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first row that does not agree.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep every case's files in this folder.")] = None,
    timeout: Annotated[float, typer.Option(help="Time limit for one answer, in seconds.", min=0.001)] = 60.0,
    json: Json = None,
    html: Html = None,
    junit: Junit = None,
) -> None:
    """Check a port: doconv check -- PROGRAM ARGS.

    Exit status: 0 it agrees with the reference, 1 it does not, 2 unusable arguments. With --case the files of the case stay in
    the folder of --keep, by default ./doconv-case. After a failure the port is asked further questions, to say what is wrong.
    """
    from doconv_conformance.cases.table import select
    from doconv_conformance.cli.reports import of_dtypes
    from doconv_conformance.cli.terminal import conclude, run_all
    from doconv_conformance.files import check_writable
    from doconv_conformance.running.runner import Backend

    folder = keep or (Path("doconv-case") if case else None)
    try:
        pairs = of_dtypes(select(stage, case, extended=True), dtype)
        check_writable(json, html, junit)
        if folder and not folder.absolute().parent.is_dir():
            raise ValueError(f"the folder of {folder} does not exist")
    except (ValueError, OSError) as error:
        typer.echo(f"doconv check: {error}", err=True)
        raise typer.Exit(2) from None
    if list_cases:
        for item, operation in pairs:
            typer.echo(f"{item.stage(operation)} {operation} {item.id}")
        raise typer.Exit(0)
    if not program:
        raise typer.BadParameter("Missing argument 'PROGRAM...': the port, after --")
    try:
        runs = run_all([Backend("port", tuple(program))], pairs, keep=folder, timeout=timeout, fail_fast=fail_fast)
    except (ValueError, OSError) as error:
        typer.echo(f"doconv check: {error}", err=True)
        raise typer.Exit(2) from None
    status = conclude(runs, to_json=json, to_html=html, to_junit=junit, timeout=timeout)
    if folder:
        typer.echo(f"files: {folder}")
    raise typer.Exit(status)
