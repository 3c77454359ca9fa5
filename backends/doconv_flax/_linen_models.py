"""Over-parameterize and fold the parameters of an existing `flax.linen` model; the model's code stays as it is.

spec = conv_spec(model, x)
params = overparameterize(params, spec)
y = model.apply({"params": fold(params, spec)}, x)      # in the loss: trains W and D

`OverParameterized(model)` does all of it inside a module.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax.core import meta

from doconv_core.selection import Where, depth_multipliers, describe_convolution, listed, select
from doconv_flax._compose import check_dtype, start_from
from doconv_flax._fold import belong_together, compose_kernel, fold_kernel, is_here
from doconv_flax._linen_spec import ConvEntry, ConvSpec
from doconv_flax._linen_tree import Flat, Names, boxed, flatten, leaf_names, path_of, raw, unflatten, with_d
from doconv_flax._sharding import channel_axis, d_names, plain_names, w_names

log = logging.getLogger("doconv")


def overparameterize(
    params: Any, spec: ConvSpec, *, d_mul: int | None = None, where: Where | None = None, key: jax.Array | None = None
) -> Any:
    """Parameters in which every convolution's kernel is `W` and `D`; `fold` of them is `params`, bit for bit.

    Kernels of one tap stay plain. What was touched and what was not is logged at level INFO by the logger "doconv". Make the
    optimizer's state from what is returned, and load a checkpoint of the plain model before.

    Args:
        params: the collection "params" of the model: nested dicts (or a `FrozenDict`) of arrays, which may be boxed in
            `nn.Partitioned`.
        spec: of the model, by `conv_spec`.
        d_mul: for every layer; `None` means each kernel's number of taps.
        where: which convolutions: a predicate of path and `ConvEntry`, or a glob pattern of paths, or several.
        key: draws the columns of `W` that the identity does not reach (`d_mul` no multiple of the taps); they do not change
            the function. `None` means `jax.random.key(0)`.

    Returns:
        A new tree of the same kind. `kernel` holds `W` `(*kernel_size, C_in/G, C_out)` or, where `S != K`,
        `(S, C_in/G, C_out)`; a new leaf `D` `(*kernel_size, S, C_in)` zeros, on the kernel's devices and split as it is.
        Stacked layers keep their leading axes. Leaves that do not change are the given arrays themselves.

    Raises:
        TypeError: `params` is not a tree of dicts, or a selected convolution keeps its kernel in a way of its own, or in a
            dtype that is not a floating point one.
        ValueError: there is no convolution, none that `where` selects, none left to convert, a kernel is missing or of
            another shape, or `d_mul` is too small.
    """
    flat = flatten(params)
    selected = select(spec, where)
    _check_kernels(flat, selected)
    chosen = depth_multipliers(
        selected,
        d_mul,
        is_plain=lambda path, entry: is_plain(flat, path, entry),
        describe=lambda path, entry: _describe(path, entry, flat),
    )
    key = jax.random.key(0) if key is None else key
    for index, (path, multiplier) in enumerate(chosen.items()):
        leaf = flat[leaf_names(path, "kernel")]
        W, D = _start(leaf, spec[path], multiplier, jax.random.fold_in(key, index))
        flat |= {leaf_names(path, "kernel"): W, leaf_names(path, "D"): D}
    for path, entry in spec.items():
        log.info("%s: %s", path, _describe(path, entry, flat))
    return unflatten(flat, params)


def is_plain(flat: Flat, path: str, entry: ConvEntry) -> bool:
    """Whether a layer has more than one tap and no `D` yet."""
    return leaf_names(path, "D") not in flat and math.prod(entry.kernel_size) > 1


def _check_kernels(flat: Flat, selected: Mapping[str, ConvEntry]) -> None:
    """Raise where a selected convolution keeps its kernel in a way of its own, or a kernel is missing or does not fit."""
    if refused := listed({path: entry.refused for path, entry in selected.items()}):
        raise TypeError(f"leave these out by `where`: they are not over-parameterized. Received: {refused}")
    for path, entry in selected.items():
        kernel = raw(flat.get(leaf_names(path, "kernel")))
        if kernel is None:
            tops = ", ".join(sorted({str(names[0]) for names in flat}))
            raise ValueError(
                f'params has no kernel of the layer {path!r}; give the collection "params". Received: {tops}'
            )
        if not is_plain(flat, path, entry):
            continue
        check_dtype(kernel, path)
        if tuple(kernel.shape) != (*entry.stacked, *entry.kernel_shape):
            raise ValueError(
                f"the kernel of {path!r} must have shape {(*entry.stacked, *entry.kernel_shape)}. Received: {kernel.shape}"
            )


def fold(params: Any, spec: ConvSpec | None = None, *, transpose_kernel: bool = False) -> Any:
    """The parameters of the plain model: every `kernel` that has a `D` beside it becomes the composed kernel.

    Pure and traceable: `model.apply({"params": fold(p)}, x)` trains any plain model on over-parameterized parameters. Where
    the numbers are known, kernels are composed by `doconv_core` in float64 and rounded once, as every backend folds; then a
    warning by the logger "doconv" says if every `D` is zero, as it is when a loss was trained that did not fold.

    Which axes stack layers is read off the shapes: `D` is `(*stacked, *kernel_size, S, C_in)`, and its spatial axes are the
    last ones whose product is `S`, or at `S != K` what the rank of the kernel leaves. Stacked axes must come first, as they
    do with `variable_axes={"params": 0}`. What shapes do not say is whether a square kernel is that of a transposed layer
    with `transpose_kernel`: models that have one need the `spec`.

    Args:
        params: nested dicts (or a `FrozenDict`) of arrays, which may be boxed in `nn.Partitioned`.
        spec: of the model, by `conv_spec`.
        transpose_kernel: where there is no `spec`: whether the input channels are the last axis of every kernel.

    Returns:
        A new tree of the same kind without `D`; what has no `D` is passed on, the arrays themselves. Folding twice is
        harmless.

    Raises:
        TypeError: `params` is not a tree of dicts.
        ValueError: the shapes of a kernel and its `D` do not belong together; the `spec` does not know a layer; a layer can't
            be folded (a `DOConv` inside `nn.WeightNorm` or `nn.SpectralNorm`), or only with a `spec` (inside the first); both
            `spec` and `transpose_kernel` are given.
    """
    if spec is not None and transpose_kernel:
        raise ValueError("the spec says which layers have transpose_kernel. Received: a spec and transpose_kernel=True")
    flat = flatten(params)
    pairs = with_d(flat)
    if spec is None:
        _check_norms(pairs, flat)
    else:
        pairs = _known(pairs, flat, spec)
    transposed = {path: spec[path].transpose_kernel if spec is not None else transpose_kernel for path in pairs}
    _warn_if_all_zero([raw(flat[D]) for _, D in pairs.values()])
    return unflatten(compose_leaves(flat, pairs, transposed, fold_kernel), params)


def compose_leaves(
    flat: Flat,
    pairs: Mapping[str, tuple[Names, Names]],
    transposed: Mapping[str, bool],
    compose: Callable[..., Any] = compose_kernel,
) -> Flat:
    """`flat` with the composed kernel in place of each pair of `kernel` and `D`, in its order."""
    composed = dict(flat)
    for path, (kernel, D) in pairs.items():
        composed[kernel] = _compose_leaf(path, flat[kernel], flat[D], transposed[path], compose)
        del composed[D]
    return composed


def inspect_model(params: Any, spec: ConvSpec) -> dict[str, str]:
    """Every convolution of a model: its path, and in words whether it is over-parameterized, and if not why."""
    flat = flatten(params)
    return {path: _describe(path, entry, flat) for path, entry in spec.items()}


def _known(pairs: dict[str, tuple[Names, Names]], flat: Flat, spec: ConvSpec) -> dict[str, tuple[Names, Names]]:
    """The pairs of the spec's layers; others may be a module's own `D` and `kernel`, if their shapes allow no more."""
    for path, (kernel, D) in pairs.items():
        if path not in spec and belong_together(raw(flat[kernel]).shape, raw(flat[D]).shape):
            raise ValueError(
                f"the spec has no convolution at {path!r}: make it by conv_spec with the model and the method that use all the "
                f'parameters, and give the collection "params" alone. Received: a spec of {", ".join(spec) or "nothing"}'
            )
        if path in spec and spec[path].unfoldable:
            raise ValueError(
                f"{path!r} can't be folded: {spec[path].unfoldable}, so no plain layer is the same function; wrap the plain "
                f"layer and over-parameterize the model instead. Received: {spec[path].layer}"
            )
    return {path: pair for path, pair in pairs.items() if path in spec}


def _check_norms(pairs: Mapping[str, tuple[Names, Names]], flat: Flat) -> None:
    """Raise for a layer in `nn.WeightNorm`, which keeps its scales beside the layer as "path/kernel/scale"."""
    end = "/kernel/scale"
    normed = {
        path_of((*names[:-2], str(names[-1]).removesuffix(end), "")) for names in flat if str(names[-1]).endswith(end)
    }
    if unclear := sorted(normed & pairs.keys()):
        raise ValueError(
            "nn.WeightNorm normalises the composed kernel, or the W of a DOConv: which of the two only the spec says, "
            f"fold(params, conv_spec(model, *inputs)). Received: no spec for {', '.join(unclear)}"
        )


def _warn_if_all_zero(Ds: list[Any]) -> None:
    if Ds and all(is_here(D) for D in Ds) and not any(np.asarray(D).any() for D in Ds):
        log.warning(
            "fold: every D is zero, so the kernels are W alone. It is so before training. After it, the loss did not fold: "
            "write model.apply({'params': fold(params, spec)}, ...), or train OverParameterized(model)"
        )


def _start(leaf: Any, entry: ConvEntry, d_mul: int, key: jax.Array) -> tuple[Any, Any]:
    kernel, spatial = raw(leaf), len(entry.kernel_size)
    W, D = start_from(
        kernel, entry.in_channels, d_mul=d_mul, key=key, spatial=spatial, transpose_kernel=entry.transpose_kernel
    )
    if not isinstance(leaf, meta.Partitioned):
        return boxed(leaf, W), D
    channels = channel_axis(entry.groups == 1, entry.transpose_kernel)
    names = leaf.names if W.shape == kernel.shape else w_names(leaf.names, kernel.ndim, spatial)
    ours = d_names(leaf.names, kernel.ndim, len(entry.stacked), spatial, channels)
    return leaf.replace(value=W, names=names), leaf.replace(value=D, names=ours)


def _compose_leaf(path: str, leaf: Any, D: Any, transpose_kernel: bool, compose: Callable[..., Any]) -> Any:
    kernel = raw(leaf)
    try:
        composed = compose(kernel, raw(D), transpose_kernel=transpose_kernel)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(leaf, meta.Partitioned) or composed.shape == kernel.shape:
        return boxed(leaf, composed)
    of_d = D.names if isinstance(D, meta.Partitioned) else None
    names = plain_names(leaf.names, kernel.ndim, composed.ndim - kernel.ndim + 1, of_d)
    return leaf.replace(value=composed, names=names)


def _describe(path: str, entry: ConvEntry, flat: Mapping[Names, Any]) -> str:
    D = raw(flat.get(leaf_names(path, "D")))
    d_mul = None if D is None else D.shape[-2]
    return describe_convolution(entry.layer, entry.kernel_size, d_mul, reason=entry.refused, stacked=entry.stacked)
