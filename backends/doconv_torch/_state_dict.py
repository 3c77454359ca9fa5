"""Fold a state dict without its model, by the core's reader of checkpoints."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from doconv_core.checkpoint import Arrays, Checkpoint, CheckpointError, Hints
from doconv_core.checkpoint._layers import join
from doconv_core.checkpoint._noted import NOTE
from doconv_core.checkpoint._prefixes import without_inner
from doconv_core.checkpoint._reading import DOUBTS
from doconv_torch._arrays import has_no_values, is_dense, lazy_array, to_tensor

LEAVES = ("W", "D", "D_diag", "d_diag")
LABEL = "state dict"
log = logging.getLogger("doconv")


def fold_state_dict(
    state_dict: Mapping[str, Any],
    *,
    like: nn.Module | Mapping[str, Tensor] | None = None,
    kernel_size: Mapping[str, Sequence[int]] | None = None,
    transposed: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    prefix: str | None = None,
    dialect: str | None = None,
) -> OrderedDict[str, Any]:
    """The state dict of the plain model, from that of an over-parameterized one: the kernels are those of `fold`, bit for bit.

    `<layer>.W` and `<layer>.D` become `<layer>.weight`, composed in float64 and rounded once; everything else is passed on as
    it is, entries that are no tensors included. What wrappers put before or into all names ("module.", "_orig_mod.") is
    dropped; with `like`, whatever stands before its names ("net.", "model."), unless `like` has it too. What was assumed is
    logged by the logger "doconv", as a warning where it could be wrong and the shapes would not show it.

    A state dict holds the number of taps of a kernel, not its height and width. Nor does it show whether a convolution is
    transposed where both channel counts are equal. `like` answers both; else `kernel_size` and `transposed` do; else 9 taps
    are 3 x 3, and every square number likewise. A pattern that matches nothing is an error, as is a layer that `like` lacks.

    Args:
        state_dict: tensors by name; it is not changed.
        like: the plain model, best, or its state dict, on any device ("meta" will do).
        kernel_size: globs of layer paths to kernel sizes: `{"stem": (7, 7), "*.temporal": (9,)}`.
        transposed: a glob of the paths of transposed convolutions, or several.
        exclude: a glob of the paths of layers that have a `W` or `D` and are none of ours, or several; they are passed on.
        prefix: what to drop from the names that have it, where a model stands beside another (`teacher.`, `student.`); ""
            drops nothing.
        dialect: None, or "original-torch" for a checkpoint of the authors' PyTorch file (`doconv_core.dialect_rows`).

    Returns:
        A new state dict; tensors that were not folded are the same objects, the others of the dtype and device of `W`. A `W`
        without values ("meta", `FakeTensorMode`) gives a kernel without.

    Raises:
        TypeError: `state_dict` or `like` is no dict of tensors; a `W` or `D` that is no dense floating point tensor.
        ValueError: no tensors, `W` without `D` or the reverse, a kernel size that is not known or does not fit, hints that
            match nothing, values that are not finite (all of them `doconv_core.checkpoint.CheckpointError`); a tensor is
            sharded; an unknown dialect.
    """
    tensors, modules = _tensors(state_dict), getattr(state_dict, "_metadata", None)
    shapes, turned = _shapes_of(like)
    hints = Hints(kernel_size or {}, transposed, like=shapes, like_transposed=turned, exclude=exclude, prefix=prefix)
    checkpoint = Checkpoint(Arrays(LABEL, tensors, modules), LABEL, dialect=dialect, hints=hints)
    if checkpoint.layout != "torch":
        raise CheckpointError(
            f"{LABEL}: its names are those of another framework, which `doconv fold` reads. Received: {checkpoint.layout}"
        )
    folded, gone = dict[str, Tensor](), set[str]()
    for path, layer in checkpoint.layers.items():
        gone |= {name for role, name in layer.tensors.items() if role in ("D_delta", "diagonal")}
        if name := layer.tensors.get("W"):
            folded[name] = _fold(checkpoint, path, state_dict[name])
    for note in checkpoint.notes:
        log.log(logging.WARNING if note.startswith(DOUBTS) else logging.INFO, "%s", note)
    result: OrderedDict[str, Any] = OrderedDict()
    for name, value in state_dict.items():
        plain = checkpoint.names.get(name, _without(name, checkpoint))
        if name in folded:
            result[f"{plain[:-1]}weight" if plain.endswith("W") else plain] = folded[name]
        elif name not in gone:
            result[plain] = value
    if modules is not None:  # versions of modules
        result._metadata = _metadata(modules, checkpoint)  # type: ignore[attr-defined]
    return result


def _tensors(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors that can be of a layer."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a dict of tensors. Received: {type(state_dict).__name__}")
    found, sharded = dict[str, Any](), list[str]()
    for name, value in state_dict.items():
        if isinstance(value, Tensor) and not isinstance(name, str):
            raise TypeError(f"names of tensors must be strings. Received: {name!r}")
        ours = isinstance(name, str) and name.rpartition(".")[2] in LEAVES
        if isinstance(value, Tensor) and ours and type(value).__name__ == "DTensor":
            sharded.append(name)
        elif isinstance(value, Tensor) and is_dense(value):
            found[name] = lazy_array(value)
        elif ours and name.rpartition(".")[2] in ("W", "D") and len(getattr(value, "shape", ())) == 3:
            kind = [str(getattr(value, option)) for option in ("dtype", "layout") if hasattr(value, option)]
            received = " ".join([*kind, f"{type(value).__module__}.{type(value).__name__}"])
            raise TypeError(f"{name} must be a dense tensor of PyTorch. Received: {received}")
    if sharded:
        raise ValueError(f"sharded tensors must be gathered first. Received: {', '.join(sharded)}")
    if not any(isinstance(value, Tensor) for value in state_dict.values()):
        inner = [str(name) for name, value in state_dict.items() if isinstance(value, Mapping)]
        hint = f"; the state dict may be its {inner[0]!r}" if inner else ""
        raise CheckpointError(
            f"state_dict holds no tensors{hint}. Received: {', '.join(map(str, state_dict)) or 'nothing'}"
        )
    return found


def _shapes_of(like: nn.Module | Mapping[str, Tensor] | None) -> tuple[dict[str, tuple[int, ...]], set[str] | None]:
    """The shapes of the plain model's tensors, and which are kernels of transposed convolutions, if it shows them."""
    if like is None:
        return {}, None
    state = like.state_dict() if isinstance(like, nn.Module) else like
    if not isinstance(state, Mapping) or not any(isinstance(tensor, Tensor) for tensor in state.values()):
        raise TypeError(f"like must be a module with parameters, or its state dict. Received: {type(like).__name__}")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)}
    turned = set[str]()
    for path, conv in like.named_modules(remove_duplicate=False) if isinstance(like, nn.Module) else ():
        if isinstance(conv, _ConvNd):
            name = join(path, "weight")
            shapes[name] = tuple(conv.weight.shape)  # composed, should it be a DO layer
            turned |= {name} if conv.transposed else set()
    return shapes, turned if isinstance(like, nn.Module) else None


def _fold(checkpoint: Checkpoint, path: str, W: Tensor) -> Tensor:
    if has_no_values(W):
        return W.new_empty(checkpoint.layers[path].conv.kernel_shape)
    return to_tensor(checkpoint.fold(path), W.device)


def _without(name: Any, checkpoint: Checkpoint) -> Any:
    if not isinstance(name, str):
        return name
    return without_inner(name).removeprefix(checkpoint.outer).removeprefix(checkpoint.prefix)


def _metadata(metadata: Mapping[str, Any], checkpoint: Checkpoint) -> OrderedDict[str, Any]:
    """By path of a module, of which a prefix is the first: "module" is "" without "module."."""
    renamed = OrderedDict[str, Any]()
    for path, value in metadata.items():
        plain = {key: of_it for key, of_it in value.items() if key != NOTE} if isinstance(value, Mapping) else value
        renamed[_without(f"{path}.", checkpoint).removesuffix(".")] = plain
    return renamed
