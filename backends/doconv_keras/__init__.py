"""DO-Conv for Keras 3, on its TensorFlow, JAX and PyTorch backends and, for inference, NumPy."""

try:
    import keras  # noqa: F401
except ImportError as error:
    raise ImportError("doconv_keras needs Keras: pip install 'doconv-core[keras]'") from error

from doconv_keras._checkpoint import load_checkpoint, save_checkpoint
from doconv_keras._layers import (
    DOConv1D,
    DOConv1DTranspose,
    DOConv2D,
    DOConv2DTranspose,
    DOConv3D,
    DOConv3DTranspose,
    DODepthwiseConv1D,
    DODepthwiseConv2D,
    DOSeparableConv1D,
    DOSeparableConv2D,
    do_class,
)
from doconv_keras._models import fold, inspect_model, overparameterize
from doconv_keras._transfer import transfer_weights

__all__ = [
    "DOConv1D",
    "DOConv1DTranspose",
    "DOConv2D",
    "DOConv2DTranspose",
    "DOConv3D",
    "DOConv3DTranspose",
    "DODepthwiseConv1D",
    "DODepthwiseConv2D",
    "DOSeparableConv1D",
    "DOSeparableConv2D",
    "do_class",
    "fold",
    "inspect_model",
    "load_checkpoint",
    "overparameterize",
    "save_checkpoint",
    "transfer_weights",
]
