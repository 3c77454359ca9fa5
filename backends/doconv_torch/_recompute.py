"""Compose again in the backward pass instead of keeping the composed kernels for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import torch
from torch import Tensor


class _Known(threading.local):
    """By memory address, the kernels composed inside `recompute_kernels`, and how."""

    kernels: dict[int, tuple[ref[Tensor], Callable[[], Tensor]]] | None = None


_known = _Known()


@contextlib.contextmanager
def recompute_kernels() -> Iterator[None]:
    """A context for the forward pass, as `torch.autograd.graph.save_on_cpu` is one.

        with recompute_kernels():
            loss = criterion(model(x), y)
        loss.backward()

    The convolutions of DO-Conv layers keep no composed kernel for the backward pass: it is composed again when it is needed,
    value for value the same. Beyond what the plain model keeps, nothing is kept then. Costs one more composition a step. Under
    autocast a convolution keeps the kernel in the lower precision, which is not composed again.

    Raises:
        RuntimeError: in the backward pass, if `W` or `D` was changed in place in between.
    """
    outer, _known.kernels = _known.kernels, {}
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _known.kernels = outer


def remember(kernel: Tensor, compose: Callable[[Tensor, Tensor], Tensor], W: Tensor, D: Tensor | None) -> None:
    """Inside `recompute_kernels`, note how a kernel was composed."""
    if torch.compiler.is_compiling() or _known.kernels is None or D is None or not kernel.requires_grad:
        return
    versions = W._version, D._version

    def again() -> Tensor:
        if (W._version, D._version) != versions:
            raise RuntimeError(
                "W or D was changed in place after the forward pass inside recompute_kernels, and its kernel can't be composed "
                f"again. Received: versions {(W._version, D._version)}, in the forward pass {versions}"
            )
        with torch.no_grad():
            return compose(W, D)

    _known.kernels[kernel.data_ptr()] = ref(kernel), again


def recomputes() -> bool:
    """Whether this thread is inside `recompute_kernels`."""
    return _known.kernels is not None


def _pack(saved: Tensor) -> Any:
    if not _known.kernels or saved.layout is not torch.strided:
        return saved
    kernel, again = _known.kernels.get(saved.data_ptr(), (lambda: None, None))
    composed = kernel()  # dead: the address belongs to another tensor now
    return again if composed is not None and composed.shape == saved.shape else saved


def _unpack(packed: Any) -> Tensor:
    return packed if isinstance(packed, Tensor) else packed()
