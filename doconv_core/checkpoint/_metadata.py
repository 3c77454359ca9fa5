"""What a file of this project says about its layers: the value of the metadata's key "doconv", written and read.

It comes from a file that anyone may have made, so every value is checked before it is used for anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from doconv_core.checkpoint._format import CheckpointError, without_twins
from doconv_core.checkpoint._layers import NAMES, LayerInfo
from doconv_core.layouts import FRAMEWORKS

VERSION = 1
KEY = "doconv"  # of the file's metadata
LARGEST = 2**31  # no size of a layer reaches it
INTEGERS = ("in_channels", "out_channels", "groups", "d_mul")
AXES = ("kernel_size", "stride", "dilation", "output_padding")
OPTIONS = (*INTEGERS, *AXES, "padding", "transposed", "padding_mode", "norm")


def describe(layers: Mapping[str, LayerInfo], layout: str, aliases: Mapping[str, str]) -> str:
    """The value of the metadata's key "doconv"."""
    known: dict[str, Any] = {"version": VERSION, "layout": layout}
    known["layers"] = {path: info.to_json() for path, info in layers.items()}
    if aliases:
        known["aliases"] = dict(aliases)
    return json.dumps(known, separators=(",", ":"))


def read_metadata(label: str, text: str, names: Container[str]) -> tuple[str, dict[str, LayerInfo], dict[str, str]]:
    """The inverse of `describe`, for a file whose tensors have `names`: the layout, the layers by path, and their aliases.

    Raises:
        CheckpointError: it is not what `describe` writes.
    """
    try:
        declared = json.loads(text, object_pairs_hook=without_twins)
        version = declared["version"]
        if type(version) is not int:
            raise TypeError(f"version must be an integer. Received: {version!r}")
        if version > VERSION:
            raise CheckpointError(
                f"{label} has format version {version}, later than {VERSION}: a newer doconv reads it. "
                f"Received: version {version}"
            )
        if version < 1:
            raise ValueError(f"version must be at least 1. Received: {version}")
        layout = declared["layout"]
        if layout not in FRAMEWORKS:
            raise ValueError(f"layout must be one of {', '.join(FRAMEWORKS)}. Received: {layout!r}")
        layers = {path: _layer(path, values, names, layout) for path, values in declared["layers"].items()}
        return layout, layers, _aliases(declared.get("aliases", {}), layers)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{label}: unreadable metadata {KEY!r}: {type(error).__name__}: {error}") from None


def _layer(path: str, values: Any, names: Container[str], layout: str) -> LayerInfo:
    """A layer; its tensors are those of `names` that `layout` gives a layer of its kind."""
    path.encode()  # what UTF-8 cannot write could be neither shown nor written again
    if not isinstance(values, dict):
        raise TypeError(f"{path} must be an object. Received: {type(values).__name__}")
    kind = values.get("kind")
    if kind not in NAMES:
        raise ValueError(f"{path or 'the layer'} is of an unknown kind. Received: {kind!r}")
    geometry = values.get("geometry", {})
    if not isinstance(geometry, dict):
        raise TypeError(f"the geometry of {path} must be an object. Received: {type(geometry).__name__}")
    for option, value in geometry.items():
        _check_option(path, kind, option, value)
    epsilon = values.get("epsilon")
    if epsilon is not None and not (type(epsilon) in (int, float) and 0 <= epsilon < math.inf):
        raise ValueError(f"the epsilon of {path} must be a number from 0 on. Received: {epsilon!r}")
    for flag in ("depthwise", "transpose_kernel"):
        if type(values.get(flag, False)) is not bool:
            raise TypeError(f"{flag} of {path} must be true or false. Received: {values[flag]!r}")
    guessed = values.get("guessed", [])
    if not isinstance(guessed, list) or any(option not in OPTIONS for option in guessed):
        raise ValueError(f"{path} has unknown options in `guessed`. Received: {guessed!r}")
    options = {name: values[name] for name in ("depthwise", "transpose_kernel") if name in values}
    info = LayerInfo(kind, {}, geometry, epsilon, guessed=tuple(guessed), **options)
    kept = info.names(info.leaves(layout), path, layout)
    tensors = {role: name for role, name in kept.items() if name in names}
    known = info.names(NAMES[kind], path, layout)
    stray = [name for name in known.values() if name in names and name not in tensors.values()]
    if stray and "W" not in kept:  # `W` and `weight` have one name in Keras and Flax
        raise ValueError(f"{path} is a plain convolution and has no such tensor. Received: {', '.join(stray)}")
    return replace(info, tensors=tensors)


def _check_option(path: str, kind: str, option: str, value: Any) -> None:
    short = isinstance(value, str) and len(value) < 20

    def integer(item: Any, least: int) -> bool:
        return type(item) is int and least <= item < LARGEST

    def axes(items: Any, least: int) -> bool:
        return isinstance(items, list) and 1 <= len(items) <= 3 and all(integer(item, least) for item in items)

    if option not in OPTIONS:
        raise ValueError(f"{path}: unknown geometry options [{option!r}]")
    if option in INTEGERS:
        right = integer(value, 1)
    elif option in AXES:
        right = axes(value, 0 if option == "output_padding" else 1)
    elif option == "padding":
        right = isinstance(value, list) and len(value) <= 3 and all(axes(pair, -LARGEST) for pair in value)
    elif option == "transposed":
        right = type(value) is bool
    else:
        right = short and (kind == "norm" or option != "norm")
    if not right:
        raise ValueError(f"{option} of {path} is out of range. Received: {str(value)[:80]}")


def _aliases(values: Any, layers: Container[str]) -> dict[str, str]:
    if not isinstance(values, dict):
        raise TypeError(f"aliases must be an object. Received: {type(values).__name__}")
    for alias, path in values.items():
        alias.encode()
        if not isinstance(path, str) or path not in layers or alias in layers:
            raise ValueError(f"an alias must be a further name of a layer. Received: {alias!r}: {str(path)[:80]!r}")
    return values
