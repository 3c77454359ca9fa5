"""Expected values of the exact cases in integers, by the definitions alone and without the core.

Nothing is shared with `doconv_core`, so that a mistake there cannot hide here. A tensor is an array of 64-bit integers times a
power of two; sums of exact cases stay far below 2**63. `composition_products` and `convolution_products` are the same
definitions once more, product by product; a test adds these up in Python integers and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from doconv_conformance.cases.table import DTYPES, Case
from doconv_core.geometry import ConvGeometry


class Scaled(NamedTuple):
    """`integers * 2**exponent`."""

    integers: np.ndarray
    exponent: int

    @classmethod
    def of(cls, tensor: np.ndarray) -> Scaled:
        """Exactly the numbers of a floating-point tensor.

        Raises:
            ValueError: they span more than 62 bits.
        """
        fraction, exponent = np.frexp(tensor.astype(np.float64))
        whole = (fraction * 2.0**53).astype(np.int64)
        if not whole.any():
            return cls(whole, 0)
        lowest = np.frexp((whole & -whole).astype(np.float64))[1] - 1 + exponent - 53
        unit = int(lowest[whole != 0].min())
        if int(exponent[whole != 0].max()) - unit > 62:
            raise ValueError("the numbers span more than 62 bits")
        return cls(np.ldexp(fraction, np.where(whole != 0, exponent - unit, 0)).astype(np.int64), unit)

    def __add__(self, other: Scaled) -> Scaled:  # type: ignore[override]  # numbers add up, tuples do not
        unit = min(self.exponent, other.exponent)
        return Scaled(self.at(unit) + other.at(unit), unit)

    def at(self, unit: int) -> np.ndarray:
        """The integers in another, smaller or equal unit."""
        return self.integers * 2 ** (self.exponent - unit)

    def rounded(self, dtype: str) -> np.ndarray:
        """Rounded once to a type, as float64; what is too large for the type is infinite."""
        wide = np.ldexp(self.integers.astype(np.float64), self.exponent)
        with np.errstate(over="ignore"):
            return wide.astype(DTYPES[dtype]).astype(np.float64)


def expected(case: Case, operation: str) -> dict[str, np.ndarray]:
    """The outputs of `operation` on a case whose numbers are `draws.KNOWN`, as float64 arrays.

    The composed kernel is rounded to the parameters' type, then to that of the activations. Both hold it exactly, except where
    the numbers are made to show this rounding.
    """
    g, types = case.geometry, {"y": case.dtype, "grad_x": case.dtype}
    if operation == "initialise":
        return _start(case)
    given = {name: Scaled.of(tensor) for name, tensor in case.tensors.items()}
    weight = _compose(given["W"], given.get("D_delta"), g).rounded(case.param_dtype)
    if operation == "compose":
        return {"weight": weight}
    kernel = Scaled.of(Scaled.of(weight).rounded(case.dtype))
    if operation in ("forward", "fold"):
        results = {"y": _convolve(given["x"], kernel, given.get("bias"), g, case.tensors["grad_y"].shape)}
        fixed = {"weight": weight} | ({"bias": given["bias"].rounded(case.param_dtype)} if case.bias else {})
        fixed = fixed if operation == "fold" else {}
    else:
        results, fixed = _gradients(given, kernel, g), {}
    return {name: result.rounded(types.get(name, case.param_dtype)) for name, result in results.items()} | fixed


def _start(case: Case) -> dict[str, np.ndarray]:
    """The layer that starts from `weight`; without `W` where it has surplus columns, which are free."""
    g, weight = case.geometry, case.tensors["weight"].astype(np.float64)
    outputs = {"weight": weight}
    if g.d_mul % g.taps == 0:
        outputs["W"] = np.zeros(g.w_shape)
        outputs["W"][..., : g.taps] = weight.reshape(*g.w_shape[:2], g.taps)
    return outputs | ({"D_delta": np.zeros(g.d_shape)} if g.has_d else {})


def _groups(g: ConvGeometry) -> Iterator[tuple[slice, slice]]:
    """The input and the output channels of each group."""
    read, written = g.in_channels // g.groups, g.out_channels // g.groups
    for group in range(g.groups):
        yield slice(group * read, (group + 1) * read), slice(group * written, (group + 1) * written)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a @ b` of integers; by the matrix library, which knows float64, where every sum is an integer that float64 holds."""
    largest = int(np.abs(a).max(initial=0)) * int(np.abs(b).max(initial=0)) * a.shape[-1]
    if largest < 2**53:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    return a @ b


