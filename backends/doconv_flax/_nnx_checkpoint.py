"""Portable checkpoints of `flax.nnx` models."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from flax import nnx

from doconv_core.checkpoint import LayerInfo, ModelLayer, ModelState, ModelTensor, NameMap, load_model, save_model
from doconv_flax._linen_checkpoint import placed
from doconv_flax._nnx_layers import DOConv, DOConvTranspose

M = TypeVar("M", bound=nnx.Module)
KINDS: dict[Any, str] = {
    nnx.Embed: "embedding", nnx.BatchNorm: "batch_norm", nnx.LayerNorm: "layer", nnx.RMSNorm: "rms",
    nnx.GroupNorm: "group", nnx.InstanceNorm: "instance",
}  # fmt: skip


def save_checkpoint(
    model: nnx.Module,
    path: str | os.PathLike[str],
    *,
    name_map: NameMap | None = None,
    strict: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save a model as a portable checkpoint, which every backend of doconv loads and `doconv fold` folds without one.

    Stored are convolutions (plain or over-parameterized), linear layers, embeddings and normalisations. Random states are not.

    Args:
        model: a module.
        path: the file, `.safetensors` by custom; replaced once it is complete.
        name_map: what a layer of the model is called in the file, where that is not its path (`blocks.0.conv`): a dict from
            paths, a function of the path, or pairs of a regular expression for the whole path and a replacement.
        strict: False stores Variables that are of none of these layers as they are; only `doconv_flax.nnx` loads them.
        metadata: further strings for the file.

    Raises:
        TypeError: `model` is not an nnx module.
        ValueError: Variables of other layers, stacked layers among them (`nnx.vmap`); two layers with one name; a `name_map`
            that names no layer.
        OSError: the file cannot be written.
    """
    save_model(path, _state(model), name_map=name_map, strict=strict, metadata=metadata)


def load_checkpoint(
    path: str | os.PathLike[str], model: M, *, name_map: NameMap | None = None, strict: bool = True
) -> M:
    """Load a portable checkpoint into a model, in place, value for value. Nothing is changed unless all fits.

    A DO-Conv layer loads into a DO-Conv layer with the same `d_mul`, a plain one into a plain one. Variables stay the same
    objects.

    Args:
        path: the file.
        model: a module.
        name_map: as in `save_checkpoint`: what a layer of this model is called in the file.
        strict: False loads what fits and logs the rest as warnings of the logger "doconv".

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not an nnx module.
        ValueError: the file cannot be read or does not fit (`doconv_core.checkpoint.CheckpointError`, which lists what is
            missing, left over, of another shape or with other options); a `name_map` that names no layer.
        OSError: the file cannot be opened.
    """
    load_model(path, _state(model), name_map=name_map, strict=strict)
    return model


def _state(model: nnx.Module) -> ModelState:
    """The model's layers, and the Variables that none of them covers."""
    if not isinstance(model, nnx.Module):
        raise TypeError(f"model must be a flax.nnx.Module. Received: {type(model).__name__}")
    state, covered = ModelState(), set[int]()
    for path, node in nnx.iter_graph(model):
        if info := _info(node):
            found = {role: getattr(node, name, None) for role, name in info.leaves("flax").items()}
            variables = {role: variable for role, variable in found.items() if variable is not None}
            if info.kind != "conv" or len(variables["W" if "W" in variables else "weight"].shape) == _ndim(node):
                covered |= {id(variable) for variable in variables.values()}
                tensors = {role: _tensor(variable) for role, variable in variables.items()}
                state.layers[".".join(map(str, path))] = ModelLayer.of(info, tensors, "flax")
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Variable) and not isinstance(node, nnx.RngState) and id(node) not in covered:
            state.others[".".join(map(str, path))] = _tensor(node)
    return state


def _info(node: Any) -> LayerInfo | None:
    """The kind of a layer and its options; None for what is of no kind that is covered."""
    if isinstance(node, nnx.Conv | nnx.ConvTranspose):
        return LayerInfo("conv", {}, _geometry(node), transpose_kernel=getattr(node, "transpose_kernel", False))
    kind = "linear" if type(node) is nnx.Linear else next((k for cls, k in KINDS.items() if isinstance(node, cls)), "")
    return LayerInfo.of_kind(kind, getattr(node, "epsilon", None), getattr(node, "num_groups", None)) if kind else None


def _geometry(layer: Any) -> dict[str, Any]:
    size = list(layer.kernel_size)

    def per_axis(value: Any) -> list[int]:
        return [value or 1] * len(size) if value is None or isinstance(value, int) else list(value)

    known: dict[str, Any] = {
        "in_channels": layer.in_features,
        "out_channels": layer.out_features,
        "kernel_size": size,
        "stride": per_axis(layer.strides),
        "dilation": per_axis(layer.kernel_dilation),
        "groups": getattr(layer, "feature_group_count", 1),
        "transposed": isinstance(layer, nnx.ConvTranspose),
    }
    return known | ({"d_mul": layer.d_mul} if _is_over(layer) else {})


def _is_over(layer: Any) -> bool:
    return isinstance(layer, DOConv | DOConvTranspose) and layer.D is not None


def _ndim(layer: Any) -> int:
    """The number of axes of a kernel that is not stacked; `W` has one axis of columns where `S != K`."""
    return 3 if _is_over(layer) and layer.d_mul != math.prod(layer.kernel_size) else 2 + len(layer.kernel_size)


def _tensor(variable: nnx.Variable) -> ModelTensor:
    return ModelTensor(
        lambda: np.asarray(variable[...]), lambda array: variable.set_value(placed(array, variable[...]))
    )
