"""Fold a state dict without its model, by the core's reader of checkpoints."""

from __future__ import annotations

import glob
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from doconv_core.checkpoint import Arrays, Checkpoint, Hints
from doconv_torch._arrays import to_numpy, to_tensor

PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
LEAVES = ("W", "D", "D_diag", "d_diag")
log = logging.getLogger("doconv")


def fold_state_dict(
    state_dict: Mapping[str, Any],
    *,
    like: nn.Module | Mapping[str, Tensor] | None = None,
    kernel_size: Mapping[str, Sequence[int]] | None = None,
    transposed: Sequence[str] = (),
    dialect: str | None = None,
) -> OrderedDict[str, Any]:
    """The state dict of the plain model, from that of an over-parameterized one: the kernels are those of `fold`, bit for bit.

    `<layer>.W` and `<layer>.D` become `<layer>.weight`, composed in float64 and rounded once; everything else is passed on as
    it is. A prefix "module." or "_orig_mod." of all names is dropped, unless `like` has it too. What was assumed is logged at
    level INFO by the logger "doconv".

    A state dict knows the number of taps of a kernel, not its sides. It also does not tell a transposed convolution from a
    plain one where both channel counts are equal. `like` answers both; else `kernel_size` and `transposed` do; else 9 taps are
    3 x 3, and every square number likewise.

    Args:
        state_dict: tensors by name; it is not changed.
        like: the plain model, best, or its state dict, on any device ("meta" will do).
        kernel_size: globs of layer paths to kernel sizes: `{"stem": (7, 7), "*.temporal": (9,)}`.
        transposed: globs of the paths of transposed convolutions.
        dialect: None, or "original-torch" for a checkpoint of the authors' PyTorch file (`doconv_core.dialect_rows`).

    Returns:
        A new state dict; tensors that were not folded are the same objects, the others of the dtype and device of `W`.

    Raises:
        ValueError: `W` without `D` or the reverse, a kernel size that is not known or does not fit, values that are not finite
            (all of them `doconv_core.checkpoint.CheckpointError`); a tensor is sharded; an unknown dialect.
    """
    result = OrderedDict(state_dict)
    if hasattr(state_dict, "_metadata"):
        result._metadata = OrderedDict(state_dict._metadata)  # type: ignore[attr-defined]  # versions of modules
    modules = like.named_modules(remove_duplicate=False) if isinstance(like, nn.Module) else ()
    convs = {path: conv for path, conv in modules if isinstance(conv, _ConvNd)}
    plain = like.state_dict() if isinstance(like, nn.Module) else dict(like or {})
    plain |= {
        f"{path}.weight".lstrip("."): conv.weight for path, conv in convs.items()
    }  # composed, should it be a DO layer
    while prefix := next((p for p in PREFIXES if result and all(name.startswith(p) for name in result)), None):
        if any(name.startswith(prefix) for name in plain):
            break
        consume_prefix_in_state_dict_if_present(result, prefix)

    ours = {name: tensor for name, tensor in result.items() if name.rpartition(".")[2] in LEAVES}
    if sharded := [name for name, tensor in ours.items() if type(tensor).__name__ == "DTensor"]:
        raise ValueError(f"sharded tensors must be gathered before. Received: {', '.join(sharded)}")
    transposed = [*transposed, *(glob.escape(path) for path, conv in convs.items() if conv.transposed)]
    hints = Hints(kernel_size or {}, transposed, like={name: tuple(tensor.shape) for name, tensor in plain.items()})
    arrays = {name: to_numpy(tensor) for name, tensor in ours.items()}
    checkpoint = Checkpoint(Arrays("state dict", arrays), "state dict", dialect=dialect, hints=hints)
    for note in checkpoint.notes:
        log.info("%s", note)

    folded = {
        layer.tensors["W"]: (
            f"{path}.weight".lstrip("."),
            to_tensor(checkpoint.fold(path), ours[layer.tensors["W"]].device),
        )
        for path, layer in checkpoint.layers.items()
        if "W" in layer.tensors
    }
    gone = {name for layer in checkpoint.layers.values() for name in layer.tensors.values()} - set(folded)
    items = [folded.get(name, (name, tensor)) for name, tensor in result.items() if name not in gone]
    result.clear()
    result.update(items)
    return result