def _by_input(array: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """`(o, i, ...)` of a convolution as `(i, o, ...)`, or back; a transposed one has that order."""
    return array if g.transposed else array.swapaxes(0, 1)


def _compose(W: Scaled, D: Scaled | None, g: ConvGeometry) -> Scaled:
    identity = sum(W.integers[..., tile * g.taps : (tile + 1) * g.taps] for tile in range(g.d_mul // g.taps))
    composed = Scaled(np.asarray(identity), W.exponent)
    if D is not None:
        part = np.zeros((*g.w_shape[:2], g.taps), np.int64)
        for read, written in _groups(g):
            own = read if g.transposed else written
            part[own] = _by_input(_product(_by_input(W.integers[own], g), D.integers[read].swapaxes(1, 2)), g)
        composed += Scaled(part, W.exponent + D.exponent)
    return Scaled(composed.integers.reshape(g.kernel_shape), composed.exponent)


def _meetings(
    g: ConvGeometry, smaller: tuple[int, ...], larger: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """For each tap, the positions of the larger side that those of the smaller meet, one array an axis; none is `size`."""
    for tap in product(*map(range, g.kernel_size)):
        positions = []
        for axis, k in enumerate(tap):
            size, low = larger[axis], g.padding[axis][0]
            met = (g.stride[axis] * p + g.dilation[axis] * k - low for p in range(smaller[axis]))
            inside = [_inside(position, size, g.padding_mode) for position in met]
            positions.append(np.array([size if position is None else position for position in inside]))
        yield tap, np.ix_(*positions)


def _extended(array: np.ndarray) -> np.ndarray:
    """With a zero behind the end of every spatial axis, for what lies outside."""
    return np.pad(array, [(0, 0), (0, 0)] + [(0, 1)] * (array.ndim - 2))


def _flat(array: np.ndarray) -> np.ndarray:
    """The spatial axes as one."""
    return array.reshape(*array.shape[:2], -1)


def _convolve(x: Scaled, kernel: Scaled, bias: Scaled | None, g: ConvGeometry, y_shape: tuple[int, ...]) -> Scaled:
    smaller, larger = (x.integers.shape, y_shape) if g.transposed else (y_shape, x.integers.shape)
    source, y = x.integers, np.zeros(y_shape, np.int64)
    source, y = (source, _extended(y)) if g.transposed else (_extended(source), y)
    for tap, met in _meetings(g, smaller[2:], larger[2:]):
        for read, written in _groups(g):
            own: tuple[Any, ...] = (read if g.transposed else written, slice(None), *tap)
            weights = kernel.integers[own]
            seen = source[:, read] if g.transposed else source[:, read][(..., *met)]
            part = _product(weights.T if g.transposed else weights, _flat(seen))
            part = part.reshape(*part.shape[:2], *smaller[2:])
            if g.transposed:
                y[:, written][(..., *met)] += part
            else:
                y[:, written] += part
    result = Scaled(y[tuple(slice(size) for size in y_shape)], x.exponent + kernel.exponent)
    if bias is None:
        return result
    return result + Scaled(bias.integers.reshape(-1, *[1] * g.spatial_rank), bias.exponent)


def _gradients(given: dict[str, Scaled], kernel: Scaled, g: ConvGeometry) -> dict[str, Scaled]:
    x, grad_y, W, D = given["x"], given["grad_y"], given["W"], given.get("D_delta")
    grad_x, grad_kernel = _convolution_gradients(x, grad_y, kernel, g)
    flat = grad_kernel.integers.reshape(*g.w_shape[:2], g.taps)
    tiled = np.zeros(g.w_shape, np.int64)
    for tile in range(g.d_mul // g.taps):
        tiled[..., tile * g.taps : (tile + 1) * g.taps] = flat
    grad_W = Scaled(tiled, grad_kernel.exponent)
    if D is None:
        gradients = {"grad_x": grad_x, "grad_W": grad_W}
    else:
        part, grad_D = np.zeros(g.w_shape, np.int64), np.zeros(g.d_shape, np.int64)
        for read, written in _groups(g):
            own = read if g.transposed else written
            of_kernels = _by_input(flat[own], g)
            part[own] = _by_input(_product(of_kernels, D.integers[read]), g)
            grad_D[read] = _product(of_kernels.swapaxes(1, 2), _by_input(W.integers[own], g))
        grad_W += Scaled(part, D.exponent + grad_kernel.exponent)
        of_D = Scaled(grad_D, grad_kernel.exponent + W.exponent)
        gradients = {"grad_x": grad_x, "grad_W": grad_W, "grad_D_delta": of_D}
    if "bias" in given:
        axes = (0, *range(2, grad_y.integers.ndim))
        gradients["grad_bias"] = Scaled(grad_y.integers.sum(axis=axes), grad_y.exponent)
    return gradients


def _convolution_gradients(x: Scaled, grad_y: Scaled, kernel: Scaled, g: ConvGeometry) -> tuple[Scaled, Scaled]:
    """Of `x` and of the composed kernel."""
    x_shape, y_shape = x.integers.shape, grad_y.integers.shape
    smaller, larger = (x_shape, y_shape) if g.transposed else (y_shape, x_shape)
    source = _extended(grad_y.integers if g.transposed else x.integers)
    grad_x = np.zeros(x_shape, np.int64) if g.transposed else np.zeros_like(source)
    grad_kernel = np.zeros(g.kernel_shape, np.int64)
    for tap, met in _meetings(g, smaller[2:], larger[2:]):
        for read, written in _groups(g):
            own: tuple[Any, ...] = (read if g.transposed else written, slice(None), *tap)
            seen = _flat(source[:, written if g.transposed else read][(..., *met)])
            given = _flat(x.integers[:, read] if g.transposed else grad_y.integers[:, written])
            grad_kernel[own] = _product(given, seen.swapaxes(1, 2)).sum(axis=0)
            weights = kernel.integers[own]
            if g.transposed:
                part = _product(weights, seen)
                grad_x[:, read] += part.reshape(*part.shape[:2], *smaller[2:])
            else:  # several positions can meet one element, where the padding repeats it
                part = _product(weights.T, given)
                part = part.reshape(*part.shape[:2], *smaller[2:])
                np.add.at(grad_x[:, read], (slice(None), slice(None), *met), part)
    inside = grad_x[tuple(slice(size) for size in x_shape)]
    return Scaled(inside, grad_y.exponent + kernel.exponent), Scaled(grad_kernel, x.exponent + grad_y.exponent)


def composition_products(case: Case) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]]:
    """Every product of the composition: keys of the composed kernel, of `D` and of `W`, and the entry of `E`."""
    g = case.geometry
    taps = list(product(*(range(size) for size in g.kernel_size)))
    tiled = len(taps) * (g.d_mul // len(taps))
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    for group, local_in, local_out in product(range(g.groups), range(in_group), range(out_group)):
        i, o = group * in_group + local_in, group * out_group + local_out
        channels = (i, local_out) if g.transposed else (o, local_in)
        for k, tap in enumerate(taps):
            for s in range(g.d_mul):
                identity = 1 if s < tiled and s % len(taps) == k else 0
                yield (*channels, *tap), (i, k, s), (*channels, s), identity


def convolution_products(
    case: Case, y_shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Every product of the convolution: keys of the output, of the input and of the composed kernel."""
    g = case.geometry
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    sizes = case.input_size if g.transposed else y_shape[2:]
    other = y_shape[2:] if g.transposed else case.input_size
    reach = []  # for every position of the smaller side and every tap: the position they meet on the other side
    for position, tap in product(np.ndindex(*sizes), product(*(range(size) for size in g.kernel_size))):
        positions = [
            _inside(g.stride[a] * position[a] + g.dilation[a] * tap[a] - g.padding[a][0], other[a], g.padding_mode)
            for a in range(len(tap))
        ]
        inside = tuple(where for where in positions if where is not None)
        if len(inside) == len(positions):
            reach.append((position, tap, inside))
    for n, group, local_in, local_out in product(*map(range, (case.batch, g.groups, in_group, out_group))):
        i, o = group * in_group + local_in, group * out_group + local_out
        for position, tap, met in reach:
            if g.transposed:
                yield (n, o, *met), (n, i, *position), (i, local_out, *tap)
            else:
                yield (n, o, *position), (n, i, *met), (o, local_in, *tap)


def _inside(position: int, size: int, mode: str) -> int | None:
    """The element of the input at a position that may lie outside; None where that is a zero."""
    if 0 <= position < size:
        return position
    if mode == "replicate":
        return 0 if position < 0 else size - 1
    if mode == "circular":
        return position % size
    if mode == "reflect":
        return -position if position < 0 else 2 * (size - 1) - position
    return None
