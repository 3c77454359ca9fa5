"""Over-parameterize and fold the parameters of an existing `flax.linen` model; the model's code stays as it is.

spec = conv_spec(model, x)
params = overparameterize(params, spec)
y = model.apply({"params": fold(params, spec)}, x)      # in the loss: trains W and D
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn
from flax.core import FrozenDict, freeze, meta
from flax.traverse_util import flatten_dict, unflatten_dict

from doconv_core.geometry import ConvGeometry, depth_multiplier
from doconv_flax._compose import start_from
from doconv_flax._fold import fold_kernel
from doconv_flax._linen_layers import DOConv, DOConvTranspose
from doconv_flax._names import d_names, plain_names, w_names
from doconv_flax._select import Where, select

log = logging.getLogger("doconv")


@dataclass(frozen=True)
class ConvEntry:
    """One convolution of a model, as `conv_spec` found it.

    Attributes:
        layer: the name of its class.
        kernel_shape: the plain kernel's, without stacked axes.
        in_channels: `C_in`.
        groups: `G`.
        transposed: whether it is a transposed convolution.
        transpose_kernel: the option of that name: the kernel is `(*kernel_size, C_out, C_in)`.
        stacked: leading axes of its parameters that stack layers (`nn.scan`, `nn.vmap`).
        d_mul: `S` where the model's own layer is a DO-Conv layer, else None.
        refused: why it can't be over-parameterized; empty where it can.
    """

    layer: str
    kernel_shape: tuple[int, ...]
    in_channels: int
    groups: int = 1
    transposed: bool = False
    transpose_kernel: bool = False
    stacked: tuple[int, ...] = ()
    d_mul: int | None = None
    refused: str = ""

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """One integer an axis."""
        return self.kernel_shape[:-2]

    def geometry(self, d_mul: int | None = None) -> ConvGeometry:
        """What the parameters' shapes follow from; strides, padding and dilation are left out."""
        return ConvGeometry(
            in_channels=self.in_channels,
            out_channels=self.kernel_shape[-2 if self.transpose_kernel else -1],
            kernel_size=self.kernel_size,
            groups=self.groups,
            transposed=self.transposed,
            d_mul=d_mul or self.d_mul,
        )


ConvSpec = dict[str, ConvEntry]


