"""What the Keras layers promise: any groups, the plain layer's start, composition in the parameters' type, clear refusals."""

import keras
import numpy as np
import pytest

import doconv_keras
from doconv_conformance.layer_checks.contract import GROUPED, SMALL, grouped_tensors, impulse_tensors
from doconv_core import ConvGeometry
from doconv_keras import DOConv2D, DOConv2DTranspose, DODepthwiseConv2D


def layer(
    geometry: ConvGeometry, tensors: dict[str, np.ndarray], *, depthwise: bool = False, **options: object
) -> DOConv2D:
    if depthwise:
        multiplier = geometry.out_channels // geometry.in_channels
        conv = DODepthwiseConv2D(geometry.kernel_size, depth_multiplier=multiplier, use_bias=False, **options)
    else:
        conv = DOConv2D(geometry.out_channels, geometry.kernel_size, groups=geometry.groups, use_bias=False, **options)
    conv.build((None, None, None, geometry.in_channels))
    layout = conv.layout()
    conv.W.assign(layout.w_from_canonical(tensors["W"]))
    conv.D.assign(layout.d_from_canonical(tensors["D_delta"]))
    return conv


@pytest.mark.parametrize("geometry", GROUPED, ids=ConvGeometry.describe)
def test_the_layer_equals_feature_composition_for_every_group_count(geometry: ConvGeometry) -> None:
    tensors, y = grouped_tensors(geometry)
    x = np.moveaxis(tensors["x"], 1, -1)
    for depthwise in {False, geometry.groups == geometry.in_channels}:
        got = keras.ops.convert_to_numpy(layer(geometry, tensors, depthwise=depthwise)(x))
        np.testing.assert_array_equal(np.moveaxis(got, -1, 1), y)


def test_mixed_precision_rounds_the_composed_kernel_once() -> None:
    tensors, kernel, bound = impulse_tensors()
    y = layer(SMALL, tensors, dtype="mixed_bfloat16")(np.moveaxis(tensors["x"], 1, -1))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    got = np.moveaxis(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")), -1, 1)
    assert (np.abs(got.astype(np.float64) - kernel) <= bound).all()


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("Conv2D", (6, (3, 2)), {"groups": 2}),
        ("DepthwiseConv2D", ((3, 2),), {"depth_multiplier": 2}),
        ("Conv2DTranspose", (6, (3, 2)), {"strides": 2}),
    ],
)
def test_the_start_is_the_plain_layer_of_the_same_seed_or_kernel(name: str, arguments: tuple, options: dict) -> None:
    x = np.random.default_rng(0).random((2, 9, 8, 4), np.float32)
    keras.utils.set_random_seed(0)
    plain = getattr(keras.layers, name)(*arguments, **options)
    y = keras.ops.convert_to_numpy(plain(x))
    keras.utils.set_random_seed(0)
    seeded = getattr(doconv_keras, f"DO{name}")(*arguments, **options)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(seeded(x)), y)
    given = getattr(doconv_keras, f"DO{name}")(*arguments, **options)
    given.build(x.shape)
    given.start_from(plain.kernel)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(given(x)), y)


def test_positional_arguments_mean_what_they_mean_in_the_plain_layer() -> None:
    layer = DOConv2D(16, 3, 1, "same")
    assert (layer.strides, layer.padding, layer.d_mul) == ((1, 1), "same", 9)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"d_mul": 8}, ValueError, r"d_mul must be at least 9, .* Received: kernel_size=\(3, 3\), d_mul=8"),
        ({"d_mul": 0}, ValueError, "d_mul must be positive. Received: .*d_mul=0"),
        ({"d_mul": 9.0}, TypeError, "d_mul must be an integer, not float. Received: .*d_mul=9.0"),
        ({"lora_rank": 2}, ValueError, "a DO-Conv layer has no LoRA: fold it first. Received: lora_rank=2"),
        (
            {"kernel_constraint": "non_neg"},
            ValueError,
            "a kernel constraint would act on W and not on the composed kernel",
        ),
        ({"groups": 4}, ValueError, "filters"),
        ({"padding": "full"}, ValueError, "padding"),
    ],
)
def test_bad_arguments_are_named(options: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        DOConv2D(6, 3, **options)


def test_a_kernel_of_another_shape_is_named() -> None:
    conv = DOConv2DTranspose(6, 3)
    with pytest.raises(ValueError, match=r"build the layer first. Received: do_conv2d_transpose"):
        conv.start_from(np.zeros((3, 3, 6, 4), np.float32))
    conv.build((None, 8, 8, 4))
    with pytest.raises(
        ValueError, match=r"weight must have shape \(4, 6, 3, 3\). Received: weight of shape \(4, 5, 3, 3\)"
    ):
        conv.start_from(np.zeros((3, 3, 5, 4), np.float32))
