"""Over-parameterize and fold a whole model, as a new model."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from doconv_core.geometry import depth_multiplier
from doconv_core.selection import Where, select
from doconv_keras._layers import EXPLICIT, DOConvMixin, do_class
from doconv_keras._transfer import copy_trainable, copy_weights, pair_layers, walk

WITHOUT_FORM = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
OBJECTS = ("activation", "_initializer", "_regularizer", "_constraint")
log = logging.getLogger("doconv")


@dataclass(frozen=True)
class Change:
    """The class that a layer gets, and what becomes of its config."""

    cls: Any
    adds: dict[str, Any] = field(default_factory=dict)
    drops: tuple[str, ...] = ()

    def apply(self, config: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in config.items() if name not in self.drops} | self.adds


def overparameterize(
    model: keras.layers.Layer, *, d_mul: int | None = None, where: Where | None = None
) -> keras.layers.Layer:
    """A new model in which convolutions are DO-Conv layers; its outputs are the given model's, bit for bit.

    The new model has the names, weights, random states and trainable flags of the given one, which stays as it is. It is not
    compiled: an optimizer belongs to the variables it was built for. Kernels of one tap stay plain. What was touched and what
    was not is logged at level INFO by the logger "doconv" and shown by `inspect_model`. Under a distribution strategy, call it
    inside `strategy.scope()`.

    Args:
        model: a model, or a single convolution. An unbuilt model gives an unbuilt one.
        d_mul: for every layer; `None` means each kernel's number of taps.
        where: which convolutions: a predicate of path and layer, or a glob pattern of paths, or several. A path is the names
            of the layers from the model's first level on, joined by `/`.

    Raises:
        TypeError: `model` is not a layer, or a layer of a user's class makes no kernel by that name.
        ValueError: there is no convolution, none that `where` selects, none left to convert; `d_mul` is too small; a selected
            convolution has a constraint of its kernel or LoRA, is of a class that has no DO form (`do_class`), or cannot be
            reached: `transfer_weights` helps then.
    """
    _check_layer(model)
    found = {path: layer for path, layer in walk(model) if isinstance(layer, (*EXPLICIT, DOConvMixin))}
    if not found:
        raise ValueError(f"the model has no convolution. Received: {type(model).__name__}")
    selected = select(found, where)
    changes, obstacles = {}, {}
    for path, layer in selected.items():
        if isinstance(layer, DOConvMixin) or math.prod(layer.kernel_size) == 1:
            continue
        received = f"{path}: kernel_size={layer.kernel_size}, d_mul={d_mul}"
        multiplier = depth_multiplier(layer.kernel_size, d_mul, received=received)
        if obstacle := _obstacle(layer):
            obstacles[path] = obstacle
        else:
            changes[id(layer)] = Change(do_class(type(layer)), {"d_mul": multiplier})
    if obstacles:
        reasons = "; ".join(f"{path or layer.name}: {reason}" for path, reason in obstacles.items())
        raise ValueError(f"layers cannot be over-parameterized; `where` can leave them plain. Received: {reasons}")
    if not changes:
        states = "; ".join(f"{path or layer.name}: {_state(layer)}" for path, layer in selected.items())
        raise ValueError(f"nothing is left to over-parameterize. Received: {states}")
    twin = _make_anew(model, changes)
    log.info("over-parameterized %d of %d convolutions", len(changes), len(found))
    for path, state in inspect_model(twin).items():
        log.info(
            "%s: %s%s", path or twin.name, state, ", not selected" if path in found.keys() - selected.keys() else ""
        )
    return twin


def fold(model: keras.layers.Layer) -> keras.layers.Layer:
    """A new model in which every DO-Conv layer is the plain convolution with its composed kernel.

    Nothing of doconv is needed to load or run it, and its weights load into the plain architecture. It is not compiled. A
    model without DO-Conv layers is returned as it is; else the given model stays as it is.

    Args:
        model: a model, or a single layer.

    Raises:
        TypeError: `model` is not a layer.
        ValueError: a layer's class is derived from a DO layer and names no `plain_class` of its own; or a DO-Conv layer cannot
            be reached: `transfer_weights` helps then.
    """
    _check_layer(model)
    found = {path: layer for path, layer in walk(model) if isinstance(layer, DOConvMixin)}
    if not found:
        return model
    derived = [
        f"{path or layer.name}: {type(layer).__name__}"
        for path, layer in found.items()
        if type(layer) is not do_class(layer.plain_class) and "plain_class" not in vars(type(layer))
    ]
    if derived:
        raise ValueError(
            f"a class derived from a DO layer must say as `plain_class` what it folds into. Received: {'; '.join(derived)}"
        )
    drops = ("d_mul", "d_regularizer")
    twin = _make_anew(model, {id(layer): Change(layer.plain_class, drops=drops) for layer in found.values()})
    state = inspect_model(twin)
    log.info("folded %d of %d convolutions", len(found), len(state))
    for path, text in state.items():
        log.info("%s: %s, %s", path or twin.name, text, "folded" if path in found else "was plain before")
    return twin


def inspect_model(model: keras.layers.Layer) -> dict[str, str]:
    """Every convolution of a model: its path, and in words whether it is over-parameterized, or why it cannot be.

    Raises:
        TypeError: `model` is not a layer.
    """
    _check_layer(model)
    kinds = (*EXPLICIT, DOConvMixin, *WITHOUT_FORM)
    return {path: _state(layer) for path, layer in walk(model) if isinstance(layer, kinds)}


def _make_anew(model: Any, changes: dict[int, Change]) -> Any:
    """The model made anew from the configs of its layers, those of `changes` changed, and its weights copied."""
    paths = {id(layer): path for path, layer in walk(model)}
    _check_untied(model)

    def clone(layer: Any) -> Any:
        if id(layer) in changes:
            return _from_config(layer, changes[id(layer)], paths[id(layer)])
        if isinstance(layer, keras.layers.Layer) and any(id(owned) in changes for _, owned in walk(layer)):
            return _through_config(layer, changes, paths[id(layer)])
        return _from_config(layer, Change(type(layer)), paths.get(id(layer), layer.name))

    if isinstance(model, keras.Sequential | keras.Function):
        with _uncompiled(model):
            twin = keras.models.clone_model(model, _inputs(model), clone_function=clone, recursive=True)
    else:
        twin = clone(model)
    if model.built and not twin.built:
        twin.build_from_config(model.get_build_config())
    wanted = [path for path, layer in walk(model) if id(layer) in changes]
    try:
        pairs = list(pair_layers(model, twin))
    except ValueError as error:
        raise ValueError(f"{_advice(wanted)} Received: {type(model).__name__}; {error}") from error
    missed = [
        path for path, layer, other in pairs if id(layer) in changes and type(other) is not changes[id(layer)].cls
    ]
    if missed:
        raise ValueError(f"{_advice(missed)} Received: {type(model).__name__}")
    for path, layer, other in pairs:
        if type(layer) is not type(other) and id(layer) not in changes:
            names = type(layer).__name__, type(other).__name__
            log.warning("%s: a %s became a %s, without the methods of its class", path or layer.name, *names)
    copy_weights(pairs)
    copy_trainable(pairs)
    return twin


def _inputs(model: Any) -> Any:
    """New inputs of the same names, by which data is fed; `clone_model` would rename those that were named automatically."""
    if isinstance(model, keras.Sequential):
        return None

    def anew(tensor: Any) -> Any:
        source = tensor._keras_history.operation
        options = {"sparse": source.sparse, "optional": getattr(source, "optional", False)}
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=source.name, **options)

    return keras.tree.map_structure(anew, model.input)


def _from_config(layer: Any, change: Change, path: str) -> Any:
    """One layer made anew; by Keras's usual `from_config` its activation, initializers and the like are handed on themselves.

    A function that is registered nowhere, a lambda among them, does not survive its way through a config.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        config = layer.get_config()
    if isinstance(layer, keras.layers.Lambda):
        kept = {name: config[name] for name in ("name", "trainable", "dtype")}
        shape = {"output_shape": layer._output_shape} if layer._output_shape is not None else {}
        return keras.layers.Lambda(layer.function, mask=layer.mask, arguments=layer.arguments, **shape, **kept)
    if change.cls.from_config.__func__ is keras.layers.Layer.from_config.__func__:
        config |= {name: getattr(layer, name) for name in config if name.endswith(OBJECTS) and hasattr(layer, name)}
    try:
        return change.cls.from_config(change.apply(config))
    except Exception as error:
        raise ValueError(
            f"{path or layer.name} cannot be made anew from its config. Received: {type(layer).__name__}; {_reason(error)}"
        ) from error


