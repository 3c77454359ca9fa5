"""Layers whose constructors make convolutions, and what Keras saves of them.

Of a residual block or a subclassed model Keras saves what its constructor takes, and that constructor makes plain convolutions.
An owner of over-parameterized ones is therefore of a class derived from its own, whose config also says which they are. Loading
makes the plain owner and over-parameterizes those again.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, ClassVar

import keras

from doconv_keras._config import Change
from doconv_keras._in_place import change_in_place
from doconv_keras._layers import PACKAGE, DOConvMixin, do_class
from doconv_keras._remake import GRAPHS
from doconv_keras._transfer import sublayers, walk


class Owner:
    """What stands before a class whose constructor makes convolutions, some of which were over-parameterized.

    Attributes:
        owner_class: the class itself; None where a file is read, which names it.
    """

    owner_class: ClassVar[Any] = None

    def get_config(self) -> dict[str, Any]:
        """The plain owner as Keras saves it, and of every DO layer in it, by its position, what makes it one."""
        changes = {
            str(position): {"d_mul": layer.d_mul, "d_regularizer": keras.regularizers.serialize(layer.d_regularizer)}
            for position, (_, layer) in enumerate(walk(self))
            if isinstance(layer, DOConvMixin)
        }
        with plain_owners([self]):
            owner = keras.saving.serialize_keras_object(self)
        owner.pop("compile_config", None)  # is saved beside this config
        return {"owner": owner, "over_parameterized": changes}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """
        Raises:
            ValueError: the class makes other layers than it did when this config was made.
        """
        plain = cls.owner_class
        if plain and "owner" not in config:  # `clone_model` takes the form for every class of that name
            return plain.from_config(config)
        with keras.saving.custom_object_scope({plain.__name__: plain}) if plain else nullcontext():
            owner = keras.saving.deserialize_keras_object(config["owner"])
        layers: list[Any] = [layer for _, layer in walk(owner)]
        changes = {}
        for position, options in config["over_parameterized"].items():
            layer = layers[int(position)] if int(position) < len(layers) else owner
            if not isinstance(layer, DOConvMixin):  # some owners have the config of what they hold in their own
                made: Any = type(layer)
                try:
                    changes[id(layer)] = Change(do_class(made), options)
                except TypeError as error:
                    raise ValueError(
                        f"{type(owner).__name__} makes other layers than the one that was saved. Received: "
                        f"{type(layer).__name__} in place of a convolution"
                    ) from error
        change_in_place(owner, changes)
        note_owners(owner)
        return owner


keras.saving.register_keras_serializable(PACKAGE, Owner.__name__)(Owner)


def note_owners(model: Any) -> None:
    """Give every owner in a model the class that Keras can save: a form of its own, or its own where it has no DO layer."""
    for _, layer in walk(model):
        if not sublayers(layer):
            continue
        plain = plain_class_of(layer)
        holds = any(isinstance(inner, DOConvMixin) for _, inner in walk(layer) if inner is not layer)
        _set_class(layer, _form(plain) if holds and _makes_its_layers(layer, plain) else plain)


@contextmanager
def plain_owners(layers: Any) -> Iterator[None]:
    """The given layers as instances of their own classes."""
    forms = [(layer, type(layer)) for layer in layers if isinstance(layer, Owner)]
    for layer, _ in forms:
        _set_class(layer, plain_class_of(layer))
    try:
        yield
    finally:
        for layer, form in forms:
            _set_class(layer, form)


def plain_class_of(layer: Any) -> Any:
    """The class that a layer's user knows."""
    return type(layer).owner_class if isinstance(layer, Owner) else type(layer)


def _set_class(layer: Any, cls: type) -> None:
    object.__setattr__(layer, "__class__", cls)  # past Keras's tracking of attributes


def _makes_its_layers(layer: Any, plain: type) -> bool:
    """Whether a config of the layer leaves it to the constructor to make the layers within."""
    if plain.__module__.partition(".")[0] == "keras":
        return False
    if not isinstance(layer, GRAPHS):
        return True
    with plain_owners([layer]):
        return "layers" not in layer.get_config()


@cache
def _form(plain: type) -> Any:
    """The class derived from `plain`, of the same name, which is also that of its weights in a file."""
    names = {"owner_class": plain, "__module__": plain.__module__, "__qualname__": plain.__qualname__}
    form = types.new_class(plain.__name__, (Owner, plain), exec_body=lambda namespace: namespace.update(names))
    # One name in files for all of them, read by `Owner`: a program that loads one needs to know no class but the plain one.
    for cls in (form, Owner):
        keras.saving.register_keras_serializable(PACKAGE, Owner.__name__)(cls)
    return form
