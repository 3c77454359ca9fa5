"""Over-parameterize and fold a whole model, in place."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from doconv_core.checkpoint._format import some
from doconv_core.checkpoint._layers import join, split
from doconv_core.selection import Where, depth_multipliers, describe_convolution, listed, select
from doconv_torch._arrays import FLOATS, has_no_values
from doconv_torch._batch_norm import Pairs, find_pairs, fuse
from doconv_torch._layers import DOConvMixin, M, adopt, check_module, do_class, fold_weight, make_parameters, make_plain
from doconv_torch._loaders import initialisation_is_skipped
from doconv_torch._optimizers import note_layer, note_replacement
from doconv_torch._sharded import FLAT, is_sharded, is_wrapped

log = logging.getLogger("doconv")
WRAPPERS = ("DistributedDataParallel", FLAT)  # they keep their own list of the parameters
GROWN, MANY = 2, 10**6  # a model with this many times its parameters, and this many more of them, is warned of


@torch.inference_mode(False)
def overparameterize(
    model: M, *, d_mul: int | None = None, where: Where | None = None, max_taps: int | None = None
) -> M:
    """Turn a model's convolutions into DO-Conv layers, in place; its outputs stay the same, bit for bit.

    Each convolution keeps its identity (hooks, references and ties survive), its class becomes the DO form of its own class,
    a user's subclass included. Kernels of one tap stay plain. What was touched and what was not, and why, is logged at level
    INFO by the logger "doconv" and shown by `inspect_model`. The kernels become new Parameters: build the optimizer afterwards
    (the step of an older one raises), and wrap the model (DistributedDataParallel, FSDP) afterwards.

    `D` has `C_in * K * S` numbers, the square of the taps: a depthwise 31x31 layer of 128 channels grows from 0.12 to 118
    million. The numbers of parameters before and after are logged, as a warning where the model more than doubles.

    Args:
        model: a module, or a single convolution.
        d_mul: for every layer; `None` means each kernel's number of taps.
        where: which convolutions: a predicate of path and layer, or a glob pattern of paths, or several ("layer1.*" takes
            everything below layer1).
        max_taps: kernels of more taps stay plain; `None` means that none do.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a module, `where` or `max_taps` is none of these.
        ValueError: there is no convolution, none that `where` (or one of its patterns) selects, none left to convert; `d_mul`
            is too small, `max_taps` below one; a selected convolution is lazy, sharded, pruned, has values that are not finite
            or a weight that a parametrization or a hook computes; tied convolutions could not stay so; the model is wrapped.
        RuntimeError: there is no memory for the parameters.

    Nothing has been changed where it raises.
    """
    found = _find_convolutions(model)
    limit = _limit(max_taps)
    first = {id(conv): path for path, conv in found.items()}
    everywhere = model.named_modules(remove_duplicate=False)  # a module that is used in two places has two paths
    aliases = {path: first[id(module)] for path, module in everywhere if id(module) in first}
    selected = select(found, where, aliases=aliases, model=type(model).__name__)
    chosen = depth_multipliers(
        selected,
        d_mul,
        is_plain=lambda _, conv: not isinstance(conv, DOConvMixin) and 1 != math.prod(conv.kernel_size) <= limit,
        describe=lambda _, conv: _describe(conv),
        show=str,
    )
    for module in model.modules():
        if is_wrapped(module, WRAPPERS):
            raise ValueError(
                "the model is wrapped already, and the wrapper would not know the new parameters: wrap it after "
                f"`overparameterize`. Received: {type(module).__name__}"
            )
    _refuse("over-parameterized; `where` can leave them plain", {path: _obstacle(found[path]) for path in chosen})
    _refuse(
        "over-parameterized; `where` can leave all of a tie plain", _broken_ties(model, found, aliases, set(chosen))
    )

    before = _parameters(model)
    weights: dict[str, Any] = {path: found[path]._parameters["weight"] for path in chosen}
    made: dict[int, tuple[nn.Parameter, nn.Parameter | None]] = {}
    for path, weight in weights.items():  # all of them before the first layer changes: memory may not suffice
        if id(weight) not in made:  # a tied weight stays tied: the same W and D
            made[id(weight)] = make_parameters(found[path], chosen[path])
    for path, weight in weights.items():
        conv = found[path]
        conv.__class__ = do_class(type(conv))
        assert isinstance(conv, DOConvMixin)
        adopt(conv, chosen[path], *made[id(weight)])
        note_replacement(weight, conv.W, join(path, "weight"), "overparameterize")
        note_layer(conv, model)
    log.info("over-parameterized %d of %d convolutions", len(chosen), len(found))
    for path, state in inspect_model(model).items():
        left = "" if path in selected else ", not selected"
        if path in selected and not isinstance(found[path], DOConvMixin) and math.prod(found[path].kernel_size) > limit:
            left = f", more taps than max_taps={limit}"
        log.info("%s: %s%s", path or "the layer", state, left)
    _log_growth(before, _parameters(model), [found[path] for path in chosen])
    return model


def _limit(max_taps: int | None) -> float:
    if max_taps is None:
        return math.inf
    if isinstance(max_taps, bool) or not hasattr(max_taps, "__index__"):
        raise TypeError(f"max_taps must be an integer. Received: {max_taps!r}")
    if max_taps < 1:
        raise ValueError(f"max_taps must be at least one. Received: {max_taps}")
    return max_taps


def _parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters() if not isinstance(each, UninitializedParameter))


def _log_growth(before: int, after: int, changed: Sequence[_ConvNd]) -> None:
    large = after > GROWN * before and after - before > MANY
    text = f"the model had {before:,} parameters and has {after:,}"
    if large:
        most = max(changed, key=lambda conv: math.prod(conv.kernel_size))
        text += (
            f"; D grows with the square of the taps, `max_taps` leaves large kernels plain, the largest here is {most}"
        )
    log.log(logging.WARNING if large else logging.INFO, "%s", text)


@torch.inference_mode(False)
def fold(model: M, *, batch_norm: bool | Pairs = False) -> M:
    """Fold every DO-Conv layer of a model into its plain convolution, in place.

    The layers become what they were before, with the composed kernel as `weight`: nothing of doconv is needed to run or load
    the model. A model without DO-Conv layers is returned as it is. What was folded and what was plain before is logged at level
    INFO by the logger "doconv".

    Args:
        model: a module, or a single layer.
        batch_norm: True folds each batch normalisation, too, that follows a convolution (plain or not) alone and once, as a
            trace by `torch.fx` shows; pairs of paths, `[("conv1", "bn1"), ...]`, say which. By
            `torch.nn.utils.fusion.fuse_conv_bn_eval`, for a model in evaluation mode; `nn.Identity` takes their place.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a module, `batch_norm` is neither.
        ValueError: the parameters of a layer are sharded (FSDP), pruned, parametrized or not finite; its class is derived from
            a DO layer, overrides `forward` and names no `plain_class` of its own; there is no DO layer, but the `W` and `D` of
            some, as in a traced model; normalisations can't be fused: the model is
            in training mode, can't be traced, or a pair is none. Nothing has been changed then.
    """
    found = _find_convolutions(model)
    layers = {path: conv for path, conv in found.items() if isinstance(conv, DOConvMixin)}
    if any(is_wrapped(module, (FLAT,)) for module in model.modules()):
        raise ValueError(
            f"{FLAT} keeps its own copy of the parameters, which folding would not change: gather the full state dict and "
            f"fold that by `fold_state_dict`. Received: {type(model).__name__}"
        )
    _refuse("folded", {path: _obstacle(conv) for path, conv in layers.items()})
    if not layers and (apart := _taken_apart(model)):
        raise ValueError(
            "no layer is of doconv, and there are W and D, as after a trace (torch.fx, torch.export, torch.jit) and in the "
            f"authors' code: fold before tracing, or the state dict by `fold_state_dict`. Received: {some(apart, 8)}"
        )
    pairs = find_pairs(model, batch_norm)
    done: dict[tuple[object, ...], nn.Parameter] = {}
    for path, conv in layers.items():
        W, D = conv.W, conv.D
        key = (id(W), id(D), conv.transposed, conv.groups, conv.kernel_size)  # tied layers have one kernel
        if key not in done:
            done[key] = fold_weight(conv)
        make_plain(conv, done[key])
        for name, parameter in (("W", W), ("D", D)):
            if parameter is not None:
                note_replacement(parameter, done[key], join(path, name), "fold")
    fuse(model, pairs)
    log.info("folded %d of %d convolutions", len(layers), len(found))
    for path, state in inspect_model(model).items():
        log.info("%s: %s, %s", path or "the layer", state, "folded" if path in layers else "was plain before")
    return model


def inspect_model(model: nn.Module) -> dict[str, str]:
    """Every convolution of a model: its path, and in words whether it is over-parameterized, or why it can't be.

    Raises:
        TypeError: `model` is not a module.
    """
    return {path: _describe(conv) for path, conv in _find_convolutions(model).items()}


def _find_convolutions(model: nn.Module) -> dict[str, _ConvNd]:
    """Every convolution once, under its first path; a single layer has the path ""."""
    check_module(model)
    return {path: module for path, module in model.named_modules() if isinstance(module, _ConvNd)}


def _refuse(verb: str, reasons: dict[str, str]) -> None:
    if stated := listed(reasons):
        raise ValueError(f"some convolutions can't be {verb}. Received: {stated}")


def _obstacle(conv: _ConvNd) -> str:
    """Why a convolution can't be converted, or nothing."""
    of_class = _obstacle_to_fold if isinstance(conv, DOConvMixin) else _obstacle_to_overparameterize
    return _obstacle_in_parameters(conv) or of_class(conv)


