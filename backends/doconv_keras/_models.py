"""Over-parameterize and fold a whole model, as a new model or, where asked for, in place."""

from __future__ import annotations

import logging
import math
from typing import Any, TypeVar

import keras

from doconv_core.selection import Where, depth_multipliers, describe_convolution, listed, select
from doconv_keras._config import Change
from doconv_keras._in_place import change_in_place, remake_whole
from doconv_keras._layers import EXPLICIT, DOConvMixin, do_class
from doconv_keras._owners import note_owners, plain_class_of, plain_owners
from doconv_keras._remake import Remake
from doconv_keras._transfer import walk

L = TypeVar("L", bound=keras.layers.Layer)
WITHOUT_FORM = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
log = logging.getLogger("doconv")


def overparameterize(model: L, *, d_mul: int | None = None, where: Where | None = None, in_place: bool = False) -> L:
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
        in_place: change `model` and return it, for models whose layers cannot be made again because a class has no
            `get_config`. Convolutions that layers hold as attributes, in lists or dicts are replaced there; Sequential and
            functional models within the model are replaced by others of the same layers. Other references to what is replaced
            go on to the old layers. A compiled model is no longer compiled.

    Raises:
        TypeError: `model` is not a layer, or a layer of a user's class makes no kernel by that name.
        ValueError: there is no convolution, none that `where` selects, none left to convert; `d_mul` is too small; a selected
            convolution has a constraint of its kernel or LoRA, is of a class that has no DO form (`do_class`), or something
            keeps its kernel; a layer cannot be made again from its config, where `in_place` or `transfer_weights` helps.
            Nothing has been changed then.
    """
    _check_layer(model)
    found: dict[str, Any] = {path: layer for path, layer in walk(model) if isinstance(layer, (*EXPLICIT, DOConvMixin))}
    selected = select(found, where, model=type(model).__name__)
    chosen = depth_multipliers(
        selected,
        d_mul,
        is_plain=lambda _, layer: not isinstance(layer, DOConvMixin) and math.prod(layer.kernel_size) > 1,
        describe=lambda _, layer: _describe(layer),
    )
    if reasons := listed({path: _obstacle(found[path]) for path in chosen}):
        raise ValueError(f"layers cannot be over-parameterized; `where` can leave them plain. Received: {reasons}")
    changes = {
        id(found[path]): Change(do_class(plain_class_of(found[path])), {"d_mul": multiplier})
        for path, multiplier in chosen.items()
    }
    twin = _apply_changes(model, changes, in_place)
    log.info("over-parameterized %d of %d convolutions", len(changes), len(found))
    for path, state in inspect_model(twin).items():
        left = ", not selected" if path in found.keys() - selected.keys() else ""
        log.info("%s: %s%s", path or twin.name, state, left)
    return twin


def fold(model: L, *, in_place: bool = False) -> L:
    """A new model in which every DO-Conv layer is the plain convolution with its composed kernel.

    Nothing of doconv is needed to load or run it, and its weights load into the plain architecture. It is not compiled. A
    model without DO-Conv layers is returned as it is; else the given model stays as it is.

    Args:
        model: a model, or a single layer.
        in_place: change `model` and return it, as in `overparameterize`.

    Raises:
        TypeError: `model` is not a layer.
        ValueError: a layer's class is derived from a DO layer and names no `plain_class` of its own; a layer cannot be made
            again from its config, where `in_place` or `transfer_weights` helps. Nothing has been changed then.
    """
    _check_layer(model)
    found: dict[str, Any] = {path: layer for path, layer in walk(model) if isinstance(layer, DOConvMixin)}
    if not found:
        return model
    derived = [
        f"{path or layer.name}: {cls.__name__}"
        for path, layer in found.items()
        if (cls := plain_class_of(layer)) is not do_class(layer.plain_class) and "plain_class" not in vars(cls)
    ]
    if derived:
        raise ValueError(
            f"a class derived from a DO layer must say as `plain_class` what it folds into. Received: {'; '.join(derived)}"
        )
    drops = ("d_mul", "d_regularizer")
    changes = {id(layer): Change(layer.plain_class, drops=drops) for layer in found.values()}
    twin = _apply_changes(model, changes, in_place)
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
    return {path: _describe(layer) for path, layer in walk(model) if isinstance(layer, kinds)}


def _apply_changes(model: L, changes: dict[int, Change], in_place: bool) -> L:
    made = [(path or layer.name, layer) for path, layer in walk(model) if not in_place or id(layer) in changes]
    if patched := [path for path, layer in made if "call" in vars(layer)]:
        raise ValueError(f"a `call` set on an object would be lost: give it to a class. Received: {', '.join(patched)}")
    with plain_owners(layer for _, layer in walk(model)):
        changed = _change(model, changes, in_place)
    note_owners(changed)
    return changed


def _change(model: L, changes: dict[int, Change], in_place: bool) -> L:
    if in_place:
        change_in_place(model, changes)
        return model
    try:
        return Remake(model, changes).run()
    except ValueError as error:
        try:
            return remake_whole(model, changes)
        except ValueError:
            raise error from error.__cause__


def _check_layer(model: Any) -> None:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"model must be a Keras model or layer. Received: {type(model).__name__}")


def _obstacle(layer: Any) -> str:
    """Why a convolution cannot be converted, or nothing."""
    if getattr(layer, "lora_enabled", False) or getattr(layer, "lora_rank", None):
        return "has LoRA, which a DO-Conv layer has not"
    names = "kernel_constraint", "depthwise_constraint", "kernel", "depthwise_kernel"
    of_kernel, of_depthwise, *kernels = (getattr(layer, name, None) for name in names)
    if of_kernel or of_depthwise or any(getattr(kernel, "constraint", None) for kernel in kernels):
        return "has a constraint of its kernel, which would act on W and not on the composed kernel"
    try:
        do_class(plain_class_of(layer))
    except TypeError as error:
        return str(error)
    return ""


def _describe(layer: Any) -> str:
    name = type(layer).__name__
    if isinstance(layer, WITHOUT_FORM):
        return f"plain {name}: has no DO form"
    over = isinstance(layer, DOConvMixin)
    reason = "" if over or math.prod(layer.kernel_size) == 1 else _obstacle(layer)
    return describe_convolution(name, layer.kernel_size, layer.d_mul if over else None, reason=reason)
