"""What figures of the layers of a checkpoint share: one row per layer, its name on the left, several axes beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doconv_conformance.escaping import printable
from doconv_conformance.files import replacing

MOST_ROWS = 60
LONGEST_LABEL = 42
HALF = np.finfo(np.float16)
BLUE, ORANGE, GREY, RED = "#3b6ea8", "#d9822b", "#9aa5b1", "#c0392b"


def row_figure(paths: Sequence[str], width_ratios: Sequence[float]) -> tuple[Any, Sequence[Any], np.ndarray]:
    """A figure, its empty axes, and the heights of the rows.

    Args:
        paths: of the layers, from the top down.
        width_ratios: of the axes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--figure needs matplotlib: pip install 'doconv-core[report]'") from error

    rows = np.arange(len(paths))
    figure = Figure(figsize=(15, 1.9 + 0.26 * max(len(rows), 6)), layout="constrained")
    axes = figure.subplots(1, len(width_ratios), sharey=True, width_ratios=width_ratios)
    axes[0].set_yticks(rows, [label(path) for path in paths], fontsize=8)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    for axis in axes:
        axis.grid(axis="x", color="#e6e9ed", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
        for row in rows[::2]:
            axis.axhspan(row - 0.5, row + 0.5, color="#f5f7f9", zorder=0)
    return figure, axes, rows


def write_figure(figure: Any, path: Path, title: str, dpi: int) -> None:
    """Give a figure its title and write it as PNG, JPEG, SVG or PDF, whichever `path` ends with.

    Raises:
        OSError: the file cannot be written.
    """
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def label(text: str) -> str:
    """A path as the figure shows it: what matplotlib would take for mathematics stays text."""
    return short_path(printable(text).replace("$", r"\$") or "(the layer)")


def short_path(text: str) -> str:
    """The end of a long path."""
    return text if len(text) <= LONGEST_LABEL else f"…{text[1 - LONGEST_LABEL :]}"
