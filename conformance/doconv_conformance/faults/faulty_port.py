"""The core as a port whose steps can be replaced one by one: what a planted fault is made of.

A *hook* replaces one step. Hooks that move elements (swap axes, drop, repeat, reorder) are written once, for the forward
direction; the gradient of the moved tensor follows them, as it does in a framework that differentiates the mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.table import Case
from doconv_conformance.port import OPERATIONS, Tensors
from doconv_core.composition import identity, start_from_kernel
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry

# Hooks `(tensor, geometry) -> tensor` that move elements of a tensor that is read, of the composed kernel, or of the output.
MOVES = ("W", "D_delta", "x", "bias", "kernel", "y")
# Hooks `(gradient, geometry) -> gradient` that change a finished gradient.
GRADIENTS = ("grad_x", "grad_W", "grad_D_delta", "grad_bias", "grad_kernel")
COMPOSING = ("W", "D_delta", "kernel", "rows", "identity", "delta", "compose")
CONVOLVING = ("x", "y", "bias", "geometry", "padded", "convolve", "used", "result")
AFFECTS = {
    **dict.fromkeys(COMPOSING, OPERATIONS),
    **dict.fromkeys(CONVOLVING, ("forward", "backward", "fold")),
    **dict.fromkeys((*GRADIENTS, "sum_group", "gradients", "compose_vjp"), ("backward",)),
    **dict.fromkeys(("folded", "folded_bias"), ("fold",)),
    "started": ("initialise",),
    "inputs": OPERATIONS,
    "cast": OPERATIONS,
}
Hooks = Mapping[str, Any]
MAX_COPIED = 2**22
# Of a tensor whose gradient is taken an element at a time.
MOST_ELEMENTS = 2000


@dataclass(frozen=True, eq=False)  # one fault is one object; its hooks have no equality
class Fault:
    """One mistake.

    Attributes:
        name: short, unique.
        words: what the port does, as a clause that completes "the failures are consistent with a port that ...".
        look_at: where a porter looks first.
        hooks: the steps it replaces; see `FaultyPort`.
        where: the geometries that the mistake is made on; `FaultyPort.answer` heeds it, its operations alone do not.
    """

    name: str
    words: str
    look_at: str
    hooks: Hooks
    where: Callable[[ConvGeometry], bool] = field(default=lambda geometry: True)

    def touches(self, geometry: ConvGeometry, operation: str) -> bool:
        """Whether `operation` on this geometry can differ from the core's."""
        return self.where(geometry) and any(operation in AFFECTS[hook] for hook in self.hooks)


