"""`doconv doctor`: what is installed, on which devices it computes, which switches change its numbers, and what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

TIMEOUT = 120  # seconds: the first import of a framework can be slow
# The packages of each extra; the first one is what the extra is for.
EXTRAS = {
    "torch": ("torch",),
    "keras": ("keras", "tensorflow"),
    "flax": ("flax", "jax", "jaxlib"),
    "report": ("matplotlib", "pillow"),
}
# Each framework is asked in a process of its own: devices, and the switches that change numbers.
PROBES = {
    "torch": """
import torch
devices = ["cpu"] + [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
switches = {"threads": torch.get_num_threads(), "TF32 in products": torch.backends.cuda.matmul.allow_tf32,
            "TF32 in convolutions": torch.backends.cudnn.allow_tf32, "processor": torch.backends.cpu.get_cpu_capability()}
""",
    "keras": """
import keras
devices = keras.distribution.list_devices() if keras.backend.backend() in ("jax", "tensorflow") else ["cpu"]
switches = {"backend": keras.backend.backend(), "dtype policy": keras.config.dtype_policy().name,
            "image data format": keras.config.image_data_format()}
""",
    "flax": """
import jax
import flax
devices = [f"{device.platform}: {device.device_kind}" for device in jax.devices()]
switches = {"float64": jax.config.jax_enable_x64, "matmul precision": str(jax.config.jax_default_matmul_precision)}
""",
}


def doctor() -> None:
    """Show what is installed, on which devices, with which switches, and what is missing.

    Example: doconv doctor
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("extra", "versions", "devices", "switches", show_lines=True)
    broken, missing = list[str](), list[str]()
    for extra, packages in EXTRAS.items():
        found = {package: installed(package) for package in packages}
        absent = [package for package, number in found.items() if not number]
        if absent:
            missing.append(f"{', '.join(absent)} missing: pip install 'doconv-core[{extra}]'")
        if not found[packages[0]]:
            table.add_row(extra, "not installed", "", "")
            continue
        answer = ask(extra) if extra in PROBES else {"devices": [], "switches": {}}
        if "error" in answer:
            broken.append(f"{extra} is installed and does not start: {answer['error']}")
        versions = "\n".join(f"{package} {number}" for package, number in found.items() if number)
        switches = "\n".join(f"{name}: {value}" for name, value in answer.get("switches", {}).items())
        table.add_row(extra, versions, "\n".join(answer.get("devices", [])), switches)
    Console().print(table)
    for line in (*missing, *broken):
        typer.echo(line)
    if not missing and not broken:
        typer.echo("Everything is there.")
    raise typer.Exit(1 if broken else 0)


def ask(framework: str) -> dict[str, Any]:
    """What a framework says of itself; `{"error": ...}` where it does not start."""
    script = PROBES[framework] + "\nimport json\nprint(json.dumps({'devices': devices, 'switches': switches}))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {TIMEOUT} s"}
    if done.returncode:
        return {
            "error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exited with {done.returncode}"
        }
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def installed(package: str) -> str:
    """Its version, empty where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def versions() -> str:
    """One line: this package and the frameworks beside it."""
    names = ("numpy", *(package for extra in ("torch", "keras", "flax") for package in EXTRAS[extra]))
    found = {name: installed(name) for name in names}
    return ", ".join(
        [f"doconv {installed('doconv-core')}", *(f"{name} {number}" for name, number in found.items() if number)]
    )
