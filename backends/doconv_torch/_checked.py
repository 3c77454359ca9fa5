"""`compose` for programs that have `W` and `D` from elsewhere: its arguments are checked, as a constructor checks a layer's."""

from __future__ import annotations

from operator import index

import torch
from torch import Tensor

from doconv_core.geometry import ConvGeometry
from doconv_torch._arrays import FLOATS
from doconv_torch._compose import compose as compose_unchecked


def compose(W: Tensor, D_delta: Tensor | None, groups: int = 1, *, transposed: bool = False) -> Tensor:
    """The composed kernel, taps flattened.

        W'[o, c, k] = sum_s (E + D_delta)[i, k, s] * W[o, c, s]

    Args:
        W: `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`.
        D_delta: `(C_in, K, S)`, or None for a kernel of one tap, where `S` is 1.
        groups: `G`.
        transposed: whether `W` belongs to a transposed convolution.

    Returns:
        `(*W.shape[:2], K)` in the dtype of `W`, whatever autocast says. bfloat16 and float16 are composed in float32 and
        rounded once.

    Raises:
        TypeError: an argument of another type, a dtype that is not bfloat16, float16, float32 or float64, two dtypes.
        ValueError: shapes that do not belong together, `S` below `K`, two devices.
    """
    if torch.compiler.is_compiling():
        return compose_unchecked(W, D_delta, groups, transposed=transposed)
    for name, tensor in (("W", W), ("D_delta", D_delta)):
        if tensor is not None or name == "W":
            _check_tensor(name, tensor)
    if isinstance(groups, bool) or not hasattr(groups, "__index__"):
        raise TypeError(f"groups must be an integer. Received: {groups!r}")
    if not isinstance(transposed, bool):
        raise TypeError(f"transposed must be True or False. Received: {transposed!r}")
    if D_delta is None:
        if W.shape[2] != 1:
            raise ValueError(f"D_delta may be None for a kernel of one tap only. Received: W of shape {tuple(W.shape)}")
        return W
    if W.dtype != D_delta.dtype:
        raise TypeError(f"W and D_delta must have the same dtype. Received: {W.dtype} and {D_delta.dtype}")
    if W.device != D_delta.device:
        raise ValueError(f"W and D_delta must be on the same device. Received: {W.device} and {D_delta.device}")
    _check_shapes(W, D_delta, index(groups), transposed)
    return compose_unchecked(W, D_delta, groups, transposed=transposed)


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor. Received: {type(tensor).__name__}")
    if tensor.dtype not in FLOATS or tensor.layout is not torch.strided:
        raise TypeError(
            f"{name} must be a dense tensor of bfloat16, float16, float32 or float64. Received: {tensor.dtype}, {tensor.layout}"
        )
    if tensor.ndim != 3:
        raise ValueError(f"{name} must have three axes. Received: {name} of shape {tuple(tensor.shape)}")


def _check_shapes(W: Tensor, D_delta: Tensor, groups: int, transposed: bool) -> None:
    channels, taps, columns = D_delta.shape
    first, second, multiplier = W.shape
    if columns == multiplier >= taps > 1 and groups > 0 and W.numel() and D_delta.numel():
        ends = first == channels if transposed else second * groups == channels
        if ends and first % groups == 0:
            return
    geometry = ConvGeometry(
        in_channels=channels,
        out_channels=second * groups if transposed else first,
        kernel_size=(taps,),
        groups=groups,
        transposed=transposed,
        d_mul=columns,
    )
    if not geometry.has_d:
        raise ValueError(f"a kernel of one tap has no D_delta. Received: D_delta of shape {tuple(D_delta.shape)}")
    if tuple(W.shape) != geometry.w_shape:
        raise ValueError(
            f"W must have shape {geometry.w_shape} beside D_delta of shape {tuple(D_delta.shape)}. "
            f"Received: {tuple(W.shape)}, groups={groups}, transposed={transposed}"
        )
