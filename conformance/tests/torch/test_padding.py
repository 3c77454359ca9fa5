"""What `ConvGeometry.from_layer` makes of PyTorch's padding arguments: the core then computes what PyTorch's layer does."""

from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional

from doconv_core import ConvGeometry, convolve

SIZE, KERNEL = (7, 6), (4, 3)
PLAIN = [
    (padding, stride, dilation, mode)
    for (padding, stride), dilation, mode in product(
        [("same", 1), ("valid", (2, 1)), ((2, 1), (1, 3)), (1, 1)], [(1, 1), (1, 2)], ["zeros", "reflect", "circular"]
    )
]


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-4, 5, shape).astype(np.float64)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # meant: the sides differ
@pytest.mark.parametrize(("padding", "stride", "dilation", "mode"), PLAIN)
def test_convolution(padding: object, stride: object, dilation: tuple, mode: str) -> None:
    options = {"kernel_size": KERNEL, "stride": stride, "padding": padding, "dilation": dilation, "padding_mode": mode}
    layer = torch.nn.Conv2d(2, 3, dtype=torch.float64, bias=False, **options)
    x, weight = integers(2, 2, *SIZE), integers(*layer.weight.shape)
    layer.load_state_dict({"weight": torch.from_numpy(weight)})
    geometry = ConvGeometry.from_layer("torch", in_channels=2, out_channels=3, input_size=SIZE, **options)
    np.testing.assert_array_equal(convolve(x, weight, None, geometry), layer(torch.from_numpy(x)).detach())


@pytest.mark.parametrize("output_padding", [None, (1, 0)])
def test_transposed_convolution(output_padding: tuple | None) -> None:
    geometry = ConvGeometry.from_layer(
        "torch", in_channels=2, out_channels=3, input_size=SIZE, kernel_size=KERNEL, stride=2, padding=(1, 2),
        transposed=True, output_padding=output_padding,
    )  # fmt: skip
    x, weight = integers(2, 2, *SIZE), integers(2, 3, *KERNEL)
    y = functional.conv_transpose2d(torch.from_numpy(x), torch.from_numpy(weight), None, 2, (1, 2), output_padding or 0)
    np.testing.assert_array_equal(convolve(x, weight, None, geometry), y)


def test_same_with_a_stride_is_refused_as_by_pytorch() -> None:
    options = {"kernel_size": KERNEL, "stride": 2, "padding": "same"}
    with pytest.raises(ValueError, match="strided convolutions"):
        torch.nn.Conv2d(2, 3, **options)
    with pytest.raises(ValueError, match=r"PyTorch's padding='same' has no strides. Received: framework='torch'"):
        ConvGeometry.from_layer("torch", in_channels=2, out_channels=3, input_size=SIZE, **options)
