"""Save and load models: what the backends share. A backend says what layers a model has and how to read and write them."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from doconv_core.checkpoint._checkpoint import Checkpoint, open_checkpoint
from doconv_core.checkpoint._format import CheckpointError, check_metadata
from doconv_core.checkpoint._hints import Hints
from doconv_core.checkpoint._layers import COMPARED, OPTIONAL, LayerInfo, join, split
from doconv_core.checkpoint._metadata import KEY, describe
from doconv_core.checkpoint._prefixes import model_names, without_inner
from doconv_core.checkpoint._writer import name_of_another_format, write_tensors

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

    @classmethod
    def of(cls, info: LayerInfo, tensors: Mapping[str, ModelTensor], layout: str) -> ModelLayer:
        """A layer whose tensors, by role, lie in `layout`: "torch", "keras" or "flax"."""
        lists = {name: list(value) for name, value in info.geometry.items() if isinstance(value, tuple)}
        info = replace(info, geometry=info.geometry | lists)

        def read() -> dict[str, np.ndarray]:
            return {role: info.to_canonical(role, tensor.read(), layout) for role, tensor in tensors.items()}

        def write(arrays: dict[str, np.ndarray]) -> None:
            for role, tensor in tensors.items():
                if role in arrays:  # `num_batches_tracked` is PyTorch's alone
                    tensor.write(info.from_canonical(role, arrays[role], layout))

        return cls(info, read, write)


@dataclass(frozen=True)
class ModelTensor:
    """One tensor of a model, in the framework's own layout."""

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
        TypeError: metadata that are not strings, a `name_map` of another form.
        ValueError: such tensors, two layers or tensors with one name in the file, a `name_map` that names no layer or has no
            regular expressions, a `path` that ends as files of another format do.
        OSError: the file cannot be written.
    """
    check_name_map(name_map)
    check_metadata(metadata or {})
    if text := name_of_another_format(path):
        raise ValueError(f"the file {text}")
    if KEY in (metadata or {}):
        raise ValueError(f"the format keeps a key of the metadata for itself. Received: {KEY!r}")
    if strict and model.others:
        raise ValueError(
            "tensors of no kind of layer that a portable checkpoint knows; strict=False stores them for this framework "
            f"alone. Received: {', '.join(model.others)}"
        )
    names = _names(model, name_map)
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise ValueError(f"two layers have the same name in the file. Received: {', '.join(sorted(twice))}")
    infos, tensors = dict[str, LayerInfo](), dict[str, np.ndarray]()
    for layer_path, layer in model.layers.items():
        arrays, name = layer.read(), names[layer_path]
        infos[name] = replace(layer.info, tensors=dict.fromkeys(arrays, "")).named(name, "canonical")
        tensors |= {infos[name].tensors[role]: array for role, array in arrays.items()}
    for other, tensor in model.others.items():
        name = _name_of_other(other, name_map)
        if name in tensors:
            raise ValueError(f"two tensors have the same name in the file. Received: {other} as {name}")
        tensors[name] = tensor.read()
    aliases = {mapped(alias, name_map): names[layer_path] for alias, layer_path in model.aliases.items()}
    aliases = {alias: name for alias, name in aliases.items() if alias != name}
    if taken := sorted(aliases.keys() & infos.keys()):
        raise ValueError(f"two layers have the same name in the file. Received: {', '.join(taken)}")
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

    What a wrapper or a trainer put before all names of the file (`module.`, `net.` and any other) is found by the model's names
    and dropped: the prefix is the one under which most of its layers are found.

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
            a type that would lose values, or with other options is named; the model is found below more than one prefix.
        TypeError: a `name_map` of another form.
        ValueError: a `name_map` that names no layer of the model or has no regular expressions.
        OSError: the file cannot be opened.
    """
    check_name_map(name_map)
    if not isinstance(path, Checkpoint):
        _names(model, name_map)
        with open_checkpoint(path, dialect=dialect, hints=hints) as opened:
            return load_model(opened, model, name_map=name_map, strict=strict, fold=fold)
    fit = _Fit(path, model, name_map, fold)
    fit.match_layers()
    fit.match_others()
    problems = fit.all_problems()
    if problems and strict:
        listed = "\n  ".join(problems)
        raise CheckpointError(f"{path.label} does not fit the model:\n  {listed}\nReceived: name_map={name_map!r}")
    for problem in problems:
        log.warning("%s: %s", path.label, problem)
    for write in fit.writes:
        write()
    return problems


