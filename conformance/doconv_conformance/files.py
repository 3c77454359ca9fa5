"""Files of reports: checked before any work, written under a temporary name and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def check_writable(*paths: Path | None) -> None:
    """Raise before any work if a file could not be written to one of `paths`; None stands for no file.

    Raises:
        ValueError: the folder does not exist or takes no files, or the path is a folder.
    """
    for path in paths:
        if path is None:
            continue
        if not path.parent.is_dir():
            raise ValueError(f"the folder of {path} does not exist")
        if path.is_dir():
            raise ValueError(f"the report must be a file. Received the folder: {path}")
        if not os.access(path.parent, os.W_OK):
            raise ValueError(f"the folder of {path} cannot be written to")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it at the end: an interrupted run leaves the old file."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
