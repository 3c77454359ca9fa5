"""Save and load models: what the backends share. A backend says what layers a model has and how to read and write them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from doconv_core.checkpoint._checkpoint import Checkpoint, open_checkpoint
from doconv_core.checkpoint._format import CheckpointError
from doconv_core.checkpoint._hints import Hints
from doconv_core.checkpoint._layers import COMPARED, OPTIONAL, LayerInfo, join, split
from doconv_core.checkpoint._metadata import KEY, describe
from doconv_core.checkpoint._writer import write_tensors

NameMap = Mapping[str, str] | Callable[[str], str] | Sequence[tuple[str, str]]
log = logging.getLogger("doconv")


@dataclass(frozen=True)
class ModelLayer:
    """One layer of a model.

    Attributes:
        info: its kind and options; `tensors` is empty.
        read: its tensors by role, canonical. A kernel of one tap is a plain `weight`.
        write: takes what `read` gives, of the same roles and shapes.
    """

    info: LayerInfo
    read: Callable[[], dict[str, np.ndarray]]
    write: Callable[[dict[str, np.ndarray]], None]


@dataclass(frozen=True)
class ModelTensor:
    """One tensor of a model that no kind of layer covers, in the framework's own layout."""

    read: Callable[[], np.ndarray]
    write: Callable[[np.ndarray], None]


@dataclass
class ModelState:
    """All that a model has to save.

    Attributes:
        layers: by path, dots between the names; a single layer has the path "".
        others: the tensors that no layer covers, by path and name.
        aliases: further paths of the same layers, each with the path in `layers`.
    """

    layers: dict[str, ModelLayer] = field(default_factory=dict)
    others: dict[str, ModelTensor] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


