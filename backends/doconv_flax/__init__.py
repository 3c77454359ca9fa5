"""DO-Conv for Flax: `doconv_flax.linen` and `doconv_flax.nnx` mirror `flax.linen` and `flax.nnx`."""

try:
    import flax  # noqa: F401
    import jax  # noqa: F401
except ImportError as error:
    raise ImportError("doconv_flax needs Flax and JAX: pip install 'doconv-core[flax]'") from error

from doconv_flax import linen, nnx
from doconv_flax._compose import compose, start_from

__all__ = ["compose", "linen", "nnx", "start_from"]
