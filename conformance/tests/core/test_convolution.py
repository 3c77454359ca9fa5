"""The reference convolution against its definition written as loops, and its gradients against the definition's transpose."""

from itertools import product

import numpy as np
import pytest

from doconv_core import ConvGeometry, convolve
from doconv_core.convolution import convolve_vjp

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
PLAIN = [
    ConvGeometry(in_channels=4, out_channels=6, groups=groups, kernel_size=kernel, **options)
    for groups in (1, 2)
    for kernel, options in [
        ((3,), {}),
        ((2, 3), {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}),
        ((2, 1, 3), {"stride": (1, 2, 3), "padding": ((0, 0), (1, 2), (2, 1))}),
        ((3, 2), {"padding": ((2, 1), (0, 3)), "padding_mode": "reflect"}),
        ((3, 2), {"padding": ((2, 5), (4, 3)), "padding_mode": "replicate"}),
        ((3, 2), {"padding": ((4, 1), (2, 3)), "padding_mode": "circular", "stride": 2}),
    ]
]
TRANSPOSED = [
    ConvGeometry(in_channels=4, out_channels=6, groups=groups, kernel_size=kernel, transposed=True, **options)
    for groups in (1, 2)
    for kernel, options in [
        ((3,), {}),
        ((2, 3), {"stride": (3, 2), "padding": ((1, 0), (0, 2)), "dilation": (2, 1)}),
        ((2, 1, 2), {"stride": (1, 3, 2), "padding": ((0, 1), (0, 1), (0, 0)), "output_padding": (0, 2, 1)}),
        ((2, 3), {"padding": ((-2, 1), (1, -1)), "output_padding": (0, 3)}),  # rows of zeros at both ends
    ]
]


def integers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


def data(geometry: ConvGeometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = integers(1, 2, geometry.in_channels, *[4, 5, 3][: geometry.spatial_rank])
    return x, integers(2, *geometry.kernel_shape), integers(3, geometry.out_channels)


def by_definition(x: np.ndarray, weight: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Every product of the sum, one after the other."""
    size = geometry.output_size(x.shape[2:])
    y = np.zeros((len(x), geometry.out_channels, *size))
    in_per_group = geometry.in_channels // geometry.groups
    out_per_group = geometry.out_channels // geometry.groups
    lows = [low for low, _ in geometry.padding]
    padded = x
    if not geometry.transposed:
        padded = np.pad(x, [(0, 0), (0, 0), *geometry.padding], mode=MODES[geometry.padding_mode])
    for group, i, o in product(range(geometry.groups), range(in_per_group), range(out_per_group)):
        channel, output = group * in_per_group + i, group * out_per_group + o
        for tap in np.ndindex(*geometry.kernel_size):
            offset = [dilation * k for dilation, k in zip(geometry.dilation, tap, strict=True)]
            for position in np.ndindex(*(x.shape[2:] if geometry.transposed else size)):
                there = tuple(p * stride + k for p, stride, k in zip(position, geometry.stride, offset, strict=True))
                if not geometry.transposed:
                    y[:, output, *position] += weight[output, i, *tap] * padded[:, channel, *there]
                    continue
                there = tuple(t - low for t, low in zip(there, lows, strict=True))
                if all(0 <= t < n for t, n in zip(there, size, strict=True)):
                    y[:, output, *there] += weight[channel, o, *tap] * x[:, channel, *position]
    return y


@pytest.mark.parametrize("geometry", PLAIN + TRANSPOSED, ids=ConvGeometry.describe)
def test_a_convolution_is_its_definition(geometry: ConvGeometry) -> None:
    x, weight, bias = data(geometry)
    expected = by_definition(x, weight, geometry)
    np.testing.assert_array_equal(convolve(x, weight, None, geometry), expected)
    with_bias = convolve(x, weight, bias, geometry)
    for channel, value in enumerate(bias):
        np.testing.assert_array_equal(with_bias[:, channel], expected[:, channel] + value)


@pytest.mark.parametrize("geometry", PLAIN + TRANSPOSED, ids=ConvGeometry.describe)
def test_gradients_are_the_transpose_of_the_definition(geometry: ConvGeometry) -> None:
    x, weight, _ = data(geometry)
    grad_y = integers(4, len(x), geometry.out_channels, *geometry.output_size(x.shape[2:]))
    grad_x, grad_weight, grad_bias = convolve_vjp(x, weight, grad_y, geometry)
    assert (grad_x.shape, grad_weight.shape) == (x.shape, weight.shape)
    for seed in (5, 6):  # <conv(step), grad_y> = <step, grad>, for steps in every element at once
        step = integers(seed, *x.shape)
        assert (by_definition(step, weight, geometry) * grad_y).sum() == (step * grad_x).sum()
        step = integers(seed, *weight.shape)
        assert (by_definition(x, step, geometry) * grad_y).sum() == (step * grad_weight).sum()
    assert grad_bias.tolist() == [grad_y[:, channel].sum() for channel in range(geometry.out_channels)]


def test_it_is_computed_in_float64_and_rounded_once() -> None:
    geometry = ConvGeometry(in_channels=1, out_channels=1, kernel_size=(3,))
    x, weight = np.array([[[1, 2**-11, 2**-11]]], np.float16), np.ones((1, 1, 3), np.float16)
    assert convolve(x, weight, None, geometry).item() == 1 + 2**-10  # in float16 each 2**-11 alone is rounded away
    assert convolve(x, weight, np.array([-1], np.float16), geometry, dtype=np.float32).item() == 2**-10
    for gradient in convolve_vjp(x, weight, np.ones((1, 1, 1), np.float16), geometry, dtype=np.float32):
        assert gradient.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x": (2, 3, 5)}, r"x must have shape \(any, 4, any\)"),
        ({"weight": (6, 4, 2)}, r"weight must have shape \(6, 4, 3\). Received: weight of shape \(6, 4, 2\)"),
        ({"bias": (4,)}, r"bias must have shape \(6,\). Received: bias of shape \(4,\)"),
        ({"x": (2, 4, 2)}, "the output of axis 0 would have size 0"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change: dict[str, tuple[int, ...]], text: str) -> None:
    shapes = {"x": (2, 4, 5), "weight": (6, 4, 3), "bias": (6,)} | change
    with pytest.raises(ValueError, match=text):
        convolve(
            *(np.ones(shape) for shape in shapes.values()),
            ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3,)),
        )


def test_an_upstream_gradient_of_another_shape_is_named() -> None:
    geometry = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3,))
    with pytest.raises(ValueError, match=r"grad_y must have shape \(2, 6, 3\). Received: grad_y of shape \(2, 6, 2\)"):
        convolve_vjp(np.ones((2, 4, 5)), np.ones((6, 4, 3)), np.ones((2, 6, 2)), geometry)
