"""The composed kernel in PyTorch.

    W' = (E + D_delta) ∘ W = W E^T + D_delta ∘ W        (Cao et al., arXiv 2006.12030; see `doconv_core.composition`)

One small product for each input channel, of `D`, `(K, S)`, with the `C_out/G` kernels that read the channel: along the taps
(`_taps`) or along the kernels (`_kernels`), whichever the matrix library beneath does faster.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from doconv_torch import _kernels, _taps

Composed = Callable[[Tensor, Tensor, int], Tensor]
PLAIN = (Tensor, Parameter)
HALF = (torch.bfloat16, torch.float16)
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the rank of a kernel
# By which products: "auto" is the rule of `products_for`.
PRODUCTS = os.environ.get("DOCONV_TORCH_PRODUCTS", "auto")
if PRODUCTS not in ("auto", "taps", "kernels"):
    raise ValueError(f"DOCONV_TORCH_PRODUCTS must be auto, taps or kernels. Received: {PRODUCTS!r}")


def _is_amd() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return any("AuthenticAMD" in line for line in file)
    except OSError:  # not Linux
        return "AuthenticAMD" in platform.processor()


TRANSPOSES_PAY = torch.backends.mkl.is_available() and _is_amd()
# From so many taps on a product has length enough along them, and from so many kernels of an input channel on along these;
# below so many numbers of `W` calls cost more than arithmetic.
MANY_TAPS, MANY_KERNELS, FEW_NUMBERS = 16, 16, 2**12


def compose(W: Tensor, D_delta: Tensor | None, groups: int = 1, *, transposed: bool = False) -> Tensor:
    """The composed kernel, taps flattened.

    Args:
        W: `(C_out, C_in/G, S)`; transposed `(C_in, C_out/G, S)`.
        D_delta: `(C_in, K, S)`, or None for a kernel of one tap.
        groups: `G`.
        transposed: whether `W` belongs to a transposed convolution.

    Returns:
        `(*W.shape[:2], K)` in the dtype of `W`, whatever autocast says. bfloat16 and float16 are composed in float32 and
        rounded once.
    """
    if D_delta is None:
        return W
    composed = _taps.composed if _looked_into(W) else _Compose.apply
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting() and autocasts(W) and type(W) in PLAIN:
        # Of operations that it knows, the compiler traces the derivatives under the autocast that is on here.
        composed = _Compose.apply
    return compose_by(composed, W, D_delta, groups, transposed)


def compose_by(composed: Composed, W: Tensor, D: Tensor, groups: int, transposed: bool) -> Tensor:
    """`compose`, by products that take what `canonical` gives."""
    with without_autocast(W):
        kernel = composed(*canonical(W, D, groups, transposed)).to(W.dtype)
        return kernel.view(*W.shape[:2], -1) if transposed else kernel


def canonical(W: Tensor, D: Tensor, groups: int, transposed: bool) -> tuple[Tensor, Tensor, int]:
    """`W`, `D` and `G` as `_taps` and `_kernels` take them: of float32 or float64, and of a layer that is not transposed."""
    if W.dtype in HALF:
        W, D = W.float(), D.float()
    if transposed:  # every input channel is a group, and C_out/G kernels read it
        return W.flatten(0, 1).unsqueeze(1), D, len(D)
    return W, D, groups


def ordered(kernel: Tensor, channels_last: bool) -> Tensor:
    """A kernel in the memory format of its layer."""
    return kernel.contiguous(memory_format=CHANNELS_LAST[kernel.ndim]) if channels_last else kernel


def _looked_into(W: Tensor) -> bool:
    """Whether a compiler, a trace, a function transform or another kind of tensor (DTensor) needs operations that it knows."""
    return torch.compiler.is_compiling() or type(W) not in PLAIN or transformed() or torch.jit.is_tracing()


def transformed() -> bool:
    """Whether a transform of `torch.func`, or forward-mode differentiation, is on."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


class _Compose(torch.autograd.Function):
    """`compose` that keeps nothing but `W` and `D` for its gradients."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, D: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(W, D)
        ctx.groups = groups
        return composed_eagerly(W, D, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        W, D = ctx.saved_tensors
        # With a graph of its own (`create_graph`) the gradient is made of operations that have derivatives.
        products = _taps if torch.is_grad_enabled() else products_for(W, D)
        casts = autocasts(grad) or torch.compiler.is_compiling()
        with torch.autocast(grad.device.type, enabled=False) if casts else nullcontext():
            return *products.gradients(W, D, grad, ctx.groups, ctx.needs_input_grad), None


def composed_eagerly(W: Tensor, D: Tensor, groups: int) -> Tensor:
    """`_taps.composed` or `_kernels.composed`."""
    product: Tensor = products_for(W, D).composed(W, D, groups)
    return product


def products_for(W: Tensor, D: Tensor) -> ModuleType:
    """`_taps` or `_kernels`: a rule of shape, device and processor, so that a machine's results do not change from run to run.

    With MKL, transposing pays on a processor of AMD for kernels of few taps, from some thousand numbers on: twice as fast; and
    for groups of many kernels, which the other way copies, too. On one of Intel the library takes the matrices where they lie,
    and transposing costs. `DOCONV_TORCH_PRODUCTS=taps` (or `kernels`) in the environment chooses by hand.
    """
    if PRODUCTS == "taps" or W.device.type != "cpu" or torch.compiler.is_compiling():
        return _taps
    if PRODUCTS == "kernels":
        return _kernels
    in_channels, taps, _ = D.shape
    kernels, in_per_group, _ = W.shape
    out_per_group = kernels * in_per_group // in_channels
    has_length = taps < MANY_TAPS or (in_per_group < in_channels and out_per_group >= MANY_KERNELS)
    pays = TRANSPOSES_PAY and in_per_group > 1 and W.numel() >= FEW_NUMBERS and has_length
    return _kernels if pays else _taps


def autocasts(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device."""
    if not torch._C._is_any_autocast_enabled():  # quick
        return False
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """A context without the autocast of a tensor's device, if that is on."""
    return torch.autocast(tensor.device.type, enabled=False) if autocasts(tensor) else nullcontext()
