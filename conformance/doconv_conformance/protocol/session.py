"""A conversation with one port: hello, one request after the other, and its files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from doconv_conformance.port import PROTOCOL
from doconv_conformance.protocol.process import Interrupted, PortCrash, PortProcess, PortTimeout
from doconv_conformance.protocol.said import said, said_json
from doconv_conformance.protocol.schemas import problem
from doconv_core.geometry import ConvGeometry

# Free room that a request wants in memory: times its inputs, and beside them; elsewhere there is a disk.
ROOM, SPARE = 4, 2**20


@dataclass(frozen=True)
class Backend:
    """A port that can be run: its name, its command, what its environment needs, and what installs it."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    install: str = ""


class PortSession:
    """A port with its folder of tensors: asks one operation at a time and starts the port again after a crash.

    Args:
        backend: the port.
        folder: where inputs and outputs go; kept if given, else temporary (in memory where the platform has /dev/shm).
        timeout: seconds for one answer.
        start_timeout: seconds until the port has said hello.
        memory_limit: bytes of resident memory after which the port is ended.

    Raises:
        PortCrash, PortTimeout: the port does not start, or does not say hello as the protocol wants.
    """

    def __init__(
        self,
        backend: Backend,
        folder: Path | None = None,
        *,
        timeout: float = 60.0,
        start_timeout: float = 180.0,
        memory_limit: int = 8 * 2**30,
    ) -> None:
        self.backend, self.timeout, self.start_timeout = backend, timeout, start_timeout
        self.memory_limit = memory_limit
        self._temporary = None if folder else tempfile.mkdtemp(prefix="doconv-", dir=_memory_folder())
        self.folder = folder or Path(self._temporary or "")
        self._process: PortProcess | None = None
        try:
            self.hello = self._start()
        except (PortCrash, PortTimeout, Interrupted):
            self.close()
            raise

    def run(
        self,
        name: str,
        operation: str,
        geometry: ConvGeometry,
        dtype: str,
        param_dtype: str,
        inputs: Mapping[str, np.ndarray],
    ) -> tuple[str, str, dict[str, np.ndarray]]:
        """Ask for one operation; returns `(status, reason, outputs)`.

        The files are `<folder>/<name>/<operation>.{inputs,outputs}.safetensors`. An answer "ok" without a file of outputs that
        can be read comes back as "error" with the reason.

        Raises:
            PortCrash, PortTimeout, Interrupted: as `PortProcess.ask`; the port starts again with the next call.
            OSError: the suite cannot write the inputs.
        """
        if self._process is None:
            self._start()
        assert self._process
        source, target = self._write_inputs(name, operation, inputs)
        request = run_request(name, operation, geometry, dtype, param_dtype, str(source), str(target))
        try:
            answer = self._process.ask(request, self.timeout)
            if wrong := problem(answer, "protocol", "result"):
                raise PortCrash(said(f"answered what the protocol does not know: {wrong}"))
            if answer["id"] != request["id"]:
                raise PortCrash(f"answered {answer['id']!r} when asked for {request['id']!r}")
        except (PortCrash, PortTimeout):
            self._stop()
            raise
        status, reason, outputs = answer["status"], said(answer.get("reason", "")), {}
        if status == "ok":
            largest = 2**20 + 64 * sum(value.nbytes for value in inputs.values())
            try:
                outputs = read_outputs(target, largest)
            except ValueError as error:
                status, reason = "error", f"answered ok, but {error}"
        if self._temporary:
            shutil.rmtree(source.parent, ignore_errors=True)
        return status, reason, outputs

    def restart(self) -> None:
        """End the port; the next question goes to a fresh one."""
        self._stop()

    def _write_inputs(self, name: str, operation: str, inputs: Mapping[str, np.ndarray]) -> tuple[Path, Path]:
        """The inputs' file, written, and the outputs', not there; in memory as long as that has room for both."""
        size = sum(value.nbytes for value in inputs.values())
        if self._temporary and shutil.disk_usage(self.folder).free < ROOM * size + SPARE:
            disk = tempfile.mkdtemp(prefix="doconv-")
            shutil.rmtree(self._temporary, ignore_errors=True)
            self.folder, self._temporary = Path(disk), disk
        source, target = file_pair(self.folder.resolve(), name, operation)
        if source.parent.is_file() or source.parent.is_symlink():  # of a port that writes where it should not
            source.parent.unlink()
        source.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        try:
            write_inputs(inputs, source)
        except SafetensorError as error:
            raise OSError(f"cannot write {source}: {error}") from error
        return source, target

    def close(self) -> None:
        """End the port and remove its temporary folder."""
        self._stop()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _start(self) -> dict[str, Any]:
        self._process = PortProcess(
            self.backend.command, env=self.backend.env, memory_limit=self.memory_limit, folder=self._temporary
        )
        hello = self._process.ask(hello_request(), self.start_timeout)
        if wrong := problem(hello, "protocol", "hello"):
            raise PortCrash(said(f"said hello in a form that the protocol does not allow: {wrong}"))
        if PROTOCOL not in hello["protocol"]:
            raise PortCrash(f"does not speak protocol {PROTOCOL}, only {', '.join(map(str, hello['protocol']))}")
        return dict(said_json(hello))

    def _stop(self) -> None:
        if self._process:
            self._process.close()
        self._process = None


def hello_request() -> dict[str, Any]:
    """The first message to a port."""
    return {"type": "hello", "protocol": PROTOCOL}


def run_request(
    name: str, operation: str, geometry: ConvGeometry, dtype: str, param_dtype: str, inputs: str, outputs: str
) -> dict[str, Any]:
    """The message that asks for one operation."""
    return {
        "type": "run", "id": f"{name}/{operation}", "operation": operation, "dtype": dtype, "param_dtype": param_dtype,
        "geometry": geometry.to_json(), "inputs": inputs, "outputs": outputs,
    }  # fmt: skip


def file_pair(folder: Path, name: str, operation: str) -> tuple[Path, Path]:
    """Where the inputs and the outputs of one operation lie in a folder."""
    return (
        folder / name / f"{operation}.inputs.safetensors",
        folder / name / f"{operation}.outputs.safetensors",
    )


def write_inputs(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Write `inputs_file`, whose tensors are not copied once more."""
    with path.open("wb") as file:
        file.writelines(_inputs_file(tensors))


def inputs_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Tensors for a port, whose header lists them in another order than their bytes: a port has to read the offsets."""
    return b"".join(_inputs_file(tensors))


def _inputs_file(tensors: Mapping[str, np.ndarray]) -> tuple[bytes, bytes, memoryview]:
    whole = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    start = 8 + int.from_bytes(whole[:8], "little")
    listed = dict(reversed(json.loads(whole[8:start]).items()))
    header = json.dumps(listed, separators=(",", ":")).encode().ljust(start - 8)
    return whole[:8], header, memoryview(whole)[start:]


def read_outputs(path: Path, largest: int) -> dict[str, np.ndarray]:
    """The tensors of a port's outputs.

    Raises:
        ValueError: no file, not a regular one, one of more than `largest` bytes, or not safetensors.
    """
    try:
        status = path.lstat()
    except OSError:
        raise ValueError(f"wrote no file {path.name}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is a {'symbolic link' if stat.S_ISLNK(status.st_mode) else 'special file'}")
    if status.st_size > largest:
        raise ValueError(f"{path.name} has {status.st_size} bytes, more than the {largest} that its tensors can need")
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        reason = said(str(error)[:200])
        raise ValueError(f"{path.name} is not a safetensors file that can be read: {reason}") from error


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