def _obstacle_in_parameters(conv: _ConvNd) -> str:
    """Parameters that are not there, not whole, or not numbers that composition takes."""
    names = ("W", "D") if isinstance(conv, DOConvMixin) else ("weight",)
    if isinstance(conv._parameters.get("weight"), UninitializedParameter):
        return "lazy, without a shape yet: run the model once before"
    if parametrize.is_parametrized(conv):
        return "parametrized: call torch.nn.utils.parametrize.remove_parametrizations before"
    if missing := [name for name in names if name not in conv._parameters]:
        return f"its {missing[0]} is not its Parameter (weight_norm, spectral_norm, prune, FSDP?): remove that before"
    parameters = [parameter for name in names if (parameter := conv._parameters[name]) is not None]
    if any(map(is_sharded, parameters)):
        return "sharded: convert before sharding, or a model loaded from the full state dict"
    if any(parameter.dtype not in FLOATS for parameter in parameters):
        return f"of {parameters[0].dtype}, and not bfloat16, float16, float32 or float64"
    if not all(parameter.numel() for parameter in parameters):
        return f"its {' or '.join(names)} is empty"
    finite = all(has_no_values(parameter) or parameter.detach().isfinite().all() for parameter in parameters)
    if not finite and (isinstance(conv, DOConvMixin) or not initialisation_is_skipped()):
        return f"its {' or '.join(names)} has values that are not finite, which composition would spread"
    return ""