def conv_spec(model: nn.Module, *inputs: Any, rngs: Any = None, **options: Any) -> ConvSpec:
    """Every convolution that a call of `model` runs, by its path in the parameters (`"block/Conv_0"`; a bare layer's is "").

    The model is initialised in the abstract (`jax.eval_shape`): nothing is computed. Convolutions are found where they are
    called, so also inside `nn.scan`, `nn.vmap`, `nn.remat`, `setup`, shared modules and wrappers such as `nn.WeightNorm`.
    `nn.ConvLocal` is no convolution in this sense.

    Args:
        model: a module.
        inputs: what `model.init` takes; arrays or `jax.ShapeDtypeStruct`.
        rngs: as of `model.init`; by default one key for every stream.
        options: keyword arguments of `model.init`, `method` among them.

    Raises:
        TypeError: `model` is not a linen module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a flax.linen.Module. Received: {type(model).__name__}")
    called: dict[tuple[str, ...], tuple[nn.Module, int]] = {}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, nn.Conv | nn.ConvTranspose) and context.method_name == "__call__" and module.scope:
            x = args[0] if args else next(iter(kwargs.values()))
            called.setdefault(module.scope.path, (module, x.shape[-1]))
        return call(*args, **kwargs)

    leaves, tree = jax.tree.flatten(inputs)
    arrays = [leaf for leaf in leaves if hasattr(leaf, "shape")]

    def init(arrays: list[Any]) -> Any:
        given = iter(arrays)
        whole = [next(given) if hasattr(leaf, "shape") else leaf for leaf in leaves]
        return model.init(jax.random.key(0) if rngs is None else rngs, *jax.tree.unflatten(tree, whole), **options)

    with nn.intercept_methods(note):
        params = flatten_dict(jax.eval_shape(init, arrays).get("params", {}))
    return {"/".join(path): _entry(module, channels, path, params) for path, (module, channels) in called.items()}


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
        `(S, C_in/G, C_out)`; a new leaf `D` `(*kernel_size, S, C_in)` zeros. Stacked layers keep their leading axes.

    Raises:
        TypeError: `params` is not a tree of dicts, or a selected convolution keeps its kernel in a way of its own.
        ValueError: there is no convolution, none that `where` selects, none left to convert, a kernel is missing or of
            another shape, or `d_mul` is too small.
    """
    flat = _flatten(params)
    selected = select(spec, where)
    refused = [f"{path}: {entry.refused}" for path, entry in selected.items() if entry.refused]
    if refused:
        raise TypeError(f"leave these out by `where`: they are not over-parameterized. Received: {'; '.join(refused)}")
    chosen = {}
    for path, entry in selected.items():
        kernel = _raw(flat.get(_key(path, "kernel")))
        if kernel is None:
            tops = ", ".join(sorted({names[0] for names in flat}))
            raise ValueError(
                f'params has no kernel of the layer {path!r}; give the collection "params". Received: {tops}'
            )
        if _key(path, "D") in flat or math.prod(entry.kernel_size) == 1:
            continue
        if tuple(kernel.shape) != (*entry.stacked, *entry.kernel_shape):
            raise ValueError(
                f"the kernel of {path!r} must have shape {(*entry.stacked, *entry.kernel_shape)}. Received: {kernel.shape}"
            )
        received = f"{path}: kernel_size={entry.kernel_size}, d_mul={d_mul!r}"
        chosen[path] = depth_multiplier(entry.kernel_size, d_mul, received=received)
    if not chosen:
        states = "; ".join(f"{path}: {_state(path, entry, flat)}" for path, entry in selected.items())
        raise ValueError(f"nothing is left to over-parameterize. Received: {states}")
    key = jax.random.key(0) if key is None else key
    for index, (path, multiplier) in enumerate(chosen.items()):
        leaf = flat[_key(path, "kernel")]
        W, D = _start(leaf, spec[path], multiplier, jax.random.fold_in(key, index))
        flat |= {_key(path, "kernel"): W, _key(path, "D"): D}
    for path, entry in spec.items():
        log.info("%s: %s", path, _state(path, entry, flat))
    return _unflatten(flat, params)


def fold(params: Any, spec: ConvSpec | None = None, *, transpose_kernel: bool = False) -> Any:
    """The parameters of the plain model: every `kernel` that has a `D` beside it becomes the composed kernel.

    Pure and traceable: `model.apply({"params": fold(p)}, x)` trains any plain model on over-parameterized parameters. Outside
    a trace the kernels are composed by `doconv_core` in float64 and rounded once, as every backend folds.

    Which axes stack layers is read off the shapes: `D` is `(*stacked, *kernel_size, S, C_in)`, and its spatial axes are the
    last ones whose product is `S`, or at `S != K` what the rank of the kernel leaves. Stacked axes must come first, as they
    do with `variable_axes={"params": 0}`. What shapes do not say is whether a square kernel is that of a transposed layer
    with `transpose_kernel`: models that have one need the `spec`.

    Args:
        params: nested dicts (or a `FrozenDict`) of arrays, which may be boxed in `nn.Partitioned`.
        spec: of the model, by `conv_spec`.
        transpose_kernel: of the layers that `spec` does not name: whether their input channels are the last axis.

    Returns:
        A new tree of the same kind without `D`; what has no `D` is passed on. Folding twice is harmless.

    Raises:
        TypeError: `params` is not a tree of dicts.
        ValueError: the shapes of a kernel and its `D` do not belong together.
    """
    flat, folded = _flatten(params), {}
    for names, leaf in flat.items():
        if names[-1] == "D" and (*names[:-1], "kernel") in flat:
            continue
        D = flat.get((*names[:-1], "D")) if names[-1] == "kernel" else None
        path = "/".join(names[:-1])
        entry = (spec or {}).get(path)
        transposed = entry.transpose_kernel if entry else transpose_kernel
        folded[names] = leaf if D is None else _fold_leaf(path, leaf, D, transposed)
    return _unflatten(folded, params)


def inspect_model(params: Any, spec: ConvSpec) -> dict[str, str]:
    """Every convolution of a model: its path, and in words whether it is over-parameterized, and if not why."""
    flat = _flatten(params)
    return {path: _state(path, entry, flat) for path, entry in spec.items()}


