"""The figure of `doconv compare --image`: the picture, feature maps, and the differences in units of roundoff."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from doconv_conformance.files import replacing
from doconv_conformance.running.picture import PictureRun

SHOWN = 3
# The strides of the network are 2 and 3: a pixel of a map is so much of the picture.
ASPECT = 2 / 3


def write_figure(run: PictureRun, path: Path, *, dpi: int = 110) -> None:
    """Write the figure as PNG, JPEG, SVG or PDF, whichever `path` ends with.

    On top the picture; then a row for each backend: feature maps of the unfolded network, and the largest difference from the
    reference over all maps at each pixel, unfolded and folded, on one scale of units of roundoff `u * a`.

    Raises:
        ValueError: no backend computed the network.
    """
    if not run.maps:
        raise ValueError("no backend computed the network, there is nothing to draw")
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(maps.backend for maps in run.maps))
    figure = Figure(figsize=(14, 2.0 * len(names) + 2.6), layout="constrained")
    axes = figure.subplots(len(names) + 1, SHOWN + 2, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    axes[0, 0].imshow(run.picture[0].transpose(1, 2, 0))
    axes[0, 0].set_title("the picture", fontsize=10)
    axes[0, 1].text(
        0, 0.5,
        "A DO-Conv 3x3, a DO-GConv 3x5 with strides 2 and 3,\na DO-DConv 5x5 with multiplier 2 and a 1x1, ReLU between;\n"
        "random W and D_delta, float32. Below, a row for each backend:\nfeature maps of the unfolded network, and the largest "
        "difference\nfrom the float64 reference over all maps, unfolded and folded.",
        transform=axes[0, 1].transAxes, va="center", fontsize=10, in_layout=False,
    )  # fmt: skip
    _histogram(axes[0, SHOWN:], run)
    largest = max(float(np.abs(maps.difference).max()) for maps in run.maps)
    image: Any = None
    for row, name in enumerate(names, start=1):
        for maps in (maps for maps in run.maps if maps.backend == name):
            column = SHOWN + int(maps.folded)
            seen = np.abs(maps.difference[0]).max(axis=0)
            image = axes[row, column].imshow(seen, cmap="viridis", vmin=0, vmax=largest, interpolation="nearest",
                                           aspect=ASPECT)  # fmt: skip
            state = "folded" if maps.folded else "unfolded"
            axes[row, column].set_title(f"{state}: at most {seen.max():.1f}", fontsize=9)
            for channel in range(SHOWN) if not maps.folded else ():
                axes[row, channel].imshow(maps.features[0, channel], cmap="gray", aspect=ASPECT)
                axes[row, channel].set_title(f"{name}, map {channel}", fontsize=9)
    figure.colorbar(image, ax=axes[1:, SHOWN:], label="units of roundoff u · a", shrink=0.8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _histogram(axes: Any, run: PictureRun) -> None:
    """How many values are off by how much, one line per backend, unfolded and folded, on the axes of the differences."""
    for folded, axis in zip((False, True), axes, strict=True):
        axis.axis("on")
        for maps in run.maps:
            if maps.folded == folded:
                values = np.abs(maps.difference).ravel()
                counts, edges = np.histogram(values, np.arange(0, np.ceil(values.max()) + 0.5, 0.5))
                axis.stairs(counts, edges, label=maps.backend)
        axis.set_yscale("log")
        axis.set_title(f"{'folded' if folded else 'unfolded'}: values by difference", fontsize=9)
        axis.set_xlabel("units of roundoff u · a", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].legend(fontsize=8)
