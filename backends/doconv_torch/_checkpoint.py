"""Portable checkpoints: save a model, load one that any backend saved, and load the authors' files."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from doconv_core.checkpoint import (
    Arrays,
    Checkpoint,
    CheckpointError,
    Hints,
    LayerInfo,
    ModelLayer,
    ModelState,
    ModelTensor,
    NameMap,
    check_name_map,
    find_state,
    load_model,
    mapped,
    open_source,
    read_pickle,
    save_model,
)
from doconv_core.checkpoint._format import some
from doconv_core.checkpoint._layers import join, names_of
from doconv_core.checkpoint._nested import part_of
from doconv_core.checkpoint._prefixes import model_names
from doconv_core.checkpoint._sources import ARCHIVES, Source
from doconv_torch._arrays import has_no_values, is_dense, is_repeated, lazy_array, to_numpy, to_tensor
from doconv_torch._layers import DOConvMixin, M, check_module, options_of

log = logging.getLogger("doconv")
KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear", nn.Embedding: "embedding", _BatchNorm: "batch_norm", nn.LayerNorm: "layer", nn.RMSNorm: "rms",
    nn.GroupNorm: "group", _InstanceNorm: "instance",
}  # fmt: skip


def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    name_map: NameMap | None = None,
    strict: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save a model as a portable checkpoint, which every backend of doconv loads and `doconv fold` folds without one.

    Stored are convolutions (plain or over-parameterized), linear layers, embeddings and normalisations. A wrapper of
    `DistributedDataParallel` or `torch.compile` leaves no trace. The state of an optimizer is not stored.

    Args:
        model: a module.
        path: the file, `.safetensors` by custom; replaced once it is complete.
        name_map: what a layer of the model is called in the file, where that is not its path: a dict from paths, a function of
            the path, or pairs of a regular expression for the whole path and a replacement.
        strict: False stores tensors that are of none of these layers as they are; only `doconv_torch` loads them.
        metadata: further strings for the file.

    Raises:
        TypeError: `model` is not a module.
        ValueError: tensors of other layers, two layers with one name, a `name_map` that names no layer.
        OSError: the file cannot be written.
    """
    save_model(path, _state(model), name_map=name_map, strict=strict, metadata=metadata)


def load_checkpoint(
    path: str | os.PathLike[str], model: M, *, name_map: NameMap | None = None, strict: bool = True
) -> M:
    """Load a portable checkpoint into a model, in place, value for value. Nothing is changed unless all fits.

    A DO-Conv layer loads into a DO-Conv layer with the same `d_mul`, a plain one into a plain one. The parameters stay the same
    objects, so an optimizer of the model stays valid.

    Args:
        path: the file.
        model: a module.
        name_map: as in `save_checkpoint`: what a layer of this model is called in the file.
        strict: False loads what fits and logs the rest as warnings of the logger "doconv".

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the file cannot be read or does not fit (`doconv_core.checkpoint.CheckpointError`, which lists what is
            missing, left over, of another shape or with other options); a `name_map` that names no layer.
        OSError: the file cannot be opened.
    """
    load_model(path, _state(model), name_map=name_map, strict=strict)
    return model


