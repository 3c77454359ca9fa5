"""The composition by the formula as it is written: `D = D_delta + E` built, one product, and no pass over `W` to add it.

`1 + delta` is rounded, as the composed kernel is. The result is copied into a convolution's memory order, since each
convolution, forward and backward, would copy it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from doconv_torch import _taps


def _product(fit: _taps.Product, x: Tensor, by_channel: Tensor, D: Tensor, groups: int) -> Tensor:
    """See `doconv_torch._taps._plus_product`."""
    identity = fit(torch.eye(D.shape[1], dtype=D.dtype, device=D.device)[None], D.shape[2])
    return _taps.swap(torch.bmm(by_channel, D + identity), groups).contiguous()


composed, gradients = partial(_taps.composed, plus_product=_product), partial(_taps.gradients, plus_product=_product)
