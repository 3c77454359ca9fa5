"""`doconv fold`: a checkpoint with every DO-Conv layer folded, without a framework."""

from __future__ import annotations

from typing import Annotated

import typer

from doconv_conformance.cli.files import (
    Choice,
    Dialect,
    Ema,
    Exclude,
    Input,
    KernelSize,
    Key,
    Like,
    Output,
    Prefix,
    Transposed,
    check_output,
    failing,
    hints_from,
    open_input,
    progress_bar,
    report,
)
from doconv_conformance.counting import counted


def fold(
    source: Input,
    target: Output,
    dialect: Dialect = None,
    kernel_size: KernelSize = None,
    transposed: Transposed = None,
    like: Like = None,
    exclude: Exclude = None,
    prefix: Prefix = None,
    key: Key = None,
    ema: Ema = False,
    names: Annotated[
        str,
        typer.Option(
            help="The name of folded kernels: plain (weight, kernel), or W, which some evaluation models read."
        ),
    ] = "plain",
) -> None:
    """Fold the DO-Conv layers of a checkpoint: OUT is the plain model's, in the layout of IN.

    Everything else is passed on byte for byte. A file without this project's metadata does not say its kernel sizes: squares
    are assumed, and reported, unless --kernel-size or --like says otherwise.

    Exit status: 0 done, 1 a file that is bad or cannot be written, 2 unusable arguments.
    """
    from doconv_core.checkpoint import fold_file

    with failing("fold"):
        if names not in ("plain", "W"):
            raise typer.BadParameter(f"--names must be plain or W. Received: {names}")
        hints = hints_from(kernel_size, transposed, like=like, exclude=exclude, prefix=prefix)
        with open_input(source, Choice(dialect, key, ema), hints) as checkpoint:
            check_output(source, target, reads=[like])
            with progress_bar("fold") as progress:
                done = fold_file(checkpoint, target, names=names, progress=progress)
        report(done, target, f"{counted(len(done.folded), 'layer')} folded, {counted(done.passed, 'tensor')} passed on")
