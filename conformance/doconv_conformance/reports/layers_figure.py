"""A figure of what training made of the layers of a checkpoint, one row per layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doconv_conformance.counting import counted
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
from doconv_core.checkpoint import LayerStats


def write_layers_figure(stats: Sequence[LayerStats], path: Path, *, title: str, dpi: int = 120) -> None:
    """Write the figure as PNG, JPEG, SVG or PDF, whichever `path` ends with.

    Args:
        stats: one or more layers, in the order of the model; of more than `MOST_ROWS` those that changed most are shown.
        path: the file.
        title: the name of the checkpoint.
        dpi: of a bitmap.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    shown = most_changed(stats, MOST_ROWS)
    figure, axes, rows = row_figure([layer.path for layer in shown], (1, 1, 1, 1.15))
    _identity_axis(axes[0], rows, shown)
    _spectrum_axis(axes[1], rows, shown)
    _change_axis(axes[2], rows, shown)
    _half_axis(axes[3], rows, shown)
    before, after = (sum(getattr(layer, name) for layer in stats) for name in ("before", "after"))
    count = (
        counted(len(stats), "layer")
        if len(shown) == len(stats)
        else f"the {len(shown)} of {len(stats)} that changed most"
    )
    said = f"{label(title)}: {count}; {before:,} parameters train, {after:,} are left folded"
    write_figure(figure, path, said, dpi)


def most_changed(stats: Sequence[LayerStats], count: int) -> list[LayerStats]:
    """The layers that changed most, in the order of the model."""
    kept = sorted(range(len(stats)), key=lambda i: -stats[i].kernel_change)[:count]
    return [stats[i] for i in sorted(kept)]


def _identity_axis(axis: Any, rows: np.ndarray, shown: Sequence[LayerStats]) -> None:
    quartiles = np.array([np.quantile(layer.from_identity, (0, 0.5, 1)) for layer in shown])
    axis.hlines(rows, quartiles[:, 0], quartiles[:, 2], color=GREY, linewidth=2)
    axis.plot(quartiles[:, 1], rows, "o", color=BLUE, markersize=4)
    axis.set_xlim(left=0)
    axis.set_title("D from the identity", loc="left", fontsize=10)
    axis.set_xlabel("|D_delta| / |E| per input channel:\nrange and median", fontsize=8)


def _spectrum_axis(axis: Any, rows: np.ndarray, shown: Sequence[LayerStats]) -> None:
    values = np.array([np.quantile(layer.spectrum, (0, 0.5, 1)) for layer in shown])
    least = max(values[values > 0].min(initial=1.0), 1e-6) / 2  # a singular D is drawn at the edge
    drawn = np.maximum(values, least)
    axis.hlines(rows, drawn[:, 0], drawn[:, 2], color=GREY, linewidth=2)
    axis.plot(drawn[:, 1], rows, "o", color=BLUE, markersize=4)
    axis.axvline(1, color="#555", linewidth=0.8)
    if drawn.max() > 5 * drawn.min():
        axis.set_xscale("log")
    axis.set_title("Singular values of D", loc="left", fontsize=10)
    axis.set_xlabel("over all channels: range and median;\n1 where D is the identity", fontsize=8)


def _change_axis(axis: Any, rows: np.ndarray, shown: Sequence[LayerStats]) -> None:
    changes = np.array([min(layer.kernel_change, 1e6) for layer in shown])
    axis.barh(rows, changes, height=0.62, color=BLUE)
    axis.set_title("Kernel due to D_delta", loc="left", fontsize=10)
    axis.set_xlabel("|W' - W| / |W|", fontsize=8)


def _half_axis(axis: Any, rows: np.ndarray, shown: Sequence[LayerStats]) -> None:
    low = np.array([layer.smallest or np.nan for layer in shown])
    high = np.array([layer.largest or np.nan for layer in shown])
    edges = (float(HALF.smallest_subnormal), float(HALF.smallest_normal), float(HALF.max))
    left, right = (
        min(np.nanmin(low, initial=edges[0]) / 5, edges[0] / 5),
        max(np.nanmax(high, initial=1.0) * 5, edges[2] * 5),
    )
    axis.axvspan(left, edges[0], color=RED, alpha=0.10, lw=0)
    axis.axvspan(edges[0], edges[1], color=ORANGE, alpha=0.12, lw=0)
    axis.axvspan(edges[2], right, color=RED, alpha=0.10, lw=0)
    threatened = [RED if layer.half_overflows or layer.half_vanishes > 0.001 else BLUE for layer in shown]
    axis.hlines(rows, low, high, color=threatened, linewidth=3)
    axis.set_xscale("log")
    axis.set_xlim(left, right)
    axis.set_title("Composed kernel and float16", loc="left", fontsize=10)
    axis.set_xlabel("|values|; red: beyond float16 or zero in it,\norange: with fewer bits", fontsize=8)