class _Fit:
    """A file against a model: what can be written where, and what does not fit.

    Attributes:
        writes: what loads the parts that fit.
        problems: in sentences, why the others do not.
        missing: what the model has and the file lacks.
        used: the names in the file of layers and of other tensors that the model has.
    """

    def __init__(self, checkpoint: Checkpoint, model: ModelState, name_map: NameMap | None, fold: bool) -> None:
        self.checkpoint, self.model, self.name_map, self.fold = checkpoint, model, name_map, fold
        wanted = _names(model, name_map)
        self.prefix, stored = _without_wrappers(checkpoint, wanted.values())
        called = {layer: stored.get(name, stored.get(without_inner(name), name)) for layer, name in wanted.items()}
        self.names = {layer: checkpoint.aliases.get(name, name) for layer, name in called.items()}
        self.writes: list[Callable[[], None]] = []
        self.problems: list[str] = []
        self.missing: list[str] = []
        self.used: set[str] = set()

    def match_layers(self) -> None:
        for path, layer in self.model.layers.items():
            name = self.names[path]
            self.used.add(name)
            if name not in self.checkpoint.layers:
                self.missing.append(_called(path, name))
                continue
            stored = _stored(self.checkpoint, name, layer.info, self.fold)
            wrong = _differences(_called(path, name), self.checkpoint.layers[name], stored, layer)
            self.problems += wrong
            if not wrong:
                self.writes.append(partial(layer.write, stored))

    def match_others(self) -> None:
        others = set(self.checkpoint.others)
        for path, tensor in self.model.others.items():
            name = self.prefix + _name_of_other(path, self.name_map)
            self.used.add(name)
            if name not in others:
                self.missing.append(_called(path, name))
                continue
            shape, wanted = self.checkpoint.source.shapes[name], tensor.read().shape
            if shape != wanted:
                self.problems.append(f"{path} has shape {shape} in the file, {wanted} in the model")
            else:
                self.writes.append(partial(tensor.write, self.checkpoint.source.array(name)))

    def all_problems(self) -> list[str]:
        """What is missing and left over, then the layers that differ."""
        over = [name for name in self.checkpoint.layers if name not in self.used]
        over += [name for name in self.checkpoint.others if name not in self.used and split(name)[1] not in OPTIONAL]
        missing = [f"missing in the file: {', '.join(self.missing)}"] if self.missing else []
        left_over = [f"left over in the file: {', '.join(over)}"] if over else []
        return [*missing, *left_over, *self.problems]


def _without_wrappers(checkpoint: Checkpoint, wanted: Iterable[str]) -> tuple[str, dict[str, str]]:
    """What stands before the names of a file, "" for nothing, and its names by those of the plain model."""
    kernels = {join(layer, "weight"): (1,) for layer in (*checkpoint.layers, *checkpoint.aliases)}
    like = [join(name, "weight") for name in wanted]
    found = model_names(kernels, like, checkpoint.label, choice="name_map")
    if found is None:
        return "", {}
    if found.prefix:
        log.info("%s: names are without the prefix %r", checkpoint.label, found.prefix)
    return found.prefix, {split(plain)[0]: split(stored)[0] for stored, plain in found.names.items()}


def _name_of_other(path: str, name_map: NameMap | None) -> str:
    """What a tensor of no layer is called in the file."""
    owner, leaf = split(path)
    return join(mapped(owner, name_map), leaf)


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
    wanted = layer.read()
    if "weight" in stored and "W" in wanted:
        return [
            f"{called} is plain in the file, over-parameterized in the model: load the file before `overparameterize`"
        ]
    if "W" in stored and "weight" in wanted:
        return [f"{called} is over-parameterized in the file, plain in the model: `doconv fold` the file first"]
    wrong = [difference for role in dict.fromkeys((*stored, *wanted)) for difference in _in_role(role, stored, wanted)]
    wrong += _in_options(info, layer.info) if not wrong else []
    theirs, ours = info.epsilon, layer.info.epsilon
    if theirs is not None and ours is not None and theirs != ours:
        wrong.append(f"has epsilon {theirs} in the file, {ours} in the model")
    return [f"{called} {difference}" for difference in wrong]


def _in_role(role: str, stored: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> list[str]:
    """The first difference of two tensors: one of them is missing, their shapes, their types."""
    if role not in stored or role not in wanted:
        where = "model" if role in stored else "file"
        return [] if role in OPTIONAL else [f"has no {role} in the {where}"]
    theirs, ours = stored[role], wanted[role]
    if theirs.shape != ours.shape:
        return [f"has {role} {theirs.shape} in the file, {ours.shape} in the model"]
    if not np.can_cast(theirs.dtype, ours.dtype, "safe"):
        return [f"has {role} {theirs.dtype} in the file, {ours.dtype} in the model"]
    return []


def _in_options(info: LayerInfo, model: LayerInfo) -> list[str]:
    """Options that both know and that differ."""
    known = [option for option in COMPARED if option not in info.guessed and option not in model.guessed]
    pairs = ((option, info.geometry.get(option), model.geometry.get(option)) for option in known)
    return [
        f"has {option} {theirs} in the file, {ours} in the model"
        for option, theirs, ours in pairs
        if theirs is not None and ours is not None and theirs != ours
    ]


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


def check_name_map(name_map: Any) -> None:
    """Check the form of a name map before anything is read or written.

    Raises:
        TypeError: neither a dict of strings, nor a function, nor pairs of strings.
        ValueError: a pattern or a replacement that is no regular expression.
    """
    if name_map is None or callable(name_map):
        return
    several = isinstance(name_map, Mapping | Sequence) and not isinstance(name_map, str | bytes)
    given = name_map if several else [name_map]
    for pair in given.items() if isinstance(given, Mapping) else given:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise TypeError(
                "name_map must be a dict of strings, a function of a path, or pairs of a regular expression and its "
                f"replacement. Received: {pair!r}"
            )
    for pattern, replacement in () if isinstance(given, Mapping) else given:
        try:
            if match := re.fullmatch(f"{pattern}|", ""):  # the empty text matches, whatever the pattern is
                match.expand(replacement)
        except (re.error, IndexError) as error:
            raise ValueError(
                f"name_map has a pattern or replacement that is no regular expression: {error}. "
                f"Received: {pattern!r}, {replacement!r}"
            ) from None


def mapped(path: str, name_map: NameMap | None) -> str:
    """What `name_map` calls a layer of the model."""
    if name_map is None:
        return path
    if isinstance(name_map, Mapping):
        return name_map.get(path, path)
    if callable(name_map):
        if not isinstance(name := name_map(path), str):
            raise TypeError(f"name_map must return a string. Received: {name!r} for {path!r}")
        return name
    for pattern, replacement in name_map:
        match = re.fullmatch(pattern, path)
        if match:
            return match.expand(replacement)
    return path
