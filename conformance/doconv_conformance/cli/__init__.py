"""The command `doconv`. Nothing heavy is imported before a command runs, so that `--help` answers at once."""

from __future__ import annotations

import typer

from doconv_conformance.cli.check import check
from doconv_conformance.cli.compare import compare
from doconv_conformance.cli.convert import convert
from doconv_conformance.cli.fold import fold
from doconv_conformance.cli.inspect import inspect
from doconv_conformance.cli.vectors import vectors

app = typer.Typer(
    help="DO-Conv: compare backends, check ports, fold and convert checkpoints.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(compare)
app.command()(check)
app.command()(fold)
app.command()(convert)
app.command()(inspect)
app.add_typer(vectors, name="vectors")


@app.callback()
def _root() -> None:
    """DO-Conv: compare backends, check ports, fold and convert checkpoints."""


def main() -> None:
    """Entry point of `doconv`."""
    app()
