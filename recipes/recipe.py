"""A recipe: one entry of `recipes.toml`, checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("recipes.toml")
VARIANTS = ("plain", "do", "do-plain-stem", "plain-equal-time", "plain-longer")
LONGER = 1.25  # times the steps of the others, for "plain-longer"
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """What `recipes.toml` says of a task; its comments say what the fields mean."""

    name: str
    about: str
    data: dict[str, Any]
    network: dict[str, Any]
    batch: int
    epochs: int
    momentum: float
    weight_decay: float
    schedule: str
    rates: tuple[float, ...]
    grid: dict[str, int]
    final: dict[str, int]
    variants: tuple[str, ...]
    initialization: str = "he"
    precision: str = "float32"  # of the computation; parameters are always float32
    reported: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("schedule", {self.schedule}, SCHEDULES),
            ("variants", set(self.variants), VARIANTS),
            ("precision", {self.precision}, PRECISIONS),
        ):
            if not value <= set(allowed):
                raise ValueError(f"{self.name}: {name} must be among {', '.join(allowed)}. Received: {sorted(value)}")

    def steps(self, examples: int, variant: str, cost: float) -> int:
        """How many steps a variant takes on so many examples; `cost` is that of a DO step in plain ones."""
        times = {"plain-equal-time": cost, "plain-longer": LONGER}.get(variant, 1)
        return round(examples // self.batch * self.epochs * times)


def names(file: Path = FILE) -> list[str]:
    """The tasks of a file."""
    return list(_entries(file))


def load(name: str, file: Path = FILE) -> Recipe:
    """One task.

    Raises:
        ValueError: there is no such task, or a field is unknown, missing or not one of its values.
    """
    entries = _entries(file)
    if name not in entries:
        raise ValueError(f"the task must be one of {', '.join(entries)}. Received: {name!r}")
    entry = dict(entries[name])
    while "like" in entry:
        entry = {**entries[entry.pop("like")], **entry}
    known = {each.name for each in fields(Recipe)} - {"name"}
    missing, unknown = known - {"reported", "initialization", "precision"} - entry.keys(), entry.keys() - known
    if missing or unknown:
        raise ValueError(f"{name}: missing fields {sorted(missing)}, unknown fields {sorted(unknown)}")
    return Recipe(name=name, **{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


def _entries(file: Path) -> dict[str, Any]:
    with open(file, "rb") as stream:
        return tomllib.load(stream)
