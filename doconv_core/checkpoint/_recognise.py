"""Which layers a file holds that does not say so itself: by the names and shapes of its tensors.

| names of a layer | whose |
|---|---|
| `W` and `D`, three axes; `W (., ., 1)` alone | this project's PyTorch layers; the authors', with `D_diag` or `d_diag` |
| `kernel` and `D` `(*kernel_size, S, C_in)` | Flax's parameters, as `safetensors.flax` writes them |
| `weight` of four axes and `D` `(K, S, C_in)`; `conv0_weight` and `conv0_D` | the authors' GluonCV file |
| `kernel` `(S, C_in/G, C_out)` and `D` `(K, S, C_in)`, with the dialect "original-tf" | the authors' TensorFlow file |
| `ema_conv_W`, `model_ema.convW` | averages whose names lost their dots |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from doconv_core.checkpoint._do_layers import DELTAS, DIAGONALS, flax_layer, over_layer, torch_layer
from doconv_core.checkpoint._hints import Hints, Shapes
from doconv_core.checkpoint._layers import LayerInfo, split
from doconv_core.checkpoint._plain_layers import channels_last_plain, torch_plain
from doconv_core.checkpoint._prefixes import copies_without_dots
from doconv_core.checkpoint._reading import Candidate, Reading

COLLECTIONS = ("params", "batch_stats")  # of Flax's variables


def recognise(
    label: str, shapes: Shapes, dialect: str | None, hints: Hints
) -> tuple[str, dict[str, LayerInfo], Reading]:
    """Find the layout and the layers of a file, and what else reading it showed; the arguments are those of `Reading`.

    Raises:
        CheckpointError: `W` without `D` or the reverse, shapes that do not belong together, a kernel size that is not known,
            the authors' file where their dialect matters and is not given, hints that match nothing.
    """
    reading = Reading(label, shapes, dialect, hints)
    grouped = _by_layer(reading, shapes)
    ours = {path: layer for path, layer in grouped.items() if not reading.matches(path, hints.exclude)}
    reading.forget_renamed([path for path, layer in ours.items() if layer.rank("W") == 3])
    found = _each(_over, ours)
    layout = _layout(reading, found, grouped)
    rest = {path: layer for path, layer in ours.items() if path not in found}
    found |= _each(torch_plain if layout == "torch" else channels_last_plain, rest)
    layers = {path: found[path] for path in grouped if path in found}
    layers |= _copies(reading, layers, shapes)
    layers |= _pairs(reading, layers, shapes)
    reading.check_hints([*grouped, *layers], [path for path, info in layers.items() if info.kind == "conv"])
    return layout, layers, reading


def _each(rule: Callable[[Candidate], LayerInfo | None], layers: Mapping[str, Candidate]) -> dict[str, LayerInfo]:
    """The layers that a rule recognises, by path."""
    return {path: info for path, layer in layers.items() if (info := rule(layer)) is not None}


def _over(layer: Candidate) -> LayerInfo | None:
    """An over-parameterized layer, or one of one tap that counts as such; None if it is neither."""
    kernel, passes_it_on = layer.shapes.get("kernel", ()), f"--exclude '{layer.path}' passes it on"
    if layer.reading.dialect == "original-tf" and (layer.rank("D") or (len(kernel) == 3 and kernel[0] == 1)):
        return _tensorflow(layer)
    if "W" not in layer.stored and layer.rank("weight") == 4 and layer.rank("D") == 3:
        return _gluon(layer)
    if "W" not in layer.stored and len(kernel) >= 3 and layer.rank("D") in (3, 4, 5):
        return flax_layer(layer)
    if layer.first(("W", *DELTAS), 3):
        return torch_layer(layer)
    flat = layer.first(DELTAS, 1)
    if flat and layer.rank("W") == 1:
        layer.reading.fail(
            f"{layer.called('W', flat)} have lost their axes, as in one rank's part of a sharded run: "
            "gather the whole state dict (DeepSpeed's zero_to_fp32.py, FSDP's full state dict); "
            f"--exclude '{layer.path}' passes them on. Received: {layer.shapes['W']} and {layer.shapes[flat]}"
        )
    stray = next((leaf for leaf in (*DELTAS, *DIAGONALS) if layer.rank(leaf) > 2), "")
    if stray:
        layer.reading.fail(
            f"{layer.called(stray)} belongs to no layer ({passes_it_on}). Received: {layer.shapes[stray]}"
        )
    return None


def _tensorflow(layer: Candidate) -> LayerInfo:
    """`kernel` `(S, C_in/G, C_out)` and `D` `(K, S, C_in)`; `kernel` `(1, C_in/G, C_out)` alone."""
    canonical = {leaf: size for leaf, size in layer.shapes.items() if leaf == "bias"}
    if layer.rank("kernel") == 3:
        canonical["W"] = layer.shapes["kernel"][::-1]
    for leaf in ("D", *DIAGONALS):
        if layer.rank(leaf) == 3:
            taps, multiplier, channels = layer.shapes[leaf]
            canonical[leaf] = (channels, taps, multiplier)
    if "D" in layer.stored and "D" not in canonical:
        layer.reading.fail(
            f"{layer.called('D')} must have three axes (--exclude '{layer.path}' passes it on). "
            f"Received: {layer.shapes['D']}"
        )
    renamed = {"W" if leaf == "kernel" else leaf: name for leaf, name in layer.stored.items()}
    layer = replace(layer, stored=renamed, shapes=canonical)
    if "D" in canonical and "W" in canonical:
        return over_layer(layer, form="tf")
    return replace(torch_layer(layer), form="tf")


def _gluon(layer: Candidate) -> LayerInfo:
    """`weight` `(C_out, C_in/G, M, N)` and `D` `(M N, M N, C_in)`: `D_mul` is the number of taps."""
    first, second, *size = layer.shapes["weight"]
    taps, multiplier, channels = layer.shapes["D"]
    canonical = {**layer.shapes, "W": (first, second, size[0] * size[1]), "D": (channels, taps, multiplier)}
    layer.note("read as the authors' GluonCV file writes it")
    stored = {**layer.stored, "W": layer.stored["weight"]}
    return over_layer(replace(layer, stored=stored, shapes=canonical), form="mxnet", kernel_size=size)


def _layout(reading: Reading, layers: Mapping[str, LayerInfo], grouped: Mapping[str, Candidate]) -> str:
    if reading.dialect == "original-tf" or any(info.depthwise for info in layers.values()):
        return "keras"
    over = {"flax" if split(_dotted(i.tensors["W"]))[1] == "kernel" else "torch": p for p, i in layers.items()}
    if len(over) > 1:
        reading.fail(f"layers have PyTorch's names and Flax's. Received: {over['torch']} and {over['flax']}")
    if over:
        return next(iter(over))
    leaves = {leaf for layer in grouped.values() for leaf in layer.stored}
    return "flax" if "kernel" in leaves and "weight" not in leaves else "torch"


def _copies(reading: Reading, layers: Mapping[str, LayerInfo], shapes: Shapes) -> dict[str, LayerInfo]:
    """Averages whose names lost their dots: the layers that they are copies of say what their shapes leave open."""
    over = {path: info for path, info in layers.items() if "W" in info.tensors}
    owners = {
        name: (path, role) for path, info in over.items() for role, name in info.tensors.items() if role != "bias"
    }
    tensors: dict[tuple[str, str], dict[str, str]] = {}
    for copy, original in copies_without_dots(shapes, owners).items():
        path, role = owners[original]
        leaf = split(original)[1]
        tensors.setdefault((reading.plain.names[copy].removesuffix(leaf).rstrip("._"), path), {})[role] = copy
    found: dict[str, LayerInfo] = {}
    for (path, original), names in tensors.items():
        whole = names.keys() == layers[original].tensors.keys() - {"bias"}
        if whole and not reading.matches(path, reading.hints.exclude):
            found[path] = replace(layers[original], tensors=names)
            reading.note("read as copies of layers, whose names lost their dots", path)
    return found


def _pairs(reading: Reading, layers: Mapping[str, LayerInfo], shapes: Shapes) -> dict[str, LayerInfo]:
    """Other layers whose names have no dot before `W` and `D`, as those of an average in a file of its own, or before `weight`
    and `D`, as Gluon's `collect_params` calls them.
    """
    used = {name for info in layers.values() for name in info.tensors.values()}
    found: dict[str, LayerInfo] = {}
    for other, plain in reading.plain.names.items():
        path, delta = plain[:-1].rstrip("._"), tuple(shapes[other])
        if not plain.endswith("D") or split(plain)[1] == "D" or other in used or len(delta) != 3:
            continue
        kernels = {leaf: tuple(shapes.get(other[:-1] + leaf, ())) for leaf in ("W", "weight")}
        is_ours = len(kernels["W"]) == 3 and kernels["W"][2] == delta[2]
        is_gluon = plain.endswith("_D") and len(kernels["weight"]) == 4
        if not (is_ours or is_gluon) or reading.matches(path, reading.hints.exclude):
            continue
        leaf, rule = ("W", torch_layer) if is_ours else ("weight", _gluon)
        stored, sizes = {leaf: other[:-1] + leaf, "D": other}, {leaf: kernels[leaf], "D": delta}
        found[path] = rule(Candidate(reading, path, stored, sizes))
    return found


def _by_layer(reading: Reading, shapes: Shapes) -> dict[str, Candidate]:
    """The tensors by the layer that they may be of.

    Flax's names may have slashes, and its collections before them: `params/conv/kernel` is `kernel` of `conv`.
    """
    layers: dict[str, dict[str, str]] = {}
    flat = {stored: _dotted(plain) for stored, plain in reading.plain.names.items()}
    kernels = any(split(plain)[1] == "kernel" for plain in flat.values())
    if kernels and all(plain.split(".", 1)[0] in COLLECTIONS and "." in plain for plain in flat.values()):
        flat = {stored: plain.split(".", 1)[1] for stored, plain in flat.items()}
    for stored, plain in flat.items():
        path, leaf = split(plain)
        leaves = layers.setdefault(path, {})
        if leaf in leaves:
            reading.fail(f"two tensors have the same name. Received: {leaves[leaf]} and {stored}")
        leaves[leaf] = stored
    return {
        path: Candidate(reading, path, leaves, {leaf: tuple(shapes[name]) for leaf, name in leaves.items()})
        for path, leaves in layers.items()
    }


def _dotted(name: str) -> str:
    return name if "." in name else name.replace("/", ".")
