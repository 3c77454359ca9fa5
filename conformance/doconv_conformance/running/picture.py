"""A real picture through a small over-parameterized network, on every backend, unfolded and folded.

Each layer of the network is asked of the port as one operation, its output goes through ReLU and into the next. The reference
does the same in float64. What the ports may differ by is carried along: ReLU does not enlarge an error, a convolution passes on
at most `conv(error, |W'|)`, and each layer adds the bound of its own rounding (`reference`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from doconv_conformance.cases import generator
from doconv_conformance.protocol.process import PortCrash, PortTimeout
from doconv_conformance.protocol.session import PortSession
from doconv_conformance.running.runner import numerics_of
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Expected, Numerics, gamma
from doconv_conformance.verdicts.judge import Result, judge
from doconv_core import ConvGeometry, compose, convolve

if TYPE_CHECKING:
    import PIL.Image

DTYPE = np.dtype(np.float32)
LAYERS = (
    ("DO-Conv 3x3", ConvGeometry(in_channels=3, out_channels=8, kernel_size=(3, 3), padding=((1, 1), (1, 1)))),
    (
        "DO-GConv 3x5, strides 2 and 3",
        ConvGeometry(
            in_channels=8, out_channels=12, kernel_size=(3, 5), groups=2, stride=(2, 3), padding=((1, 0), (2, 1))
        ),
    ),
    (
        "DO-DConv 5x5, multiplier 2",
        ConvGeometry(in_channels=12, out_channels=24, kernel_size=(5, 5), groups=12, padding=((2, 2), (2, 2))),
    ),
    ("1x1", ConvGeometry(in_channels=24, out_channels=6, kernel_size=(1, 1))),
)

STEPS = 2 * len(LAYERS)
PIXELS_AT_ONCE = 2**17
LARGEST_PICTURE = 2**25  # pixels; a comparison of one takes about 200 bytes for each


@dataclass
class Maps:
    """The feature maps that a port computed, and how far they are from the reference's in units of `u * a`."""

    backend: str
    folded: bool
    features: np.ndarray
    difference: np.ndarray


@dataclass
class PictureRun:
    """The picture, the names of the ports, the rows of the report, and the feature maps of every port that computed them."""

    picture: np.ndarray
    order: Sequence[str]
    results: list[Result] = field(default_factory=list)
    maps: list[Maps] = field(default_factory=list)
    references: dict[float, Expected] = field(default_factory=dict)

    def reference(self, numerics: Numerics) -> Expected:
        """`reference` of the picture, computed once for every kind of arithmetic."""
        u = numerics.unit_roundoff(str(DTYPE))
        if u not in self.references:
            self.references[u] = reference(self.picture, numerics)
        return self.references[u]


def load_picture(path: Path) -> np.ndarray:
    """A picture file as `(1, 3, height, width)` float32 in [0, 1], turned as its camera says (EXIF).

    Raises:
        ValueError: the file is missing, is no picture, is smaller than 32 x 32, or has more than 2^25 pixels.
    """
    from PIL import Image, ImageOps

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with warnings.catch_warnings(action="error", category=bombs[1]), Image.open(path) as image:
            if (pixels := image.width * image.height) > LARGEST_PICTURE:
                raise bombs[0](f"Image size ({pixels} pixels) exceeds limit of {LARGEST_PICTURE} pixels")
            image.load()
            turned = ImageOps.exif_transpose(image)
    except bombs as error:
        raise ValueError(f"the picture is too large: {error}. Received: {path}") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of any type for a broken file
        raise ValueError(f"cannot read a picture from {path}: {error}") from error
    try:
        picture = _values(turned)
    except ValueError as error:  # values that are none of a picture, or a mode that Pillow does not convert
        raise ValueError(f"cannot read a picture from {path}: {error}") from error
    if min(turned.size) < 32:
        raise ValueError(f"the picture must be at least 32 x 32. Received: {turned.width} x {turned.height} in {path}")
    return picture[None]


