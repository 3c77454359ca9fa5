"""DO-Conv for `flax.nnx`: the layers, and over-parameterizing and folding a model in place."""

from doconv_flax._nnx_checkpoint import load_checkpoint, save_checkpoint
from doconv_flax._nnx_layers import DOConv, DOConvTranspose, composed_kernel
from doconv_flax._nnx_models import fold, inspect_model, overparameterize

__all__ = [
    "DOConv",
    "DOConvTranspose",
    "composed_kernel",
    "fold",
    "inspect_model",
    "load_checkpoint",
    "overparameterize",
    "save_checkpoint",
]
