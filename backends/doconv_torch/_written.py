"""`layer.weight` as users hold it: the composed kernel, and what is written to it starts the layer again from the result.

Initialisers (`nn.init.ones_(conv.weight)`), fuse steps (`conv.weight.data.copy_(kernel)`), merges (`conv.weight.data += delta`)
and masks (`conv.weight[:, 0].zero_()`) write to a parameter. Here it is computed, and would forget it. A Tensor subclass sees
every operation on the kernel, on views of it and on its `.data`; PyTorch counts writes to all of them in one version counter.

The layer's own forward pass reads a plain tensor and pays nothing.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

log = logging.getLogger("doconv")
HOOKED = "the forward pass composes another kernel, which this hook will not see: register hooks on W and D"
# Where a kernel is read and not written: by their code, as a user's `forward` may write.
_READERS = {
    id(cls.forward.__code__)
    for cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
}
_READ_DATA, _WRITE_DATA = Tensor.data.__get__, Tensor.data.__set__  # type: ignore[attr-defined]
_UNCOUNTED = (Tensor.apply_, Tensor.map_)  # writes that leave the version as it was
_WRITE_GRAD = Tensor.grad.__set__  # type: ignore[union-attr]


def only_reads(code: Any) -> bool:
    """Whether code that asks for a kernel is a forward pass of PyTorch's own."""
    return id(code) in _READERS


def give_out(layer: _ConvNd, compose: Callable[[], Tensor]) -> Tensor:
    """A layer's kernel for its user, who may write to it."""
    kernel = _followed(layer, compose)
    # The mark of transformers, whose initialisers keep away from what has it.
    if getattr(layer._parameters.get("W"), "_is_hf_initialized", False):
        kernel._is_hf_initialized = True  # type: ignore[attr-defined]
    return kernel


def _followed(layer: _ConvNd, compose: Callable[[], Tensor]) -> Tensor:
    if torch.is_inference_mode_enabled():  # whose tensors count no writes
        with torch.inference_mode(False), torch.no_grad():
            kernel = compose()
    else:
        kernel = compose()
    transformed = torch._C._functorch.peek_interpreter_stack() is not None or torch.jit.is_tracing()
    if type(kernel) is not Tensor or transformed or layer._parameters.get("D") is None:
        return kernel  # without D it is W itself
    if kernel._base is not None and kernel._base.numel() != kernel.numel():
        # One of many in one tensor (`compose_together`), which would count the writes to all of them.
        kernel = kernel.clone()
    return _follow(kernel, _Origin(layer, kernel.detach()))


class _Origin:
    """Which layer a kernel is of, and its memory: `whole`, which shares the version counter with every view."""

    def __init__(self, layer: _ConvNd, whole: Tensor) -> None:
        self.layer, self.whole, self.version = ref(layer), whole, whole._version
        self.parameters = _versions(layer)

    def take_writes(self) -> None:
        """Start the layer from the kernel if that was written to."""
        if self.whole._version != self.version:
            self.version = self.whole._version
            self.start_from(self.whole)

    def start_from(self, kernel: Tensor) -> None:
        layer = self.layer()
        if layer is None:
            return
        if (found := _versions(layer)) != self.parameters:
            raise RuntimeError(
                "a kernel was written to after its layer had changed, which would undo the change: read `weight` again, and "
                f"write to that. Received: (identity, version) of W and D {found}, composed from {self.parameters}"
            )
        layer.start_from(kernel)  # type: ignore[operator]
        self.parameters = _versions(layer)
        log.info("a kernel was written to: its layer starts from it, with D zero: %s", layer)


class ComposedKernel(Tensor):
    """A composed kernel, or a view of it. New tensors computed from it are plain."""

    _origin: _Origin

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        origins = _origins(args, []) if kwargs is None else _origins((*args, *kwargs.values()), [])
        with torch._C.DisableTorchFunctionSubclass():
            if func == _WRITE_DATA and isinstance(args[0], ComposedKernel) and args[0]._is_whole():
                args[0]._origin.start_from(args[1])
                return args[0]._origin.whole.copy_(args[1])
            if func == _WRITE_GRAD and isinstance(args[1], Tensor):
                raise RuntimeError(
                    f"a composed kernel has no gradient: set those of W and D. Received: {args[1].shape}"
                )
            if func == Tensor.register_hook:
                warnings.warn(HOOKED, stacklevel=2)
            # Not `.data`, which has a version counter of its own.
            result = args[0].detach() if func == _READ_DATA else func(*args, **(kwargs or {}))
            for origin in origins:
                if func in _UNCOUNTED:
                    origin.start_from(origin.whole)
                origin.take_writes()
            return _follow_all(result, origins)

    def _is_whole(self) -> bool:
        whole = self._origin.whole
        return (self.shape, self.stride(), self.data_ptr()) == (whole.shape, whole.stride(), whole.data_ptr())

    @property
    def _is_param(self) -> bool:
        return False

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        """`nn.Parameter(layer.weight)` is an ordinary Parameter."""
        del self._origin
        self.__class__ = nn.Parameter  # type: ignore[assignment]

    def __deepcopy__(self, memo: Any) -> Tensor:
        return copy.deepcopy(_plain(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self).__reduce_ex__(protocol)


def is_kernel_of_another(value: Any, layer: _ConvNd) -> bool:
    """Whether a value is another layer's kernel, as where `b.weight = a.weight` ties plain layers."""
    return type(value) is ComposedKernel and value.requires_grad and value._origin.layer() is not layer


def _follow(tensor: Tensor, origin: _Origin) -> ComposedKernel:
    kernel = tensor.as_subclass(ComposedKernel)
    kernel._origin = origin
    return kernel


def _follow_all(result: Any, origins: list[_Origin]) -> Any:
    """The result of an operation, its views of a kernel followed; arrays of NumPy, which nothing counts, are read-only."""
    if type(result) in (tuple, list):
        return type(result)(_follow_all(item, origins) for item in result)
    if isinstance(result, np.ndarray):
        result.flags.writeable = False
    elif type(result) is Tensor and result.layout is torch.strided:
        for origin in origins:
            if result.untyped_storage()._cdata == origin.whole.untyped_storage()._cdata:
                return _follow(result, origin)
    return result


def _origins(arguments: Any, found: list[_Origin]) -> list[_Origin]:
    for argument in arguments:
        if type(argument) is ComposedKernel:
            if argument._origin not in found:
                found.append(argument._origin)
        elif type(argument) in (tuple, list):
            _origins(argument, found)
    return found


def _plain(kernel: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return kernel.as_subclass(Tensor)


def _versions(layer: _ConvNd) -> list[tuple[int, int | None]]:
    parameters = (layer._parameters.get("W"), layer._parameters.get("D"))
    return [(id(p), None if p is None or p.is_inference() else p._version) for p in parameters]
