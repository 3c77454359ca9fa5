"""The figure of `doconv compare --checkpoint`: how far each layer is from the reference on each port, and what a type loses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doconv_conformance.reports.row_figure import (
    BLUE,
    GREY,
    HALF,
    MOST_ROWS,
    ORANGE,
    RED,
    label,
    row_figure,
    write_figure,
)
from doconv_conformance.running.layers import LayerOutcome

OF_BACKENDS = (BLUE, ORANGE, "#4c9f70", "#2a9d8f", "#7a6a53", GREY)
TYPES = {
    "float64": ("D", "#444444"),
    "float32": ("o", "#8a63b8"),
    "bfloat16": ("s", "#b8586b"),
    "float16": ("^", "#2f7f86"),
}
LEAST = 1e-9  # what is smaller, zero above all, is drawn there


def write_losses_figure(outcomes: Sequence[LayerOutcome], path: Path, *, title: str, dpi: int = 120) -> None:
    """Write the figure as PNG, JPEG, SVG or PDF, whichever `path` ends with.

    Args:
        outcomes: one or more layers, worst first; of more than `MOST_ROWS` the first are shown.
        path: the file.
        title: the name of the checkpoint.
        dpi: of a bitmap.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    shown = outcomes[:MOST_ROWS]
    figure, axes, rows = row_figure([outcome.plan.path for outcome in shown], (1.2, 1, 0.8, 0.8))
    _share_axis(axes[0], rows, shown)
    words = "distance from float64 as a share, the backend that\nloses most; filled: output, hollow: worst gradient"
    _loss_axis(axes[1], rows, shown, ("output", "gradients"), "What a type loses", words)
    words = "|folded output - output| / |output|, likewise;\nleft edge: nothing"
    _loss_axis(axes[2], rows, shown, ("folding",), "What folding changes", words)
    _range_axis(axes[3], rows, shown)
    first = f"the {len(shown)} worst of {len(outcomes)}" if len(shown) < len(outcomes) else f"{len(shown)}, worst first"
    write_figure(figure, path, f"{label(title)}: over-parameterized layers on every backend ({first})", dpi)


def _share_axis(axis: Any, rows: np.ndarray, shown: Sequence[LayerOutcome]) -> None:
    """The largest error of every backend in every type as a share of its bound; a cross where it has no share."""
    results = [(row, result) for row, outcome in zip(rows, shown, strict=True) for result in outcome.rows]
    backends = list(dict.fromkeys(result.backend for _, result in results))
    right = 1.0
    for colour, backend in zip(OF_BACKENDS * len(backends), backends, strict=False):
        axis.plot([], [], "o", color=colour, markersize=5, label=backend)
        for dtype in _types(shown):
            largest, failed = dict[int, float](), set[int]()
            for row, result in results:
                if (result.backend, result.dtype) == (backend, dtype):
                    largest[row] = max(largest.get(row, 0.0), min(result.bound_fraction or 0.0, 1e9))
                    failed |= set() if result.agrees else {row}
            drawn = {row: share for row, share in largest.items() if row not in failed}
            axis.plot([max(share, 1e-4) for share in drawn.values()], list(drawn), TYPES[dtype][0], color=colour,
                      markersize=4.5, alpha=0.8)  # fmt: skip
            right = max(right, *(largest[row] for row in failed), 1.0)
            axis.plot([max(largest[row], 1.0) for row in failed], list(failed), "x", color=RED, markersize=8, mew=2)
    axis.axvline(1, color=RED, linewidth=1)
    axis.set_xscale("log")
    axis.set_xlim(7e-5, 3 * right)
    axis.set_title("Share of the bound", loc="left", fontsize=10)
    axis.set_xlabel("largest error / bound; shapes are the types beside;\na cross: wrong", fontsize=8)
    if backends:
        axis.legend(fontsize=7, framealpha=0.9)


def _loss_axis(
    axis: Any, rows: np.ndarray, shown: Sequence[LayerOutcome], attributes: Sequence[str], title: str, words: str
) -> None:
    """The largest loss of every type; a cross on the right where values overflow it."""
    overflowing = list[int]()
    for dtype in _types(shown):
        marker, colour = TYPES[dtype]
        for name in attributes:
            points = []
            for row, outcome in zip(rows, shown, strict=True):
                value = outcome.loss(dtype, name)
                points += [] if value is None else [(min(max(value, LEAST), 10.0), row)]
            x, y = zip(*points, strict=True) if points else ((), ())
            hollow = {"fillstyle": "none"} if name == "gradients" else {"label": dtype}
            axis.plot(x, y, marker, color=colour, markersize=5, **hollow)
        overflowing += [row for row, outcome in zip(rows, shown, strict=True) if outcome.is_beyond(dtype)]
    if overflowing:
        axis.plot([10.0] * len(overflowing), overflowing, "x", color=RED, markersize=8, mew=2, label="overflows")
    axis.set_xscale("log")
    axis.set_xlim(LEAST / 2, 20)
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel(words, fontsize=8)
    axis.legend(fontsize=7, framealpha=0.9)


def _range_axis(axis: Any, rows: np.ndarray, shown: Sequence[LayerOutcome]) -> None:
    """The largest absolute values beside the largest of float16."""
    largest = float(HALF.max)
    right = largest * 5
    for colour, (name, words) in zip(
        OF_BACKENDS, {"x": "input", "kernel": "kernel", "y": "output"}.items(), strict=False
    ):
        values = np.array([outcome.largest[name] for outcome in shown])
        right = max(right, float(values.max()) * 5)
        axis.plot(np.where(values > 0, values, np.nan), rows, "|", color=colour, markersize=11, mew=2.5, label=words)
    axis.set_xscale("log")
    axis.set_xlim(right=right)
    axis.axvspan(largest, right, color=RED, alpha=0.10, lw=0)
    axis.set_title("Largest values and float16", loc="left", fontsize=10)
    axis.set_xlabel("|values| in float64; red: beyond float16", fontsize=8)
    axis.legend(fontsize=7, framealpha=0.9)


def _types(shown: Sequence[LayerOutcome]) -> list[str]:
    found = {result.dtype for outcome in shown for result in outcome.rows}
    found |= {dtype for outcome in shown for dtype in outcome.not_computed}
    return [dtype for dtype in TYPES if dtype in found]
