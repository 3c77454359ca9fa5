"""DO-Conv for PyTorch: layers that replace `torch.nn`'s convolutions, and two functions for whole models."""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("doconv_torch needs PyTorch: pip install 'doconv-core[torch]'") from error

from doconv_torch._checked import compose
from doconv_torch._checkpoint import load_checkpoint, load_original, save_checkpoint
from doconv_torch._layers import (
    DOConv1d,
    DOConv2d,
    DOConv3d,
    DOConvMixin,
    DOConvTranspose1d,
    DOConvTranspose2d,
    DOConvTranspose3d,
)
from doconv_torch._memory import store_by_channel
from doconv_torch._models import fold, inspect_model, overparameterize
from doconv_torch._once import composed_once
from doconv_torch._recompute import recompute_kernels
from doconv_torch._state_dict import fold_state_dict
from doconv_torch._together import compose_together

__all__ = [
    "DOConv1d",
    "DOConv2d",
    "DOConv3d",
    "DOConvMixin",
    "DOConvTranspose1d",
    "DOConvTranspose2d",
    "DOConvTranspose3d",
    "compose",
    "compose_together",
    "composed_once",
    "fold",
    "fold_state_dict",
    "inspect_model",
    "load_checkpoint",
    "load_original",
    "overparameterize",
    "recompute_kernels",
    "save_checkpoint",
    "store_by_channel",
]
