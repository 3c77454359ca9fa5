"""One port in a process of its own: started, asked, watched, and ended whatever it does."""

from __future__ import annotations

import json
import os
import queue
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from doconv_conformance.protocol import guardian
from doconv_conformance.protocol.said import said

LONGEST_LINE = 2**20
KEPT_ERRORS = 2**14
# How often a waiting suite looks at the port's memory and whether it lives, and how long a dead port's last words may take.
PULSE = 0.2
GRACE = 1.0


class PortCrash(Exception):
    """The port died, or answered what the protocol does not allow; the text says how."""


class PortTimeout(Exception):
    """The port did not answer in time; the text says after how long."""


class Interrupted(Exception):
    """The run was interrupted: nothing is asked any more."""


_alive: weakref.WeakSet[PortProcess] = weakref.WeakSet()
_interrupted = threading.Event()


@contextmanager
def port_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that ask ports, used in a `with` block, whose end waits for them.

    An exception in the block, above all Ctrl-C, first ends every port of this process; a thread that waits for one, or starts
    one, gets `Interrupted`.
    """
    _interrupted.clear()
    with ThreadPoolExecutor(count) as threads:
        try:
            yield threads
        except BaseException:
            _interrupted.set()
            for port in list(_alive):
                port.kill()
            raise


class PortProcess:
    """A port's process.

    Args:
        command: the program and its arguments.
        env: variables added to this process's environment.
        memory_limit: bytes of resident memory, of the program and what it started, after which it is ended.
        folder: removed where this process dies without closing the port.

    Raises:
        PortCrash: the program cannot be started.
        Interrupted: the run was interrupted.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        memory_limit: int = 8 * 2**30,
        folder: str | None = None,
    ) -> None:
        if _interrupted.is_set():
            raise Interrupted("the run was interrupted")
        self.memory_limit = memory_limit
        self._token = secrets.token_hex(16)
        self._answers: queue.Queue[bytes | None] = queue.Queue(maxsize=16)  # a flood fills the pipe, not our memory
        self._asked = "hello"
        self._half = self._errors = b""
        self._ended = threading.Event()
        try:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=os.environ | (env or {}) | {guardian.TOKEN: self._token}, start_new_session=True, bufsize=0,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PortCrash(said(f"cannot start {command[0]!r}: {reason}")) from error
        self._guardian = subprocess.Popen(
            (sys.executable, "-I", "-S", guardian.__file__, self._token, *([folder] if folder else [])),
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        _alive.add(self)
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: PT018
        self._stdin: IO[bytes] = self._process.stdin
        os.set_blocking(self._stdin.fileno(), False)
        self._threads = [
            threading.Thread(target=target, args=(stream,), daemon=True)
            for target, stream in ((self._read, self._process.stdout), (self._read_errors, self._process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request and return the answer, a JSON object.

        Raises:
            PortCrash: the port died, closed its output, used too much memory, or answered something else.
            PortTimeout: it did not read the request and answer it within `timeout` seconds.
            Interrupted: the run was interrupted.
        """
        deadline = time.monotonic() + timeout
        if not self._answers.empty():
            if (line := self._answers.get()) is None:
                raise PortCrash(self._death("closed its output"))
            raise PortCrash(f"wrote a line without being asked, after its answer to {self._asked}: {_shown(line)}")
        self._asked = str(request.get("id", request["type"]))
        try:
            self._send(json.dumps(request).encode() + b"\n", deadline, timeout)
            line = self._wait(deadline, timeout)
        except OSError as error:
            raise PortCrash(self._death("closed its input")) from error
        finally:
            if _interrupted.is_set():
                raise Interrupted("the run was interrupted") from None
        if line is None:
            raise PortCrash(self._death("closed its output"))
        if not line.endswith(b"\n"):
            long = f"a line of more than {LONGEST_LINE} bytes" if len(line) >= LONGEST_LINE else "half a line"
            raise PortCrash(f"answered {long}: {_shown(line)}")
        try:
            answer = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise PortCrash(f"answered what is not JSON: {_shown(line)}") from error
        if not isinstance(answer, dict):
            raise PortCrash(f"answered what is not a JSON object: {_shown(line)}")
        return answer

    def stderr(self) -> str:
        """The last of what the port wrote to stderr, printable line by line."""
        return "\n".join(map(said, self._errors.decode(errors="replace").strip().splitlines()))

    def close(self) -> None:
        """End the port and everything it started: by the end of its input, else by force."""
        with suppress(OSError, subprocess.TimeoutExpired):  # it is ended by force below
            self._stdin.close()
            self._process.wait(timeout=GRACE)
        self.kill()
        self._process.wait()
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=GRACE)
        with suppress(OSError):  # it was killed, too
            self._guardian.communicate(b"cleared up\n")
        _alive.discard(self)

    def kill(self) -> None:
        """End the port and everything it started, in sessions of their own as well, by force."""
        with suppress(ProcessLookupError, PermissionError):  # it may be gone already
            os.killpg(self._process.pid, signal.SIGKILL)
        guardian.kill_carriers(self._token)

    def _send(self, message: bytes, deadline: float, timeout: float) -> None:
        """Write all of it; a port that does not read fills the pipe, and would block a plain write for ever."""
        while message:
            if (remaining := deadline - time.monotonic()) <= 0:
                self.kill()
                raise PortTimeout(f"did not read its input within {timeout:g} s")
            select.select((), (self._stdin,), (), min(remaining, PULSE))
            if _interrupted.is_set():
                return
            with suppress(BlockingIOError):
                message = message[self._stdin.write(message) or 0 :]

    def _read(self, stdout: IO[bytes]) -> None:
        """Lines to the queue: whole ones, else the half at the end of a stream or of the patience with long lines."""
        with stdout:
            while block := os.read(stdout.fileno(), 2**16):
                *lines, self._half = (self._half + block).split(b"\n")
                if len(self._half) >= LONGEST_LINE:
                    lines, self._half = [*lines, self._half], b""
                    self._put(lines[:-1], b"\n")
                    self._put(lines[-1:], b"")
                    break
                self._put(lines, b"\n")
            self._put([self._half] if self._half else [], b"")
        self._put([None], b"")

    def _put(self, lines: Sequence[bytes | None], end: bytes) -> None:
        for line in lines:
            while not self._ended.is_set():
                with suppress(queue.Full):
                    self._answers.put(line if line is None else line + end, timeout=PULSE)
                    break

    def _read_errors(self, stderr: IO[bytes]) -> None:
        with stderr:
            while block := os.read(stderr.fileno(), 2**16):
                self._errors = (self._errors + block)[-KEPT_ERRORS:]

    def _wait(self, deadline: float, timeout: float) -> bytes | None:
        dead_since = None
        while True:
            remaining = deadline - time.monotonic()
            try:
                return self._answers.get(timeout=max(0.0, min(remaining, PULSE)))
            except queue.Empty:
                if _interrupted.is_set():
                    return None
                if remaining <= 0:
                    self.kill()
                    half = f"; half a line came: {_shown(self._half)}" if self._half else ""
                    raise PortTimeout(f"no answer within {timeout:g} s{half}") from None
            if self._process.poll() is not None:  # its children may hold its output open
                dead_since = dead_since or time.monotonic()
                if time.monotonic() - dead_since > GRACE:
                    return None
            used = self._resident_bytes()
            if used > self.memory_limit:
                self.kill()
                limit = self.memory_limit / 2**20
                raise PortCrash(f"used {used / 2**20:.0f} MiB of memory, more than the limit of {limit:.0f} MiB")

    def _resident_bytes(self) -> int:
        """Resident memory of the port and of what it started; 0 where the platform has no /proc."""
        pages = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, IndexError):  # a process may end while we look
                fields = stat.read_text(errors="replace").rsplit(")", 1)[1].split()
                if int(fields[2]) == self._process.pid:
                    pages += int(fields[21])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _death(self, otherwise: str) -> str:
        try:
            code = self._process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            text = otherwise
        else:
            text = f"was ended by {_signal(-code)}" if code < 0 else f"exited with {code}"
            self._threads[1].join(timeout=GRACE)  # its last words
        error = self.stderr().splitlines()
        return f"{text}: {error[-1]}" if error else text


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name of its own
        return f"signal {number}"


def _shown(line: bytes) -> str:
    text = line.rstrip().decode(errors="replace")
    return f"'{said(text if len(text) <= 200 else text[:200] + '...')}'"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
