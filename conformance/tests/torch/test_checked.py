"""The public `compose`: the numbers of a layer, and a clear error for everything that is none of its arguments."""

import numpy as np
import pytest
import torch
from torch import nn

from doconv_torch import DOConv2d, DOConvTranspose2d, compose

W, D = torch.rand(4, 3, 9), torch.rand(3, 9, 9)


@pytest.mark.parametrize("make", [DOConv2d, DOConvTranspose2d])
def test_it_composes_what_a_layer_composes(make: type[DOConv2d]) -> None:
    for conv in (make(4, 6, (3, 2), groups=2, d_mul=7), make(4, 6, 1, groups=2)):
        if conv.D is not None:
            nn.init.normal_(conv.D)
        kernel = compose(conv.W, conv.D, np.int64(2), transposed=conv.transposed)
        assert torch.equal(kernel.view_as(conv.weight), conv.weight)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([1], D), TypeError, "W must be a tensor. Received: list"),
        ((None, D), TypeError, "W must be a tensor. Received: NoneType"),
        ((W.numpy(), D), TypeError, "W must be a tensor. Received: ndarray"),
        ((W, D.numpy()), TypeError, "D_delta must be a tensor. Received: ndarray"),
        ((W[0], D), ValueError, r"W must have three axes. Received: W of shape \(3, 9\)"),
        ((W, D[0]), ValueError, r"D_delta must have three axes. Received: D_delta of shape \(9, 9\)"),
        ((W.int(), D.int()), TypeError, "W must be a dense tensor of bfloat16.* Received: torch.int32"),
        ((W.to_sparse(), D), TypeError, "W must be a dense tensor .* torch.sparse_coo"),
        ((W, D.half()), TypeError, "the same dtype. Received: torch.float32 and torch.float16"),
        ((W.to("meta"), D), ValueError, "the same device. Received: meta and cpu"),
        ((W[..., :8], D), ValueError, r"W must have shape \(4, 3, 9\) beside .* Received: \(4, 3, 8\), groups=1"),
        ((W, D[:2]), ValueError, r"W must have shape \(4, 2, 9\)"),
        ((W, D, 2), ValueError, "groups=2"),
        ((W, D, 0), ValueError, "groups=0"),
        ((W, D, -1), ValueError, "groups=-1"),
        ((W, D, 1.0), TypeError, "groups must be an integer. Received: 1.0"),
        ((W, D, True), TypeError, "groups must be an integer. Received: True"),
        ((W[:0], D), ValueError, "out_channels=0"),
        ((W, torch.rand(3, 10, 9)), ValueError, "d_mul"),
        ((W, None), ValueError, r"None for a kernel of one tap only. Received: W of shape \(4, 3, 9\)"),
        ((W[..., :1], D[:, :1, :1]), ValueError, "a kernel of one tap has no D_delta"),
    ],
)
def test_what_is_no_argument_is_named(arguments: tuple, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        compose(*arguments)
    with pytest.raises(TypeError, match=r"transposed must be True or False. Received: 'yes'"):
        compose(W, D, transposed="yes")


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_it_compiles() -> None:
    assert torch.equal(torch.compile(compose, fullgraph=True, backend="aot_eager")(W, D), compose(W, D))