def _through_config(layer: Any, changes: dict[int, Change], path: str) -> Any:
    """A layer that owns convolutions, such as TimeDistributed, made anew from a config in which theirs are changed."""
    owned = [(f"{path}/{name}".strip("/"), inner) for name, inner in walk(layer) if inner is not layer]

    def edit(entry: Any) -> Any:
        if isinstance(entry, list | tuple):
            return type(entry)(edit(item) for item in entry)
        if not isinstance(entry, dict):
            return entry
        entry = {key: edit(value) for key, value in entry.items()}
        if not isinstance(entry.get("config"), dict):
            return entry
        named = (entry.get("class_name"), entry["config"].get("name"))
        meant = {id(inner): (where, inner) for where, inner in owned if (type(inner).__name__, inner.name) == named}
        if not meant.keys() & changes.keys():
            return entry
        if len(meant) > 1:
            raise ValueError(f"{named[1]} is the name of several layers")
        ((where, inner),) = meant.values()
        return entry | keras.saving.serialize_keras_object(_from_config(inner, changes[id(inner)], where))

    classes = {type(inner).__name__: type(inner) for _, inner in owned}
    try:
        with keras.saving.custom_object_scope(classes):
            return _from_config(layer, Change(type(layer), edit(layer.get_config())), path)
    except Exception as error:  # of whatever type a user's own class raises
        missed = [where for where, inner in owned if id(inner) in changes]
        raise ValueError(f"{_advice(missed)} Received: {type(layer).__name__}; {_reason(error)}") from error