def _values(image: PIL.Image.Image) -> np.ndarray:
    """The values of a picture, `(3, height, width)` float32 in [0, 1]; Pillow's own conversion would cut off 16 bits."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        channels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        return np.divide(channels, 255, dtype=np.float32, order="C")
    grey: np.ndarray = np.asarray(image, np.float32)
    grey = grey if image.mode == "F" else grey / (2**16 - 1)
    if not (grey.min() >= 0 and grey.max() <= 1):
        kind = "floats in [0, 1]" if image.mode == "F" else "integers of 16 bits"
        raise ValueError(f"its values must be {kind}. Received: {np.asarray(image).min()} to {np.asarray(image).max()}")
    return np.repeat(grey[None], 3, axis=0)


def parameters(geometry: ConvGeometry, name: str) -> dict[str, np.ndarray]:
    """Random `W`, `D_delta` and bias of a layer, scaled so that features keep the size of their inputs."""
    fan_in = geometry.w_shape[1] * geometry.taps
    tensors = {"W": generator.floats(f"picture/{name}/W", geometry.w_shape) * (3 / fan_in) ** 0.5}
    tensors["bias"] = generator.floats(f"picture/{name}/bias", (geometry.out_channels,)) * 0.1
    if geometry.has_d:
        tensors["D_delta"] = generator.floats(f"picture/{name}/D_delta", geometry.d_shape) * 0.2
    return {key: value.astype(DTYPE) for key, value in tensors.items()}


def send_picture(session: PortSession, run: PictureRun, progress: Callable[[], None] = lambda: None) -> None:
    """The network on one port, unfolded and folded: adds a row each to `run`, and the feature maps.

    Args:
        session: with the port.
        run: what other ports have added to, perhaps from other threads.
        progress: called after each layer, `STEPS` times at most.
    """
    for folded in (False, True):
        run.results.append(_run_network(session, run, folded, progress))


def compare_maps(run: PictureRun) -> None:
    """Put the rows in the order of the ports, and add one for every two that computed the network."""
    run.results.sort(key=lambda row: run.order.index(row.backend))  # they came as the ports finished
    run.maps.sort(key=lambda maps: (run.order.index(maps.backend), maps.folded))
    for index, first in enumerate(run.maps):
        for second in run.maps[index + 1 :]:
            if first.backend != second.backend and first.folded == second.folded:
                run.results.append(_compare(run, first, second))


def reference(picture: np.ndarray, numerics: Numerics, *, pixels: int = PIXELS_AT_ONCE) -> Expected:
    """The network's output in float64, with the bound carried through all layers and the scale of its last layer.

    Args:
        picture: `(1, 3, height, width)`.
        numerics: those of the port.
        pixels: of the picture, that a band of rows has about; a band's feature maps are all that is in memory at once.
    """
    heights = [picture.shape[2]]
    for _, geometry in LAYERS:
        heights.append(geometry.output_size((heights[-1], picture.shape[3]))[0])
    bands = -(-picture.shape[2] * picture.shape[3] // pixels)
    rows = -(-heights[-1] // bands)
    parts = [
        _band(picture, numerics, heights, (start, min(start + rows, heights[-1])))
        for start in range(0, heights[-1], rows)
    ]
    value, bound, scale = (np.concatenate(arrays, axis=2) for arrays in zip(*parts, strict=True))
    return Expected(value, bound, scale, DTYPE)


def _band(
    picture: np.ndarray, numerics: Numerics, heights: Sequence[int], rows: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some rows of the network's output, their bound and scale, from those rows of the picture that they depend on."""
    layers = list[tuple[str, ConvGeometry]]()
    for (name, geometry), height in zip(reversed(LAYERS), reversed(heights[:-1]), strict=True):
        (low, _), across = geometry.padding
        first = rows[0] * geometry.stride[0] - low
        end = (rows[1] - 1) * geometry.stride[0] - low + (geometry.kernel_size[0] - 1) * geometry.dilation[0] + 1
        rows = max(first, 0), min(end, height)
        layers.insert(0, (name, replace(geometry, padding=((rows[0] - first, end - rows[1]), across))))
    x = picture[:, :, rows[0] : rows[1]].astype(np.float64)
    error, u = np.zeros(x.shape), numerics.unit_roundoff(str(DTYPE))
    scale = error
    for position, (name, geometry) in enumerate(layers):
        tensors = {key: value.astype(np.float64) for key, value in parameters(geometry, name).items()}
        kernel = compose(tensors["W"], tensors.get("D_delta"), geometry)
        size = compose(np.abs(tensors["W"]), np.abs(tensors["D_delta"]) if geometry.has_d else None, geometry)
        chain = geometry.taps * geometry.w_shape[1] + geometry.d_mul + 2
        scale = convolve(np.abs(x) + error, size, np.abs(tensors["bias"]), geometry)
        error = convolve(error, np.abs(kernel), None, geometry) + gamma(chain, u) * scale
        x = convolve(x, kernel, tensors["bias"], geometry)
        if position < len(layers) - 1:
            x = np.maximum(x, 0)
    return x, error, UNIT_ROUNDOFF[str(DTYPE)] * scale


def _run_network(session: PortSession, run: PictureRun, folded: bool, progress: Callable[[], None]) -> Result:
    operation, x = "fold" if folded else "forward", run.picture
    try:
        for position, (name, geometry) in enumerate(LAYERS):
            inputs = {"x": x, **parameters(geometry, name)}
            status, reason, outputs = session.run(
                f"picture-{position}", operation, geometry, "float32", "float32", inputs
            )
            progress()
            if status != "ok" or "y" not in outputs:
                return _row(
                    session.backend.name, folded, {"verdict": "crashed", "reason": f"{name}: {reason or status}"}
                )
            x = inputs["x"] = outputs.pop("y")  # each map has a hundred megabytes, and none is needed twice
            if position < len(LAYERS) - 1:
                x = inputs["x"] = np.maximum(x, 0)
    except (PortCrash, PortTimeout) as failure:
        return _failed(session.backend.name, folded, failure)
    want = run.reference(numerics_of(session.hello))
    judgement = judge({"y": want}, {"y": x}, exact=False)
    if x.shape == want.value.shape:
        difference = ((x - want.value) / want.scale).astype(np.float32)
        run.maps.append(Maps(session.backend.name, folded, x, difference))
    return _row(session.backend.name, folded, judgement)


def _compare(run: PictureRun, first: Maps, second: Maps) -> Result:
    want = run.reference(Numerics())
    wanted = Expected(second.features.astype(np.float64), 2 * want.bound, want.scale, DTYPE)
    return _row(
        f"{first.backend}~{second.backend}", first.folded, judge({"y": wanted}, {"y": first.features}, exact=False)
    )


def _failed(backend: str, folded: bool, failure: Exception) -> Result:
    verdict = "timeout" if isinstance(failure, PortTimeout) else "crashed"
    return _row(backend, folded, {"verdict": verdict, "reason": str(failure)})


def _row(backend: str, folded: bool, judgement: dict) -> Result:
    # The reference's bound covers four layers; `r` is in the unit of the last and says nothing of one sum's accuracy.
    if judgement["verdict"] == "inaccurate":
        judgement = judgement | {"verdict": "within_bound"}
    operation = "fold" if folded else "forward"
    return Result(backend, "picture", operation, operation, "float32", "float32", **judgement)
