"""A model made again, from the configs of its layers, some of them changed.

Three kinds of layers:

- one that owns none is made from its config (`_config.py`);
- a Sequential or functional model owns a graph, which `keras.models.clone_model` calls again, layer by layer;
- any other owner, such as a wrapper, a residual block or a subclassed model, makes its layers itself: it is made from its
  config, and what its constructor made is paired with what the given one has. Where they must differ, another layer is put in
  place (`_swap.py`).
"""

from __future__ import annotations

import gc
import logging
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from doconv_keras._config import Change, keep_modes, make_from_config, reason
from doconv_keras._swap import hidden, swap
from doconv_keras._transfer import copy_settings, copy_weights, own_variables, sublayers, walk

log = logging.getLogger("doconv")
GRAPHS = (keras.Sequential, keras.Function)


class Remake:
    """One model that is made again, the layers whose ids are in `changes` changed.

    Attributes:
        paths: of every layer, by its id.
        pairs: `(layer, the new one)` by the id of the layer, for every layer and operation that was met.
        replaced: the layers that constructors made and that others took the place of, with the path.
    """

    def __init__(self, model: Any, changes: Mapping[int, Change]) -> None:
        self.model, self.changes = model, changes
        self.paths = {id(layer): path for path, layer in walk(model)}
        self.pairs: dict[int, tuple[Any, Any]] = {}
        self.waiting: list[tuple[Any, Any]] = []
        self.replaced: list[tuple[str, weakref.ref[Any]]] = []

    def run(self) -> Any:
        """The new model, with the weights and random states of the given one.

        Raises:
            ValueError: a layer cannot be made again, or a change is not reached.
        """
        new = self.again(self.model)
        self.build()
        while self.waiting:
            self.pair_sublayers(*self.waiting.pop(0))
        self.build()
        self.check_reached()
        pairs = [(path, *self.pairs[key]) for key, path in self.paths.items() if key in self.pairs]
        self.check_ties(pairs)
        copy_weights(pairs)
        copy_settings(pairs)
        return new

    def again(self, layer: Any) -> Any:
        """The new form of a layer or an operation; of one that is met twice, the same."""
        if id(layer) not in self.pairs:
            if id(layer) not in self.changes and isinstance(layer, GRAPHS):
                self.pairs[id(layer)] = layer, call_graph_again(layer, self.again, self.paths.get(id(layer), ""))
            else:
                self.make(layer)
        return self.pairs[id(layer)][1]

    def make(self, layer: Any) -> None:
        path = self.paths.get(id(layer), layer.name)
        if isinstance(layer, keras.layers.Lambda):
            for held in hidden(layer.function):
                if id(held) in self.paths and held.weights:
                    raise ValueError(
                        f"{path} has a function that would go on using the old {held.name}. Received: a Lambda"
                    )
        owned = [inner for _, inner in walk(layer)] if isinstance(layer, keras.layers.Layer) else []
        new = make_from_config(layer, self.changes.get(id(layer)), path, owned)
        self.pairs[id(layer)] = layer, new
        if owned[1:]:
            new.name = layer.name
            self.pair_sublayers(layer, new)

    def pair_sublayers(self, layer: Any, new: Any) -> None:
        """Pair what a layer owns with what the constructor of its class made for `new`, and put others in place of it."""
        if len(sublayers(new)) < len(sublayers(layer)) and layer.built and not new.built:  # it makes them in `build`
            if not any(id(inner) in self.changes for _, inner in walk(layer)):
                self.waiting.append((layer, new))  # where a model calls it, it is built
                return
            build_as(new, layer, self.paths[id(layer)])
        replacements = {}
        for inner, fresh in same_sublayers(layer, new, self.paths[id(layer)]):
            if id(inner) not in self.pairs and not self.needs_another(inner, fresh):
                self.pairs[id(inner)] = inner, fresh
                fresh.name = inner.name
                keep_modes(inner, fresh)
                self.pair_sublayers(inner, fresh)
            elif (other := self.again(inner)) is not fresh:
                replacements[id(fresh)] = other
                self.replaced.append((self.paths[id(inner)], weakref.ref(fresh)))
        swap([new], replacements)

    def needs_another(self, inner: Any, fresh: Any) -> bool:
        """Whether the layer that a constructor made is not what the new model needs."""
        if id(inner) in self.changes or type(inner) is not type(fresh):
            return True
        return isinstance(inner, GRAPHS) and any(id(owned) in self.changes for _, owned in walk(inner))

    def build(self) -> None:
        """Build what is built in the given model and was not by being called, an owner before what it owns."""
        pairs = [(path, *self.pairs[key]) for key, path in self.paths.items() if key in self.pairs]
        for path, layer, new in pairs:
            if layer.built and not new.built and not makes_by_call(new):
                build_as(new, layer, path)
        for path, layer, new in reversed(pairs):
            if layer.built and not new.built:
                build_as(new, layer, path)
                new.built = True

    def check_reached(self) -> None:
        check_released(self.replaced)
        if len({id(new) for _, new in self.pairs.values()}) < len(self.pairs):
            raise ValueError(f"several layers became one. Received: {type(self.model).__name__}")
        lost = [
            path
            for path, layer in walk(self.model)
            if id(layer) not in self.pairs and (id(layer) in self.changes or own_variables(layer))
        ]
        if lost:
            raise ValueError(f"{advice(lost)} Received: {type(self.model).__name__}")

    def check_ties(self, pairs: list[tuple[str, Any, Any]]) -> None:
        """Raise where two layers hold one variable and the new ones do not; a constructor may tie them as it did before."""
        met: dict[int, tuple[str, Any]] = {}
        for path, layer, new in pairs:
            changed = id(layer) in self.changes
            for variable, twin in zip(own_variables(layer), own_variables(new), strict=False):
                holder, expected = met.setdefault(id(variable), (path, None if changed else twin))
                if holder != path and (changed or twin is not expected):
                    raise ValueError(
                        f"{advice([path])} Received: {variable.path} is also that of {holder or layer.name}"
                    )


