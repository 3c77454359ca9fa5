"""Convolutions changed within a given model, for models that Keras cannot make again.

What owns a convolution by an attribute, a list or a dict gets the changed one there (`_swap.py`). A graph cannot be edited: a
Sequential or functional model within the model is called again, of the same layers but for the changed ones, and itself put in
place of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from doconv_keras._config import Change, make_from_config
from doconv_keras._remake import GRAPHS, build_as, call_graph_again, own_variables
from doconv_keras._swap import attributes, leaves, swap
from doconv_keras._transfer import copy_trainable, copy_weights, walk


def change_in_place(model: Any, changes: Mapping[int, Change]) -> None:
    """Change the layers whose ids are in `changes`; no other layer becomes another object, but for graphs within the model.

    Raises:
        ValueError: the model is such a graph itself, something keeps a convolution or its kernel where it cannot be replaced,
            or a layer cannot be made from its config. Nothing has been changed then.
    """
    layers = {id(layer): (path, layer) for path, layer in walk(model)}
    graphs = _graphs_to_call_again(model, changes)
    _check_holders(model, changes, graphs)
    pairs = [(path, layer, make_from_config(layer, changes[key], path)) for key, (path, layer) in layers.items()
             if key in changes]  # fmt: skip
    for path, layer, new in pairs:
        if layer.built:
            build_as(new, layer, path)
    copy_weights(pairs)
    copy_trainable(pairs)
    replacements = {id(layer): new for _, layer, new in pairs}
    flags = [(layer, layer.trainable, [(v, v.trainable) for v in own_variables(layer)]) for _, layer in layers.values()]
    for graph in reversed(graphs):  # those within others first
        new = call_graph_again(graph, lambda layer: replacements.get(id(layer), layer))
        new.trainable = graph.trainable
        replacements[id(graph)] = new
    for layer, trainable, variables in flags:  # setting that of a graph sets those of its layers
        layer.trainable = trainable
        for variable, flag in variables:
            variable.trainable = flag
    copy_trainable(pairs)
    swap((layer for _, layer in layers.values() if not isinstance(layer, GRAPHS)), replacements)
    for _, layer in walk(model):
        _forget_compiled(layer)


def _graphs_to_call_again(model: Any, changes: Mapping[int, Change]) -> list[Any]:
    """Graphs that hold a changed layer, or another such graph; one before those within it."""
    graphs: list[Any] = []
    wanted = set(changes)
    for _, layer in reversed(list(walk(model))):
        if isinstance(layer, GRAPHS) and any(id(inner) in wanted for inner in layer.layers):
            if layer is model:
                raise ValueError(
                    "a Sequential or functional model has a graph, which cannot be changed in place: leave out `in_place`. "
                    f"Received: {type(model).__name__}"
                )
            graphs.insert(0, layer)
            wanted.add(id(layer))
    return graphs


def _check_holders(model: Any, changes: Mapping[int, Change], graphs: list[Any]) -> None:
    """Raise where a swap would not reach what uses a convolution."""
    wanted = set(changes) | {id(graph) for graph in graphs}
    found = {id(layer) for graph in graphs for layer in graph.layers}
    kernels = {
        id(variable): (path, layer)
        for path, layer in walk(model)
        if id(layer) in changes
        for variable in own_variables(layer)
    }
    for path, owner in walk(model):
        for name, value in () if isinstance(owner, GRAPHS) else attributes(owner):
            for leaf in leaves(value):
                found.add(id(leaf))
                held, layer = kernels.get(id(leaf), ("", owner))
                if layer is not owner:
                    raise ValueError(
                        f"{path or owner.name} keeps the kernel of {held}, which would be its own no longer. "
                        f"Received: {type(owner).__name__}.{name}"
                    )
    missed = [path or layer.name for path, layer in walk(model) if id(layer) in wanted - found]
    if missed:
        raise ValueError(
            f"no attribute, list or dict of the model's layers holds {', '.join(missed)}. Received: {type(model).__name__}"
        )


def _forget_compiled(layer: Any) -> None:
    """An optimizer, and the functions of `fit` and `predict`, belong to the variables that they were made for."""
    if isinstance(layer, keras.Model):
        layer.compiled = False
        layer.train_function = layer.test_function = layer.predict_function = None
