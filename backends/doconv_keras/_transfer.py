"""The weights of a model into a twin of it, in which convolutions are over-parameterized or plain where they were not."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import keras
import numpy as np

from doconv_keras._arrays import to_numpy
from doconv_keras._layers import DOConvMixin

SIMPLE = (bool, int, float, str, np.generic, type(None))


def transfer_weights(src: keras.layers.Layer, dst: keras.layers.Layer) -> None:
    """Copy all weights and random states of a built model into a built twin, value for value.

    The twin has the same layers in the same order, except that a convolution may be over-parameterized in one and plain in the
    other: a plain kernel is what the DO layer starts from, a DO layer's kernel is composed as `fold` does. For models that
    `overparameterize` cannot make again or change in place, and whose twin is written by hand.

    Raises:
        ValueError: the models are not twins, or one of them is not built; nothing has been copied then.
    """
    pairs = list(pair_layers(src, dst))
    for path, one, other in pairs:
        if not one.built or not other.built:
            states = f"built={one.built} and {other.built}"
            raise ValueError(f"build both models first. Received: {path or one.name}, {states}")
    copy_weights(pairs)


def copy_weights(pairs: list[tuple[str, Any, Any]]) -> None:
    """The weights of every layer into its twin; pairs that are not built have none.

    Raises:
        ValueError: variables differ in number, shape or type; nothing has been copied then.
    """
    for path, one, other in pairs:
        states = [_state(one, other), _state(other, one)]
        if states[0] != states[1]:
            raise ValueError(f"the weights of {path or one.name} differ. Received: {states[0]}; {states[1]}")
    for _, one, other in pairs:
        if one.built:
            _copy(one, other)


def copy_settings(pairs: list[tuple[str, Any, Any]]) -> None:
    """What was set after layers were made, of which no config need know: flags, what variables are subject to, attributes.

    What is trainable of a plain kernel is that of `W` and `D`; its regularizer is that of `W`.
    """
    for _, one, other in pairs:  # a model before its layers: setting its flag sets theirs
        if other.trainable != one.trainable:
            other.trainable = one.trainable
    for _, one, other in pairs:
        matching = list(zip(_variables(one, other), _variables(other, one), strict=True))
        if one.built and _converts(one, other):
            matching += [(_kernels(one, other)[0], variable) for variable in _kernels(other, one)]
        for variable, twin in matching:
            if twin is not None and twin.trainable != variable.trainable:
                twin.trainable = variable.trainable
            if twin is not None and twin is not getattr(other, "D", None):
                twin.regularizer = variable.regularizer or twin.regularizer
                twin.constraint = variable.constraint or twin.constraint
        for name in (
            vars(one).keys() - _not_theirs()
        ):  # numbers and words of a user's class, or that were set on a layer
            value = vars(one)[name]
            if isinstance(value, SIMPLE) and name[0] != "_" and (name not in vars(other) or vars(other)[name] != value):
                setattr(other, name, value)


@cache
def _not_theirs() -> set[str]:
    """What every layer and model holds, and what only a DO layer does."""
    return {"D", "d_mul", "d_regularizer", *vars(keras.layers.Layer(name="layer")), *vars(keras.Model(name="model"))}


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer owns itself, in order."""
    return layer._flatten_layers(include_self=False, recursive=False)


def walk(model: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Every layer once, with its path: the names from the model's first layers on, joined by `/`; of the model itself ""."""
    for path, layer, _ in pair_layers(model, model):
        yield path, layer


def pair_layers(src: keras.layers.Layer, dst: keras.layers.Layer) -> Iterator[tuple[str, Any, Any]]:
    """`(path, layer of src, its twin)`, each layer once, a layer before those it owns.

    Raises:
        ValueError: the models have different layers, or a layer that one shares the other does not.
    """
    twins: dict[int, Any] = {}
    taken: dict[int, Any] = {}
    waiting = [("", src, dst)]
    while waiting:
        path, one, other = waiting.pop(0)
        if id(one) in twins or id(other) in taken:
            if twins.get(id(one)) is not other or taken.get(id(other)) is not one:
                raise ValueError(
                    f"{path} is shared in one model and not in the other. Received: {one.name}, {other.name}"
                )
            continue
        twins[id(one)], taken[id(other)] = other, one
        yield path, one, other
        left, right = sublayers(one), sublayers(other)
        # A twin written by hand has classes of its own where layers are composed.
        if len(left) != len(right) or not (left or type(one) is type(other) or _converts(one, other)):
            sides = "; ".join(
                f"{layer.name} ({type(layer).__name__}) with {len(owned)} layers"
                for layer, owned in ((one, left), (other, right))
            )
            raise ValueError(f"the models differ{f' at {path}' if path else ''}. Received: {sides}")
        prefix = f"{path}/" if path else ""
        waiting[:0] = zip((prefix + name for name in _distinct(left)), left, right, strict=True)


def _distinct(layers: list[Any]) -> Iterator[str]:
    """The names of layers side by side; from the second of one name on, with its number: `conv`, `conv#2`."""
    met = Counter[str]()
    for name in (layer.name for layer in layers):
        met[name] += 1
        yield name if met[name] == 1 else f"{name}#{met[name]}"


def own_variables(layer: Any) -> list[Any]:
    """The variables that a layer has itself, those that train first."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _variables(layer: Any, twin: Any) -> list[Any]:
    own = own_variables(layer)
    if not layer.built or not _converts(layer, twin):
        if type(layer).save_own_variables is keras.layers.Layer.save_own_variables:
            return own
        return sorted(own, key=lambda variable: variable.name)  # a quantized layer adds some when it is quantized
    kernels = _kernels(layer, twin)
    return [variable for variable in own if not any(variable is kernel for kernel in kernels)]


def _kernels(layer: Any, twin: Any) -> list[Any]:
    return [layer.W, layer.D] if isinstance(layer, DOConvMixin) else [_kernel(layer, twin)]


def _kernel(plain: Any, form: Any) -> Any:
    """The kernel of a plain convolution with the DO form `form`."""
    return getattr(plain, form._kernel_name)


def _converts(one: Any, other: Any) -> bool:
    """Whether one layer is of the DO form of the other's class."""
    return getattr(one, "plain_class", None) is type(other) or getattr(other, "plain_class", None) is type(one)


def _state(layer: Any, twin: Any) -> list[Any]:
    """Shape and type of everything that is copied; what is composed or starts a DO layer comes first."""
    kernel = []
    if _converts(layer, twin) and layer.built and twin.built:
        variable = _kernels(layer, twin)[0]
        kernel = [((*layer.kernel_size, *variable.shape[-2:]), variable.dtype)]
    variables = [(tuple(variable.shape), variable.dtype) for variable in _variables(layer, twin)]
    return [*kernel, *variables, *[generator.state.shape for generator in layer._seed_generators]]


def _copy(one: Any, other: Any) -> None:
    if _converts(one, other):
        if isinstance(other, DOConvMixin):
            other.start_from(_kernel(one, other))
        else:
            _kernel(other, one).assign(one.folded_kernel())
        for left, right in zip(_variables(one, other), _variables(other, one), strict=True):
            right.assign(to_numpy(left))
    else:  # as Keras stores and loads it: some layers keep more than variables
        store: dict[str, Any] = {}
        one.save_own_variables(store)
        other.load_own_variables({name: to_numpy(value) for name, value in store.items()})
        if hasattr(one, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                one.save_assets(folder)
                other.load_assets(folder)
    for left, right in zip(one._seed_generators, other._seed_generators, strict=True):
        right.state.assign(to_numpy(left.state))