def load_original(
    source: str | os.PathLike[str] | Mapping[str, Any],
    model: M,
    *,
    dialect: str = "original-torch",
    kernel_size: Mapping[str, Sequence[int]] | None = None,
    name_map: NameMap | None = None,
    strict: bool = True,
    key: str | None = None,
    prefix: str | None = None,
) -> M:
    """Load a checkpoint of the authors' own code into a model, in place.

    Layers of the model that are over-parameterized get `W` and `D`, plain ones the folded kernel. Where the groups of the
    authors' PyTorch file pair with `D` as no layer of ours does (more than one group, and not as many as output channels), the
    layer is folded by its own pairing and over-parameterized afresh: the same function, another `W` and `D`. A stored identity
    that was trained counts: `D + D_diag`. What was assumed is logged at level INFO by the logger "doconv".

    Args:
        source: a `.pth` file (read by `torch.load(weights_only=True)` alone), a `.safetensors` file of the same names, an `.h5`
            file of the TensorFlow code, or a state dict. Dicts around the state dict are seen through.
        model: a module whose layers have the names of the file, or those that `name_map` gives.
        dialect: "original-torch" or "original-tf": whose pairing of kernels with rows of `D`.
        kernel_size: globs of layer paths of the file to kernel sizes; those of the model's own layers are known.
        name_map: as in `load_checkpoint`.
        strict: as in `load_checkpoint`.
        key: where the state dict is in the dicts around it, dots between the keys ("params_ema"). None follows the usual ones,
            and refuses to choose between weights and their average.
        prefix: which part of the file to use: the tensors whose names begin with it ("student."). None means all of them,
            finds what stands before the model's names (`module.`, `net.` and any other), and refuses to choose between two
            models.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the file cannot be read or does not fit, as in `load_checkpoint`; an unknown dialect; a choice to be made
            by `key` or `prefix`.
        OSError: the file cannot be opened.
    """
    if dialect not in ("original-torch", "original-tf"):
        raise ValueError(f"dialect must be original-torch or original-tf. Received: {dialect!r}")
    check_name_map(name_map)
    state = _state(model)
    called = {mapped(path, name_map): layer.info for path, layer in state.layers.items()}
    convs = {name: info.geometry for name, info in called.items() if info.kind == "conv"}
    known = {name: geometry["kernel_size"] for name, geometry in convs.items()}
    turned = {name for name, geometry in convs.items() if geometry["transposed"]}
    like = [join(name, "weight") for name in called]
    tensors, label, notes = _open(source, key)
    try:
        tensors = part_of(tensors, prefix, label) if prefix else tensors
        hints = Hints(kernel_size or {}, known=known, known_transposed=turned, prefix=_prefix(tensors, label, like))
        checkpoint = Checkpoint(tensors, label, dialect=dialect, hints=hints)
        _check_theirs(checkpoint)
        load_model(checkpoint, state, name_map=name_map, strict=strict, fold=True)
    finally:
        tensors.close()
    for note in (*notes, *checkpoint.notes):
        log.info("%s: %s", label, note)
    return model


def _check_theirs(checkpoint: Checkpoint) -> None:
    """A layer of this project has the same names and shapes, and pairs `W` and `D` in another way where this matters."""
    ours = [
        path
        for path, info in checkpoint.layers.items()
        if info.kind == "conv" and info.has_d and "diagonal" not in info.tensors and not checkpoint.is_exact(path)
    ]
    if ours:
        raise CheckpointError(
            f"{checkpoint.label}: no D_diag beside D, which the authors' code always stores: what doconv's layers wrote is "
            "loaded by model.load_state_dict, a file of the authors' that lost it is folded by "
            f"fold_state_dict(state, dialect='original-torch'). Received: {some(ours, 5)}"
        )


def _open(source: str | os.PathLike[str] | Mapping[str, Any], key: str | None) -> tuple[Source, str, list[str]]:
    """The tensors, what errors call them, and what was chosen, in sentences."""
    if isinstance(source, Mapping):
        label, loaded = "state dict", source
    else:
        label, path = str(source), Path(source)
        if path.suffix.lower() in (".safetensors", *ARCHIVES):
            if key is not None:
                raise CheckpointError(f"{label} has no dicts around its tensors. Received: key={key!r}")
            return open_source(path), label, []
        loaded = read_pickle(path, load_saved)
    state, notes = _choose(loaded, label, key)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    for name, value in tensors.items():
        if not is_dense(value) or has_no_values(value):
            raise CheckpointError(
                f"{label}: {name} has no values that NumPy knows. Received: {value.dtype}, {value.layout}, {value.device}"
            )
        if is_repeated(value):
            raise CheckpointError(f"{label}: {name} is a few values repeated. Received: shape {tuple(value.shape)}")
    arrays = {name: lazy_array(value) for name, value in tensors.items()}
    return Arrays(label, arrays, getattr(state, "_metadata", None)), label, notes


