"""One port in a process of its own: started, asked, watched, and ended whatever it does."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ERROR_LINES = 20


class PortCrash(Exception):
    """The port died, or answered what the protocol does not allow; the text says how."""


class PortTimeout(Exception):
    """The port did not answer in time; the text says after how long."""


class PortProcess:
    """A port's process.

    Args:
        command: the program and its arguments.
        env: variables added to this process's environment.
        memory_limit: bytes of resident memory after which the port is ended.

    Raises:
        PortCrash: the program cannot be started.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, memory_limit: int = 8 * 2**30
    ) -> None:
        self.memory_limit = memory_limit
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # closed by close()
        try:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
                errors="replace", env=os.environ | (env or {}), start_new_session=True, bufsize=1,
            )  # fmt: skip
        except OSError as error:
            self._log.close()
            raise PortCrash(f"cannot start {command[0]!r}: {error.strerror}") from error
        assert self._process.stdin
        assert self._process.stdout
        self._stdin: IO[str] = self._process.stdin
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request and return the answer, a JSON object.

        Raises:
            PortCrash: the port died, closed its output, used too much memory, or answered something else.
            PortTimeout: it did not answer within `timeout` seconds.
        """
        if not self._answers.empty():
            raise PortCrash(f"wrote a line that nobody asked for: {self._answers.get()!r:.200}")
        try:
            self._stdin.write(json.dumps(request) + "\n")
            self._stdin.flush()
        except OSError as error:
            raise PortCrash(self._death("closed its input")) from error
        line = self._wait(timeout)
        if line is None:
            raise PortCrash(self._death("closed its output"))
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise PortCrash(f"answered what is not JSON: {line.rstrip()!r:.200}") from error
        if not isinstance(answer, dict):
            raise PortCrash(f"answered what is not a JSON object: {line.rstrip()!r:.200}")
        return answer

    def stderr(self) -> str:
        """The last lines that the port wrote to stderr."""
        self._log.seek(0)
        return "".join(self._log.readlines()[-ERROR_LINES:]).strip()

    def close(self) -> None:
        """End the port and everything it started: by the end of its input, else by force."""
        with suppress(OSError, subprocess.TimeoutExpired):  # it is ended by force below
            self._stdin.close()
            self._process.wait(timeout=1)
        self._kill()
        self._process.wait()
        self._log.close()

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self._answers.put(line)
        self._answers.put(None)

    def _wait(self, timeout: float) -> str | None:
        deadline = time.monotonic() + timeout
        while True:
            remaining = deadline - time.monotonic()
            try:
                return self._answers.get(timeout=max(0.0, min(remaining, 0.2)))
            except queue.Empty:
                if remaining <= 0:
                    self._kill()
                    raise PortTimeout(f"no answer within {timeout:g} s") from None
            used = self._resident_bytes()
            if used > self.memory_limit:
                self._kill()
                limit = self.memory_limit / 2**20
                raise PortCrash(f"used {used / 2**20:.0f} MiB of memory, more than the limit of {limit:.0f} MiB")

    def _resident_bytes(self) -> int:
        """Resident memory of the port; 0 where the platform has no /proc."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it may be gone already
            os.killpg(self._process.pid, signal.SIGKILL)

    def _death(self, otherwise: str) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            text = otherwise
        else:
            text = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        error = self.stderr().splitlines()
        return f"{text}: {error[-1]}" if error else text