def _obstacle_to_fold(conv: _ConvNd) -> str:
    """A class between the layer's own and the one with a `plain_class` overrides `forward`, which folding would lose."""
    for cls in type(conv).__mro__:
        if "plain_class" in vars(cls):
            break
        if "forward" in vars(cls) or "_conv_forward" in vars(cls):
            return f"{cls.__name__} overrides forward: give it a `plain_class`, the class it is to be folded into"
    return ""


def _taken_apart(model: nn.Module) -> list[str]:
    """The `W` of modules that are no DO layers and have parameters like theirs."""
    parameters = dict(model.named_parameters())
    pairs = {name: (W, parameters.get(f"{name[:-1]}D")) for name, W in parameters.items() if split(name)[1] == "W"}
    return [
        name for name, (W, D) in pairs.items() if D is not None and D.ndim == W.ndim == 3 and D.shape[2] == W.shape[2]
    ]


def _obstacle_to_overparameterize(conv: _ConvNd) -> str:
    """A user's class has something under a name that a DO layer needs."""
    needed = {"W", "D", "d_mul", "plain_class", *vars(DOConvMixin)} - {"weight", *dir(_ConvNd)}
    clash = next((name for name in sorted(needed) if hasattr(conv, name)), "")
    return f"{type(conv).__name__} has its own attribute {clash}, which a DO layer needs" if clash else ""


def _broken_ties(
    model: nn.Module, found: dict[str, _ConvNd], aliases: dict[str, str], chosen: set[str]
) -> dict[str, str]:
    """Reasons of the chosen convolutions whose weight is used elsewhere, in a way that can't share `W` and `D`."""
    paths = {join(alias, "weight"): path for alias, path in aliases.items()}
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    reasons = {}
    for path in chosen:
        conv = found[path]
        for name in owners[id(conv._parameters["weight"])]:
            other = paths.get(name)
            if other not in chosen:
                reasons[path] = f"its weight is tied to {name}, which is not converted"
            elif _pairing(found[other]) != _pairing(conv):
                reasons[path] = (
                    f"its weight is tied to {name}, which pairs it with other input channels: D can't be tied"
                )
    return reasons


def _pairing(conv: _ConvNd) -> tuple[object, ...]:
    """What decides the shape of `D` and which of its rows meets which kernel."""
    return conv.transposed, conv.groups, conv.in_channels, conv.kernel_size


def _describe(conv: _ConvNd) -> str:
    d_mul = conv.d_mul if isinstance(conv, DOConvMixin) else None
    reason = "" if d_mul or math.prod(conv.kernel_size) == 1 else _obstacle(conv)
    return describe_convolution(type(conv).__name__, conv.kernel_size, d_mul, reason=reason)
