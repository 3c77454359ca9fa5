"""Runs as rows of a CSV file: whole or not at all, and what a run was made with."""

from __future__ import annotations

import csv
import io
import platform
import subprocess
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

from doconv_conformance.files import write_text

PACKAGES = {"torch": ("torch",), "keras": ("keras",), "flax": ("flax", "jax")}
# A run that learnt something ends below so much of the loss of its first two stretches. Of 289 runs, those that learnt ended
# below 0.67 of it, the others above 0.99.
LEARNT = 0.95


@dataclass(frozen=True)
class Row:
    """One run. `metric` is that of `data.KINDS`, of validation in stage "grid", of test in stage "final"."""

    task: str
    framework: str
    variant: str
    rate: float
    seed: int
    stage: str
    steps: int
    metric: float
    folded_metric: float
    diverged: bool
    parameters: int
    cpu_seconds: float
    wall_seconds: float
    device: str
    commit: str
    versions: str
    curve: str  # the loss over the run: means of 20 equal stretches
    precision: str = "float32"

    @property
    def key(self) -> tuple[object, ...]:
        return self.task, self.framework, *self.run

    @property
    def run(self) -> tuple[str, float, int, str]:
        return self.variant, self.rate, self.seed, self.stage

    @property
    def failed(self) -> bool:
        """Whether the run diverged, or collapsed, as a network whose ReLUs are all dead: its loss ended where it began.

        The first stretch alone is not where it began: before a network collapses, its loss jumps.
        """
        losses = [float(text) for text in self.curve.split(";")]
        return self.diverged or not losses[-1] < LEARNT * min(losses[:2])


def read_rows(path: Path) -> list[Row]:
    """The whole rows of a CSV file. A last line that was cut off is left out; the next `append_row` removes it."""
    if not path.exists():
        return []
    kinds = {each.name: each.type for each in fields(Row)}
    convert = {"float": float, "int": int, "str": str, "bool": lambda text: text == "True"}
    with open(path, newline="", encoding="utf-8") as stream:
        whole = [line for line in stream if line.endswith("\n")]
    return [
        Row(**{name: convert[str(kinds[name])](text) for name, text in row.items()}) for row in csv.DictReader(whole)
    ]


def append_row(path: Path, row: Row) -> None:
    """Add a row: the file is written whole under another name, then renamed."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [each.name for each in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(each) for each in [*read_rows(path), row])
    write_text(path, stream.getvalue())


def device_name(device: str) -> str:
    """The processor, or the framework's name of the device."""
    if device != "cpu":
        return device
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        models = (line.split(":")[1].strip() for line in stream if line.startswith("model name"))
        return next(models, platform.machine())


def commit() -> str:
    """Of this checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive, or no git here
        return "unknown"


def versions(framework: str) -> str:
    """Of the packages that decide the numbers."""
    packages = (*PACKAGES[framework], *_engine(framework), "numpy")
    return " ".join(f"{package} {version(package)}" for package in packages)


def _engine(framework: str) -> tuple[str, ...]:
    """What Keras computes with."""
    if framework != "keras":
        return ()
    import keras

    return (keras.config.backend(),)
