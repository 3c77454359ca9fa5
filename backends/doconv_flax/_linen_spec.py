"""Which parameters of a `flax.linen` model are convolutions' kernels: found by running the model, guessed from nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict

from doconv_core.geometry import ConvGeometry
from doconv_flax._linen_layers import DOConv, DOConvTranspose
from doconv_flax._linen_tree import Flat, leaf_names, raw

# By path, for each call: the layer, its number of input channels, and the wrapper around it that normalises its parameters.
Called = dict[tuple[str, ...], list[tuple[Any, int, str]]]


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
        d_mul: `S` where the model itself brings a `D` (its own `DOConv`, or `OverParameterized`), else None.
        refused: why it can't be over-parameterized; empty where it can.
        unfoldable: why the composed kernel is not what the plain model's kernel would be; empty where it is.
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
    unfoldable: str = ""

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """One integer per axis."""
        return self.kernel_shape[:-2]

    def geometry(self, d_mul: int | None = None) -> ConvGeometry:
        """What the parameters' shapes follow from; strides, padding and dilation are left out."""
        multiplier: Any = d_mul or self.d_mul  # None is the number of taps
        return ConvGeometry(
            in_channels=self.in_channels,
            out_channels=self.kernel_shape[-2 if self.transpose_kernel else -1],
            kernel_size=self.kernel_size,
            groups=self.groups,
            transposed=self.transposed,
            d_mul=multiplier,
        )


class ConvSpec(Mapping[str, ConvEntry]):
    """The convolutions of a model by path ("block/conv"): a mapping that can't be changed and can be hashed.

    So it may be a static argument of `jax.jit`.
    """

    def __init__(self, entries: Mapping[str, ConvEntry]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, path: str) -> ConvEntry:
        return self._entries[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return f"ConvSpec({self._entries!r})"


def conv_spec(model: nn.Module, /, *inputs: Any, rngs: Any = None, **options: Any) -> ConvSpec:
    """Every convolution of a model, by its path in "params" ("block/conv"; "" for a model that is one convolution).

    The model is initialised in the abstract (`jax.eval_shape`): nothing is computed. Convolutions are found where they are
    called, so also inside `nn.scan`, `nn.vmap`, `nn.remat`, `setup`, shared modules and wrappers such as `nn.WeightNorm`.
    `nn.ConvLocal` is no convolution in this sense, and convolutions that the model calls by an `apply` of its own, on
    parameters that come from elsewhere, are not the model's.

    Args:
        model: a module.
        inputs: what `model.init` takes after its keys; arrays or `jax.ShapeDtypeStruct`.
        rngs: as of `model.init`; by default one key for every stream.
        options: keyword arguments of `model.init`, `method` among them; arrays or `jax.ShapeDtypeStruct` here, too.

    Raises:
        TypeError: `model` is not a linen module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a flax.linen.Module. Received: {type(model).__name__}")
    leaves, tree = jax.tree.flatten((inputs, options))
    arrays = [leaf for leaf in leaves if hasattr(leaf, "shape")]

    def init(arrays: list[Any]) -> Any:
        given = iter(arrays)
        whole = [next(given) if hasattr(leaf, "shape") else leaf for leaf in leaves]
        inputs, options = jax.tree.unflatten(tree, whole)
        return model.init(jax.random.key(0) if rngs is None else rngs, *inputs, **options)

    with _abstract_run(), note_convolutions() as called:
        params = jax.eval_shape(init, arrays).get("params", {})
    return spec_of(called, flatten_dict(params))


def spec_of(called: Called, flat: Flat, prefix: tuple[str, ...] = ()) -> ConvSpec:
    """The entries of the convolutions that `note_convolutions` found, those below `prefix`, by their paths from there."""
    entries = {}
    for path, calls in called.items():
        name = "/".join(path[len(prefix) :])
        if path[: len(prefix)] == prefix and leaf_names(name, "kernel") in flat:
            # Another model that this one initialises may have a layer at the same path: the one that fits is taken.
            found = [_entry(*call, name, flat) for call in calls]
            entries[name] = next((entry for entry in found if not entry.refused), found[0])
    return ConvSpec(entries)


class _Runs(threading.local):
    depth = 0


_runs = _Runs()


@contextmanager
def _abstract_run() -> Iterator[None]:
    """What is noted further out does not concern the calls in here: their paths begin at another model."""
    _runs.depth += 1
    try:
        yield
    finally:
        _runs.depth -= 1


@contextmanager
def note_convolutions() -> Iterator[Called]:
    """Collect the convolutions called while a model is initialised.

    A model that calls another one's `apply` (a teacher; Hugging Face's Wav2Vec2 its own layer on other parameters) does not
    initialise that one, and so it is not collected.
    """
    called: Called = {}
    depth, around = _runs.depth, [""]

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name != "__call__" or _runs.depth != depth:
            return call(*args, **kwargs)
        if isinstance(module, nn.WeightNorm | nn.SpectralNorm):
            around.append(type(module).__name__)
            try:
                return call(*args, **kwargs)
            finally:
                around.pop()
        if isinstance(module, nn.Conv | nn.ConvTranspose) and module.scope is not None and module.is_initializing():
            x = args[0] if args else next(iter(kwargs.values()))
            called.setdefault(module.scope.path, []).append((module, x.shape[-1], around[-1]))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        yield called


def _entry(module: Any, channels: int, around: str, path: str, flat: Flat) -> ConvEntry:
    size = module.kernel_size
    size = (size,) if isinstance(size, int) else tuple(size)
    transposed = isinstance(module, nn.ConvTranspose)
    transpose_kernel = transposed and module.transpose_kernel
    groups = 1 if transposed else module.feature_group_count
    ends = (module.features, channels) if transpose_kernel else (channels // groups, module.features)
    kernel, D = (raw(flat.get(leaf_names(path, name))) for name in ("kernel", "D"))
    options: dict[str, Any] = {
        "layer": type(module).__name__, "kernel_shape": (*size, *ends), "in_channels": channels, "groups": groups,
        "transposed": transposed, "transpose_kernel": transpose_kernel,
    }  # fmt: skip
    ours = isinstance(module, DOConv | DOConvTranspose)
    if ours or (D is not None and D.shape[-1] == channels):
        stacked = () if D is None else D.shape[: -len(size) - 2]
        why = f"{around} normalises W before it is composed" if ours and D is not None and around else ""
        return ConvEntry(**options, stacked=stacked, d_mul=1 if D is None else D.shape[-2], unfoldable=why)
    shape = () if kernel is None else tuple(kernel.shape)
    if shape[-len(size) - 2 :] != (*size, *ends):
        return ConvEntry(**options, refused=f"{options['layer']} has a kernel of shape {shape}, not {(*size, *ends)}")
    return ConvEntry(**options, stacked=shape[: -len(size) - 2])
