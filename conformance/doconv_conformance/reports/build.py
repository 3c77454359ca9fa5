"""The report of a run as plain JSON (`schema/report.json`); the terminal, JUnit and the HTML page are drawn from it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np

import doconv_core
from doconv_conformance.diagnosis.diagnose import Diagnosis
from doconv_conformance.running import vectors
from doconv_conformance.running.runner import EDGES, Run
from doconv_conformance.verdicts.judge import Result, summarise

VERSION = 1
# Worst first: the verdict that stands for several rows.
SEVERITY = ("mismatch", "crashed", "timeout", "inaccurate", "within_bound", "exact", "unsupported")


def build(
    runs: Sequence[Run],
    others: Iterable[Result] = (),
    seconds: Mapping[str, float] | None = None,
    diagnoses: Mapping[str, Sequence[Diagnosis]] | None = None,
) -> dict[str, Any]:
    """The report.

    Args:
        runs: the ports.
        others: rows beside theirs: ports against each other, the picture.
        seconds: wall time of what no port did, and "total".
        diagnoses: what the failures of each port are, by its name; nothing where they are not diagnosed yet.
    """
    results = [result for run in runs for result in run.results] + list(others)
    total = max((run.seconds.get("total", 0.0) for run in runs), default=0.0)
    return {
        "version": VERSION,
        "results": [_finite(asdict(result)) for result in results],
        "summary": summarise(results),
        "ports": [_port(run) for run in runs],
        "diagnosis": [
            {"backend": name, **diagnosis.to_json()} for name, found in (diagnoses or {}).items() for diagnosis in found
        ],
        "histograms": [
            {"backend": run.backend.name, "stage": stage, "edges": list(EDGES), "counts": counts.tolist()}
            for run in runs
            for stage, counts in run.errors.items()
        ],
        "environment": environment(),
        "seconds": {"total": total, **(seconds or {})},
    }


def environment() -> dict[str, Any]:
    """Of the suite itself."""
    return {
        "doconv": doconv_core.__version__, "vectors": vectors.VERSION, "python": platform.python_version(),
        "numpy": np.__version__, "platform": platform.platform(), "machine": platform.machine(), "cpus": os.cpu_count(),
    }  # fmt: skip


def agrees(row: Mapping[str, Any]) -> bool:
    """Whether a row of `results` leaves `agree` standing."""
    return Result(**row).agrees


def worst(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One line for several rows: the worst verdict, the largest share of the bound and `r`, how many, and their time."""
    rows = list(rows)
    skipped = sum(row["verdict"] == "unsupported" for row in rows)
    numbers = {
        name: max((row[name] for row in rows if row[name] is not None), default=None)
        for name in ("bound_fraction", "r")
    }
    verdict = min((row["verdict"] for row in rows), key=SEVERITY.index)
    failing = sum(not agrees(row) for row in rows)
    return numbers | {
        "verdict": verdict, "cases": len(rows) - skipped, "unsupported": skipped, "failing": failing,
        "seconds": sum(row["seconds"] for row in rows),
    }  # fmt: skip


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a number that is not finite stands for one that cannot be measured."""
    return row | {name: None for name in ("bound_fraction", "r") if row[name] is not None and not isfinite(row[name])}


def _port(run: Run) -> dict[str, Any]:
    return {
        "backend": run.backend.name, "command": list(run.backend.command), "hello": run.hello, "smoke": run.smoke,
        "seconds": {"start": 0.0, "total": 0.0} | run.seconds,
    }  # fmt: skip
