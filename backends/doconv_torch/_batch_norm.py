"""Which convolutions are followed by a batch normalisation and by nothing else, and PyTorch's own fusion of the two."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from doconv_core.checkpoint._layers import join
from doconv_torch._layers import DOConvMixin
from doconv_torch._optimizers import note_replacement

Pairs = Sequence[tuple[str, str]]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
log = logging.getLogger("doconv")


def find_pairs(model: nn.Module, batch_norm: bool | Pairs) -> list[tuple[str, str]]:
    """The paths of each convolution and of the normalisation to fuse with it, by a trace or as given; nothing is changed.

    Raises:
        TypeError: `batch_norm` is neither.
        ValueError: the model can't be traced, or is in training mode; a pair that can't be fused.
    """
    if isinstance(batch_norm, bool):
        return _traced_pairs(model) if batch_norm else []
    given = isinstance(batch_norm, Sequence) and not isinstance(batch_norm, str)
    for pair in batch_norm if given else [batch_norm]:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(path, str) for path in pair)):
            raise TypeError(f"batch_norm must be True or pairs of paths (convolution, norm). Received: {pair!r}")
    known = dict(model.named_modules(remove_duplicate=False))
    if missing := [path for pair in batch_norm for path in pair if path not in known]:
        raise ValueError(f"the model has no layer of this path. Received: {', '.join(missing)}")
    uses = Counter(id(known[path]) for pair in batch_norm for path in pair)
    reasons = [
        f"{conv} and {norm}: {reason}"
        for conv, norm in batch_norm
        if (reason := _obstacle(known[conv], known[norm]) or ("named twice" if uses[id(known[conv])] > 1 else ""))
    ]
    if reasons:
        raise ValueError(f"some layers can't be fused. Received: {'; '.join(reasons)}")
    return [(conv, norm) for conv, norm in batch_norm]


def fuse(model: nn.Module, pairs: Pairs) -> None:
    """Fuse each normalisation into its convolution, in place; `nn.Identity` takes its place."""
    for conv_path, norm_path in pairs:
        conv, norm = model.get_submodule(conv_path), model.get_submodule(norm_path)
        assert isinstance(conv, _ConvNd)
        assert isinstance(norm, _BatchNorm)
        fused = fuse_conv_bn_eval(conv, norm, transpose=conv.transposed)
        for name in ("weight", "bias"):
            old, new = conv._parameters[name], fused._parameters[name]
            assert new is not None
            conv._parameters[name] = new
            if old is not None:
                note_replacement(old, new, join(conv_path, name), "fold")
        for path, module in list(model.named_modules(remove_duplicate=False)):
            if module is norm:
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, nn.Identity())
        log.info("%s: %s fused into it", conv_path or "the layer", norm_path)


class _Tracer(torch.fx.Tracer):
    """One call for each convolution and normalisation, a user's own and DO layers included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _ConvNd | _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _traced_pairs(model: nn.Module) -> list[tuple[str, str]]:
    if any(module.training for module in model.modules()):
        raise ValueError(
            "batch normalisation is fused in its evaluation form: call model.eval() first. Received: training"
        )
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever the model's code makes of a proxy
        raise ValueError(
            "torch.fx can't trace the model, so which normalisation follows which convolution is not certain: give pairs of "
            f"paths, batch_norm=[('conv1', 'bn1'), ...]. Received: {type(error).__name__}: {error}"
        ) from None
    known = dict(model.named_modules())
    calls = Counter(id(known[str(node.target)]) for node in graph.nodes if node.op == "call_module")
    read = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    pairs = []
    for node in graph.nodes:
        conv, norm = _called(node, known), None
        following = list(node.users)
        if isinstance(conv, _ConvNd) and len(following) == 1 and following[0].args == (node,):
            norm = _called(following[0], known)
        if norm is None or calls[id(conv)] > 1 or calls[id(norm)] > 1 or _obstacle(conv, norm):
            continue
        paths = str(node.target), str(following[0].target)
        if not any(name.startswith(f"{path}.") for name in read for path in paths):
            pairs.append(paths)
    for path, module in known.items():
        if isinstance(module, _BatchNorm) and all(path != norm for _, norm in pairs):
            level = logging.INFO if pairs else logging.WARNING  # nothing was fused
            log.log(level, "%s: stays; it can't be fused, or is not the only reader of one convolution's output", path)
    return pairs


def _called(node: torch.fx.Node, known: dict[str, nn.Module]) -> Any:
    return known[str(node.target)] if node.op == "call_module" else None


def _computes_as(plain: type[nn.Module], own: type[_ConvNd]) -> bool:
    """Whether a class leaves PyTorch's forward pass as it is, of which `_conv_forward` is a part but of transposed ones."""
    return all(getattr(plain, name, None) is getattr(own, name, None) for name in ("forward", "_conv_forward"))


def _obstacle(conv: nn.Module, norm: nn.Module) -> str:
    """Why two layers can't be fused, or nothing."""
    plain = conv.plain_class if isinstance(conv, DOConvMixin) else type(conv)
    if not isinstance(conv, _ConvNd) or not any(_computes_as(plain, cls) for cls in CONVS):
        return f"{type(conv).__name__} is no convolution of PyTorch's own"
    if "bias" not in conv._parameters or not conv._parameters.keys() & {"weight", "W"}:
        return "its parameters are computed from others, by a parametrization or a norm"
    if type(norm) not in NORMS:
        return f"{type(norm).__name__} is no batch normalisation of PyTorch's own"
    assert isinstance(norm, _BatchNorm)
    if norm.running_mean is None or norm.num_features != conv.out_channels:
        return f"the normalisation has no running mean of {conv.out_channels} channels"
    if conv.training or norm.training:
        return "in training mode: call eval() before"
    if conv.transposed and conv.groups > 1:
        return "PyTorch fuses no transposed convolution with groups"
    if any(module._forward_hooks or module._forward_pre_hooks for module in (conv, norm)):
        return "a hook sees what is between them"
    return ""
