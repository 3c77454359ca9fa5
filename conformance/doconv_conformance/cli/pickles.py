"""PyTorch's `.pth` as a source of tensors, where PyTorch is installed: by `torch.load(weights_only=True)` and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    import torch

    from doconv_core.checkpoint import ShardedFile
    from doconv_core.checkpoint._sources import Source

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class LoadedTensor:
    """A tensor that becomes an array when NumPy asks for it."""

    tensor: torch.Tensor
    dtype: np.dtype
    shape: tuple[int, ...]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return _to_array(self.tensor).astype(dtype or self.dtype, copy=False)


def load_pickle(path: Path, *, key: str | None = None, ema: bool = False) -> tuple[Source, list[str]]:
    """The tensors of a PyTorch file, and what was chosen of it, in sentences.

    Args:
        path: the file.
        key: the keys that lead to the state dict, dots between them; by default those that are usual.
        ema: whether to take the average of the weights that is beside them, in another dict or in the same.

    Raises:
        MemoryError: as `read_pickle`.
        CheckpointError: it cannot be read, holds no state dict, or tensors that no file can hold.
        ImportError: PyTorch is not installed.
        OSError: it cannot be opened.
    """
    from doconv_core.checkpoint import Arrays, CheckpointError, find_average, find_state, read_pickle
    from doconv_core.checkpoint._format import some

    try:
        import torch
    except ImportError as error:
        raise ImportError(f"reading {path.name} needs PyTorch: pip install 'doconv-core[torch]'") from error

    from doconv_torch._checkpoint import load_saved

    loaded, in_the_same = read_pickle(path, load_saved), False
    try:
        state, notes = find_state(loaded, str(path), torch.is_tensor, key=key, ema=ema)
    except CheckpointError:
        if not ema:
            raise
        in_the_same = True
        state, notes = find_state(loaded, str(path), torch.is_tensor, key=key)
    arrays = {name: _checked(path, name, value) for name, value in state.items() if isinstance(value, torch.Tensor)}
    for name, value in state.items():
        if isinstance(value, tuple | list) and any(map(torch.is_tensor, value)):
            raise CheckpointError(
                f"{path}: {name} holds tensors in a {type(value).__name__}, as a quantized layer does: fold before "
                f"quantizing. Received: {type(value).__name__}"
            )
    left_out = [str(name) for name in state if name not in arrays]
    if left_out:
        notes.append(f"no tensors, and left out: {some(left_out, 8)}")
    if in_the_same:
        try:
            chosen, more = find_average(Arrays(str(path), arrays), str(path))
        except CheckpointError as error:
            raise CheckpointError("; ".join([str(error), *notes])) from None
        return chosen, [*notes, *more]
    return Arrays(str(path), arrays, _metadata(state, loaded)), notes


def _metadata(state: Mapping[str, Any], loaded: Any) -> Any:
    """What layers noted of themselves; Lightning's averages have lost it, and the weights beside them have the same layers."""
    beside = loaded.values() if isinstance(loaded, Mapping) else ()
    same = (value for value in beside if isinstance(value, Mapping) and value.keys() == state.keys())
    return next((found for value in (state, *same) if (found := getattr(value, "_metadata", None))), None)


def load_shards(path: Path) -> tuple[ShardedFile, list[str]]:
    """The files of a `pytorch_model.bin.index.json`, and what was chosen of them, in sentences.

    Raises:
        CheckpointError, ImportError, MemoryError, OSError: as `load_pickle`, and as `ShardedFile`.
    """
    from doconv_core.checkpoint import ShardedFile

    said: dict[str, None] = {}

    def opened(shard: Path) -> Source:
        source, notes = load_pickle(shard)
        said.update(dict.fromkeys(notes))
        return source

    return ShardedFile(path, opened), list(said)


def _checked(path: Path, name: Any, tensor: torch.Tensor) -> LoadedTensor:
    import torch

    from doconv_core.checkpoint import CheckpointError
    from doconv_torch._arrays import is_repeated

    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
    if not plain or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else str(tensor.layout)
        raise CheckpointError(f"{path}: {name} must be a dense tensor. Received: {kind}, on {tensor.device}")
    if is_repeated(tensor):
        raise CheckpointError(f"{path}: {name} is a few values repeated. Received: shape {tuple(tensor.shape)}")
    try:
        dtype = _to_array(torch.empty(0, dtype=tensor.dtype)).dtype
    except TypeError:
        raise CheckpointError(f"{path}: {name} has a type that NumPy lacks. Received: {tensor.dtype}") from None
    return LoadedTensor(tensor.detach(), dtype, tuple(tensor.shape))


def _to_array(tensor: torch.Tensor) -> np.ndarray:
    import torch

    bits: Mapping[torch.dtype, tuple[torch.dtype, Any]] = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    }
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    if tensor.dtype in bits:
        of_the_same_size, dtype = bits[tensor.dtype]
        return tensor.view(of_the_same_size).numpy().view(dtype)
    return tensor.numpy()
