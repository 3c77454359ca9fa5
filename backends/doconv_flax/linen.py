"""DO-Conv for `flax.linen`: a wrapper for whole models, the layers, and over-parameterizing and folding parameters."""

from doconv_flax._linen_checkpoint import load_checkpoint, save_checkpoint
from doconv_flax._linen_layers import DOConv, DOConvTranspose
from doconv_flax._linen_models import fold, inspect_model, overparameterize
from doconv_flax._linen_require_fold import require_fold
from doconv_flax._linen_spec import ConvEntry, ConvSpec, conv_spec
from doconv_flax._linen_wrapper import OverParameterized

__all__ = [
    "ConvEntry",
    "ConvSpec",
    "DOConv",
    "DOConvTranspose",
    "OverParameterized",
    "conv_spec",
    "fold",
    "inspect_model",
    "load_checkpoint",
    "overparameterize",
    "require_fold",
    "save_checkpoint",
]
