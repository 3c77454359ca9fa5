"""What a user of the Flax backend writes; Flax's own classes count as anything."""

from typing import assert_type

import jax
from flax import linen as nn
from flax import nnx

from doconv_flax import linen as do_linen
from doconv_flax import nnx as do_nnx

params = {"Conv_0": {"kernel": jax.numpy.ones((3, 3, 3, 4))}}
spec = do_linen.conv_spec(nn.Conv(4, (3, 3)), jax.numpy.ones((1, 8, 8, 3)))
over = do_linen.overparameterize(params, spec, d_mul=12)
folded = do_linen.fold(over, spec)
model = do_nnx.overparameterize(nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), where="*")
assert_type(do_nnx.inspect_model(do_nnx.fold(model)), dict[str, str])

do_linen.overparameterize(params, spec, 12)  # error: by keyword only
do_nnx.overparameterize(model, 9)  # error: by keyword only
