"""Tensors to NumPy and back, value for value. bfloat16, which PyTorch does not give to NumPy, passes as its bits."""

from __future__ import annotations

from functools import partial

import ml_dtypes
import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from doconv_core.checkpoint._archives import Member

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)  # the types of parameters
# What NumPy has a type for, the other floating point types of PyTorch excepted.
NUMPY_TYPES = {torch.bfloat16: np.dtype(ml_dtypes.bfloat16)} | {
    getattr(torch, name): np.dtype(name)
    for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
}


def has_no_values(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a shape and no more: on "meta", or of `FakeTensorMode`."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def lazy_array(tensor: torch.Tensor) -> Member:
    """A tensor that becomes an array when it is read."""
    return Member(NUMPY_TYPES[tensor.dtype], tuple(tensor.shape), partial(to_numpy, tensor))


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether NumPy has a counterpart of a tensor."""
    return tensor.layout is torch.strided and not tensor.is_nested and tensor.dtype in NUMPY_TYPES


def is_repeated(tensor: torch.Tensor) -> bool:
    """Whether a large tensor is a view of a few values, whose copy may need any amount of memory."""
    return tensor.numel() > 2**20 and tensor.nbytes > tensor.untyped_storage().nbytes()


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A copy of the values on the CPU; bfloat16 becomes `ml_dtypes.bfloat16`."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16).copy()
    return tensor.numpy().copy()


def to_tensor(array: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """The inverse of `to_numpy`."""
    array = np.array(array, order="C")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(array).to(device)
