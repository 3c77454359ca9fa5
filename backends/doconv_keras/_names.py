"""Names that Keras gave: `conv2d_1` is `conv2d` in the next process, so between two models they are matched by their order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import keras

from doconv_keras._transfer import walk


def match_by_order(model: keras.layers.Layer, paths: Iterable[str], stored: Iterable[str]) -> dict[str, str] | None:
    """What each layer of a model is called in a file, where names differ only in the numbers that Keras gave.

    Args:
        model: the model.
        paths: of its layers, dots between the names, in the model's order.
        stored: the names in the file, in the order of the model that was saved.

    Returns:
        The name in the file by path; None where names differ otherwise.

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv2d_7")])
    >>> match_by_order(model, ["conv2d_7"], ["conv2d_3"])
    {'conv2d_7': 'conv2d_3'}
    """
    automatic = {path.replace("/", "."): prefix for path, layer in walk(model) if (prefix := _prefix(layer))}
    prefixes = set(automatic.values())
    ours = _number_again(paths, lambda path, name: automatic.get(path))
    theirs = _number_again(stored, lambda path, name: next((p for p in prefixes if _is_of(name, p)), None))
    if ours.keys() != theirs.keys():
        return None
    return {path: theirs[key] for key, path in ours.items()}


def _prefix(layer: keras.layers.Layer) -> str | None:
    """`conv2d` of a Conv2D or DOConv2D called `conv2d_7`; None where a user named it."""
    cls: type = getattr(layer, "plain_class", type(layer))
    for each in (cls, type(layer)):
        prefix = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", each.__name__))
        prefix = re.sub("([a-z])([A-Z])", r"\1_\2", prefix).lower()  # as Keras does
        if _is_of(layer.name, prefix):
            return prefix
    return None


def _is_of(name: str, prefix: str) -> bool:
    return re.fullmatch(rf"{re.escape(prefix)}(_\d+)?", name) is not None


def _number_again(paths: Iterable[str], prefix_of: Callable[[str, str], str | None]) -> Mapping[tuple[str, ...], str]:
    """Each path by its names, of which automatic ones are numbered from 0 under what owns them."""
    numbers: dict[tuple[str, ...], dict[str, int]] = {}
    found = {}
    for path in paths:
        key: tuple[str, ...] = ()
        names = path.split(".")
        for depth, name in enumerate(names, 1):
            prefix = prefix_of(".".join(names[:depth]), name)
            if prefix is not None:
                met = numbers.setdefault((*key, prefix), {})
                name = f"{prefix} {met.setdefault(name, len(met))}"
            key = (*key, name)
        found[key] = path
    return found
