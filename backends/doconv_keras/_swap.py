"""Put layers in the place of others where layers hold them: as attributes, in lists, tuples, dicts and sets.

Keras keeps, beside these, its own list of the layers that a layer owns (its tracker); a layer put in place takes the position
of the one it replaces there, since weights are saved and paired in that order.
"""

from __future__ import annotations

import functools
import gc
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

LIBRARIES = {"builtins", "jax", "jaxlib", "keras", "numpy", "tensorflow", "torch"}  # whose objects hold no user's layer
# Keras's and PyTorch's own; the order of these is not the owner's business.
BOOKKEEPING = {"_layers", "_modules", "_non_trainable_variables", "_torch_params", "_tracker", "_trainable_variables"}


def swap(owners: Iterable[keras.layers.Layer], replacements: Mapping[int, keras.layers.Layer]) -> None:
    """Replace in all of `owners` the layers whose ids are the keys of `replacements`.

    >>> block = keras.layers.Layer()
    >>> block.convs = [plain := keras.layers.Conv2D(4, 3)]
    >>> swap([block], {id(plain): keras.layers.Conv2D(4, 5)})
    >>> block.convs[0].kernel_size
    (5, 5)
    """
    for owner in owners:
        for old in [layer for layer in owner._layers if id(layer) in replacements]:
            owner._tracker.replace_tracked_value("layers", old, replacements[id(old)])
        for name, value in list(attributes(owner)):
            new = _replace(value, replacements)
            if new is not value:
                setattr(owner, name, new)
        if hasattr(owner, "_torch_params"):
            owner._track_variables()


def attributes(owner: keras.layers.Layer) -> Iterator[tuple[str, Any]]:
    """What a layer holds by name; on the torch backend layers are held in `_modules`."""
    for name, value in (*vars(owner).items(), *vars(owner).get("_modules", {}).items()):
        if name not in BOOKKEEPING and not name.startswith("_self_"):  # TensorFlow's, which follow an assignment
            yield name, value


def leaves(value: Any) -> Iterator[Any]:
    """What a container holds, containers in it opened; anything else itself."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def hidden(value: Any) -> Iterator[Any]:
    """What a function or an object of a user's class holds, where `swap` does not reach it."""
    if isinstance(value, types.FunctionType):
        used = [value.__globals__.get(name) for name in value.__code__.co_names]
        return leaves([used, gc.get_referents(*value.__closure__ or ()), value.__defaults__, value.__kwdefaults__])
    if isinstance(value, functools.partial):
        return leaves([value.func, value.args, value.keywords])
    if isinstance(value, types.MethodType):
        return leaves(value.__self__)
    opaque = isinstance(value, keras.layers.Layer) or type(value).__module__.partition(".")[0] in LIBRARIES
    return leaves([] if opaque else getattr(value, "__dict__", []))


def _replace(value: Any, replacements: Mapping[int, Any]) -> Any:
    """The value itself where nothing of it is replaced or it can be changed, else another."""
    if id(value) in replacements:
        return replacements[id(value)]
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if (new := _replace(item, replacements)) is not item:
                value[key] = new
    elif isinstance(value, tuple | set):
        plain = getattr(value, "__wrapped__", value)  # TensorFlow wraps tuples
        items = [_replace(item, replacements) for item in plain]
        if any(new is not item for new, item in zip(items, plain, strict=True)):
            return type(plain)(*items) if hasattr(plain, "_fields") else type(plain)(items)
    return value
