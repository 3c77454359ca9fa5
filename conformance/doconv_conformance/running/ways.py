"""Ways as ports: which ways of which backends a run asks, on which device, and with which cases."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from doconv_conformance.adapters.ways.table import Pairs, Way, ways_of
from doconv_conformance.protocol.session import Backend
from doconv_conformance.running.runner import Run, python_backend

DEVICES = ("cpu", "cuda")
# What a port's process is told of the device. DOCONV_QUICK lets a port compile for the little that the cases need.
ENVIRONMENT = {
    "cpu": {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "DOCONV_DEVICE": "cpu", "DOCONV_QUICK": "1"},
    "cuda": {"DOCONV_DEVICE": "cuda", "JAX_PLATFORMS": "cuda,cpu", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}
SUPPORTS_NONE = "run none of the cases asked for"
NEEDS_FULL = f"{SUPPORTS_NONE} without --full"
# An answer may hold a compilation, on a busy machine.
TIMEOUT = 300.0


@dataclass(frozen=True)
class WayPort:
    """A way of a backend as a port, with the cases that it is asked; of none of them `idle` says why."""

    way: Way
    port: Backend
    pairs: Pairs
    idle: str = ""


def engines_of(backend: str) -> tuple[str, ...]:
    """What a backend runs on or as: Keras on the backend of its own that its environment names, Flax as linen and as nnx."""
    return {"keras": (os.environ.get("KERAS_BACKEND") or "tensorflow",), "flax": ("linen", "nnx")}.get(backend, ("",))


def way_port(way: Way, engine: str = "", *, device: str = "cpu", python: str = "") -> Backend:
    """The port that runs a backend in one of its ways; "torch" in its default way, "torch/compiled" in another.

    Args:
        way: of the backend.
        engine: one of `engines_of`.
        device: one of `DEVICES`.
        python: the interpreter, if not this one.
    """
    name = f"{way.backend}-nnx" if engine == "nnx" else way.backend
    if way != ways_of(way.backend, engine)[0]:
        name += f"/{way.name}"
    env = {**ENVIRONMENT[device], **way.env} | ({"KERAS_BACKEND": engine} if way.backend == "keras" else {})
    arguments = (engine, way.name) if way.backend == "flax" else (way.name,)
    module, install = f"doconv_conformance.adapters.{way.backend}", f"pip install 'doconv-core[{way.backend}]'"
    return python_backend(name, module, *arguments, env=env, python=python, install=install)


def select_ways(
    backends: Sequence[str], pairs: Pairs, names: Sequence[str] | None = None, *,
    device: str = "cpu", full: bool = False, interpreters: Mapping[str, str] | None = None,
) -> list[WayPort]:  # fmt: skip
    """The ports of a run.

    Args:
        backends: of "torch", "keras", "flax".
        pairs: the cases asked for.
        names: of the ways; None for each backend's default, "all" for all.
        device: one of `DEVICES`.
        full: whether a way runs all that it supports, and not the cases that it runs by default.
        interpreters: of backends that live in another environment.

    Returns:
        All of them, also those that run none of `pairs`.

    Raises:
        ValueError: no backend has a way of that name (on the device), or none runs one of the cases.
    """
    ports, found = list[WayPort](), set[str]()
    for backend in backends:
        for engine in engines_of(backend)[: None if names else 1]:
            ways = ways_of(backend, engine, device)
            chosen = ways[:1] if names is None else [way for way in ways if "all" in names or way.name in names]
            found.update(way.name for way in chosen)
            python = (interpreters or {}).get(backend, "")
            for way in chosen:
                port = way_port(way, engine, device=device, python=python)
                own = way.choose(pairs, full=full, device=device)
                idle = "" if own else NEEDS_FULL if way.choose(pairs, full=True) else SUPPORTS_NONE
                ports.append(WayPort(way, port, own, idle))
    known = {way.name for backend in backends for way in ways_of(backend, None, device)}
    if unknown := [name for name in names or () if name not in found | {"all"}]:
        raise ValueError(f"--way must be all or one of {', '.join(sorted(known))}. Received: {', '.join(unknown)}")
    if not ports:
        raise ValueError(f"no way of {', '.join(backends)} runs on {device}")
    if all(port.idle for port in ports):
        raise ValueError("; ".join(idle_ways(ports)))
    return ports


def idle_ways(ports: Sequence[WayPort]) -> list[str]:
    """The ways that run none of the cases asked for, one line for each reason."""
    names: dict[str, list[str]] = {}
    for port in ports:
        names.setdefault(port.idle, []).append(port.port.name)
    return [f"{reason}: {', '.join(named)}" for reason, named in names.items() if reason]


def by_way(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each way together, of the default ways together: what can be compared with each other."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.backend.name.partition("/")[2], []).append(run)
    return list(groups.values())
