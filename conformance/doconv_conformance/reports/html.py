"""The report as one HTML page that needs nothing but itself: no script, no network, light and dark, wide and narrow."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from doconv_conformance.cases.table import STAGES, cases
from doconv_conformance.reports.build import agrees, worst
from doconv_conformance.running.runner import EDGES

LOOKS = {
    "exact": ("good", "exact"),
    "within_bound": ("good", "within"),
    "inaccurate": ("warn", "inaccurate"),
    "mismatch": ("bad", "mismatch"),
    "crashed": ("bad", "crashed"),
    "timeout": ("bad", "timeout"),
    "unsupported": ("none", "unsupported"),
}
WIDTH = 20  # of a bar of a histogram
TIMES = (
    ("start", "start"),
    ("port", "answers"),
    ("picture", "picture"),
    ("reference", "our reference"),
    ("judge", "judging"),
)


def render(report: Mapping[str, Any], figure: bytes = b"", heading: str = "The picture") -> str:
    """The page.

    Args:
        report: of `report.build`.
        figure: a JPEG to show: the picture that went through the network, or the layers of a checkpoint.
        heading: of the figure.
    """
    environment = Environment(
        loader=PackageLoader("doconv_conformance", "reports/templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": _number, "percent": _percent}
    rows = report["results"]
    names = list(dict.fromkeys(row["backend"] for row in rows))
    ports = [name for name in names if "~" not in name]
    stages = [stage for stage in STAGES if any(row["stage"] == stage for row in rows)]
    return environment.get_template("report.html").render(
        report=report, ports=ports, pairs=[name for name in names if "~" in name], stages=stages, looks=LOOKS,
        matrix={(row_name, stage): _cell(rows, row_name, stage) for row_name in names for stage in stages},
        tables={stage: _table(rows, ports, stage) for stage in stages}, histograms=_histograms(report, stages),
        failing=_failing(rows), times=_times(report), ticks=_ticks(),
        figure=f"data:image/jpeg;base64,{base64.b64encode(figure).decode()}" if figure else "",
        heading=heading,
    )  # fmt: skip


def _cell(rows: list, name: str, stage: str) -> dict[str, Any] | None:
    chosen = [row for row in rows if row["backend"] == name and row["stage"] == stage]
    return worst(chosen) if chosen else None


def _table(rows: list, ports: list[str], stage: str) -> list[tuple[str, str, dict[str, Any]]]:
    """One line per case and operation of a stage: `(case, operation, one row per port)`."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["stage"] == stage and row["backend"] in ports:
            lines.setdefault((row["case"], row["operation"]), {})[row["backend"]] = row
    return [(case, operation, line) for (case, operation), line in lines.items()]


def _failing(rows: list) -> list[dict[str, Any]]:
    """The rows that do not agree, each with the mistakes its case was made to catch."""
    catches = {case.id: case.catches for case in cases()}
    return [row | {"catches": catches.get(row["case"], ())} for row in rows if not agrees(row)]


def _histograms(report: Mapping[str, Any], stages: list[str]) -> list[dict[str, Any]]:
    """For each stage the bars of every port, on a logarithmic scale."""
    shown = []
    for stage in stages:
        of_stage = [item for item in report["histograms"] if item["stage"] == stage]
        if not of_stage:
            continue
        tallest = max(max(item["counts"]) for item in of_stage)
        ports = [
            {"backend": item["backend"], "elements": sum(item["counts"]), "bars": _bars(item, tallest)}
            for item in of_stage
        ]
        shown.append({"stage": stage, "ports": ports})
    return shown


def _bars(histogram: Mapping[str, Any], tallest: int) -> list[dict[str, Any]]:
    labels = _bin_labels(histogram["edges"])
    return [
        {
            "x": WIDTH * bin,
            "height": round(40 * math.log1p(count) / math.log1p(tallest), 1),
            "count": count,
            "label": label,
        }
        for bin, (count, label) in enumerate(zip(histogram["counts"], labels, strict=True))
    ]


def _bin_labels(edges: list[float]) -> list[str]:
    shown = [_fraction(edge) for edge in edges]
    ranges = [f"{low} to {high}" for low, high in pairwise(shown)]
    return ["0", *ranges, f"more than {shown[-1]}"]


def _ticks() -> list[tuple[float, str]]:
    """Labels under the bars, at the upper edges of their bins; the first bin is zero itself."""
    shown = (2.0**-3, 1.0, 16.0)
    return [(WIDTH / 2, "0"), *((WIDTH * (EDGES.index(edge) + 1), _fraction(edge)) for edge in shown)]


def _fraction(edge: float) -> str:
    return f"1/{1 / edge:.0f}" if 0 < edge < 1 else f"{edge:.0f}"


def _times(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A bar a port: its parts in percent of the slowest."""
    slowest = max((port["seconds"]["total"] for port in report["ports"]), default=0.0) or 1.0
    lines = []
    for port in report["ports"]:
        seconds = port["seconds"]
        parts = [(name, text, seconds[name]) for name, text in TIMES if name in seconds]
        rest = max(0.0, seconds["total"] - sum(value for _, _, value in parts))
        parts.append(("rest", "files and the rest", rest))
        lines.append({
            "backend": port["backend"], "total": seconds["total"],
            "parts": [(name, text, value, 100 * value / slowest) for name, text, value in parts],
        })  # fmt: skip
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    if value is None:
        return ""
    return "0 %" if value == 0 else f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"