def load_saved(path: str | os.PathLike[str], **options: Any) -> Any:
    """As `torch.load`; `weights_only=True` passes an `argparse.Namespace`, which timm's and torchvision's scripts save."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, **options)


def _choose(loaded: Any, label: str, key: str | None) -> tuple[Mapping[str, Any], list[str]]:
    """The state dict in what a training script saved; no choice is made between the weights and their average."""
    found = find_state(loaded, label, torch.is_tensor, key=key)
    if key is None:
        try:
            state, average = find_state(loaded, label, torch.is_tensor, ema=True)
        except CheckpointError:
            return found
        if state is found[0]:  # Lightning's, and said in a note
            return found
        weights = found[1][-1] if found[1] else "the weights are those at the top (key='')"
        raise CheckpointError(
            f"{label} has weights and an average of them: choose one by `key`. Received: {weights}; {average[-1]}"
        )
    return found


def _prefix(tensors: Source, label: str, like: list[str]) -> str | None:
    """What stands before the names of the model in a file; None if that says nothing."""
    found = model_names(tensors.shapes, like, label, choice="prefix")
    if found is None or (not found.prefix and any(name != plain for name, plain in found.names.items())):
        return None
    return found.prefix


def _state(model: nn.Module) -> ModelState:
    """The model's layers, and the tensors of its state dict that none of them covers."""
    check_module(model)
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module  # type: ignore[assignment]
    state, covered, first = ModelState(), set[str](), dict[int, str]()
    for path, module in model.named_modules(remove_duplicate=False):
        found = _layer(module)
        if found is None:
            continue
        info, names, tensors = found
        covered |= {join(path, name) for name in names}
        if id(module) in first:
            state.aliases[path] = first[id(module)]
        else:
            first[id(module)] = path
            state.layers[path] = ModelLayer.of(info, tensors, "torch")
    for name, tensor in model.state_dict(keep_vars=True).items():
        if type(tensor.data if isinstance(tensor, nn.Parameter) else tensor).__name__ == "DTensor":
            raise ValueError(f"sharded tensors must be gathered first. Received: {name}")
        if name not in covered:
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(f"a portable checkpoint holds tensors only. Received: {name}, {type(tensor).__name__}")
            state.others[name] = _tensor(tensor, tuple(tensor.shape))
    return state


def _layer(module: nn.Module) -> tuple[LayerInfo, list[str], dict[str, ModelTensor]] | None:
    """The kind of a layer, and its own tensors by name and by role; None for a module of no kind that is covered."""
    kind = next((kind for cls, kind in KINDS.items() if isinstance(module, cls)), "")
    if isinstance(module, _ConvNd):
        info = LayerInfo("conv", {}, _geometry(module))
    elif kind and not (isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1):
        info = LayerInfo.of_kind(kind, getattr(module, "eps", None), getattr(module, "num_groups", None))
    else:
        return None
    own: dict[str, Any] = {**module._parameters, **module._buffers}
    found = {role: name for role, name in names_of(info.kind, "torch").items() if own.get(name) is not None}
    tensors = {role: _tensor(own[name], tuple(own[name].shape)) for role, name in found.items()}
    if "W" in found and "D_delta" not in found:  # of one tap: the plain convolution's weight
        tensors = {"weight": _tensor(own["W"], (*own["W"].shape[:2], *module.kernel_size))} | tensors  # type: ignore[misc]
        del tensors["W"]
    # A kernel that is computed from other parameters (weight norm and the like) is no kernel to be loaded.
    return (info, [*found.values()], tensors) if found.keys() & {"W", "weight", "running_mean"} else None


def _geometry(conv: _ConvNd) -> dict[str, Any]:
    """The options as far as they are numbers: a padding by name depends on the input."""
    known = options_of(conv, conv.d_mul if isinstance(conv, DOConvMixin) and conv.D is not None else None)
    known = {option: value for option, value in known.items() if value is not None}
    if not isinstance(conv.padding, str):
        known["padding"] = [[size, size] for size in conv.padding]
    return known | {"padding_mode": conv.padding_mode}


def _tensor(tensor: torch.Tensor, shape: tuple[int, ...]) -> ModelTensor:
    """A tensor of a model, of `shape` in a checkpoint."""

    def write(array: np.ndarray) -> None:
        with torch.no_grad():
            tensor.copy_(to_tensor(array.reshape(tensor.shape)))

    return ModelTensor(lambda: to_numpy(tensor).reshape(shape), write)
