"""Which layers a file holds that does not say so itself: by the names and shapes of its tensors."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from doconv_core.checkpoint._format import CheckpointError
from doconv_core.checkpoint._layers import LayerInfo, join, split
from doconv_core.composition import dialect_rows
from doconv_core.geometry import ConvGeometry

Shapes = Mapping[str, tuple[int, ...]]
Notes = dict[str, list[str]]  # what was assumed, and of which layers
DIAGONALS = ("D_diag", "d_diag")  # the stored identity, before and after July 2022


@dataclass(frozen=True)
class Hints:
    """What the names and shapes of a state dict leave open; patterns are globs of layer paths.

    Attributes:
        kernel_sizes: the kernel size of the DO-Conv layers that a pattern matches.
        transposed: patterns of transposed convolutions.
        embeddings: patterns of embeddings, which otherwise count as linear layers.
        like: the shapes of the plain model's tensors, `<layer>.weight` among them.
    """

    kernel_sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    transposed: Sequence[str] = ()
    embeddings: Sequence[str] = ()
    like: Shapes = field(default_factory=dict)


def recognise_torch(
    label: str, shapes: Shapes, dialect: str | None, hints: Hints, notes: Notes
) -> dict[str, LayerInfo]:
    """The layers of a PyTorch state dict, ours or the authors'; `notes` takes what was assumed.

    Raises:
        CheckpointError: `W` without `D` or the reverse, shapes that do not belong together, a kernel size that is not known,
            or the authors' file where their dialect matters and is not given.
    """
    found: dict[str, LayerInfo] = {}
    for path, leaves in _by_layer(shapes).items():
        shape = {leaf: shapes[name] for leaf, name in leaves.items()}
        if len(shape.get("W", ())) == 3 or len(shape.get("D", ())) == 3:
            found[path] = _do_layer(label, path, leaves, shape, dialect, hints, notes)
        elif "running_mean" in leaves:
            roles = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            found[path] = LayerInfo("batch_norm", {role: leaves[role] for role in roles if role in leaves})
        elif "weight" in leaves and len(shape["weight"]) in (1, 2, 3, 4, 5):
            tensors = {leaf: name for leaf, name in leaves.items() if leaf in ("weight", "bias")}
            layer = _plain(path, tensors, shape, hints)
            if layer is not None:
                found[path] = layer
    return found


def recognise_tf(label: str, shapes: Shapes, hints: Hints, notes: Notes) -> dict[str, LayerInfo]:
    """The layers of the authors' TensorFlow weights: `kernel` `(S, C_in/G, C_out)`, `D` `(K, S, C_in)`, two spatial axes.

    Raises:
        CheckpointError: as `recognise_torch`.
    """
    found: dict[str, LayerInfo] = {}
    for path, leaves in _by_layer(shapes).items():
        shape = {leaf: shapes[name] for leaf, name in leaves.items()}
        bias = {"bias": leaves["bias"]} if "bias" in leaves else {}
        kernel = shape.get("kernel", ())
        if "D" in leaves or (len(kernel) == 3 and kernel[0] == 1):
            canonical = {"W": (kernel[2], kernel[1], kernel[0])} if len(kernel) == 3 else {}
            if len(shape.get("D", ())) == 3:
                taps, multiplier, channels = shape["D"]
                canonical["D"] = (channels, taps, multiplier)
            renamed = {"W" if leaf == "kernel" else leaf: name for leaf, name in leaves.items()}
            found[path] = _do_layer(label, path, renamed, canonical, "original-tf", hints, notes)
        elif "depthwise_kernel" in leaves:
            *size, channels, multiplier = shape["depthwise_kernel"]
            geometry = {
                "in_channels": channels,
                "out_channels": channels * multiplier,
                "kernel_size": size,
                "groups": channels,
            }
            tensors = {"weight": leaves["depthwise_kernel"]} | bias
            found[path] = LayerInfo("conv", tensors, geometry, depthwise=True)
        elif len(kernel) == 2:
            found[path] = LayerInfo("linear", {"weight": leaves["kernel"]} | bias)
        elif len(kernel) in (3, 4, 5):
            geometry = {"in_channels": kernel[-2], "out_channels": kernel[-1], "kernel_size": list(kernel[:-2])}
            guessed = ("in_channels", "groups")
            found[path] = LayerInfo("conv", {"weight": leaves["kernel"]} | bias, geometry, guessed=guessed)
        elif "moving_mean" in leaves or "gamma" in leaves:
            names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
            tensors = {role: leaves[leaf] for role, leaf in names.items() if leaf in leaves}
            found[path] = LayerInfo("batch_norm" if "moving_mean" in leaves else "norm", tensors)
        elif "embeddings" in leaves:
            found[path] = LayerInfo("embedding", {"weight": leaves["embeddings"]})
    return found


def _do_layer(
    label: str,
    path: str,
    leaves: Mapping[str, str],
    shape: Shapes,
    dialect: str | None,
    hints: Hints,
    notes: Notes,
) -> LayerInfo:
    """A layer with `W` `(C_out, C_in/G, S)`, transposed `(C_in, C_out/G, S)`, and `D` `(C_in, K, S)`."""
    if len(shape.get("W", ())) != 3:
        raise CheckpointError(
            f"{label}: {leaves['D']} has no {join(path, 'W')} of three axes beside it. {_received(shape)}"
        )
    if len(shape.get("D", ())) != 3:
        if shape["W"][2] != 1:
            raise CheckpointError(f"{label}: {leaves['W']} has no {join(path, 'D')} beside it. {_received(shape)}")
        return _one_tap(label, path, leaves, shape, dialect, hints, notes)
    first, second, multiplier = shape["W"]
    channels, taps, columns = shape["D"]
    plain = channels % second == 0 and first % (channels // second or 1) == 0
    transposed = dialect is None and (
        _is_transposed(path, shape["W"], shape, hints) or (not plain and first == channels)
    )
    if columns != multiplier or taps < 2 or not (first == channels if transposed else plain):
        raise CheckpointError(f"{label}: {leaves['W']} and {leaves['D']} do not belong together. {_received(shape)}")
    diagonal = next((leaf for leaf in DIAGONALS if leaf in leaves), None)
    if diagonal and shape[diagonal] != shape["D"]:
        raise CheckpointError(f"{label}: {leaves[diagonal]} must have the shape of D. {_received(shape)}")
    geometry: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": _outputs(second, shape) if transposed else first,
        "kernel_size": _kernel_size(label, path, taps, (first, second), hints, notes),
        "groups": _outputs(second, shape) // second if transposed else channels // second,
        "transposed": transposed,
        "d_mul": multiplier,
    }
    try:
        conv = ConvGeometry.from_json(geometry)
    except ValueError as error:
        raise CheckpointError(f"{label}: {leaves['W']}: {error}") from None
    if diagonal and dialect is None and (dialect_rows("original-torch", conv) != conv.rows).any():
        raise CheckpointError(
            f"{label}: {leaves[diagonal]} is the authors': how its groups pair with D depends on the file, say which dialect. "
            f"Received: dialect=None, {conv.describe()}"
        )
    if first == channels and plain and not transposed and dialect is None and not diagonal:
        notes.setdefault("taken for no transposed convolutions, which the shapes do not tell", []).append(path)
    tensors = {"W": leaves["W"], "D_delta": leaves["D"]} | ({"bias": leaves["bias"]} if "bias" in leaves else {})
    if diagonal:
        tensors["diagonal"] = leaves[diagonal]
    guessed = ("groups", "out_channels") if transposed and "bias" not in shape else ()
    return LayerInfo("conv", tensors, geometry, dialect=dialect or "doconv", guessed=guessed)


def _one_tap(
    label: str, path: str, leaves: Mapping[str, str], shape: Shapes, dialect: str | None, hints: Hints, notes: Notes
) -> LayerInfo:
    """A kernel of one tap has no `D`: the layer is the plain convolution, and its groups are not in the shapes."""
    size = [1, 1] if dialect else _kernel_size(label, path, 1, shape["W"][:2], hints, notes)
    tensors = {"W": leaves["W"]} | ({"bias": leaves["bias"]} if "bias" in leaves else {})
    geometry, guessed = _sizes(shape["W"][:2], shape, _is_transposed(path, shape["W"], shape, hints))
    return LayerInfo(
        "conv", tensors, geometry | {"kernel_size": size, "d_mul": 1}, dialect=dialect or "doconv", guessed=guessed
    )


def _plain(path: str, tensors: dict[str, str], shape: Shapes, hints: Hints) -> LayerInfo | None:
    """A plain layer; None where the bias is not that of a layer that is known here."""
    weight, bias = shape["weight"], shape.get("bias")
    transposed = len(weight) > 2 and _is_transposed(path, weight, shape, hints)
    if bias is not None and bias != (_outputs(weight[1], shape) if transposed else weight[0],):
        return None
    if len(weight) == 1:
        return LayerInfo("norm", tensors)
    if len(weight) == 2:
        return LayerInfo("embedding" if _matches(path, hints.embeddings) else "linear", tensors)
    geometry, guessed = _sizes(weight[:2], shape, transposed)
    return LayerInfo("conv", tensors, geometry | {"kernel_size": list(weight[2:])}, guessed=guessed)


def _is_transposed(path: str, ends: tuple[int, ...], shape: Shapes, hints: Hints) -> bool:
    """Whether a kernel is said to be transposed, or has a bias that tells."""
    return _matches(path, hints.transposed) or ("bias" in shape and shape["bias"] != (ends[0],))


def _sizes(ends: tuple[int, ...], shape: Shapes, transposed: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The channels of a plain kernel as far as its shape tells, and which of them only stand for the right shapes.

    A kernel `(C_out, C_in/G, ...)` does not tell `G`; a transposed one `(C_in, C_out/G, ...)` does with its bias.
    """
    if not transposed:
        return {"in_channels": ends[1], "out_channels": ends[0]}, ("in_channels", "groups")
    outs = _outputs(ends[1], shape)
    known = {"in_channels": ends[0], "out_channels": outs, "groups": outs // ends[1], "transposed": True}
    return known, () if "bias" in shape else ("out_channels", "groups")


def _outputs(second: int, shape: Shapes) -> int:
    """`C_out` of a transposed convolution with kernels `(C_in, C_out/G, ...)`; without a bias one group stands for any."""
    bias = shape.get("bias", (second,))
    return bias[0] if len(bias) == 1 and bias[0] and bias[0] % second == 0 else second


def _kernel_size(label: str, path: str, taps: int, channels: tuple[int, ...], hints: Hints, notes: Notes) -> list[int]:
    for pattern, size in hints.kernel_sizes.items():
        if fnmatch.fnmatchcase(path, pattern):
            if math.prod(size) != taps:
                raise CheckpointError(
                    f"{label}: {path} has kernels of {taps} taps. Received: {pattern}={'x'.join(map(str, size))}"
                )
            return list(size)
    plain = hints.like.get(join(path, "weight"))
    if plain is not None:
        if plain[:2] != tuple(channels) or math.prod(plain[2:]) != taps:
            raise CheckpointError(
                f"{label}: {path} has W for {tuple(channels)} channels and {taps} taps, not that of the plain model. "
                f"Received: {join(path, 'weight')} of shape {plain}"
            )
        return list(plain[2:])
    side = math.isqrt(taps)
    if side * side != taps:
        raise CheckpointError(
            f"{label}: the kernel size of {path} is not in the file and {taps} taps are no square: give it "
            f"(--kernel-size '{path}=MxN', or --like the plain model). Received: no kernel size for {path}"
        )
    notes.setdefault(f"kernel size {side}x{side} assumed for {taps} {'taps' if taps > 1 else 'tap'}", []).append(path)
    return [side, side]


def _by_layer(shapes: Shapes) -> dict[str, dict[str, str]]:
    layers: dict[str, dict[str, str]] = {}
    for name in shapes:
        path, leaf = split(name)
        layers.setdefault(path, {})[leaf] = name
    return layers


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _received(shape: Shapes) -> str:
    return "Received: " + ", ".join(f"{leaf} of shape {tuple(size)}" for leaf, size in shape.items())
