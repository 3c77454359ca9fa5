"""By which products the composition is computed: along the taps (`_taps`), along the kernels (`_kernels`), or `_formula`."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from doconv_torch import _formula, _kernels, _taps

WAYS = {"taps": _taps, "kernels": _kernels, "formula": _formula}
# By which products: "auto" is the rule of `products_for`.
PRODUCTS = os.environ.get("DOCONV_TORCH_PRODUCTS", "auto")
if PRODUCTS not in ("auto", *WAYS):
    raise ValueError(f"DOCONV_TORCH_PRODUCTS must be auto, taps, kernels or formula. Received: {PRODUCTS!r}")


def _is_made_by(vendor: str) -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return vendor in file.read(4096)
    except OSError:  # not Linux
        return vendor in platform.processor()


TRANSPOSES_PAY = torch.backends.mkl.is_available() and _is_made_by("AuthenticAMD")
ADDITIONS_COST = torch.backends.mkl.is_available() and _is_made_by("GenuineIntel")
# From so many taps on a product has length enough along them, and from so many kernels of an input channel on along these;
# below so many numbers of `W` calls cost more than arithmetic, from so many on a pass over `W` shows.
MANY_TAPS, MANY_KERNELS, FEW_NUMBERS, MANY_NUMBERS = 16, 16, 2**12, 2**17


def composed_eagerly(W: Tensor, D: Tensor, groups: int) -> Tensor:
    """`_taps.composed`, `_kernels.composed` or `_formula.composed`."""
    return products_for(W, D).composed(W, D, groups)


def products_for(W: Tensor, D: Tensor) -> ModuleType:
    """One of `WAYS`: a rule of shape, device and processor, so that a machine's results do not change from run to run.

    With MKL, transposing pays on a processor of AMD for kernels of few taps, from some thousand numbers on: twice as fast; and
    for groups of many kernels, which the other way copies, too. On one of Intel the library takes the matrices where they lie,
    and transposing costs; there large dense kernels are faster by the formula. `DOCONV_TORCH_PRODUCTS=taps` (`kernels`,
    `formula`) in the environment chooses by hand.
    """
    if not W.is_cpu or torch.compiler.is_compiling():
        return _taps
    if PRODUCTS != "auto":
        return WAYS[PRODUCTS]
    numbers = W.numel()
    if numbers < FEW_NUMBERS:
        return _taps
    in_channels, taps, _ = D.shape
    kernels, in_per_group, _ = W.shape
    if ADDITIONS_COST:
        return _formula if in_per_group == in_channels and numbers >= MANY_NUMBERS else _taps
    out_per_group = kernels * in_per_group // in_channels
    has_length = taps < MANY_TAPS or (in_per_group < in_channels and out_per_group >= MANY_KERNELS)
    return _kernels if TRANSPOSES_PAY and in_per_group > 1 and has_length else _taps


def autocasts(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device."""
    if not torch._C._is_any_autocast_enabled():  # quick
        return False
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """A context without the autocast of a tensor's device, if that is on."""
    return torch.autocast(tensor.device.type, enabled=False) if autocasts(tensor) else nullcontext()