def call_graph_again(model: Any, again: Any, path: str) -> Any:
    """A Sequential or functional model of the layers that `again` gives for its own."""
    _check_arguments(model)
    with uncompiled(model), around(model):
        new = keras.models.clone_model(model, _inputs(model), clone_function=again)
    keep_modes(model, new)
    cls: Any = type(model)
    if type(new) is keras.Sequential and cls.__init__ is keras.Sequential.__init__:
        object.__setattr__(new, "__class__", cls)  # `clone_model` gives a Sequential for every class derived from it
    if type(new) is not cls:
        names = path or model.name, cls.__name__, type(new).__name__
        if cls.call is not type(new).call:
            raise ValueError("{}: a {} would become a {}, without its own `call`".format(*names))
        log.warning("%s: a %s became a %s, without the methods of its class", *names)
    return new


def _check_arguments(model: Any) -> None:
    """Raise where an operation of the graph is given a variable of the model's layers, which the new one would share."""
    held = {id(variable): path for path, layer in walk(model) for variable in own_variables(layer)}
    for node in (node for nodes in getattr(model, "_nodes_by_depth", {}).values() for node in nodes):
        for leaf in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if id(leaf) in held:
                raise ValueError(
                    f"{node.operation.name} is given a variable of {held[id(leaf)]}, and would go on using the old one: use it "
                    f"in the `call` of a layer that holds {held[id(leaf)]}. Received: {leaf.path}"
                )


def _inputs(model: Any) -> Any:
    """New inputs of the same names, by which data is fed; `clone_model` would rename those that were named automatically."""
    if isinstance(model, keras.Sequential):
        return None

    def again(tensor: Any) -> Any:
        source = tensor._keras_history.operation
        options = {"sparse": source.sparse, "optional": getattr(source, "optional", False)}
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=source.name, **options)

    return keras.tree.map_structure(again, model.input)


@contextmanager
def uncompiled(model: Any) -> Iterator[None]:
    """Hide that a model is compiled: `clone_model` would compile the clone, from a config that may fail."""
    compiled = getattr(model, "compiled", False)
    if compiled:
        model.compiled = False
    try:
        yield
    finally:
        if compiled:
            model.compiled = True


@contextmanager
def around(layer: Any) -> Iterator[None]:
    """The name scopes that a layer was built in, which the paths of its variables begin with."""
    with ExitStack() as scopes:
        for name in (layer.path or "").split("/")[:-1]:
            scopes.enter_context(keras.name_scope(name))
        yield


def check_released(replaced: list[tuple[str, weakref.ref[Any]]]) -> None:
    """Raise where something still holds a layer that a constructor made and that another took the place of."""
    if any(reference() is not None for _, reference in replaced):
        gc.collect()  # what is in a cycle with itself is held by nothing else; a collection takes a quarter of a second
    held = [path for path, reference in replaced if reference() is not None]
    if held:
        raise ValueError(
            "a layer's constructor gave its convolution to something other than an attribute, a list or a dict, such as a "
            f"function that it made, which would go on using the old one. Received: {', '.join(held)}"
        )


def same_sublayers(layer: Any, new: Any, path: str) -> list[tuple[Any, Any]]:
    """What a layer owns, each with what the constructor of its class made in its place.

    Raises:
        ValueError: they are not as many.
    """
    own, made = sublayers(layer), sublayers(new)
    if len(own) != len(made):
        raise ValueError(
            f"{path or layer.name} is not made again with the layers that it has. "
            f"Received: {type(layer).__name__} with {len(own)} layers, by its config with {len(made)}"
        )
    return list(zip(own, made, strict=True))


def makes_by_call(layer: Any) -> bool:
    """Whether a layer has no `build` of its own, and is built by calling what it owns."""
    return bool(sublayers(layer)) and getattr(layer.build, "_is_default", False)


def build_as(new: Any, layer: Any, path: str) -> None:
    """Build a layer as another of the same shapes was built, under the same path of its variables."""
    try:
        with around(layer), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a model that cannot be called on shapes alone; what it owns is built
            new.build_from_config(layer.get_build_config())
    except Exception as error:
        raise ValueError(f"{path or layer.name} cannot be built again. Received: {reason(error, layer)}") from error


def advice(paths: list[str]) -> str:
    return (
        f"making the model again does not reach {', '.join(paths)}: build its twin yourself, from the layers that it needs, "
        "and call doconv_keras.transfer_weights(model, twin)."
    )
