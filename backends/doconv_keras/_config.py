"""One layer made again from its config, as another class where it is to change.

Keras's configs name functions and initializers; a function that is registered nowhere, a lambda among them, does not survive
that way, so what the layer holds as an object is passed on as it is.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import keras

BASE = ("name", "trainable", "dtype")
OBJECTS = ("activation", "_initializer", "_regularizer", "_constraint")


@dataclass(frozen=True)
class Change:
    """The class that a layer gets, and what becomes of its config."""

    cls: Any
    adds: dict[str, Any] = field(default_factory=dict)
    drops: tuple[str, ...] = ()

    def apply(self, config: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in config.items() if name not in self.drops} | self.adds


def make_from_config(layer: Any, change: Change | None, path: str, owned: Iterable[Any] = ()) -> Any:
    """A layer or an operation, not built, as another object; changed where `change` says so.

    Configs name the classes of the layers within, which are `owned`; an error calls the layer by its `path`.

    Raises:
        ValueError: the layer's class cannot make it from its config.
    """
    change = change or Change(type(layer))
    classes = {type(inner).__name__: type(inner) for inner in owned}
    try:
        if isinstance(layer, keras.layers.Lambda):
            new = _lambda_again(layer)
        else:
            with keras.saving.custom_object_scope(classes):
                new = change.cls.from_config(change.apply(_config(layer, change.cls)))
    except Exception as error:  # of whatever type a user's own class raises
        raise ValueError(
            f"{path or layer.name} cannot be made again from its config (in_place=True changes the model itself). "
            f"Received: {type(layer).__name__}; {reason(error, layer)}"
        ) from error
    keep_modes(layer, new)
    return new


def keep_modes(layer: Any, new: Any) -> None:
    """What a constructor may take from where it runs, and what no config has. Maps of policies can't be compared by ==."""
    if isinstance(new, keras.layers.Layer) and not new.built and new.dtype_policy.name != layer.dtype_policy.name:
        new.dtype_policy = layer.dtype_policy
    for name in ("_remat_mode", "autocast"):
        if hasattr(layer, name):
            setattr(new, name, getattr(layer, name))


def _own_config(layer: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        return layer.get_config()


def _config(layer: Any, cls: Any) -> dict[str, Any]:
    config = _own_config(layer)
    if getattr(layer.get_config, "_is_default", False) and isinstance(layer, keras.layers.Layer):
        config = _accepted(layer, config)
    if cls.from_config.__func__ is keras.layers.Layer.from_config.__func__:
        config |= {
            name: _object(getattr(layer, name)) for name in config if name.endswith(OBJECTS) and hasattr(layer, name)
        }
    return config


def _object(held: Any) -> Any:
    """What a layer holds, for another layer: an activation that is a layer has weights of its own."""
    return make_from_config(held, None, held.name) if isinstance(held, keras.layers.Layer) else held


def _accepted(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Of a config that Keras made itself, where a class has no `get_config`: what the constructor takes.

    Of a subclassed model Keras notes the default values of the constructor's arguments in place of those given to it.
    """
    _, *parameters = inspect.signature(type(layer).__init__).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return config
    names = {parameter.name for parameter in parameters}
    if isinstance(layer, keras.Model) and names - set(BASE):
        raise NotImplementedError("get_config")
    return {name: value for name, value in config.items() if name in names}


def _lambda_again(layer: Any) -> Any:
    kept = {name: value for name, value in _own_config(layer).items() if name in BASE}
    shape = {"output_shape": layer._output_shape} if layer._output_shape is not None else {}
    return keras.layers.Lambda(layer.function, mask=layer.mask, arguments=layer.arguments, **shape, **kept)


def reason(error: Exception, layer: Any) -> str:
    """Why, in one line: Keras adds sample code where there is no `get_config`, and puts the reason after a whole config."""
    if isinstance(error, NotImplementedError) and "get_config" in str(error):
        return f"{type(layer).__name__} has no get_config"
    return str(error).strip().rpartition("\n")[2].removeprefix("Exception encountered: ")
