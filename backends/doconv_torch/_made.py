"""The kernels that `compose_together` made for a forward pass, where the layers look for theirs."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from doconv_torch._products import autocasts


class Made:
    """A layer's kernel of one forward pass, and whom it may be given to."""

    def __init__(self, kernel: Tensor, W: Tensor, D: Tensor) -> None:
        self.kernel, self.W, self.D = kernel, W, D
        self.versions = _versions(W, D)
        self.open = True  # the forward pass has not ended
        # A checkpoint will run the layer again in the backward pass. Not a reentrant one: its first run has no graph, and in
        # the second the layer composes for itself.
        self.again = False

    def given(self, layer: Any) -> Tensor | None:
        """The kernel, or None where the layer has to compose for itself."""
        kernel, W, D = self.kernel, self.W, self.D
        if layer.W is not W or layer.D is not D or _versions(W, D) != self.versions:
            return None
        if kernel.dtype != W.dtype and not (autocasts(W) and torch.get_autocast_dtype(W.device.type) == kernel.dtype):
            return None  # composed for another autocast
        if torch.is_grad_enabled():
            if not kernel.requires_grad and (W.requires_grad or D.requires_grad):
                return None
            if self.open and not _in_backward() and torch._C._autograd._top_saved_tensors_default_hooks(True):
                self.again = True
        return kernel


# From a layer to what each thread's pass made for it. Outside the layers: a copy or a pickle of a layer has none.
MADE: WeakKeyDictionary[nn.Module, dict[int, Made]] = WeakKeyDictionary()


def made_kernel(layer: Any) -> Tensor | None:
    """The kernel of a layer that is composed together with others, if this is such a pass."""
    passes = MADE.get(layer)
    if passes is None:
        return None
    made = passes.get(threading.get_ident())
    if made is not None and made.open:
        return made.given(layer)
    if _in_backward():  # which may run in a thread of its own
        for made in list(passes.values()):
            if made.again:
                return made.given(layer)
    return None


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _versions(*parameters: Tensor) -> list[int]:
    return [0 if parameter.is_inference() else parameter._version for parameter in parameters]
