"""The command `doconv`. Nothing heavy is imported before a command runs, so that `--help` answers at once."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from doconv_conformance.cli.check import check
from doconv_conformance.cli.compare import compare
from doconv_conformance.cli.convert import convert
from doconv_conformance.cli.doctor import doctor, versions
from doconv_conformance.cli.fold import fold
from doconv_conformance.cli.inspect import inspect
from doconv_conformance.cli.vectors import vectors

COMPARE, CHECK, FILES = "Compare backends", "Check a port", "Work with checkpoints"
app = typer.Typer(
    help="DO-Conv: compare backends, check ports, fold and convert checkpoints.",
    no_args_is_help=True,
    epilog="Example: doconv compare --image photo.jpg",
    rich_markup_mode="markdown",  # which joins the lines of a paragraph
)
app.command(
    rich_help_panel=COMPARE,
    epilog="Examples: doconv compare --image photo.jpg; doconv compare --checkpoint model.safetensors --figure layers.png",
)(compare)
app.command(rich_help_panel=COMPARE)(doctor)
app.command(rich_help_panel=CHECK, epilog="Example: doconv check --html report.html -- ./my_port")(check)
app.add_typer(vectors, name="vectors", rich_help_panel=CHECK)
app.command(rich_help_panel=FILES, epilog="Example: doconv fold model.safetensors plain.safetensors")(fold)
app.command(rich_help_panel=FILES, epilog="Example: doconv convert model.safetensors flax.safetensors --to flax")(
    convert
)
app.command(rich_help_panel=FILES, epilog="Example: doconv inspect model.safetensors --stats")(inspect)


def _show_versions(wanted: bool) -> None:
    if wanted:
        typer.echo(versions())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the versions found.", is_eager=True, callback=_show_versions)
    ] = False,
) -> None:
    """DO-Conv: compare backends, check ports, fold and convert checkpoints."""


def main() -> None:
    """Entry point of `doconv`."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that its encoding has no letters for, as in a pipe on Windows
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
