"""Two processes of JAX with four devices each, which find each other by a port."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOUR_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}


def outputs_of_two(module: str, folder: Path, *, timeout: float, env: Mapping[str, str] | None = None) -> list[str]:
    """What two processes print that run `module NUMBER PORT folder`; both must end well."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    paths = [folder / f"output-{number}" for number in "01"]  # files: a pipe that nobody reads would fill
    runs = []
    try:
        for number, path in enumerate(paths):
            command = [sys.executable, "-m", module, str(number), port, str(folder)]
            with path.open("w") as output:
                runs.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | FOUR_DEVICES | (env or {}),
                                             stdout=output, stderr=output))  # fmt: skip
        codes = [run.wait(timeout=timeout) for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    outputs = [path.read_text() for path in paths]
    assert codes == [0, 0], "\n".join(output[-3000:] for output in outputs)
    return outputs
