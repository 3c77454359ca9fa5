"""`doconv convert`: a checkpoint in another layout, without a framework."""

from __future__ import annotations

from typing import Annotated

import typer

from doconv_conformance.cli.files import (
    Choice,
    Dialect,
    Ema,
    Embedding,
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

LAYOUTS = ("canonical", "torch", "keras", "flax")


def convert(
    source: Input,
    target: Output,
    to: Annotated[str, typer.Option(help="The layout: canonical (the portable checkpoint), torch, keras or flax.")],
    dialect: Dialect = None,
    kernel_size: KernelSize = None,
    transposed: Transposed = None,
    embedding: Embedding = None,
    like: Like = None,
    exclude: Exclude = None,
    prefix: Prefix = None,
    key: Key = None,
    ema: Ema = False,
) -> None:
    """Convert a checkpoint to the names and layouts of a framework; nothing is folded.

    Some grouped layers of the authors' PyTorch file pair kernels with rows of D in a way that no layer here has: these are
    folded, over-parameterized again, and listed.

    Exit status: 0 done, 1 a file that is bad or cannot be written, 2 unusable arguments.
    """
    from doconv_core.checkpoint import convert_file

    with failing("convert"):
        if to not in LAYOUTS:
            raise typer.BadParameter(f"--to must be one of {', '.join(LAYOUTS)}. Received: {to}")
        hints = hints_from(kernel_size, transposed, embedding, like, exclude, prefix)
        with open_input(source, Choice(dialect, key, ema), hints) as checkpoint:
            check_output(source, target, reads=[like])
            with progress_bar("convert") as progress:
                done = convert_file(checkpoint, target, to, progress=progress)
            layers = len(checkpoint.layers)
        report(done, target, f"{counted(layers, 'layer')} written as {to}, {counted(done.passed, 'tensor')} passed on")
