"""What the PyTorch layers promise: any groups, the plain layer's start, composition in the parameters' type, clear refusals."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from doconv_conformance.layer_checks.contract import GROUPED, SMALL, grouped_tensors, impulse_tensors
from doconv_core import ConvGeometry
from doconv_torch import DOConv2d, DOConvTranspose2d, fold, overparameterize


def layer(geometry: ConvGeometry, tensors: dict[str, np.ndarray]) -> DOConv2d:
    conv = DOConv2d(
        geometry.in_channels, geometry.out_channels, geometry.kernel_size, groups=geometry.groups, bias=False
    )
    conv.load_state_dict({"W": torch.from_numpy(tensors["W"]), "D": torch.from_numpy(tensors["D_delta"])})
    return conv


@pytest.mark.parametrize("geometry", GROUPED, ids=ConvGeometry.describe)
def test_the_layer_equals_feature_composition_for_every_group_count(geometry: ConvGeometry) -> None:
    tensors, y = grouped_tensors(geometry)
    conv = layer(geometry, tensors)
    np.testing.assert_array_equal(conv(torch.from_numpy(tensors["x"])).detach(), y)
    np.testing.assert_array_equal(fold(conv)(torch.from_numpy(tensors["x"])).detach(), y)


def test_autocast_rounds_the_composed_kernel_once() -> None:
    tensors, kernel, bound = impulse_tensors()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(SMALL, tensors)(torch.from_numpy(tensors["x"]))
    assert y.dtype == torch.bfloat16
    assert (np.abs(y.detach().double().numpy() - kernel) <= bound).all()


@pytest.mark.parametrize(("plain", "do"), [(nn.Conv2d, DOConv2d), (nn.ConvTranspose2d, DOConvTranspose2d)])
def test_the_start_is_the_plain_layer_of_the_same_seed_or_kernel(plain: type, do: type) -> None:
    x = torch.rand(2, 4, 9, 8)
    torch.manual_seed(0)
    reference = plain(4, 6, (3, 2), groups=2)
    torch.manual_seed(0)
    seeded = do(4, 6, (3, 2), groups=2)
    converted = overparameterize(copy.deepcopy(reference))
    for conv in (seeded, converted):
        assert torch.equal(conv.weight, reference.weight)
        assert torch.equal(conv(x), reference(x))


def test_positional_arguments_mean_what_they_mean_in_the_plain_layer() -> None:
    conv = DOConv2d(8, 16, 3, 1, 1)
    assert (conv.stride, conv.padding, conv.d_mul) == ((1, 1), (1, 1), 9)
    with pytest.raises(TypeError, match="positional argument"):
        DOConv2d(8, 16, 3, 1, 1, 1, 1, True, "zeros", None, None, 9)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"d_mul": 8}, ValueError, r"d_mul must be at least 9, .* Received: in_channels=4, .*kernel_size=\(3, 3\)"),
        ({"d_mul": 0}, ValueError, "d_mul must be positive. Received: .*d_mul=0"),
        ({"d_mul": 9.0}, TypeError, "d_mul must be an integer, not float. Received: .*d_mul=9.0"),
        ({"groups": 4}, ValueError, "out_channels must be divisible by groups"),
        ({"dilation": 0}, ValueError, r"dilation must be at least 1. Received: .*dilation=\(0, 0\)"),
        ({"padding_mode": "zero"}, ValueError, "padding_mode must be one of .* but got padding_mode='zero'"),
        ({"padding": "full"}, ValueError, "Invalid padding string 'full'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(options: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        DOConv2d(4, 6, 3, **options)


def test_a_weight_of_another_shape_is_named() -> None:
    conv = DOConv2d(4, 6, 3)
    with pytest.raises(
        ValueError, match=r"weight must have shape \(6, 4, 3, 3\). Received: \(6, 4, 3, 2\), in_channels=4"
    ):
        conv.weight = torch.zeros(6, 4, 3, 2)
