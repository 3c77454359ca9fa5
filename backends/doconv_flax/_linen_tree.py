"""Trees of linen parameters: flat and back, and the arrays in their boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import nnx
from flax.core import FrozenDict, freeze, meta
from flax.traverse_util import flatten_dict, unflatten_dict

Names = tuple[Any, ...]
Flat = dict[Names, Any]


def raw(leaf: Any) -> Any:
    """The array in a box; `Partitioned.unbox` would constrain where it lies."""
    if isinstance(leaf, meta.Partitioned):
        return leaf.value
    return leaf.unbox() if isinstance(leaf, meta.AxisMetadata) else leaf


def boxed(like: Any, value: Any) -> Any:
    """`value` in the kind of box that `like` is."""
    return like.replace_boxed(value) if isinstance(like, meta.AxisMetadata) else value


def leaf_names(path: str, name: str) -> Names:
    """The names that lead to the parameter `name` of the layer at `path` ("block/conv")."""
    return (*path.split("/"), name) if path else (name,)


def path_of(names: Names) -> str:
    """The path of the layer whose parameter has these names. (Pure dicts of nnx have numbers among them.)"""
    return "/".join(map(str, names[:-1]))


def flatten(params: Any) -> Flat:
    """The leaves by their names."""
    if isinstance(params, nnx.State):
        raise TypeError(
            "params must be nested dicts of arrays: fold an nnx model by doconv_flax.nnx.fold(model), or its parameters "
            f"as nnx.to_pure_dict(state). Received: {type(params).__name__}"
        )
    if not isinstance(params, Mapping):
        raise TypeError(f"params must be nested dicts of arrays. Received: {type(params).__name__}")
    return flatten_dict(params, keep_empty_nodes=True)


def unflatten(flat: Flat, like: Any) -> Any:
    """The inverse of `flatten`, of the kind that `like` is."""
    tree = unflatten_dict(flat)
    return freeze(tree) if isinstance(like, FrozenDict) else tree


def with_d(flat: Flat) -> dict[str, tuple[Names, Names]]:
    """Every layer with a `D` beside its `kernel`: its path, and the names of the two."""
    pairs = ((names, (*names[:-1], "D")) for names in flat if names[-1] == "kernel")
    return {path_of(kernel): (kernel, D) for kernel, D in pairs if D in flat}
