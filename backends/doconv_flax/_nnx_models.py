"""Over-parameterize and fold an existing `flax.nnx` model, in place."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Any, TypeVar

import jax
from flax import nnx

from doconv_core.selection import Where, depth_multipliers, describe_convolution, listed, select
from doconv_flax._compose import check_dtype, start_from
from doconv_flax._fold import fold_kernel
from doconv_flax._nnx_layers import DOConv, DOConvTranspose, add_d
from doconv_flax._nnx_reads import kernel_uses
from doconv_flax._sharding import plain_names, w_names

M = TypeVar("M", bound=nnx.Module)
log = logging.getLogger("doconv")
DO_CLASS: dict[type, type] = {nnx.Conv: DOConv, nnx.ConvTranspose: DOConvTranspose}
PLAIN_CLASS = {ours: plain for plain, ours in DO_CLASS.items()}
OURS = (DOConv, DOConvTranspose)


def overparameterize(
    model: M, *, d_mul: int | None = None, where: Where | None = None, key: jax.Array | None = None
) -> M:
    """Turn a model's convolutions into DO-Conv layers, in place; its outputs stay the same, bit for bit.

    Each layer keeps its identity and its Variables: shared layers stay shared, tied kernels tied (with one `D`). Only
    `nnx.Conv` and `nnx.ConvTranspose` themselves are converted. Kernels of one tap stay plain. What was touched and what was
    not is logged at level INFO by the logger "doconv" and shown by `inspect_model`. Build the optimizer afterwards, and load
    the checkpoint of the plain model before.

    Args:
        model: a module, or a single layer. Layers stacked by `nnx.vmap` are converted with their leading axes.
        d_mul: for every layer; `None` means each kernel's number of taps.
        where: which convolutions: a predicate of path ("blocks.0.conv") and layer, or a glob pattern of paths, or several.
        key: draws the columns of `W` that the identity does not reach (`d_mul` no multiple of the taps); they do not change
            the function. `None` means `jax.random.key(0)`.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not an nnx module, or abstract; a selected convolution is of a subclass, or something else acts on
            its kernel: `nnx.WeightNorm`, `nnx.SpectralNorm`, a Variable with a hook or a `get_value` of its own, or the code of
            a module that uses `layer.kernel` in its call; or a kernel is not of a floating point dtype.
        ValueError: there is no convolution, none that `where` selects, none left to convert, `d_mul` is too small, layers are
            stacked along another axis than the first, a kernel is tied to something that is not converted with it, a plain
            layer holds a `D`, or the model holds an optimizer. Nothing has been changed then.
    """
    found = _convolutions(model)
    selected = select(found, where)
    if foreign := listed({path: type(layer).__name__ for path, layer in selected.items() if _is_foreign(layer)}):
        raise TypeError(
            "subclasses of nnx.Conv and nnx.ConvTranspose are not converted, as their own `__call__` would be lost: leave them "
            f"out by `where`. Received: {foreign}"
        )
    chosen = depth_multipliers(
        selected,
        d_mul,
        is_plain=lambda _, layer: type(layer) in DO_CLASS and math.prod(layer.kernel_size) > 1,
        describe=lambda _, layer: _describe(layer),
    )
    layers = {path: found[path] for path in chosen}
    _check_arrays(layers)
    _check_use(model, layers, "leave them out by `where`")
    _check_stacks(layers)
    _check_ties(model, layers)
    key = jax.random.key(0) if key is None else key
    done: dict[int, Any] = {}
    for index, (path, multiplier) in enumerate(chosen.items()):
        layer = found[path]
        kernel = layer.kernel
        if id(kernel) in done:
            layer.D = done[id(kernel)]
        else:
            spatial, ndim = len(layer.kernel_size), kernel.ndim
            W, D = start_from(
                kernel[...], layer.in_features, d_mul=multiplier, key=jax.random.fold_in(key, index), spatial=spatial,
                transpose_kernel=getattr(layer, "transpose_kernel", False),
            )  # fmt: skip
            add_d(layer, D)  # while the kernel still has the names of its spatial axes
            if W.shape != kernel.shape:
                _replace(kernel, W, w_names, ndim, spatial)
            done[id(kernel)] = layer.D
        _become(layer, DO_CLASS[type(layer)])
    for path, layer in found.items():
        log.info("%s: %s", path, _describe(layer))
    return model


def fold(model: M) -> M:
    """Fold every DO-Conv layer of a model into its plain convolution, in place.

    The layers become `nnx.Conv` and `nnx.ConvTranspose` with the composed kernel: nothing of doconv is needed to run or load
    the model. Composed by `doconv_core` in float64 and rounded once, as every backend folds; in a trace by `compose`. A model
    without DO-Conv layers is returned as it is. (`nnx.jit` lets no argument change its class: call this outside, or on a model
    merged inside.)

    Args:
        model: a module, or a single layer.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not an nnx module, or a layer is of a subclass of `DOConv` or `DOConvTranspose`, or something else
            acts on its `W`, as in `overparameterize`.
        ValueError: layers are stacked along another axis than the first, or a plain layer holds a `D`.
    """
    layers: dict[str, Any] = {path: layer for path, layer in _convolutions(model).items() if isinstance(layer, OURS)}
    foreign = [f"{path}: {type(layer).__name__}" for path, layer in layers.items() if type(layer) not in PLAIN_CLASS]
    if foreign:
        raise TypeError(
            f"subclasses of DOConv and DOConvTranspose have no plain class to become. Received: {', '.join(foreign)}"
        )
    over = {path: layer for path, layer in layers.items() if layer.D is not None}
    _check_arrays(over)
    _check_use(model, over, "no plain layer would be the same function")
    _check_stacks(over)
    folded: set[int] = set()
    for path, layer in layers.items():
        kernel = layer.kernel
        if layer.D is not None and id(kernel) not in folded:
            transpose_kernel = getattr(layer, "transpose_kernel", False)
            weight = fold_kernel(kernel[...], layer.D[...], transpose_kernel=transpose_kernel)
            of_d = layer.D.get_metadata().get("out_sharding")
            rename = partial(plain_names, of_d=of_d if isinstance(of_d, tuple) else None)
            _replace(kernel, weight, rename, kernel.ndim, len(layer.kernel_size))
            folded.add(id(kernel))
        del layer.D
        _become(layer, PLAIN_CLASS[type(layer)])
        log.info("%s: folded", path)
    return model


def inspect_model(model: nnx.Module) -> dict[str, str]:
    """Every convolution of a model: its path, and in words whether it is over-parameterized, and if not why."""
    return {path: _describe(layer) for path, layer in _convolutions(model).items()}


def _convolutions(model: nnx.Module) -> dict[str, Any]:
    """Every convolution once, by its path; a single layer has the path "". Raises ValueError if a plain one holds a `D`."""
    if not isinstance(model, nnx.Module):
        raise TypeError(f"model must be a flax.nnx.Module. Received: {type(model).__name__}")
    found = {
        ".".join(map(str, path)): node
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.Conv | nnx.ConvTranspose)
    }
    given = [path for path, layer in found.items() if type(layer) in DO_CLASS and hasattr(layer, "D")]
    if given:
        raise ValueError(
            "plain convolutions hold a D, which they pass over: the state of an over-parameterized model was read into a plain "
            f"one (nnx.update). Read it into one that is over-parameterized. Received: {', '.join(given)}"
        )
    return found


def _check_arrays(layers: dict[str, Any]) -> None:
    abstract = [path for path, layer in layers.items() if isinstance(layer.kernel.get_value(), jax.ShapeDtypeStruct)]
    if abstract:
        raise TypeError(
            "an abstract model has shapes and no arrays: convert it where it is made, "
            f"`nnx.eval_shape(lambda: overparameterize(Net(...)))`. Received: {', '.join(abstract)}"
        )
    for path, layer in layers.items():
        check_dtype(layer.kernel, path)


def _check_use(model: nnx.Module, layers: dict[str, Any], advice: str) -> None:
    """Raise if something else acts on a kernel: on `W` it acts before composition, and `fold` would change the function."""
    paths = {id(layer): path for path, layer in layers.items()}
    acted = {
        paths[id(node)]: type(norm).__name__
        for _, norm in nnx.iter_graph(model) if isinstance(norm, nnx.WeightNorm | nnx.SpectralNorm)
        for _, node in nnx.iter_graph(norm.layer_instance) if id(node) in paths
    }  # fmt: skip
    acted |= {path: hook for path, layer in layers.items() if (hook := _hook(layer.kernel))}
    used, unclear = kernel_uses(model, layers)
    acted |= used
    if acted:
        raise TypeError(
            f"the kernels of these layers are used by something other than the layers, and what acts on W acts before it is "
            f"composed: {advice}. Received: {listed(acted)}"
        )
    for name in unclear:
        log.warning(
            "%s uses `.kernel` of something: if that is a convolution's, it sees W, not the composed kernel", name
        )


def _hook(kernel: nnx.Variable) -> str:
    """What a Variable makes of its value where it is read or written, or nothing."""
    cls = type(kernel)
    for name in ("get_value", "set_value"):
        if getattr(cls, name) is not getattr(nnx.Variable, name) or kernel.get_metadata().get(f"on_{name}"):
            return f"{cls.__name__}.{name}"
    return ""


def _check_stacks(layers: dict[str, Any]) -> None:
    """Raise unless the axes that stack layers come first in every Variable of a layer, as far as shapes say it."""
    for path, layer in layers.items():
        kernel, size, bias = layer.kernel, tuple(layer.kernel_size), layer.bias
        if isinstance(layer, OURS):
            shape, whole = layer.D.shape, (*size, layer.d_mul, layer.in_features)
        else:
            shape, whole = kernel.shape, tuple(layer.kernel_shape)
        stack = shape[: -2 - len(size)]
        good = shape[len(stack) :] == whole and kernel.shape[: len(stack)] == stack
        if not good or (bias is not None and bias.shape != (*stack, layer.out_features)):
            raise ValueError(
                f"axes that stack layers must come first (nnx.vmap with out_axes=0). Received: {path or 'the layer'} with a "
                f"kernel of shape {kernel.shape}{'' if bias is None else f' and a bias of shape {bias.shape}'}"
            )


def _check_ties(model: nnx.Module, chosen: dict[str, Any]) -> None:
    """Raise unless every kernel is held by chosen layers alone, all of one kind, and by no optimizer."""
    roles: dict[int, dict[str, tuple]] = {}
    for path, layer in chosen.items():
        transpose_kernel = getattr(layer, "transpose_kernel", False)
        role = (layer.kernel_shape, layer.in_features, getattr(layer, "feature_group_count", 1), transpose_kernel)
        roles.setdefault(id(layer.kernel), {})[f"{path}.kernel".lstrip(".")] = role
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Optimizer):
            raise ValueError(
                "convert the model before its optimizer is built: its state would be stale. "
                f"Received: an optimizer at {'.'.join(map(str, path))!r}"
            )
        for name, value in _members(node).items():
            if id(value) in roles and isinstance(value, nnx.Variable):
                holder = ".".join(map(str, (*path, name)))
                if holder not in roles[id(value)]:
                    roles[id(value)][holder] = ()
    for tied in roles.values():
        if len(set(tied.values())) > 1:
            raise ValueError(
                "a kernel is shared with something that is not converted with it, or is used in another way there: fold would "
                f"give them different kernels. Leave it out by `where`. Received: {', '.join(tied)}"
            )


def _members(node: Any) -> dict[Any, Any]:
    if isinstance(node, nnx.Pytree):
        return vars(node)
    items = enumerate(node) if isinstance(node, list | tuple) else ()
    return node if isinstance(node, dict) else dict(items)


def _is_foreign(layer: Any) -> bool:
    return type(layer) not in DO_CLASS and not isinstance(layer, OURS)


def _replace(kernel: nnx.Variable, value: jax.Array, rename: Any, ndim: int, spatial: int) -> None:
    """Another array in the same Variable, so that ties stay; its names follow where its axes change."""
    names = kernel.get_metadata().get("out_sharding")
    if value.shape != kernel.shape and isinstance(names, tuple):
        kernel.set_metadata(out_sharding=rename(names, ndim, spatial))
    kernel.set_value(value)


def _become(layer: Any, cls: type) -> None:
    object.__setattr__(layer, "__class__", cls)  # nnx would take `__class__` for an attribute of the graph


def _describe(layer: Any) -> str:
    over, reason = isinstance(layer, OURS), "a subclass" if _is_foreign(layer) else ""
    shape = layer.D.shape if over and layer.D is not None else layer.kernel.shape
    stacked = shape[: len(shape) - len(layer.kernel_size) - 2]
    d_mul = layer.d_mul if over else None
    return describe_convolution(type(layer).__name__, layer.kernel_size, d_mul, reason=reason, stacked=stacked)
