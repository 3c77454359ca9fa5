"""`doconv fold`: a checkpoint with every DO-Conv layer folded, without a framework."""

from __future__ import annotations

import typer

from doconv_conformance.cli.files import (
    Dialect,
    Input,
    KernelSize,
    Like,
    Output,
    Transposed,
    check_output,
    failing,
    hints_from,
    open_input,
    progress_bar,
    report,
)


def fold(
    source: Input,
    target: Output,
    dialect: Dialect = None,
    kernel_size: KernelSize = None,
    transposed: Transposed = None,
    like: Like = None,
) -> None:
    """Fold the DO-Conv layers of a checkpoint: OUT is the plain model's, in the layout of IN.

    Everything else is passed on byte for byte. A file without this project's metadata does not say its kernel sizes: squares
    are assumed, and reported, unless --kernel-size or --like tells.

    Exit status: 0 done, 1 a file that is bad or cannot be written, 2 unusable arguments.
    """
    from doconv_core.checkpoint import fold_file

    with failing("fold"):
        hints = hints_from(kernel_size, transposed, like=like)
        with open_input(source, dialect, hints) as checkpoint:
            check_output(source, target)
            with progress_bar("fold") as progress:
                done = fold_file(checkpoint, target, progress=progress)
        typer.echo(f"{len(done.folded)} layers folded, {done.passed} tensors passed on")
        report(done, target)
