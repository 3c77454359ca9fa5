"""DO-Conv for `flax.linen`: the layers, and over-parameterizing and folding the parameters of existing models."""

from doconv_flax._linen_checkpoint import load_checkpoint, save_checkpoint
from doconv_flax._linen_layers import DOConv, DOConvTranspose
from doconv_flax._linen_models import ConvEntry, conv_spec, fold, inspect_model, overparameterize

__all__ = [
    "ConvEntry",
    "DOConv",
    "DOConvTranspose",
    "conv_spec",
    "fold",
    "inspect_model",
    "load_checkpoint",
    "overparameterize",
    "save_checkpoint",
]
