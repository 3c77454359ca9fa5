"""A `flax.linen` module around another one whose convolutions it over-parameterizes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from types import MethodType
from typing import Any

import jax
from flax import linen as nn

from doconv_core.geometry import depth_multiplier
from doconv_core.selection import Where, select
from doconv_flax._fold import belong_together
from doconv_flax._linen_models import compose_leaves, is_plain, overparameterize
from doconv_flax._linen_require_fold import require_fold
from doconv_flax._linen_spec import ConvEntry, ConvSpec, conv_spec, note_convolutions, spec_of
from doconv_flax._linen_tree import Flat, flatten, leaf_names, raw, unflatten, with_d
from doconv_flax._sharding import explicit_sharding


class OverParameterized(nn.Module):
    """A module with every convolution over-parameterized: `model = OverParameterized(Net())`, used in place of `Net()`.

    A call runs `module` on composed kernels, `W' = (E + D_delta) ∘ W` (Cao et al., arXiv 2006.12030, section 3). Parameters
    keep the paths that they have in `module`: `kernel` holds `W`, and beside it the leaf `D` stores `D_delta`, zeros at the
    start, so that with the same seed the model starts as `module`, bit for bit. `fold(params)` afterwards gives the parameters
    of `module` (with the spec `conv_spec(model, *inputs)` where a transposed layer has `transpose_kernel`).

    Every public method of `module` can be called on the wrapper: `model.apply(variables, x, method="encode")`, or
    `method=Net.encode`. What is called on `module` itself, and not on the wrapper, would run on `W` alone: it raises below
    this class's `apply`, and elsewhere where `require_fold` looks. Being a module it can be a submodule, below `nn.scan`,
    `nn.vmap` and `nn.remat`, and contain them.

    Attributes:
        module: the module, with convolutions somewhere in it.
        d_mul: the depth multiplier `S` of every layer; `None` means each kernel's number of taps.
        where: which convolutions: a predicate of path and `ConvEntry`, or a glob pattern of paths, or several. Paths begin at
            `module`.

    Raises:
        TypeError, ValueError: at initialisation, as `overparameterize`, or if `module` is an `OverParameterized`. At a
            call, if the parameters are those of the plain module, or of another `d_mul` or `where`.
    """

    module: nn.Module
    d_mul: int | None = dataclasses.field(default=None, kw_only=True)
    where: Where | None = dataclasses.field(default=None, kw_only=True)

    def setup(self) -> None:
        if isinstance(self.module, OverParameterized):
            raise TypeError(f"the module is over-parameterized already. Received: {type(self.module).__name__}")
        if not isinstance(self.module, nn.Module):
            raise TypeError(f"module must be a flax.linen module, not its class. Received: {self.module!r:.100}")
        nn.share_scope(self, self.module)

    @nn.nowrap
    def apply(self, variables: Any, *args: Any, method: Callable[..., Any] | str | None = None, **options: Any) -> Any:
        """As `nn.Module.apply`."""
        with require_fold():
            return super().apply(variables, *args, method=self._on_module(method), **options)

    @nn.nowrap
    def init_with_output(
        self, rngs: Any, *args: Any, method: Callable[..., Any] | str | None = None, **options: Any
    ) -> Any:
        """As `nn.Module.init_with_output`."""
        with require_fold():
            return super().init_with_output(rngs, *args, method=self._on_module(method), **options)

    @nn.nowrap
    def _on_module(self, method: Any) -> Any:
        """A method of `module` that is given as a function (`Net.encode`), to be run on `module` and not on the wrapper."""
        function = getattr(method, "__func__", method)
        theirs = (value for each in type(self.module).__mro__ for value in vars(each).values())
        if not callable(function) or not any(function is value for value in theirs):
            return method
        return lambda self, *args, **kwargs: self._run(function, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `module.__call__`."""
        return self._run("__call__", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """The public methods of `module`."""
        wrapped = vars(self).get("module")
        if wrapped is None or name.startswith("_") or not callable(getattr(type(wrapped), name, None)):
            try:
                return super().__getattr__(name)
            except AttributeError as error:
                error.add_note(f"Of {type(wrapped).__name__}'s attributes a wrapper has the public methods.")
                raise

        def method(self: OverParameterized, *args: Any, **kwargs: Any) -> Any:
            return self._run(name, args, kwargs)

        return MethodType(method, self)

    def _run(self, method: str | Callable[..., Any], args: Any, kwargs: Any) -> Any:
        initializing = self.is_initializing()
        given: Flat = {}

        def spec() -> ConvSpec:
            return spec_of_call(self.module, method, tuple(self.scope.rngs), args, kwargs)

        def inward(variables: Any) -> Any:
            given.update(flatten(variables.get("params", {})))
            if initializing and not with_d(given):
                return variables
            composed = self._compose(given, spec(), complete=not initializing)
            return {**variables, "params": unflatten(composed, variables["params"])}

        def outward(variables: Any) -> Any:
            flat = flatten(variables.get("params", {})) | given
            found = spec() if with_d(given) else spec_of(called, flat, self.scope.path)
            params = unflatten(flat, variables.get("params", {}))
            if not with_d(given) or any(is_plain(flat, *item) for item in select(found, self.where).items()):
                params = overparameterize(params, found, d_mul=self.d_mul, where=self.where)
            return {**variables, "params": params}

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return (
                getattr(module, method)(*args, **kwargs) if isinstance(method, str) else method(module, *args, **kwargs)
            )

        with note_convolutions() as called:
            return nn.map_variables(call, "params", inward, outward, mutable=initializing)(self.module, *args, **kwargs)

    def _compose(self, flat: Flat, spec: ConvSpec, *, complete: bool) -> Flat:
        """The parameters that `module` sees: composed kernels, and none of layers that the call does not reach.

        How to compose those is not known, so code that reads one all the same fails.

        Raises:
            ValueError: with `complete`, a layer has no `D`, or one of another depth multiplier.
        """
        pairs = with_d(flat)
        theirs = {path for path, entry in spec.items() if entry.d_mul is not None}  # layers that compose for themselves
        if complete:
            self._check(flat, {path: entry for path, entry in spec.items() if path not in theirs})
        unreached = {
            names[0] for path, names in pairs.items()
            if path not in spec and belong_together(*(raw(flat[name]).shape for name in names))
        }  # fmt: skip
        ours = {path: names for path, names in pairs.items() if path in spec and path not in theirs}
        transposed = {path: spec[path].transpose_kernel for path in ours}
        seen = {names: leaf for names, leaf in flat.items() if names not in unreached}
        return compose_leaves(seen, ours, transposed)

    def _check(self, flat: Flat, found: dict[str, ConvEntry]) -> None:
        selected: dict[str, ConvEntry] = {}
        with suppress(ValueError):  # a method need not reach what `where` names
            selected = select(found, self.where)
        for path, entry in selected.items():
            multiplier = depth_multiplier(entry.kernel_size, self.d_mul)
            D = raw(flat.get(leaf_names(path, "D")))
            if math.prod(entry.kernel_size) > 1 and (D is None or D.shape[-2] != multiplier):
                received = "no D: these may be the plain model's parameters" if D is None else f"D of shape {D.shape}"
                raise ValueError(
                    f"{path!r} must have a D of d_mul={multiplier}: take the parameters of this module's `init`, or "
                    f"overparameterize(params, conv_spec(plain model, ...)) with its d_mul and where. Received: {received}"
                )


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call of a module in the abstract; calls with equal keys reach the same convolutions."""

    key: Any
    spec: Callable[[], ConvSpec] = dataclasses.field(compare=False)


def spec_of_call(
    module: nn.Module, method: str | Callable[..., Any], rngs: tuple[str, ...], args: Any, kwargs: Any
) -> ConvSpec:
    """`conv_spec` of a bound module for a call of one of its methods; run once for all calls alike where that can be known."""
    found, tree = jax.tree.flatten((args, kwargs))
    module, leaves = module.copy(parent=None), tuple(map(_abstract, found))

    def spec() -> ConvSpec:
        args, kwargs = jax.tree.unflatten(tree, leaves)
        keys = {name: jax.random.key(0) for name in ("params", *rngs)}
        return conv_spec(module, *args, rngs=keys, method=method, **kwargs)

    key = (_structure(module, {}), method, rngs, leaves, tuple(map(type, leaves)), tree)  # types, since True == 1
    try:
        hash(key)
    except TypeError:
        return spec()
    return _cached(_Call(key, spec))


@lru_cache(maxsize=256)
def _cached(call: _Call) -> ConvSpec:
    return call.spec()


def _abstract(leaf: Any) -> Any:
    if not hasattr(leaf, "shape"):
        return leaf
    sharding = None if isinstance(leaf, jax.ShapeDtypeStruct) else explicit_sharding(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _structure(value: Any, seen: dict[int, int]) -> Any:
    """What a module's calls depend on: classes and attributes of it and its submodules, and which of them are shared."""
    if isinstance(value, nn.Module):
        if id(value) in seen:
            return seen[id(value)]
        seen[id(value)] = len(seen)
        fields = (field.name for field in dataclasses.fields(value) if field.name != "parent")
        return type(value), tuple((name, _structure(getattr(value, name), seen)) for name in fields)
    if isinstance(value, Mapping):
        return type(value), tuple((name, _structure(item, seen)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_structure(item, seen) for item in value)
    return value
