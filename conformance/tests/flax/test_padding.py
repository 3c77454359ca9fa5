"""What `ConvGeometry.from_layer` makes of Flax's padding arguments: the core then computes what Flax's layer does."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from doconv_core import ConvGeometry, Layout, convolve

SIZE, KERNEL = (7, 6), (4, 3)
PLAIN = [
    *product(["SAME", "VALID", "SAME_LOWER"], [(1, 1), (2, 3)], [(1, 1), (1, 2)]),
    *product(["CIRCULAR", "REFLECT", 1, (2, 1), ((2, 0), (1, 3))], [(2, 1)], [(1, 2)]),
]


def compute(layer: nn.Module, geometry: ConvGeometry, size: tuple[int, ...]) -> None:
    """Assert that the core and the layer agree on small integers."""
    rng, layout = np.random.default_rng(0), Layout("flax", geometry)
    x = rng.integers(-4, 5, (2, geometry.in_channels, *size)).astype(np.float32)
    weight = rng.integers(-4, 5, geometry.kernel_shape).astype(np.float32)
    params = {"params": {"kernel": jnp.asarray(layout.kernel_from_canonical(weight))}}
    y = jax.jit(layer.apply)(params, jnp.asarray(layout.activation_from_canonical(x)))
    np.testing.assert_array_equal(convolve(x, weight, None, geometry), layout.activation_to_canonical(np.asarray(y)))


@pytest.mark.parametrize(("padding", "stride", "dilation"), PLAIN)
def test_convolution(padding: object, stride: tuple, dilation: tuple) -> None:
    layer = nn.Conv(3, KERNEL, strides=stride, padding=padding, kernel_dilation=dilation, use_bias=False)
    geometry = ConvGeometry.from_layer(
        "flax", in_channels=2, out_channels=3, input_size=SIZE, kernel_size=KERNEL, stride=stride, dilation=dilation,
        padding=padding,
    )  # fmt: skip
    compute(layer, geometry, SIZE)


def test_causal() -> None:
    layer = nn.Conv(3, (3,), padding="CAUSAL", kernel_dilation=2, use_bias=False)
    geometry = ConvGeometry.from_layer(
        "flax", in_channels=2, out_channels=3, input_size=(8,), kernel_size=(3,), dilation=2, padding="CAUSAL"
    )
    compute(layer, geometry, (8,))


@pytest.mark.parametrize("padding", ["SAME", "VALID", 2, ((1, 4), (5, 0))])
@pytest.mark.parametrize(("stride", "dilation"), [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((5, 2), (1, 2))])
def test_transposed_convolution(padding: object, stride: tuple, dilation: tuple) -> None:
    layer = nn.ConvTranspose(3, KERNEL, strides=stride, padding=padding, kernel_dilation=dilation, use_bias=False)
    geometry = ConvGeometry.from_layer(
        "flax", in_channels=2, out_channels=3, input_size=SIZE, kernel_size=KERNEL, stride=stride, dilation=dilation,
        padding=padding, transposed=True,
    )  # fmt: skip
    compute(layer, geometry, SIZE)


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"padding must be one of SAME, VALID .*Received: .*padding='CIRCULAR'"):
        ConvGeometry.from_layer(
            "flax",
            in_channels=2,
            out_channels=3,
            input_size=SIZE,
            kernel_size=KERNEL,
            padding="CIRCULAR",
            transposed=True,
        )