class FaultyPort(CorePort):
    """The core with a fault.

    Hooks besides `MOVES` and `GRADIENTS`, each with the geometry `g` as its last argument:

    - `inputs(port, inputs, g)`: what is given, first of all; `port.memory` is a dict that lives as long as the port.
    - `rows(g)`: the row of `D` for each kernel; `identity(g)`: what stands for `E`; `delta(g)`: a factor of `D_delta`.
    - `compose(port, g, inputs)`: the composed kernel altogether.
    - `cast(tensor, dtype)`: every rounding to a type of what was computed.
    - `used(kernel, inputs, g)`: the kernel that is convolved with, of the kernel and what it was made of.
    - `geometry(g)`: of the convolution; `padded(x, g)`: `x` with its padding, in place of `doconv_core.padding.pad`.
    - `convolve(x, kernel, bias, g)`: the convolution altogether, before `y`.
    - `result(y, kernel, inputs, g)`: the output, at the end.
    - `sum_group(products, rows, g)`: the gradient of `D_delta` of all kernels' products.
    - `compose_vjp(W, D_delta, grad_kernel, g)`: the composition's gradients altogether.
    - `gradients(outputs, inputs, g)`, `started(outputs, weight, g)`: all outputs, at the end.
    - `folded(kernel, inputs, g)`, `folded_bias(bias, g)`: what the plain layer is given.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hooks = fault.hooks
        self.memory: dict[Any, Any] = {}

    def run(self, case: Case, operation: str) -> Tensors:
        """The outputs of `operation` on a case: the core's, where the fault does not touch it."""
        return self.answer(operation, case.geometry, case.inputs(operation))

    def answer(self, operation: str, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        """The outputs of `operation`: the core's, where the fault does not touch it."""
        self.hooks = self.fault.hooks if self.fault.touches(geometry, operation) else {}
        if "inputs" in self.hooks:
            inputs = self.hooks["inputs"](self, inputs, geometry)
        with np.errstate(over="ignore", invalid="ignore"):
            outputs: Tensors = getattr(self, operation)(geometry, inputs)
        return outputs

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"weight": self._compose(geometry, inputs)}

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"y": self._convolve(geometry, inputs, self._compose(geometry, inputs), inputs.get("bias"))}

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        weight, bias = self._compose(geometry, inputs), inputs.get("bias")
        if "folded" in self.hooks:
            weight = self.hooks["folded"](weight, inputs, geometry)
        if "folded_bias" in self.hooks and bias is not None:
            bias = self.hooks["folded_bias"](bias, geometry)
        y = self._convolve(geometry, inputs, weight, bias)
        return {"weight": weight, "y": y} | ({} if bias is None else {"bias": bias})

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        W, D_delta = start_from_kernel(inputs["weight"], geometry, np.random.default_rng(0))
        outputs = {"W": W} | ({} if D_delta is None else {"D_delta": D_delta})
        outputs |= self.compose(geometry, outputs)
        return self.hooks["started"](outputs, inputs["weight"], geometry) if "started" in self.hooks else outputs

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        g = self._geometry(geometry)
        x, bias = self._move("x", inputs["x"], geometry), inputs.get("bias")
        kernel = self._used(self._compose(geometry, inputs), inputs, geometry)
        y_shape = (len(x), g.out_channels, *g.output_size(x.shape[2:]))
        grad_y = self._adjoint("y", inputs["grad_y"], y_shape, geometry)
        grad_x, grad_kernel, grad_bias = self._convolve_vjp(x, kernel, grad_y, g)
        grad_kernel = self._gradient("grad_kernel", self._adjoint("kernel", grad_kernel, g.kernel_shape, geometry), g)
        grad_W, grad_D = self._compose_vjp(geometry, inputs, grad_kernel)
        gradients = {
            "grad_x": (self._adjoint("x", grad_x, inputs["x"].shape, geometry), inputs["x"].dtype),
            "grad_W": (self._adjoint("W", grad_W, geometry.w_shape, geometry), inputs["W"].dtype),
        }
        if grad_D is not None:
            gradients["grad_D_delta"] = (
                self._adjoint("D_delta", grad_D, geometry.d_shape, geometry), inputs["W"].dtype
            )  # fmt: skip
        if bias is not None:
            gradients["grad_bias"] = (self._adjoint("bias", grad_bias, bias.shape, geometry), bias.dtype)
        outputs = {
            name: self._cast(self._gradient(name, value, geometry), dtype) for name, (value, dtype) in gradients.items()
        }
        return self.hooks["gradients"](outputs, inputs, geometry) if "gradients" in self.hooks else outputs

    def _compose(self, geometry: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if "compose" in self.hooks:
            return self.hooks["compose"](self, geometry, inputs)
        W = self._move("W", inputs["W"].astype(np.float64), geometry)
        weight = W @ self._identity(geometry).T
        if "D_delta" in inputs:
            D = self._delta(geometry) * self._move("D_delta", inputs["D_delta"].astype(np.float64), geometry)
            rows = self._rows(geometry)
            for block in _blocks(rows, D):
                weight[block] += (D[rows[block]] @ W[block, :, :, None])[..., 0]
        kernel = self._move("kernel", weight.reshape(geometry.kernel_shape), geometry)
        return self._cast(kernel, inputs["W"].dtype)

    def _compose_vjp(
        self, geometry: ConvGeometry, inputs: Tensors, grad_kernel: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        W = self._move("W", inputs["W"].astype(np.float64), geometry)
        D = None
        if "D_delta" in inputs:
            D = self._delta(geometry) * self._move("D_delta", inputs["D_delta"].astype(np.float64), geometry)
        if "compose_vjp" in self.hooks:
            return self.hooks["compose_vjp"](W, D, grad_kernel, geometry)
        g = grad_kernel.reshape(*W.shape[:2], geometry.taps)
        grad_W = g @ self._identity(geometry)
        if D is None:
            return grad_W, None
        rows = self._rows(geometry)
        if "sum_group" in self.hooks:
            products = self._delta(geometry) * g[..., :, None] * W[..., None, :]
            return grad_W + (g[..., None, :] @ D[rows])[..., 0, :], self.hooks["sum_group"](products, rows, geometry)
        grad_D = np.zeros(D.shape)
        for block in _blocks(rows, D):
            grad_W[block] += (g[block, :, None, :] @ D[rows[block]])[..., 0, :]
            np.add.at(grad_D, rows[block], self._delta(geometry) * g[block, :, :, None] * W[block, :, None, :])
        return grad_W, grad_D

    def _convolve(
        self, geometry: ConvGeometry, inputs: Tensors, weight: np.ndarray, bias: np.ndarray | None
    ) -> np.ndarray:
        g = self._geometry(geometry)
        x = self._move("x", inputs["x"], geometry)
        kernel = self._used(weight, inputs, geometry)
        bias = None if bias is None else self._move("bias", bias, geometry)
        if "convolve" in self.hooks:
            y = self.hooks["convolve"](x, kernel, bias, g)
        elif "padded" in self.hooks and not g.transposed:
            y = convolve(self.hooks["padded"](x, g), kernel, bias, unpadded(g), dtype=np.float64)
        else:
            y = convolve(x, kernel, bias, g, dtype=np.float64)
        y = self._move("y", y, geometry)
        if "result" in self.hooks:
            y = self.hooks["result"](y, kernel, inputs, geometry)
        return self._cast(y, inputs["x"].dtype)

    def _convolve_vjp(
        self, x: np.ndarray, kernel: np.ndarray, grad_y: np.ndarray, g: ConvGeometry
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if "padded" not in self.hooks or g.transposed:
            return convolve_vjp(x, kernel, grad_y, g, dtype=np.float64)
        move = self.hooks["padded"]
        gradients = convolve_vjp(move(x, g), kernel, grad_y, unpadded(g), dtype=np.float64)
        return adjoint(lambda tensor: move(tensor, g), gradients[0], x.shape), *gradients[1:]

    def _used(self, kernel: np.ndarray, inputs: Tensors, geometry: ConvGeometry) -> np.ndarray:
        """Rounded to the type of the activations."""
        kernel = self._cast(kernel, inputs["x"].dtype)
        return self.hooks["used"](kernel, inputs, geometry) if "used" in self.hooks else kernel

    def _cast(self, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
        cast: np.ndarray = self.hooks["cast"](tensor, dtype) if "cast" in self.hooks else tensor.astype(dtype)
        return cast

    def _move(self, name: str, tensor: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
        moved: np.ndarray = self.hooks[name](tensor, geometry) if name in self.hooks else tensor
        return moved

    def _adjoint(self, name: str, gradient: np.ndarray, shape: tuple[int, ...], geometry: ConvGeometry) -> np.ndarray:
        return moved_back(self.hooks[name], gradient, shape, geometry) if name in self.hooks else gradient

    def _gradient(self, name: str, gradient: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
        changed: np.ndarray = self.hooks[name](gradient, geometry) if name in self.hooks else gradient
        return changed

    def _geometry(self, geometry: ConvGeometry) -> ConvGeometry:
        changed: ConvGeometry = self.hooks["geometry"](geometry) if "geometry" in self.hooks else geometry
        return changed

    def _rows(self, geometry: ConvGeometry) -> np.ndarray:
        rows: np.ndarray = self.hooks["rows"](geometry) if "rows" in self.hooks else geometry.rows
        return rows

    def _identity(self, geometry: ConvGeometry) -> np.ndarray:
        matrix: np.ndarray = self.hooks["identity"](geometry) if "identity" in self.hooks else _identity(geometry)
        return matrix

    def _delta(self, geometry: ConvGeometry) -> float:
        factor: float = self.hooks["delta"](geometry) if "delta" in self.hooks else 1.0
        return factor


@dataclass(frozen=True)
class Linear:
    """A hook that adds elements up, with its gradient: both `(tensor, geometry) -> tensor`."""

    change: Callable[[np.ndarray, ConvGeometry], np.ndarray]
    back: Callable[[np.ndarray, ConvGeometry], np.ndarray]

    def __call__(self, tensor: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
        return self.change(tensor, geometry)


def moved_back(hook: Any, gradient: np.ndarray, shape: tuple[int, ...], geometry: ConvGeometry) -> np.ndarray:
    """The gradient through a hook that moves elements, or a `Linear` one, on `shape`."""
    if isinstance(hook, Linear):
        return hook.back(gradient, geometry)
    return adjoint(lambda tensor: hook(tensor, geometry), gradient, shape)


def adjoint(move: Callable[[np.ndarray], np.ndarray], gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient through a function that moves, drops or repeats elements, multiplies them or adds to them, on `shape`.

    A function that adds elements up is taken apart an element at a time, where there are not too many.

    Raises:
        ValueError: the gradient is not of the shape that the function returns.
    """
    size = int(np.prod(shape))
    nothing = move(np.zeros(shape))
    where = move(np.arange(1.0, size + 1).reshape(shape)) - nothing
    if where.shape != gradient.shape:
        raise ValueError(f"the gradient must have shape {where.shape}. Received: {gradient.shape}")
    factor = move(np.ones(shape)) - nothing
    index = np.rint(np.divide(where, factor, out=np.zeros(where.shape), where=factor != 0)).astype(np.int64).ravel()
    if not _moves_only(move, nothing, factor, index, shape):
        if _is_symmetric(move, nothing, shape):
            return move(gradient) - nothing
        if size <= MOST_ELEMENTS:
            each = np.eye(size).reshape(size, *shape)
            return np.array([(gradient * (move(one) - nothing)).sum() for one in each]).reshape(shape)
    result = np.zeros(size + 1)
    np.add.at(result, index, (factor * gradient).ravel())
    return result[1:].reshape(shape)


def _moves_only(
    move: Callable[[np.ndarray], np.ndarray], nothing: np.ndarray, factor: np.ndarray, index: np.ndarray,
    shape: tuple[int, ...],
) -> bool:  # fmt: skip
    """Whether every element that comes out is a multiple of the one element at `index`, from 1 on, or none of them (0)."""
    elements = np.concatenate([[0.0], np.random.default_rng(0).random(int(np.prod(shape)))])
    if index.min(initial=0) < 0 or index.max(initial=0) >= len(elements):
        return False
    moved = move(elements[1:].reshape(shape)) - nothing  # random numbers in float64: another element is far off
    return np.allclose(moved, factor * elements[index].reshape(factor.shape))


def _is_symmetric(move: Callable[[np.ndarray], np.ndarray], nothing: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the function is its own gradient, as subtracting a mean is."""
    one, other = np.random.default_rng(1).random((2, *shape))
    if nothing.shape != shape:
        return False
    # Float64, rounded a few hundred times; functions that are not their own gradient differ in the first digits.
    return bool(np.isclose(((move(one) - nothing) * other).sum(), ((move(other) - nothing) * one).sum(), rtol=1e-9))


def _blocks(rows: np.ndarray, D: np.ndarray) -> list[slice]:
    """Kernels whose rows of `D` together are not too large to copy."""
    step = max(1, MAX_COPIED // (rows.shape[1] * D[0].size))
    return [slice(start, start + step) for start in range(0, len(rows), step)]


_identity = cache(identity)


@cache
def unpadded(geometry: ConvGeometry) -> ConvGeometry:
    """The same convolution on an input that is padded already."""
    return ConvGeometry.from_json(geometry.to_json() | {"padding": 0, "padding_mode": "zeros"})
