"""What a user of the core writes, with the types that it promises."""

from typing import assert_type

import numpy as np

from doconv_core import ConvGeometry, compose, compose_vjp, convolve, start
from doconv_core.checkpoint import Checkpoint, convert_file, open_checkpoint

geometry = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2)
W, D_delta = start(geometry, np.random.default_rng(0))
assert_type(D_delta, np.ndarray | None)
kernel = compose(W, D_delta, geometry, dtype=np.float32)
assert_type(kernel, np.ndarray)
y = convolve(np.ones((1, 4, 5, 5), np.float32), kernel, None, geometry)
gradients = compose_vjp(W, D_delta, np.ones(geometry.kernel_shape), geometry)
assert_type(gradients, tuple[np.ndarray, np.ndarray | None])
assert_type(geometry.output_size((5, 5)), tuple[int, ...])


def convert(path: str) -> tuple[str, ...]:
    with open_checkpoint(path) as checkpoint:
        assert_type(checkpoint, Checkpoint)
        return convert_file(checkpoint, "out.safetensors", "flax").refolded


compose(W, D_delta)  # error: no geometry
compose(W, D_delta, geometry, "original-torch")  # error: by keyword only
ConvGeometry(in_channels=4, out_channels="6", kernel_size=(3, 2))  # error: a string