def save_model(
    path: str | os.PathLike[str],
    model: ModelState,
    *,
    name_map: NameMap | None = None,
    strict: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a model's state as a portable checkpoint, which replaces `path` once it is complete.

    Args:
        path: the file.
        model: the state.
        name_map: what a layer of the model is called in the file: by its path in a dict (others keep theirs), by a function
            of the path, or by the first pair `(pattern, replacement)` whose regular expression matches the whole path.
        strict: whether tensors that no kind of layer covers are refused; else they are stored as they are, under their own
            names, and only models of the same framework and structure find them again.
        metadata: further strings for the file.

    Raises:
        ValueError: such tensors, two layers with one name in the file, a `name_map` that names no layer.
        OSError: the file cannot be written.
    """
    if strict and model.others:
        raise ValueError(
            "tensors of no kind of layer that a portable checkpoint knows; strict=False stores them for this framework "
            f"alone. Received: {', '.join(model.others)}"
        )
    names = _names(model, name_map)
    if len(set(names.values())) < len(names):
        twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
        raise ValueError(f"two layers have one name in the file. Received: {', '.join(twice)}")
    infos, tensors = dict[str, LayerInfo](), dict[str, np.ndarray]()
    for layer_path, layer in model.layers.items():
        arrays, name = layer.read(), names[layer_path]
        infos[name] = replace(layer.info, tensors=dict.fromkeys(arrays, "")).named(name, "canonical")
        tensors |= {infos[name].tensors[role]: array for role, array in arrays.items()}
    for other, tensor in model.others.items():
        layer_path, leaf = split(other)
        tensors[join(mapped(layer_path, name_map), leaf)] = tensor.read()
    aliases = {mapped(alias, name_map): names[layer_path] for alias, layer_path in model.aliases.items()}
    aliases = {alias: name for alias, name in aliases.items() if alias != name}
    write_tensors(path, tensors, {**(metadata or {}), KEY: describe(infos, "canonical", aliases)})


def load_model(
    path: str | os.PathLike[str] | Checkpoint,
    model: ModelState,
    *,
    name_map: NameMap | None = None,
    strict: bool = True,
    dialect: str | None = None,
    hints: Hints | None = None,
    fold: bool = False,
) -> list[str]:
    """Read a checkpoint into a model; nothing is written before everything is known to fit.

    Args:
        path: the file, or a checkpoint that is open.
        model: the state to write to.
        name_map: as in `save_model`: what a layer of the model is called in the file.
        strict: whether all must fit; else what fits is loaded and the rest logged as warnings.
        dialect: as in `open_checkpoint`.
        hints: as in `open_checkpoint`.
        fold: whether a DO-Conv layer of the file may be folded into a plain convolution of the model.

    Returns:
        What did not fit, in sentences; empty where `strict`.

    Raises:
        CheckpointError: the file cannot be read, or does not fit: every layer that is missing, left over, of another shape, of
            a type that would lose values, or with other options is named.
        ValueError: a `name_map` that names no layer of the model.
        OSError: the file cannot be opened.
    """
    names = _names(model, name_map)
    if not isinstance(path, Checkpoint):
        with open_checkpoint(path, dialect=dialect, hints=hints) as opened:
            return load_model(opened, model, name_map=name_map, strict=strict, fold=fold)
    checkpoint, problems = path, list[str]()
    writes: list[Callable[[], None]] = []
    names = {layer: checkpoint.aliases.get(name, name) for layer, name in names.items()}
    missing = [_called(layer, name) for layer, name in names.items() if name not in checkpoint.layers]
    for layer_path, layer in model.layers.items():
        name = names[layer_path]
        if name in checkpoint.layers:
            stored = _stored(checkpoint, name, layer.info, fold)
            wrong = _differences(_called(layer_path, name), checkpoint.layers[name], stored, layer)
            problems += wrong
            if not wrong:
                writes.append(lambda layer=layer, stored=stored: layer.write(stored))  # type: ignore[misc]
    used: set[str] = set()
    for other, tensor in model.others.items():
        owner, leaf = split(other)
        name = join(mapped(owner, name_map), leaf)
        used.add(name)
        if name not in checkpoint.others:
            missing.append(_called(other, name))
        elif checkpoint.source.shapes[name] != (wanted := tensor.read().shape):
            problems.append(f"{other} has shape {checkpoint.source.shapes[name]} in the file, {wanted} in the model")
        else:
            writes.append(lambda tensor=tensor, name=name: tensor.write(checkpoint.source.array(name)))  # type: ignore[misc]
    over = [name for name in checkpoint.layers if name not in names.values()]
    over += [name for name in checkpoint.others if name not in used and split(name)[1] not in OPTIONAL]
    if over:
        problems.insert(0, f"left over in the file: {', '.join(over)}")
    if missing:
        problems.insert(0, f"missing in the file: {', '.join(missing)}")
    if problems and strict:
        listed = "\n  ".join(problems)
        raise CheckpointError(
            f"{checkpoint.label} does not fit the model:\n  {listed}\nReceived: name_map={name_map!r}"
        )
    for problem in problems:
        log.warning("%s: %s", checkpoint.label, problem)
    for write in writes:
        write()
    return problems


def _stored(checkpoint: Checkpoint, name: str, wanted: LayerInfo, fold: bool) -> dict[str, np.ndarray]:
    plain = wanted.kind == "conv" and "d_mul" not in wanted.geometry
    if fold and plain and checkpoint.layers[name].has_d:
        bias = {role: array for role, array in checkpoint.read(name).items() if role == "bias"}
        return {"weight": checkpoint.fold(name)} | bias
    return checkpoint.read(name)


def _differences(called: str, info: LayerInfo, stored: dict[str, np.ndarray], layer: ModelLayer) -> list[str]:
    """In sentences, why a layer of the file cannot become the model's; empty if it can."""
    if info.kind != layer.info.kind:
        return [f"{called} is a {info.kind} layer in the file, a {layer.info.kind} layer in the model"]
    wanted, wrong = layer.read(), list[str]()
    if "weight" in stored and "W" in wanted:
        return [
            f"{called} is plain in the file, over-parameterized in the model: load the file before `overparameterize`"
        ]
    if "W" in stored and "weight" in wanted:
        return [f"{called} is over-parameterized in the file, plain in the model: `doconv fold` the file first"]
    for role in dict.fromkeys((*stored, *wanted)):
        if role in OPTIONAL and not (role in stored and role in wanted):
            continue
        if role not in stored:
            wrong.append(f"{called} has no {role} in the file")
        elif role not in wanted:
            wrong.append(f"{called} has no {role} in the model")
        elif stored[role].shape != wanted[role].shape:
            wrong.append(f"{called} has {role} {stored[role].shape} in the file, {wanted[role].shape} in the model")
        elif not np.can_cast(stored[role].dtype, wanted[role].dtype, "safe"):
            wrong.append(f"{called} has {role} {stored[role].dtype} in the file, {wanted[role].dtype} in the model")
    for option in COMPARED if not wrong else ():
        if option in info.guessed or option in layer.info.guessed:
            continue
        theirs, ours = (known.geometry.get(option) for known in (info, layer.info))
        if theirs is not None and ours is not None and _plain(theirs) != _plain(ours):
            wrong.append(f"{called} has {option} {theirs} in the file, {ours} in the model")
    theirs, ours = info.epsilon, layer.info.epsilon
    if theirs is not None and ours is not None and theirs != ours:
        wrong.append(f"{called} has epsilon {theirs} in the file, {ours} in the model")
    return wrong


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _called(layer: str, name: str) -> str:
    return layer if layer == name else f"{layer} (in the file {name})"


def _names(model: ModelState, name_map: NameMap | None) -> dict[str, str]:
    """What each layer of the model is called in the file."""
    if isinstance(name_map, Mapping):
        known = {*model.layers, *model.aliases, *(split(other)[0] for other in model.others)}
        unknown = [path for path in name_map if path not in known]
        if unknown:
            raise ValueError(
                f"name_map names layers that the model lacks, whose paths are {', '.join(model.layers)}. "
                f"Received: {', '.join(map(repr, unknown))}"
            )
    return {path: mapped(path, name_map) for path in model.layers}


def mapped(path: str, name_map: NameMap | None) -> str:
    """What `name_map` calls a layer of the model."""
    if name_map is None:
        return path
    if isinstance(name_map, Mapping):
        return name_map.get(path, path)
    if callable(name_map):
        return name_map(path)
    for pattern, replacement in name_map:
        match = re.fullmatch(pattern, path)
        if match:
            return match.expand(replacement)
    return path
