"""Files that anyone may have made, against every reader: `python -m doconv_conformance.maintenance.fuzz`.

Each seed makes one file: a valid one of some kind, changed where its structure makes it likely to matter. Whatever it is, it
is read and used, or refused by the error that its reader documents; in less than ten seconds and a gigabyte.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from doconv_conformance.maintenance.fuzz_readers import KINDS

try:
    import resource
except ImportError:  # Windows: what takes too long or too much memory is not stopped there
    resource = None  # type: ignore[assignment]

SECONDS = 10
MEMORY = 2**30
AT_MOST = 8 * MEMORY  # of address space: what would be larger is refused by the system, and shows as a MemoryError
CHUNK = 10_000  # seeds of one process


@dataclass(frozen=True)
class Failure:
    """A file that was neither read nor refused."""

    seed: int
    kind: str
    error: str


class TooMuch(BaseException):
    """A file that took too long, or too much memory; no reader takes it for a fault of the file."""


def fuzz(seeds: Iterable[int], folder: Path, kinds: Iterable[str] = tuple(KINDS)) -> tuple[list[Failure], int]:
    """Make and check the file of each seed in `folder`; the kinds take turns.

    Returns:
        What failed, and how many of the files could be opened.
    """
    names, failures, opened = list(kinds), list[Failure](), 0
    logging.getLogger("doconv").setLevel(logging.ERROR)
    for name in names:
        (folder / name).mkdir()
        KINDS[name].prepare(folder / name)
    with _Limits() as limits:
        for seed in seeds:
            rng = random.Random(seed)
            name = names[seed % len(names)]
            kind = KINDS[name]
            path = folder / name / kind.name
            path.write_bytes(kind.make(rng))
            try:
                with limits.of_one_file(), warnings.catch_warnings():
                    warnings.simplefilter("error", np.exceptions.ComplexWarning)  # half of a value lost
                    warnings.simplefilter("ignore", UserWarning)  # PyTorch's
                    opened += kind.check(path, rng)
            except (Exception, TooMuch) as error:
                failures.append(Failure(seed, name, "".join(traceback.format_exception(error)[-3:]).strip()))
    return failures, opened


class _Limits:
    """Stop what takes too long, and what takes more memory than the machine has. Used in a `with` block around many files."""

    def __enter__(self) -> _Limits:
        if resource is not None:
            self._alarm = signal.signal(signal.SIGALRM, self._stop)
            self._address_space = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + AT_MOST, self._address_space[1]))
            self._watched = -math.inf
            self._before = _peak(reset=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if resource is not None:
            faulthandler.cancel_dump_traceback_later()
            resource.setrlimit(resource.RLIMIT_AS, self._address_space)
            signal.signal(signal.SIGALRM, self._alarm)

    @contextmanager
    def of_one_file(self) -> Iterator[None]:
        """What is done with one file.

        Raises:
            TooMuch: more than `SECONDS`, or at the peak more than `MEMORY` beyond what there was before the first file.
        """
        if resource is None:
            yield
            return
        if time.monotonic() > self._watched + SECONDS:  # a library that never comes back to Python; it costs a thread
            faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
            self._watched = time.monotonic()
        signal.alarm(SECONDS)
        try:
            yield
        finally:
            signal.alarm(0)
        if (peak := _peak() - self._before) > MEMORY:
            self._before = _peak(reset=True)
            raise TooMuch(f"{peak} bytes of memory")

    @staticmethod
    def _stop(*_: object) -> None:
        raise TooMuch(f"more than {SECONDS} s")


def _peak(*, reset: bool = False) -> int:
    """The most memory that this process has had in use, in bytes, since it was last reset; only Linux can reset it."""
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)


def _address_space() -> int:
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 2**36


def main() -> None:
    """Check `--count` seeds from `--start` on, `--jobs` processes at a time; exit status 1 for a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    known = [name for name, kind in KINDS.items() if find_spec(kind.needs)]
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=known)
    options = parser.parse_args()
    if options.count > CHUNK:
        sys.exit(_run_chunks(options))
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as folder:
        seeds = range(options.start, options.start + options.count)
        failures, opened = fuzz(seeds, Path(folder), options.kinds)
    for failure in failures:
        print(f"seed {failure.seed}, {failure.kind}:\n{failure.error}", flush=True)
    print(
        f"seeds from {options.start}: {options.count} files, {opened} could be opened, {len(failures)} failures",
        flush=True,
    )
    sys.exit(bool(failures))


def _run_chunks(options: argparse.Namespace) -> int:
    """Each chunk of seeds in a process of its own: a library that crashes takes no more than that along."""
    command = [sys.executable, "-m", "doconv_conformance.maintenance.fuzz", "--kinds", *options.kinds]
    end = options.start + options.count
    starts = iter(range(options.start, end, CHUNK))
    running: list[tuple[int, subprocess.Popen[bytes]]] = []
    failed = 0
    while True:
        while len(running) < options.jobs and (start := next(starts, None)) is not None:
            count = min(CHUNK, end - start)
            running.append((start, subprocess.Popen([*command, "--start", str(start), "--count", str(count)])))
        if not running:
            break
        start, process = running.pop(0)
        if process.wait():
            failed += 1
            print(f"the seeds from {start} on ended with status {process.returncode}", flush=True)
    print(f"{options.count} files, {failed} of {-(-options.count // CHUNK)} chunks failed")
    return int(failed > 0)


if __name__ == "__main__":
    main()
