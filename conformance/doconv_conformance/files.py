"""Files of reports: checked before any work, written under a temporary name and renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from doconv_core.outputs import Output, is_stream, naming, same_file


def check_writable(*paths: Path | None, inputs: Sequence[Path | None] = ()) -> None:
    """Raise before any work if a file could not be written to one of `paths`, or would take the place of another one.

    Args:
        paths: the files to write; None stands for no file.
        inputs: the files that the same command reads.

    Raises:
        ValueError: the folder does not exist or takes no files, the path is a folder, or an input, or given twice.
    """
    outputs = [path for path in paths if path is not None]
    for path in outputs:
        _check_place(path)
        for source in inputs:
            if source is not None and same_file(path, source):
                raise ValueError(f"{path} is a file that is read, and would be lost")
    for first, second in combinations(outputs, 2):
        if same_file(first, second):
            raise ValueError(f"two outputs have the same path. Received: {first} and {second}")


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"the report must be a file. Received the folder: {path}")
    if is_stream(path):
        return
    if not path.parent.is_dir():
        raise ValueError(f"the folder of {path} does not exist")
    if not os.access(Path(os.path.realpath(path)).parent, os.W_OK):
        raise ValueError(f"the folder of {path} cannot be written to")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name with the ending of `path`, renamed to it at the end: an interrupted run leaves the old file."""
    with Output(path) as output:
        if not output.is_stream:
            with naming(path):
                yield output.partial
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"report{path.suffix}"
            yield copy
            output.put(copy.read_bytes())


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with Output(path) as output:
        output.put(text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def insert_between(text: str, inserted: str, begin: str, end: str) -> str:
    """`text` with what stands between its markers replaced, each marker on a line of its own.

    Raises:
        ValueError: they are not there.
    """
    for marker in (begin, end):
        if marker not in text:
            raise ValueError(f"no table between {begin} and {end}: the page has no {marker}")
    return f"{text.split(begin)[0]}{begin}\n{inserted}\n{end}{text.split(end)[1]}"
