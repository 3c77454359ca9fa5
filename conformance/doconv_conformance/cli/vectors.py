"""`doconv vectors`: the cases as files, for a port that is not a program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doconv_conformance.cli.reports import CaseId, Html, Json, Junit, Stage

vectors = typer.Typer(
    help="The cases as files: write them, and judge what a port made of them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@vectors.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")], stage: Stage = None, case: CaseId = None
) -> None:
    """Write requests, inputs and right outputs to a folder.

    Exit status: 0 written, 2 unusable arguments.
    """
    from doconv_conformance.running.vectors import export as export_vectors
    from doconv_conformance.running.vectors import select_for_files

    try:
        pairs = select_for_files(stage, case)
        export_vectors(folder, pairs)
    except (ValueError, OSError) as error:
        typer.echo(f"doconv vectors export: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{len(pairs)} operations in {folder}; {folder / 'README.txt'} says what they are")


@vectors.command()
def check(
    folder: Annotated[Path, typer.Argument(help="The folder that `export` wrote, with the port's outputs added.")],
    stage: Stage = None,
    case: CaseId = None,
    json: Json = None,
    html: Html = None,
    junit: Junit = None,
) -> None:
    """Judge the outputs that a port wrote to a folder of vectors.

    Exit status: 0 it agrees with the reference, 1 it does not, 2 unusable arguments.
    """
    from doconv_conformance.cli.terminal import conclude
    from doconv_conformance.files import check_writable
    from doconv_conformance.running.offline import check_folder
    from doconv_conformance.running.vectors import select_for_files

    try:
        pairs = select_for_files(stage, case)
        check_writable(json, html, junit)
        run = check_folder(folder, pairs)
    except (ValueError, OSError) as error:
        typer.echo(f"doconv vectors check: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(conclude([run], ask=False, to_json=json, to_html=html, to_junit=junit))