def _entry(module: Any, channels: int, path: tuple[str, ...], params: dict[tuple[str, ...], Any]) -> ConvEntry:
    size = module.kernel_size
    size = (size,) if isinstance(size, int) else tuple(size)
    transposed = isinstance(module, nn.ConvTranspose)
    transpose_kernel = transposed and module.transpose_kernel
    groups = 1 if transposed else module.feature_group_count
    ends = (module.features, channels) if transpose_kernel else (channels // groups, module.features)
    kernel, D = (_raw(params.get((*path, name))) for name in ("kernel", "D"))
    options: dict[str, Any] = {
        "layer": type(module).__name__, "kernel_shape": (*size, *ends), "in_channels": channels, "groups": groups,
        "transposed": transposed, "transpose_kernel": transpose_kernel,
    }  # fmt: skip
    if isinstance(module, DOConv | DOConvTranspose):
        stacked = () if D is None else D.shape[: -len(size) - 2]
        return ConvEntry(**options, stacked=stacked, d_mul=1 if D is None else D.shape[-2])
    shape = () if kernel is None else tuple(kernel.shape)
    if shape[-len(size) - 2 :] != (*size, *ends):
        return ConvEntry(**options, refused=f"{options['layer']} has a kernel of shape {shape}, not {(*size, *ends)}")
    return ConvEntry(**options, stacked=shape[: -len(size) - 2])


def _start(leaf: Any, entry: ConvEntry, d_mul: int, key: jax.Array) -> tuple[Any, Any]:
    kernel, spatial = _raw(leaf), len(entry.kernel_size)
    W, D = start_from(kernel, entry.in_channels, d_mul=d_mul, key=key, spatial=spatial)
    if not isinstance(leaf, meta.Partitioned):
        return _boxed(leaf, W), D
    channels = -1 if entry.transpose_kernel else -2 if entry.groups == 1 else None
    names = leaf.names if W.ndim == kernel.ndim else w_names(leaf.names, kernel.ndim, spatial)
    ours = d_names(leaf.names, kernel.ndim, len(entry.stacked), spatial, channels)
    return leaf.replace(value=W, names=names), leaf.replace(value=D, names=ours)


def _fold_leaf(path: str, leaf: Any, D: Any, transpose_kernel: bool) -> Any:
    kernel = _raw(leaf)
    try:
        folded = fold_kernel(kernel, _raw(D), transpose_kernel=transpose_kernel)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(leaf, meta.Partitioned) or folded.ndim == kernel.ndim:
        return _boxed(leaf, folded)
    return leaf.replace(value=folded, names=plain_names(leaf.names, kernel.ndim, folded.ndim - kernel.ndim + 1))


def _raw(leaf: Any) -> Any:
    """The array in a box; `Partitioned.unbox` would constrain where it lies."""
    if isinstance(leaf, meta.Partitioned):
        return leaf.value
    return leaf.unbox() if isinstance(leaf, meta.AxisMetadata) else leaf


def _boxed(like: Any, value: Any) -> Any:
    return like.replace_boxed(value) if isinstance(like, meta.AxisMetadata) else value


def _key(path: str, name: str) -> tuple[str, ...]:
    return (*path.split("/"), name) if path else (name,)


def _flatten(params: Any) -> dict[tuple[str, ...], Any]:
    if not isinstance(params, Mapping):
        raise TypeError(f"params must be nested dicts of arrays. Received: {type(params).__name__}")
    return flatten_dict(params, keep_empty_nodes=True)


def _unflatten(flat: dict[tuple[str, ...], Any], like: Any) -> Any:
    tree = unflatten_dict(flat)
    return freeze(tree) if isinstance(like, FrozenDict) else tree


def _state(path: str, entry: ConvEntry, flat: Mapping[tuple[str, ...], Any]) -> str:
    kernel = "x".join(map(str, entry.kernel_size))
    stacked = f", {math.prod(entry.stacked)} layers stacked" if entry.stacked else ""
    D = _raw(flat.get(_key(path, "D")))
    if D is not None:
        return f"{entry.layer} {kernel}, d_mul={D.shape[-2]}{stacked}"
    why = entry.refused or ("a kernel of one tap has no D" if math.prod(entry.kernel_size) == 1 else "")
    return f"plain {entry.layer} {kernel}{stacked}{': ' + why if why else ''}"
