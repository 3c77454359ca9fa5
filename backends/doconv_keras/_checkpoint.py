"""Portable checkpoints: save a model, and load one that any backend saved."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from doconv_core.checkpoint import (
    LayerInfo,
    ModelLayer,
    ModelState,
    ModelTensor,
    NameMap,
    check_name_map,
    load_model,
    open_checkpoint,
    save_model,
)
from doconv_core.checkpoint._layers import join
from doconv_keras._arrays import to_numpy
from doconv_keras._layers import DEPTHWISE, EXPLICIT, SEPARABLE, DOConvMixin, options_of
from doconv_keras._names import match_by_order
from doconv_keras._transfer import own_variables, sublayers

log = logging.getLogger("doconv")
L = TypeVar("L", bound=keras.layers.Layer)
EXACT: dict[Any, str] = {keras.layers.Dense: "linear", keras.layers.Embedding: "embedding"}
KINDS: dict[Any, str] = {
    keras.layers.BatchNormalization: "batch_norm", keras.layers.GroupNormalization: "group",
    keras.layers.LayerNormalization: "layer",
}  # fmt: skip


def save_checkpoint(
    model: keras.layers.Layer,
    path: str | os.PathLike[str],
    *,
    name_map: NameMap | None = None,
    strict: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save a model as a portable checkpoint, which every backend of doconv loads and `doconv fold` folds without one.

    Stored are convolutions (plain or over-parameterized), dense layers, embeddings and normalisations. Random states and the
    optimizer are not.

    Args:
        model: a built model or layer.
        path: the file, `.safetensors` by custom; replaced once it is complete.
        name_map: what a layer of the model is called in the file, where that is not its path (the names of layers from the
            model's first level on, joined by dots): a dict from paths, a function of the path, or pairs of a regular
            expression for the whole path and a replacement.
        strict: False stores weights that are of none of these layers as they are; only `doconv_keras` loads them.
        metadata: further strings for the file.

    Raises:
        TypeError: `model` is not a layer.
        ValueError: weights of other layers; two layers with one name; a model that is not built; a `name_map` that names no
            layer.
        OSError: the file cannot be written.
    """
    save_model(path, _state(model), name_map=name_map, strict=strict, metadata=metadata)


def load_checkpoint(
    path: str | os.PathLike[str], model: L, *, name_map: NameMap | None = None, strict: bool = True
) -> L:
    """Load a portable checkpoint into a built model, in place, value for value. Nothing is changed unless all fits.

    A DO-Conv layer loads into a DO-Conv layer with the same `d_mul`, a plain one into a plain one. A depthwise convolution and
    a grouped one with as many groups as channels load into each other.

    Args:
        path: the file.
        model: a built model or layer.
        name_map: as in `save_checkpoint`: what a layer of this model is called in the file. Without one, names that Keras
            gave (`conv2d_1`) and that differ in their numbers only are matched by the order of the layers.
        strict: False loads what fits and logs the rest as warnings of the logger "doconv".

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a layer.
        ValueError: the file cannot be read or does not fit (`doconv_core.checkpoint.CheckpointError`, which lists what is
            missing, left over, of another shape or with other options); a model that is not built; a `name_map` that names no
            layer.
        OSError: the file cannot be opened.
    """
    check_name_map(name_map)
    state = _state(model)
    with open_checkpoint(path) as checkpoint:
        if name_map is None and state.layers.keys() != checkpoint.layers.keys():
            name_map = match_by_order(model, state.layers, checkpoint.layers)
            for layer, name in (name_map or {}).items():
                log.info("%s: matched by its order with %s of the file", layer, name)
        load_model(checkpoint, state, name_map=name_map, strict=strict)
    return model


def _state(model: keras.layers.Layer) -> ModelState:
    """The model's layers, and the weights that none of them covers."""
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"model must be a keras.layers.Layer. Received: {type(model).__name__}")
    if not model.built:
        raise ValueError(f"build the model first. Received: {model.name}, built=False")
    state, covered, first = ModelState(), set[int](), dict[int, str]()
    for path, layer in _walk(model, ""):
        found = _layer(layer)
        if found is None:
            continue
        if id(layer) in first:
            state.aliases[path] = first[id(layer)]
            continue
        if path in state.layers:
            raise ValueError(f"two layers have the same path: give them other names. Received: {path}")
        info, variables = found
        first[id(layer)] = path
        covered |= {id(variable) for variable in variables.values()}
        tensors = {role: _tensor(variable) for role, variable in variables.items()}
        state.layers[path] = ModelLayer.of(info, tensors, "keras")
    for path, layer in _walk(model, ""):
        for variable in own_variables(layer):
            if id(variable) not in covered and not isinstance(layer, keras.random.SeedGenerator):
                covered.add(id(variable))
                state.others[join(path, variable.name)] = _tensor(variable)
    return state


def _walk(layer: keras.layers.Layer, path: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Every layer with its path, a shared one with each; the path of the model itself is ""."""
    yield path, layer
    for inner in sublayers(layer):
        yield from _walk(inner, join(path, inner.name))


def _layer(layer: keras.layers.Layer) -> tuple[LayerInfo, dict[str, Any]] | None:
    """The kind of a layer, and its variables by role; None for what is of no kind that is covered."""
    # Kernels in units of their own, or with something added.
    if getattr(layer, "quantization_mode", None) is not None or getattr(layer, "lora_enabled", False):
        return None
    kind = EXACT.get(type(layer)) or next((kind for cls, kind in KINDS.items() if isinstance(layer, cls)), "")
    if isinstance(layer, tuple(EXPLICIT)) and not isinstance(layer, SEPARABLE):
        info = LayerInfo("conv", {}, _geometry(layer), depthwise=isinstance(layer, DEPTHWISE))
    elif kind:
        info = LayerInfo.of_kind(kind, getattr(layer, "epsilon", None), getattr(layer, "groups", None))
    else:
        return None
    # `kernel` of a DO layer is composed.
    found = {role: getattr(layer, "W" if role == "W" else name, None) for role, name in info.leaves("keras").items()}
    variables = {role: variable for role, variable in found.items() if variable is not None}
    many = info.kind == "norm" and any(len(variable.shape) != 1 for variable in variables.values())
    return None if many else (info, variables)


def _geometry(layer: Any) -> dict[str, Any]:
    over = isinstance(layer, DOConvMixin) and layer.D is not None
    known = options_of(layer, (layer.W if over else layer.kernel).shape)
    if layer.padding == "valid" and not known["transposed"]:
        known["padding"] = [[0, 0] for _ in layer.kernel_size]
    return known | ({"d_mul": layer.d_mul} if over else {})


def _tensor(variable: Any) -> ModelTensor:
    return ModelTensor(lambda: to_numpy(variable), lambda array: variable.assign(np.ascontiguousarray(array)))
