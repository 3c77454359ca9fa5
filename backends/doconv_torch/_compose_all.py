"""Many layers composed by one node of autograd: layer by layer by products, or on a GPU by a few launches in all."""

from __future__ import annotations

import functools
import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from doconv_torch import _operators, _products, _taps
from doconv_torch._compose import calls_operators, canonical, compose_by, ordered
from doconv_torch._products import autocasts, composed_eagerly, products_for, without_autocast

if TYPE_CHECKING:
    from doconv_torch._triton import Plan

# Where the fused kernels run. They are measured on CUDA only; a test puts the interpreter's "cpu" here.
FUSED_DEVICES = ("cuda",)
MAX_FUSED_COLUMNS = 16


class Spec(NamedTuple):
    """What decides a layer's composition besides `W` and `D`."""

    groups: int
    transposed: bool
    kernel_size: tuple[int, ...]
    channels_last: bool

    @classmethod
    def of(cls, layer: Any) -> Spec:
        """Of a DO layer."""
        return cls(layer.groups, layer.transposed, layer.kernel_size, layer.channels_last)


def compose_all(specs: Sequence[Spec], parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The composed kernels, `(*W.shape[:2], *kernel_size)`, of layers with `parameters` `W, D, W, D, ...`.

    In the type of `W`; those that the fused kernels compose, in autocast's.
    """
    return _ComposeAll.apply(tuple(specs), *parameters)


class _ComposeAll(torch.autograd.Function):
    """Keeps nothing but the parameters."""

    @staticmethod
    def forward(ctx: Any, specs: tuple[Spec, ...], *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*parameters)
        ctx.set_materialize_grads(False)  # a layer that was not used gets no gradient
        ctx.specs, pairs = specs, list(zip(parameters[::2], parameters[1::2], strict=True))
        kernels: list[Tensor | None] = [None] * len(pairs)
        ctx.plans = _plans(specs, parameters)
        for plan, members in ctx.plans:
            W = pairs[members[0]][0]
            cast = torch.get_autocast_dtype(W.device.type) if autocasts(W) else W.dtype
            for member, part in zip(members, plan.kernels(cast), strict=True):
                kernels[member] = _shaped(part, pairs[member][0], specs[member])
        for member, (W, D) in enumerate(pairs):
            if kernels[member] is None:
                kernels[member] = _by_products(W, D, specs[member])
        return tuple(kernels)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        parameters, specs, needs = ctx.saved_tensors, ctx.specs, ctx.needs_input_grad[1:]
        results: list[Tensor | None] = [None] * len(parameters)
        left = {member for member, grad in enumerate(grads) if grad is not None}
        for plan, members in ctx.plans:
            if torch.is_grad_enabled() or not left.intersection(members):
                continue  # a graph of its own needs operations that have derivatives
            given = [grads[member] for member in members]
            layouts = [_flat(grad, specs[member]) for grad, member in zip(given, members, strict=True)]
            for member, pair in zip(members, plan.gradients(layouts), strict=True):
                for part, at in zip(pair, (2 * member, 2 * member + 1), strict=True):
                    if member in left and needs[at]:
                        results[at] = part.view(parameters[at].shape)
            left.difference_update(members)
        for member in left:
            both, grad = slice(2 * member, 2 * member + 2), grads[member]
            assert grad is not None
            W, D = parameters[both]
            results[both] = _gradients_by_products(W, D, grad, specs[member], needs[both])
        return None, *results


def _by_products(W: Tensor, D: Tensor, spec: Spec) -> Tensor:
    composed = _operators.compose if calls_operators(W) else composed_eagerly
    flat = compose_by(composed, W, D, spec.groups, spec.transposed)
    return ordered(flat.reshape(*W.shape[:2], *spec.kernel_size), spec.channels_last)


def _gradients_by_products(
    W: Tensor, D: Tensor, grad: Tensor, spec: Spec, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    with without_autocast(W):
        w, d, groups = canonical(W, D, spec.groups, spec.transposed)
        products = _operators if calls_operators(W) else products_for(w, d)
        if torch.is_grad_enabled():  # a graph of its own needs operations that have derivatives
            products = _taps
        g = grad.to(w.dtype).reshape(*w.shape[:2], d.shape[1])
        grad_w, grad_d = products.gradients(w, d, g, groups, needs)
        return (
            None if grad_w is None else grad_w.reshape(W.shape).to(W.dtype),
            None if grad_d is None else grad_d.to(D.dtype),
        )


Plans = list[tuple["Plan", list[int]]]
# By what decides the tables, addresses included. A CUDA graph goes on to read a table: what it uses is kept for good.
_known_plans: OrderedDict[Any, Plans] = OrderedDict()
_captured_plans: list[Plans] = []
MAX_KNOWN_PLANS = 256


def _plans(specs: tuple[Spec, ...], parameters: tuple[Tensor, ...]) -> Plans:
    """What the fused kernels take: for each launch its plan, and which layers are in it."""
    if parameters[0].device.type not in FUSED_DEVICES or _products.PRODUCTS != "auto" or not _has_triton():
        return []
    key = specs, *((p.data_ptr(), p.dtype, p.shape, p.stride()) for p in parameters)
    plans, captures = _known_plans.get(key), parameters[0].is_cuda and torch.cuda.is_current_stream_capturing()
    if plans is None:
        if captures:  # no table can be sent to the device now
            return []
        plans = _known_plans[key] = _made_plans(specs, parameters)
        if len(_known_plans) > MAX_KNOWN_PLANS:
            _known_plans.popitem(last=False)
    if captures and not any(known is plans for known in _captured_plans):
        _captured_plans.append(plans)
    return plans


def _made_plans(specs: tuple[Spec, ...], parameters: tuple[Tensor, ...]) -> Plans:
    from doconv_torch import _triton

    layers, classes = list(zip(specs, parameters[::2], parameters[1::2], strict=True)), dict[Any, list[int]]()
    for member, (spec, W, D) in enumerate(layers):
        if _fits(spec, W, D):
            classes.setdefault((W.device, D.shape[1:], spec.channels_last), []).append(member)
    return [(_triton.Plan([layers[member] for member in members]), members) for members in classes.values()]


def _fits(spec: Spec, W: Tensor, D: Tensor) -> bool:
    """Whether the fused kernels are faster: dense, or groups of several channels, of few taps (see `docs/benchmarks.md`)."""
    few = W.shape[2] <= MAX_FUSED_COLUMNS and W.shape[1] > 1 and not spec.transposed
    there = W.device.type in FUSED_DEVICES and W.device == D.device and W.dtype == D.dtype == torch.float32
    return few and there and W.is_contiguous() and D.is_contiguous()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _shaped(part: Tensor, W: Tensor, spec: Spec) -> Tensor:
    """A piece of a plan's kernels in the shape and memory format of its layer."""
    first, second = W.shape[:2]
    if spec.channels_last:
        return part.view(first, *spec.kernel_size, second).movedim(-1, 1)
    return part.view(first, second, *spec.kernel_size)


def _flat(grad: Tensor | None, spec: Spec) -> Tensor | None:
    """A kernel's gradient as the plan orders it."""
    if grad is None or not spec.channels_last:
        return None if grad is None else grad.reshape(-1)
    return grad.movedim(1, -1).reshape(-1)
