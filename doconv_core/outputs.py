"""Files written whole or not at all: under a temporary name beside the target, which is renamed once it is complete.

What is no regular file (a pipe, a terminal, `/dev/null`) cannot be replaced and is written to.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: a temporary file of an ended run stays until it is removed by hand
    fcntl = None  # type: ignore[assignment]

LONGEST_NAME = 200  # bytes of the target's name that a temporary name repeats; file systems allow 255 in all
SYSTEM = ("/dev/", "/proc/")  # names that stand for open files, even where those are regular ones


class Output:
    """One file to write, used in a `with` block; `path` is replaced at its end.

    On an exception, a full disk included, nothing is left and an old `path` is untouched. The temporary file of a run that was
    killed is removed by the next one that writes the same `path`: only files that bear such a name and that no process holds.
    Permissions of an old file are kept, and its owner where the system allows it.

    Args:
        path: the file to write or replace; a symbolic link is followed.
        size: the bytes that will be written, as far as known.

    Attributes:
        path: where the links lead.
        is_stream: whether `path` is written to, and not replaced.
        partial: the file that takes the bytes until then.
        file: it, open for writing without a buffer; `put` writes all.

    Raises:
        OSError: the folder does not exist or is not writable, or the disk is too small.
    """

    file: FileIO
    partial: Path

    def __init__(self, path: str | os.PathLike[str], size: int = 0) -> None:
        self.is_stream = is_stream(path)
        self.path, self.size = Path(path if self.is_stream else os.path.realpath(path)), size

    def __enter__(self) -> Output:
        if self.is_stream:
            self.partial, self.file = self.path, FileIO(self.path, "w")
            return self
        _remove_stale(self.path)
        free = shutil.disk_usage(self.path.parent).free
        if free < self.size:
            raise OSError(errno.ENOSPC, f"the disk has {free} bytes free, {self.size} are needed", str(self.path))
        self.file, self.partial = _open_partial(self.path)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            if kind is None:
                self.sync()
                self.publish()
        finally:
            self.discard()  # nothing is left of what is not published

    def put(self, data: bytes | memoryview) -> None:
        """Write all of `data`, however little the system takes at a time.

        Raises:
            OSError: it cannot be written.
        """
        view = memoryview(data)
        with naming(self.path):
            while view.nbytes:
                view = view[self.file.write(view) or 0 :]

    def sync(self) -> None:
        """Put the bytes on the disk, before several files are published one after the other.

        Raises:
            OSError: they cannot be written.
        """
        if not self.is_stream:
            with naming(self.path):
                os.fsync(self.file.fileno())
            _keep_owner_and_mode(self.path, self.partial)

    def publish(self) -> None:
        """Give the file its name.

        Raises:
            OSError: the system refuses it, as where `path` is a folder.
        """
        if self.is_stream:
            return
        if fcntl is None:
            self.file.close()  # Windows renames no open file
        os.replace(self.partial, self.path)
        with suppress(OSError):  # not every system can sync a folder
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Close the file, and leave nothing behind of what was not published."""
        self.file.close()
        if not self.is_stream:
            self.partial.unlink(missing_ok=True)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an error of the system that names no file name `path`: of a write or a sync the system knows a number only."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether writing to `path` means to write to what is there: a pipe, a device, an open file by its system's name."""
    if os.path.abspath(path).startswith(SYSTEM):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file, be it there or not."""
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def _open_partial(path: Path) -> tuple[FileIO, Path]:
    """A new file beside `path`, locked for as long as this process writes it."""
    while True:
        partial = path.with_name(f".doconv-{secrets.token_hex(8)}-{_repeated_name(path)}")
        file = FileIO(partial, "x")
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if partial.exists():
            return file, partial
        file.close()  # another run took it for a stale one before it was locked


def _repeated_name(path: Path) -> str:
    """The end of a temporary name: that of the target, so that a person and a library that looks at it know what it is."""
    name = os.fsencode(path.name)
    return path.name if len(name) <= LONGEST_NAME else hashlib.sha256(name).hexdigest()[:32] + path.suffix[:20]


def _remove_stale(path: Path) -> None:
    """Remove the temporary files of runs that ended without removing them: nobody holds their lock."""
    if fcntl is None:
        return
    ours = re.compile(rf"\.doconv-[0-9a-f]{{16}}-{re.escape(_repeated_name(path))}")
    with suppress(OSError):
        for entry in os.scandir(path.parent):
            if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), Path(entry.path).open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def _keep_owner_and_mode(old: Path, new: Path) -> None:
    try:
        known = old.stat()
    except FileNotFoundError:
        return
    if hasattr(os, "chown") and (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(OSError):  # only root gives files away
            os.chown(new, known.st_uid, known.st_gid)
    new.chmod(stat.S_IMODE(known.st_mode))
