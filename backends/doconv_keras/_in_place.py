"""Convolutions changed within a given model, for models whose layers Keras cannot make again one by one.

What owns a convolution by an attribute, a list or a dict gets the changed one there (`_swap.py`). A graph cannot be edited: a
Sequential or functional model within the model is called again, of the same layers but for the changed ones, and itself put in
place of the old one.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import keras

from doconv_keras._config import Change, make_from_config
from doconv_keras._remake import GRAPHS, build_as, call_graph_again, check_released, same_sublayers
from doconv_keras._swap import attributes, hidden, leaves, swap
from doconv_keras._transfer import copy_settings, copy_weights, own_variables, pair_layers, walk

Pairs = list[tuple[str, Any, Any]]


def change_in_place(model: Any, changes: Mapping[int, Change]) -> None:
    """Change the layers whose ids are in `changes`; no other layer becomes another object, but for graphs within the model.

    Raises:
        ValueError: the model is such a graph or a changed layer itself, something keeps a convolution or its kernel where it
            cannot be replaced, or a layer cannot be made from its config. Nothing has been changed then.
    """
    _change_at([(path, layer, layer) for path, layer in walk(model) if id(layer) in changes], model, changes, [])


def remake_whole(model: Any, changes: Mapping[int, Change]) -> Any:
    """The model made again by the constructor of its own class, where those of its layers would not do, and changed then.

    Raises:
        ValueError: as `change_in_place`, and where the constructor gives other layers than the model has.
    """
    new = make_from_config(model, None, model.name, [layer for _, layer in walk(model)])
    if model.built and not new.built:
        build_as(new, model, model.name)
    kept: Pairs = []
    places: Pairs = []
    for path, layer, fresh in pair_layers(model, new):
        same = id(layer) not in changes and type(layer) is type(fresh)
        (kept if same else places).append((path, layer, fresh))
        del fresh
    # A graph that is called again stays, as its layers remember their calls.
    bound = {id(layer) for _, graph in walk(new) if isinstance(graph, GRAPHS) for layer in graph.layers}
    unbound = [(path, weakref.ref(fresh)) for path, _, fresh in places if id(fresh) not in bound]
    _change_at(places, new, changes, kept)
    check_released(unbound)
    return new


def _change_at(places: Pairs, model: Any, changes: Mapping[int, Change], kept: Pairs) -> None:
    """Put changed forms of layers in the `places` of a model, `(path, layer, what it takes the place of)`; copy to `kept`, too.

    The list of places is emptied, so that nothing here holds what is replaced.
    """
    _check_editable(model, {id(place) for *_, place in places})
    new = {id(place): _make(layer, changes.get(id(layer)), path, place) for path, layer, place in places}
    pairs = [*kept, *((path, layer, new[id(place)]) for path, layer, place in places)]
    places.clear()
    copy_weights(pairs)
    _put_in_place(model, new)
    copy_settings(pairs)
    _forget_compiled(model)


def _put_in_place(model: Any, replacements: dict[int, Any]) -> None:
    """Put other layers in place of those of the model whose ids are given; graphs that are called again are added."""
    layers = [layer for _, layer in walk(model)]
    graphs = _graphs_to_call_again(model, set(replacements))
    flags = [(layer, layer.trainable, [(v, v.trainable) for v in own_variables(layer)]) for layer in layers]
    for graph in graphs:
        again = call_graph_again(graph, lambda layer: replacements.get(id(layer), layer), graph.name)
        copy_settings([(graph.name, graph, again)])
        replacements[id(graph)] = again
    for layer, trainable, variables in flags:  # setting the flag of a graph has set those of its layers
        layer.trainable = trainable
        for variable, flag in variables:
            variable.trainable = flag
    owners = [*layers, *replacements.values()]
    swap((layer for layer in owners if not isinstance(layer, GRAPHS)), replacements)


def _make(layer: Any, change: Change | None, path: str, place: Any) -> Any:
    """The changed form of a layer, with what the one that it takes the place of owns, such as an activation with weights."""
    new = make_from_config(layer, change, path)
    if layer.built:
        build_as(new, layer, path)
    swap([new], {id(fresh): inner for inner, fresh in same_sublayers(place, new, path)})
    return new


def _graphs_to_call_again(model: Any, changed: set[int]) -> list[Any]:
    """Graphs that hold a changed layer, or another such graph; one after those within it, which walk fewer layers."""
    graphs: list[Any] = []
    found: list[Any] = [layer for _, layer in walk(model) if isinstance(layer, GRAPHS)]
    for graph in sorted(found, key=lambda graph: len(list(walk(graph)))):
        if any(id(inner) in changed or inner in graphs for inner in graph.layers):
            graphs.append(graph)
    return graphs


def _check_editable(model: Any, changed: set[int]) -> None:
    """Raise where the model is a graph of what changes, or a swap would not reach what uses a convolution."""
    graphs = _graphs_to_call_again(model, changed)
    if model in graphs or id(model) in changed:
        graph = "a Sequential or functional model has a graph, which cannot be changed"
        what = graph if model in graphs else "a layer cannot be made another"
        raise ValueError(f"{what} in place: leave out `in_place`. Received: {type(model).__name__}")
    wanted = changed | {id(graph) for graph in graphs}
    found = {id(layer) for graph in graphs for layer in graph.layers}
    kernels = {
        id(variable): (path, layer)
        for path, layer in walk(model)
        if id(layer) in changed
        for variable in own_variables(layer)
    }
    for path, owner in walk(model):
        for name, value in () if isinstance(owner, GRAPHS) else attributes(owner):
            for leaf in leaves(value):
                found.add(id(leaf))
                if old := [inner.name for inner in hidden(leaf) if id(inner) in wanted - {id(owner)}]:
                    raise ValueError(
                        f"{path or owner.name} holds a function, or an object that is no layer, that would go on using the "
                        f"old {old[0]}. Received: {type(owner).__name__}.{name}"
                    )
                held, layer = kernels.get(id(leaf), ("", owner))
                if layer is not owner:
                    raise ValueError(
                        f"{path or owner.name} keeps the kernel of {held}, which would no longer be that layer's. "
                        f"Received: {type(owner).__name__}.{name}"
                    )
    missed = [path or layer.name for path, layer in walk(model) if id(layer) in wanted - found]
    if missed:
        raise ValueError(
            f"no attribute, list or dict of the model's layers holds {', '.join(missed)}. Received: {type(model).__name__}"
        )


def _forget_compiled(model: Any) -> None:
    """An optimizer, and the functions of `fit` and `predict`, belong to the variables that they were made for."""
    for _, layer in walk(model):
        if isinstance(layer, keras.Model):
            layer.compiled = False
            layer.train_function = layer.test_function = layer.predict_function = None
            if hasattr(layer, "_compiled_trainable_state"):  # holds every layer that the model had
                del layer._compiled_trainable_state
