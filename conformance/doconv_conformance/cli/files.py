"""What the commands for checkpoints share: their options, opening the input, progress and errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doconv_conformance.cli.reports import or_stdout
from doconv_conformance.counting import counted
from doconv_conformance.escaping import printable

if TYPE_CHECKING:
    from doconv_core.checkpoint import Checkpoint, Hints, Written
    from doconv_core.checkpoint._sources import Source

Input = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="A .safetensors file, a .pth (with PyTorch installed), the .safetensors.index.json or .bin.index.json of several, "
        "NumPy's .npz, or the authors' TensorFlow .h5.",
    ),
]
Output = Annotated[
    Path,
    typer.Argument(
        metavar="OUT",
        callback=or_stdout,
        help="The .safetensors file to write, or a .safetensors.index.json where IN is an index; replaced once complete. "
        "- is the standard output.",
    ),
]
READING = "Reading the checkpoint"  # the heading in `--help`
Dialect = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=READING,
        help="Who wrote the file: original-torch or original-tf for the authors' code; default: this project.",
    ),
]
KernelSize = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN=MxN",
        rich_help_panel=READING,
        help="Kernel size of the layers that a glob pattern matches.",
    ),
]
Transposed = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", rich_help_panel=READING, help="Transposed convolutions, by a glob pattern."),
]
Embedding = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", rich_help_panel=READING, help="Embeddings, which otherwise count as linear layers."
    ),
]
Like = Annotated[
    Path | None, typer.Option(rich_help_panel=READING, help="A file of the plain model, to take kernel sizes from.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", rich_help_panel=READING, help="Layers that are not doconv's, passed on as they are."
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=READING,
        help="A prefix to drop from names, such as model. or net.; module. and _orig_mod. are always dropped.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=READING,
        help="Where a .pth has its state dict, such as ckpt.model; the usual places are searched.",
    ),
]
Ema = Annotated[
    bool,
    typer.Option("--ema", rich_help_panel=READING, help="Take the average of the weights that is beside them."),
]

LONGEST_LINE, LONGEST_CELL = 2000, 300


@dataclass(frozen=True)
class Choice:
    """Which of the weights of a file to use."""

    dialect: str | None = None
    key: str | None = None
    ema: bool = False


@contextmanager
def failing(command: str) -> Iterator[None]:
    """One line on stderr and exit status 2 for unusable arguments, 1 for a file that is bad or cannot be written."""
    from doconv_core.checkpoint import CheckpointError

    try:
        yield
        sys.stdout.flush()
    except typer.BadParameter as error:
        raise _ending(f"doconv {command}: {error.message}", 2) from None
    except BrokenPipeError:
        raise _ending("", 1) from None  # `| head` has seen enough
    except MemoryError as error:
        raise _ending(f"doconv {command}: out of memory: {error}", 1) from None
    except (CheckpointError, OSError, ImportError) as error:
        raise _ending(f"doconv {command}: {error}", 1) from None


def _ending(text: str, status: int) -> typer.Exit:
    if text:
        with suppress(OSError):
            say(text, err=True)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again at its end, and say so in its own words
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return typer.Exit(status)


def say(text: str, *, err: bool = False) -> None:
    """A line on the terminal; names come from files that we did not write, and may have a megabyte."""
    typer.echo(printable(text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}…"), err=err)


def table_cell(text: str) -> str:
    """A name from a file as a cell of a table."""
    from rich.markup import escape

    return escape(printable(text[:LONGEST_CELL]))


def open_input(path: Path, choice: Choice, hints: Hints) -> Checkpoint:
    """Open IN.

    Raises:
        typer.BadParameter: there is no such file, or no such dialect.
        CheckpointError, OSError, ImportError: it cannot be read.
    """
    from doconv_conformance.cli.pickles import SUFFIXES, load_pickle, load_shards
    from doconv_core.checkpoint import Checkpoint, find_average, open_checkpoint
    from doconv_core.checkpoint._checkpoint import naming_the_index
    from doconv_core.checkpoint._shards import PICKLED_INDEX
    from doconv_core.checkpoint._sources import BY_KERAS, unread

    if help := unread(path):
        raise typer.BadParameter(help)
    if not path.is_file():
        kind = "is read in parts, so it must be a file" if path.exists() else "does not exist"
        raise typer.BadParameter(f"there is no file {path}: IN {kind}")
    if choice.dialect not in (None, "original-torch", "original-tf"):
        raise typer.BadParameter(f"--dialect must be original-torch or original-tf. Received: {choice.dialect}")
    if path.suffix.lower() in (".h5", ".hdf5") and choice.dialect != "original-tf":
        raise typer.BadParameter(
            f"{path} is read as the authors' only, by --dialect original-tf; any other of Keras: {BY_KERAS}. "
            f"Received: {choice.dialect}"
        )
    if path.suffix.lower() in SUFFIXES:
        arrays, chosen = load_pickle(path, key=choice.key, ema=choice.ema)
        with naming_the_index(path):
            checkpoint = Checkpoint(arrays, str(path), dialect=choice.dialect, hints=hints)
        checkpoint.add_notes(*chosen)
        return checkpoint
    if choice.key is not None:
        raise typer.BadParameter(f"--key is for a .pth, whose dicts have keys. Received: {path}")
    if path.name.endswith(PICKLED_INDEX):
        shards, chosen = load_shards(path)
        source, more = find_average(shards, str(path)) if choice.ema else (shards, [])
        checkpoint = Checkpoint(source, str(path), dialect=choice.dialect, hints=hints)
        checkpoint.add_notes(*chosen, *more)
        return checkpoint
    return open_checkpoint(path, dialect=choice.dialect, hints=hints, ema=choice.ema)


def check_output(source: Path, target: Path, *, reads: Sequence[Path | None] = ()) -> None:
    """Raise before any work where OUT cannot be written, is a file that is read, or says another format than it will have.

    Raises:
        typer.BadParameter: no such folder, a folder itself, a file that is read, or another format's name.
    """
    from doconv_core.checkpoint._writer import name_of_another_format
    from doconv_core.outputs import is_stream, same_file

    shards = list[Path]()
    if target.is_dir():
        raise typer.BadParameter(f"{target} is a folder")
    if not is_stream(target):
        if not target.parent.is_dir():
            raise typer.BadParameter(f"the folder of {target} does not exist")
        if target.name.endswith(".safetensors.index.json"):
            shards = _shards(source, target)
        elif text := name_of_another_format(target):
            raise typer.BadParameter(f"OUT {text}")
    inputs = [source, *_shards_read(source), *(path for path in reads if path is not None)]
    for output in (target, *shards):
        for path in inputs:
            if same_file(output, path) and path == source:
                raise typer.BadParameter(f"OUT is the same file as IN, which would lose W and D. Received: {target}")
            if same_file(output, path):
                raise typer.BadParameter(f"{output} would replace a file that is read. Received: {target}")


def _shards_read(source: Path) -> list[Path]:
    from doconv_core.checkpoint import listed_shards

    return listed_shards(source) if source.name.endswith(".index.json") else []


def _shards(source: Path, target: Path) -> list[Path]:
    from doconv_core.checkpoint import shard_paths

    if not source.name.endswith(".index.json"):
        raise typer.BadParameter(f"OUT must be one file, not an index, where IN is one file. Received: {target.name}")
    return shard_paths(target, len(_shards_read(source)))


def hints_from(
    kernel_size: Sequence[str] | None,
    transposed: Sequence[str] | None,
    embedding: Sequence[str] | None = None,
    like: Path | None = None,
    exclude: Sequence[str] | None = None,
    prefix: str | None = None,
) -> Hints:
    """The options as `Hints`.

    Raises:
        typer.BadParameter: not PATTERN=MxN, or there is no file to be like.
        CheckpointError: that file is no checkpoint.
    """
    from doconv_core.checkpoint import Hints

    sizes: dict[str, tuple[int, ...]] = {}
    for option in kernel_size or ():
        pattern, _, size = option.rpartition("=")
        try:
            sizes[pattern] = tuple(int(part) for part in size.split("x"))
        except ValueError:
            pattern = ""
        if not pattern:
            raise typer.BadParameter(f"--kernel-size must be PATTERN=MxN, like 'stem.*=3x2'. Received: {option}")
    shapes = _plain_shapes(like) if like is not None else {}
    return Hints(sizes, tuple(transposed or ()), tuple(embedding or ()), shapes, tuple(exclude or ()), prefix)


def _plain_shapes(like: Path) -> dict[str, tuple[int, ...]]:
    from doconv_conformance.cli.pickles import SUFFIXES, load_pickle, load_shards
    from doconv_core.checkpoint import CheckpointError, open_source
    from doconv_core.checkpoint._shards import PICKLED_INDEX

    if not like.is_file():
        raise typer.BadParameter(f"there is no file {like}")
    if like.name.endswith(PICKLED_INDEX):
        source: Source = load_shards(like)[0]
    else:
        source = load_pickle(like)[0] if like.suffix.lower() in SUFFIXES else open_source(like)
    shapes = dict(source.shapes)
    source.close()
    if not shapes:
        raise CheckpointError(f"{like} has no tensors. Received: a plain model without layers")
    return shapes


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def takes_stdout(*outputs: Path | None) -> bool:
    """Whether one of the files to write is the standard output, so that words belong on the other stream."""
    for output in outputs:
        with suppress(OSError, ValueError):
            told_apart = output is None or os.fspath(output) == os.devnull
            if not told_apart and os.path.samestat(os.stat(output), os.fstat(sys.stdout.fileno())):  # type: ignore[arg-type]
                return True
    return False


def report(done: Written, target: Path, first: str) -> None:
    """What was done, what was assumed, and what was written."""
    err = takes_stdout(target)
    say(first, err=err)
    for note in done.notes:
        say(f"note: {note}", err=err)
    for path in done.refolded:
        say(
            f"note: {path}: folded and over-parameterized afresh: its groups pair with D as no layer here does", err=err
        )
    say(f"{target}: {counted(done.bytes, 'byte')}", err=err)
