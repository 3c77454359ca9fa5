"""Over-parameterize and fold a whole model, in place."""

from __future__ import annotations

import fnmatch
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from doconv_core.geometry import depth_multiplier
from doconv_torch._layers import DOConvMixin, attach, do_class, fold_layer

M = TypeVar("M", bound=nn.Module)
Where = Callable[[str, nn.Module], bool] | str | Sequence[str]
log = logging.getLogger("doconv")


def overparameterize(model: M, *, d_mul: int | None = None, where: Where | None = None) -> M:
    """Turn a model's convolutions into DO-Conv layers, in place; its outputs stay the same, bit for bit.

    Each convolution keeps its identity (hooks, references and ties survive), its class becomes the DO form of its own class,
    a user's subclass included. Kernels of one tap stay plain. What was touched and what was not is logged at level INFO by
    the logger "doconv" and shown by `inspect_model`. The kernels become new Parameters: build the optimizer afterwards, and
    load the checkpoint of the plain model before.

    Args:
        model: a module, or a single convolution.
        d_mul: for every layer; `None` means each kernel's number of taps.
        where: which convolutions: a predicate of path and layer, or a glob pattern of paths, or several.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a module, or a convolution is lazy and has no shape yet.
        ValueError: there is no convolution, none that `where` selects, none left to convert, or `d_mul` is too small; nothing
            has been changed then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module. Received: {type(model).__name__}")
    found = dict(convolutions(model))
    if not found:
        raise ValueError(f"the model has no convolution. Received: {type(model).__name__}")
    selected = {path: conv for path, conv in found.items() if _matches(where, path, conv)}
    if not selected:
        raise ValueError(f"`where` selects no convolution. Received: {where!r}; the paths are {', '.join(found)}")
    lazy = [path for path, conv in selected.items() if isinstance(conv.weight, UninitializedParameter)]
    if lazy:
        raise TypeError(f"lazy convolutions have no shape yet: run the model once before. Received: {', '.join(lazy)}")
    chosen = {
        path: depth_multiplier(
            conv.kernel_size, d_mul, received=f"{path}: kernel_size={conv.kernel_size}, d_mul={d_mul}"
        )
        for path, conv in selected.items()
        if not isinstance(conv, DOConvMixin) and math.prod(conv.kernel_size) > 1
    }
    if not chosen:
        states = "; ".join(f"{path}: {_state(conv)}" for path, conv in selected.items())
        raise ValueError(f"nothing is left to over-parameterize. Received: {states}")
    shared = _by_parameter(found)
    done: dict[int, _ConvNd] = {}
    for path, multiplier in chosen.items():
        conv, weight = selected[path], selected[path]._parameters["weight"]
        conv.__class__ = do_class(type(conv))
        twin = done.get(id(weight))
        if twin is None:
            attach(conv, multiplier)
            done[id(weight)] = conv
        else:  # a tied weight stays tied: the same W and D
            bias = conv._parameters.pop("bias")
            del conv._parameters["weight"]
            conv.d_mul = multiplier
            conv.register_parameter("W", twin.W)
            conv.register_parameter("D", twin.D)
            conv.register_parameter("bias", bias)
    for names in shared.values():
        if len({name in chosen for name in names}) > 1:
            log.warning("tied weights are no longer tied, as `where` selects some of them only: %s", ", ".join(names))
    for path, conv in found.items():
        log.info("%s: %s", path, _state(conv))
    return model


def fold(model: M) -> M:
    """Fold every DO-Conv layer of a model into its plain convolution, in place.

    The layers become what they were before, with the composed kernel as `weight`: nothing of doconv is needed to run or load
    the model. A model without DO-Conv layers is returned as it is.

    Args:
        model: a module, or a single layer.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a module.
        ValueError: the parameters are sharded (FSDP) and have to be gathered first.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module. Received: {type(model).__name__}")
    layers = {path: conv for path, conv in convolutions(model) if isinstance(conv, DOConvMixin)}
    for path, conv in layers.items():
        if type(conv.W.data).__name__ == "DTensor":
            raise ValueError(
                f"{path} is sharded: fold a model loaded from a full state dict. Received: {type(conv.W.data)}"
            )
    folded: dict[int, nn.Parameter] = {}
    for path, conv in layers.items():
        key = id(conv.W)
        fold_layer(conv)
        if key in folded:
            conv._parameters["weight"] = folded[key]
        folded[key] = conv._parameters["weight"]  # type: ignore[assignment]
        log.info("%s: folded", path)
    return model


def inspect_model(model: nn.Module) -> dict[str, str]:
    """Every convolution of a model: its path, and in words whether it is over-parameterized, and if not why."""
    return {path: _state(conv) for path, conv in convolutions(model)}


def convolutions(model: nn.Module) -> Iterator[tuple[str, _ConvNd]]:
    """Every convolution once, with its path; a single layer has the path "" ."""
    for path, module in model.named_modules():
        if isinstance(module, _ConvNd):
            yield path, module


def _matches(where: Where | None, path: str, conv: _ConvNd) -> bool:
    if where is None:
        return True
    if callable(where):
        return bool(where(path, conv))
    patterns = [where] if isinstance(where, str) else where
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _by_parameter(found: dict[str, _ConvNd]) -> dict[int, list[str]]:
    shared: dict[int, list[str]] = {}
    for path, conv in found.items():
        if "weight" in conv._parameters:
            shared.setdefault(id(conv._parameters["weight"]), []).append(path)
    return shared


def _state(conv: _ConvNd) -> str:
    kernel = "x".join(map(str, conv.kernel_size))
    if isinstance(conv, DOConvMixin):
        return f"{type(conv).__name__} {kernel}, d_mul={conv.d_mul}"
    one_tap = ": a kernel of one tap has no D" if math.prod(conv.kernel_size) == 1 else ""
    return f"plain {type(conv).__name__} {kernel}{one_tap}"
