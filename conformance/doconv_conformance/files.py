"""Files of reports: checked before any work, written under a temporary name and renamed.

What is there and no regular file (a pipe, `/dev/stdout`) is written to; a link is followed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def check_writable(*paths: Path | None) -> None:
    """Raise before any work if a file could not be written to one of `paths`; None stands for no file.

    Raises:
        ValueError: the folder does not exist or takes no files, the path is a folder, or two paths are the same file.
    """
    seen: dict[Path, Path] = {}
    for path in filter(None, paths):
        if (first := seen.setdefault(_followed(path), path)) is not path:
            raise ValueError(f"two reports must not go to the same file. Received: {first} and {path}")
        if not path.parent.is_dir():
            raise ValueError(f"the folder of {path} does not exist")
        if path.is_dir():
            raise ValueError(f"the report must be a file. Received the folder: {path}")
        if is_special(path):
            continue
        if not os.access(path.parent, os.W_OK):
            raise ValueError(f"the folder of {path} cannot be written to")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it at the end: an interrupted run leaves the old file, and its mode stays.

    Where `path` is a pipe or a device, the finished file is copied to it.
    """
    special = is_special(path)
    path = path if special else _followed(path)
    folder = Path(tempfile.gettempdir()) if special else path.parent
    temporary = folder / f".{os.getpid()}-{path.name}"
    try:
        yield temporary
        if special:
            with temporary.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
            return
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; what UTF-8 cannot hold is written as an escape."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _followed(path: Path) -> Path:
    return path.resolve() if path.parent.is_dir() else path.absolute()


def is_special(path: Path) -> bool:
    """Whether there is something at `path` that is neither a file nor a folder: a pipe, a device."""
    return path.exists() and not path.is_file() and not path.is_dir()
