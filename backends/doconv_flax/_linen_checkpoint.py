"""Portable checkpoints of `flax.linen` variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from doconv_core.checkpoint import LayerInfo, ModelLayer, ModelState, ModelTensor, NameMap, load_model, save_model
from doconv_core.checkpoint._layers import names_of
from doconv_flax._linen_spec import ConvSpec
from doconv_flax._linen_tree import Flat, boxed, flatten, raw, unflatten

Key = tuple[str, ...]
SIZES = ("in_channels", "out_channels", "kernel_size", "groups", "transposed")  # what the spec says of a convolution
# What shows a kind of layers: a leaf, and the number of its axes where layers are not stacked.
KINDS = (("embedding", "embedding", 2), ("batch_norm", "mean", 1), ("norm", "scale", 1), ("linear", "kernel", 2))


def save_checkpoint(
    variables: Any,
    path: str | os.PathLike[str],
    spec: ConvSpec,
    *,
    name_map: NameMap | None = None,
    strict: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save variables as a portable checkpoint, which every backend of doconv loads and `doconv fold` folds without one.

    Stored are convolutions (plain or over-parameterized), dense layers, embeddings and normalisations.

    Args:
        variables: what `model.init` gave, with the collections "params" and "batch_stats"; or the params alone.
        path: the file, `.safetensors` by custom; replaced once it is complete.
        spec: of `conv_spec(model, *inputs)`: names and shapes alone do not show which are convolutions.
        name_map: what a layer is called in the file, where that is not its path (`block.Conv_0`): a dict from paths, a
            function of the path, or pairs of a regular expression for the whole path and a replacement.
        strict: False stores tensors that are of none of these layers as they are; only this function's twin loads them.
        metadata: further strings for the file.

    Raises:
        TypeError: `variables` is no tree of dicts.
        ValueError: tensors of other layers, stacked layers among them (`nn.scan`, `nn.vmap`); two layers with one name; a
            `name_map` that names no layer.
        OSError: the file cannot be written.
    """
    save_model(path, _Tree(variables, spec).state, name_map=name_map, strict=strict, metadata=metadata)


def load_checkpoint(
    path: str | os.PathLike[str],
    variables: Any,
    spec: ConvSpec,
    *,
    name_map: NameMap | None = None,
    strict: bool = True,
) -> Any:
    """The values of a portable checkpoint in the form of `variables`.

    A DO-Conv layer loads into a DO-Conv layer with the same `d_mul`, a plain one into a plain one.

    Args:
        path: the file.
        variables: as in `save_checkpoint`, of the model that is to go on; it stays as it is.
        spec: as in `save_checkpoint`.
        name_map: as in `save_checkpoint`: what a layer of this model is called in the file.
        strict: False takes what fits and logs the rest as warnings of the logger "doconv".

    Returns:
        A new tree with the structure, types and placement of `variables`.

    Raises:
        TypeError: `variables` is no tree of dicts.
        ValueError: the file cannot be read or does not fit (`doconv_core.checkpoint.CheckpointError`, which lists what is
            missing, left over, of another shape or with other options); a `name_map` that names no layer.
        OSError: the file cannot be opened.
    """
    tree = _Tree(variables, spec)
    load_model(path, tree.state, name_map=name_map, strict=strict)
    return tree.rebuild()


class _Tree:
    """Variables, flat: their layers, and the values that replace them."""

    def __init__(self, variables: Any, spec: ConvSpec) -> None:
        if not isinstance(variables, Mapping):
            raise TypeError(f"variables must be nested dicts of arrays. Received: {type(variables).__name__}")
        self.given, self.whole = variables, "params" in variables
        collections = variables if self.whole else {"params": variables}
        self.flat: Flat = flatten(collections)
        self.state = ModelState()
        leaves: dict[Key, dict[str, Key]] = {}
        for key, leaf in self.flat.items():
            if key[0] in ("params", "batch_stats") and hasattr(raw(leaf), "shape"):
                leaves.setdefault(key[1:-1], {})[key[-1]] = key
        covered: set[Key] = set()
        for path, names in leaves.items():
            info = self._info("/".join(path), names, spec)
            if info is not None:
                roles = {role: names[leaf] for role, leaf in info.leaves("flax").items() if leaf in names}
                covered |= set(roles.values())
                tensors = {role: self._tensor(key) for role, key in roles.items()}
                self.state.layers[".".join(path)] = ModelLayer.of(info, tensors, "flax")
        for key, leaf in self.flat.items():
            if key not in covered and hasattr(raw(leaf), "shape"):
                name = ".".join(key[1:] if key[0] == "params" else key)
                self.state.others[name] = self._tensor(key)

    def rebuild(self) -> Any:
        """The tree with its present values."""
        tree = unflatten(self.flat, self.given)
        return tree if self.whole else tree["params"]

    def _info(self, path: str, names: dict[str, Key], spec: ConvSpec) -> LayerInfo | None:
        """The kind of a layer and its options, by its leaves or the spec; None for what is of no kind that is covered."""
        entry = spec.get(path)
        if entry is not None and "kernel" in names:
            if entry.stacked or entry.refused:
                return None
            over = {"d_mul": raw(self.flat[names["D"]]).shape[-2]} if "D" in names else {}
            geometry = entry.geometry(**over).to_json()
            known = {option: geometry[option] for option in (*SIZES, *over)}
            return LayerInfo("conv", {}, known, transpose_kernel=entry.transpose_kernel)
        for kind, leaf, rank in KINDS:
            if leaf in names and raw(self.flat[names[leaf]]).ndim == rank:
                return LayerInfo(kind, {}) if names.keys() <= set(names_of(kind, "flax").values()) else None
        return None

    def _tensor(self, key: Key) -> ModelTensor:
        def write(array: np.ndarray) -> None:
            self.flat[key] = boxed(self.flat[key], placed(array, raw(self.flat[key])))

        return ModelTensor(lambda: np.asarray(raw(self.flat[key])), write)


def placed(array: np.ndarray, like: Any) -> Any:
    """The values of `array` with the type and placement of `like`, as a copy."""
    array = np.array(array, like.dtype)
    return jax.device_put(array, like.sharding) if isinstance(like, jax.Array) else array