@contextmanager
def _uncompiled(model: Any) -> Iterator[None]:
    """Hide that the model, or one in it, is compiled: `clone_model` would compile the clone, from a config that may fail."""
    compiled = [layer for layer in model._flatten_layers() if getattr(layer, "compiled", False) is True]
    for layer in compiled:
        layer.compiled = False
    try:
        yield
    finally:
        for layer in compiled:
            layer.compiled = True


def _check_untied(model: Any) -> None:
    """Raise where two layers hold one variable, which layers made anew would not."""
    holders: dict[int, str] = {}
    for path, layer in walk(model):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            if id(variable) in holders:
                raise ValueError(f"{_advice([path])} Received: {variable.path} is also that of {holders[id(variable)]}")
            holders[id(variable)] = path


def _reason(error: Exception) -> str:
    """The last line: Keras puts what went wrong after the whole config."""
    return str(error).strip().rpartition("\n")[2].removeprefix("Exception encountered: ")


def _advice(paths: Sequence[str]) -> str:
    return (
        f"making the model anew does not reach {', '.join(paths)}: build its twin yourself, from the layers it shall have, and "
        "call doconv_keras.transfer_weights(model, twin)."
    )


def _check_layer(model: Any) -> None:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"model must be a Keras model or layer. Received: {type(model).__name__}")


def _obstacle(layer: Any) -> str:
    """Why a convolution cannot be converted, or nothing."""
    if getattr(layer, "lora_enabled", False) or getattr(layer, "lora_rank", None):
        return "has LoRA, which a DO-Conv layer has not"
    if getattr(layer, "kernel_constraint", None) or getattr(layer, "depthwise_constraint", None):
        return "has a constraint of its kernel, which would act on W and not on the composed kernel"
    try:
        do_class(type(layer))
    except TypeError as error:
        return str(error)
    return ""


def _state(layer: Any) -> str:
    name = type(layer).__name__
    if isinstance(layer, WITHOUT_FORM):
        return f"plain {name}: has no DO form"
    kernel = "x".join(map(str, layer.kernel_size))
    if isinstance(layer, DOConvMixin):
        return f"{name} {kernel}, d_mul={layer.d_mul}"
    reason = "a kernel of one tap has no D" if math.prod(layer.kernel_size) == 1 else _obstacle(layer)
    return f"plain {name} {kernel}" + f": {reason}" * bool(reason)
