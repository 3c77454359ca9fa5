"""DO-Conv for `flax.linen`: the layers, and over-parameterizing and folding the parameters of existing models."""

from doconv_flax._linen_layers import DOConv, DOConvTranspose
from doconv_flax._linen_models import ConvEntry, conv_spec, fold, inspect_model, overparameterize

__all__ = ["ConvEntry", "DOConv", "DOConvTranspose", "conv_spec", "fold", "inspect_model", "overparameterize"]
