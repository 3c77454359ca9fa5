"""By which products the composition is computed: along the taps of a kernel (`_taps`) or along the kernels (`_kernels`)."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from doconv_torch import _kernels, _taps

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


def composed_eagerly(W: Tensor, D: Tensor, groups: int) -> Tensor:
    """`_taps.composed` or `_kernels.composed`."""
    return products_for(W, D).composed(W, D, groups)


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
