"""What `ConvGeometry.from_layer` makes of Keras's padding arguments: the core then computes what Keras's layer does."""

from itertools import product

import keras
import numpy as np
import pytest

from doconv_core import ConvGeometry, Layout, convolve

SIZES = ((7, 6), (8, 9))


def compute(layer: keras.layers.Layer, geometry: ConvGeometry, size: tuple[int, ...]) -> None:
    """Assert that the core and the layer agree on small integers."""
    rng, layout = np.random.default_rng(0), Layout("keras", geometry)
    x = rng.integers(-4, 5, (2, geometry.in_channels, *size)).astype(np.float64)
    weight = rng.integers(-4, 5, geometry.kernel_shape).astype(np.float64)
    layer.build((None, *size, geometry.in_channels))
    layer.set_weights([layout.kernel_from_canonical(weight)])
    y = keras.ops.convert_to_numpy(layer(layout.activation_from_canonical(x)))
    np.testing.assert_array_equal(convolve(x, weight, None, geometry), layout.activation_to_canonical(y))


@pytest.mark.parametrize(
    ("padding", "stride", "dilation"), [*product(["same", "valid"], [1, 2, 3], [1]), ("same", 1, 2)]
)
@pytest.mark.parametrize("size", SIZES)
def test_convolution(padding: str, stride: int, dilation: int, size: tuple[int, ...]) -> None:
    layer = keras.layers.Conv2D(
        3, (4, 3), strides=stride, padding=padding, dilation_rate=dilation, use_bias=False, dtype="float64"
    )
    geometry = ConvGeometry.from_layer(
        "keras", in_channels=2, out_channels=3, input_size=size, kernel_size=(4, 3), stride=stride, dilation=dilation,
        padding=padding,
    )  # fmt: skip
    compute(layer, geometry, size)


@pytest.mark.parametrize("dilation", [1, 2])
def test_causal(dilation: int) -> None:
    layer = keras.layers.Conv1D(3, 3, padding="causal", dilation_rate=dilation, use_bias=False, dtype="float64")
    geometry = ConvGeometry.from_layer(
        "keras", in_channels=2, out_channels=3, input_size=(8,), kernel_size=(3,), dilation=dilation, padding="causal"
    )
    compute(layer, geometry, (8,))


@pytest.mark.parametrize(
    ("padding", "stride", "output_padding"),
    [*product(["same", "valid"], [1, 2, 3, 4], [None]), ("same", 3, 1), ("valid", 3, 2), ("valid", 2, 0)],
)
def test_transposed_convolution(padding: str, stride: int, output_padding: int | None) -> None:
    layer = keras.layers.Conv2DTranspose(
        3, (4, 3), strides=stride, padding=padding, output_padding=output_padding, use_bias=False, dtype="float64"
    )
    geometry = ConvGeometry.from_layer(
        "keras", in_channels=2, out_channels=3, input_size=(5, 4), kernel_size=(4, 3), stride=stride, padding=padding,
        transposed=True, output_padding=output_padding,
    )  # fmt: skip
    compute(layer, geometry, (5, 4))


@pytest.mark.parametrize(
    ("padding", "text"),
    [(1, "Keras names its paddings: same, valid, causal. Received: framework='keras'"),
     ("reflect", r"padding must be one of same, valid, causal .* Received: framework='keras', padding='reflect'"),
     ("causal", r"causal: one axis only")],
)  # fmt: skip
def test_what_keras_does_not_have_is_refused(padding: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConvGeometry.from_layer(
            "keras", in_channels=2, out_channels=3, input_size=(8, 8), kernel_size=(3, 3), padding=padding
        )
