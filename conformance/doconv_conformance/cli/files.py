"""What the commands for checkpoints share: their options, opening the input, progress and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from doconv_core.checkpoint import Checkpoint, Hints, Written

Input = Annotated[Path, typer.Argument(metavar="IN", help="A .safetensors file; the authors' TensorFlow .h5 or .npz.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write; replaced once complete.")]
Dialect = Annotated[
    str | None, typer.Option(help="Whose file: original-torch or original-tf for the authors'; else this project's.")
]
KernelSize = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN=MxN", help="Kernel size of the layers that a glob pattern matches.")
]
Transposed = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Transposed convolutions, by a glob pattern.")
]
Embedding = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Embeddings, which else count as linear layers.")
]
Like = Annotated[Path | None, typer.Option(help="A file of the plain model, to take kernel sizes from.")]


@contextmanager
def failing(command: str) -> Iterator[None]:
    """One line on stderr and exit status 2 for unusable arguments, 1 for a file that is bad or cannot be written."""
    from doconv_core.checkpoint import CheckpointError

    try:
        yield
    except typer.BadParameter as error:
        typer.echo(f"doconv {command}: {error.message}", err=True)
        raise typer.Exit(2) from None
    except CheckpointError as error:
        typer.echo(f"doconv {command}: {error}", err=True)
        raise typer.Exit(1) from None
    except (OSError, ImportError) as error:
        typer.echo(f"doconv {command}: {error}", err=True)
        raise typer.Exit(1) from None


def open_input(path: Path, dialect: str | None, hints: Hints) -> Checkpoint:
    """Open IN.

    Raises:
        typer.BadParameter: there is no such file, or no such dialect.
        CheckpointError, OSError: it cannot be read.
    """
    from doconv_core.checkpoint import open_checkpoint

    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}")
    if dialect not in (None, "original-torch", "original-tf"):
        raise typer.BadParameter(f"--dialect must be original-torch or original-tf. Received: {dialect}")
    if path.suffix in (".h5", ".hdf5", ".npz") and dialect != "original-tf":
        raise typer.BadParameter(f"{path} is read as the authors' only: --dialect original-tf. Received: {dialect}")
    return open_checkpoint(path, dialect=dialect, hints=hints)


def check_output(source: Path, target: Path) -> None:
    """Raise before any work where OUT cannot be written, or is IN.

    Raises:
        typer.BadParameter: no such folder, a folder itself, or the same file.
    """
    if not target.parent.is_dir():
        raise typer.BadParameter(f"the folder of {target} does not exist")
    if target.is_dir():
        raise typer.BadParameter(f"{target} is a folder")
    if target.exists() and target.samefile(source):
        raise typer.BadParameter(f"OUT is the same file as IN, which would lose W and D. Received: {target}")


def hints_from(
    kernel_size: Sequence[str] | None,
    transposed: Sequence[str] | None,
    embedding: Sequence[str] | None = None,
    like: Path | None = None,
) -> Hints:
    """The options as `Hints`.

    Raises:
        typer.BadParameter: not PATTERN=MxN, or there is no file to be like.
        CheckpointError: that file is no checkpoint.
    """
    from doconv_core.checkpoint import Hints, TensorFile

    sizes: dict[str, tuple[int, ...]] = {}
    for option in kernel_size or ():
        pattern, _, size = option.rpartition("=")
        try:
            sizes[pattern] = tuple(int(part) for part in size.split("x"))
        except ValueError:
            pattern = ""
        if not pattern:
            raise typer.BadParameter(f"--kernel-size must be PATTERN=MxN, like 'stem.*=3x2'. Received: {option}")
    shapes = {}
    if like is not None:
        if not like.is_file():
            raise typer.BadParameter(f"there is no file {like}")
        with TensorFile(like) as file:
            shapes = file.shapes
    return Hints(sizes, tuple(transposed or ()), tuple(embedding or ()), shapes)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def report(done: Written, target: Path) -> None:
    """What was assumed, and what was written."""
    for note in done.notes:
        typer.echo(f"note: {note}")
    for path in done.refolded:
        typer.echo(f"note: {path}: folded and over-parameterized afresh: its groups pair with D as no layer here does")
    typer.echo(f"{target}: {done.bytes} bytes")
