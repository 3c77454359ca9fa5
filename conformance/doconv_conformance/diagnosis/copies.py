"""The gradient of an input padded with copies of its elements: what ports do when they add it back to the elements."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from doconv_conformance.diagnosis.planted import run
from doconv_conformance.faults.faulty_port import Fault, unpadded
from doconv_conformance.port import Tensors
from doconv_core.convolution import convolve_vjp
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad

# `(gradient, element, outside) -> gradient of x`, all flat over space: for each padded position its gradient, the element that
# it is a copy of, and -1, 0 or 1 for the low end, inside and the high end along each axis.
Back = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


@cache
def of_copies() -> tuple[Fault, ...]:
    """Wrong sums over the copies of an element."""
    return (
        _fault("last", "keeps only the gradient of the last copy of each element: it assigns, not adds", _assigned(1)),
        _fault("first", "keeps only the gradient of the first copy of each element", _assigned(-1)),
        _fault("mean", "takes the mean over the copies of each element", _mean),
        _fault("inside", "leaves out the gradient of the padding", _without(lambda outside: (outside != 0).any(0))),
        _fault("high", "leaves out the gradient of the padding at the low end", _without(lambda outside: (outside < 0).any(0))),
        _fault("low", "leaves out the gradient of the padding at the high end", _without(lambda outside: (outside > 0).any(0))),
        _fault("sides", "leaves out the gradient of the corners of the padding, outside along two axes or more",
               _without(lambda outside: (outside != 0).sum(0) > 1)),
    )  # fmt: skip


def _fault(name: str, words: str, back: Back) -> Fault:
    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        x = inputs["x"]
        composed = run([], g, "compose", {name: inputs[name] for name in ("W", "D_delta") if name in inputs})
        if composed is None:
            return gradients
        padded, kernel = pad(x, g.padding, g.padding_mode), composed["weight"].astype(x.dtype)
        grad, *_ = convolve_vjp(padded, kernel, inputs["grad_y"], unpadded(g), dtype=np.float64)
        size = int(np.prod(x.shape[2:]))
        element = (
            pad(np.arange(float(size)).reshape(1, 1, *x.shape[2:]), g.padding, g.padding_mode).astype(np.int64).ravel()
        )
        ends = [
            np.repeat([-1, 0, 1], [low, length, high])
            for length, (low, high) in zip(x.shape[2:], g.padding, strict=True)
        ]
        outside = np.stack(np.meshgrid(*ends, indexing="ij")).reshape(len(ends), -1)
        grad_x = back(grad.reshape(*grad.shape[:2], -1), element, outside, size)
        return gradients | {"grad_x": grad_x.reshape(x.shape).astype(x.dtype)}

    said = f"{words}, when it takes the gradient of the padded input back to x"
    look_at = "the gradient of the padding: a sum over all copies of an element"
    return Fault(f"copies-{name}", said, look_at, {"gradients": change},
                 lambda g: g.padding_mode != "zeros" and any(map(any, g.padding)))  # fmt: skip


def _added(grad: np.ndarray, element: np.ndarray, size: int) -> np.ndarray:
    total = np.zeros((size, *grad.shape[:2]))
    np.add.at(total, element, np.moveaxis(grad, -1, 0))
    return np.moveaxis(total, 0, -1)


def _assigned(step: int) -> Back:
    def back(grad: np.ndarray, element: np.ndarray, outside: np.ndarray, size: int) -> np.ndarray:
        kept = dict(zip(element[::step].tolist(), np.arange(len(element))[::step].tolist(), strict=True))
        return grad[..., [kept[at] for at in range(size)]]

    return back


def _mean(grad: np.ndarray, element: np.ndarray, outside: np.ndarray, size: int) -> np.ndarray:
    return _added(grad, element, size) / np.bincount(element, minlength=size)


def _without(lost: Any) -> Back:
    return lambda grad, element, outside, size: _added(np.where(lost(outside), 0, grad), element, size)
