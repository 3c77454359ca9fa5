"""What ends a port and all that it started, even where the suite itself is killed.

Every process that a port starts inherits a token in its environment, children in sessions of their own included.
`python guardian.py TOKEN [FOLDER]` waits for the end of its standard input. Where that comes without a word, the suite is gone:
then whatever carries the token is killed, and the folder removed. It imports only what starts in milliseconds.
"""

import os
import signal
import sys
import time

TOKEN = "DOCONV_PORT"
ATTEMPTS = 20


def carriers(token: str) -> list[int]:
    """The processes that carry a token, as far as this platform shows (Linux)."""
    mark, found = f"{TOKEN}={token}".encode(), list[int]()
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:  # gone, or another user's
                continue
    return found


def kill_carriers(token: str) -> None:
    """Kill them until none is left: while we look they may start others."""
    for _ in range(ATTEMPTS):
        found = carriers(token)
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                continue
        if not found:
            return
        time.sleep(0.01)  # a killed process stays listed until it is gone


def main() -> None:
    token, *folders = sys.argv[1:]
    if sys.stdin.buffer.read():  # the suite has cleared up itself
        return
    kill_carriers(token)
    for folder in folders:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
