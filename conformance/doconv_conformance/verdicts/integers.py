"""Expected values of the exact cases in Python integers, by the definitions alone and without the core.

Every loop is written out; nothing is shared with `doconv_core`, so that a mistake there cannot hide here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np

from doconv_conformance.cases.table import Case

Nested = dict[tuple[int, ...], int]


def expected(case: Case, operation: str) -> dict[str, np.ndarray]:
    """The outputs of `operation` (of `case.operations`) on an exact case, as float64 arrays of integers."""
    g = case.geometry
    w, d = _integers(case, "W"), _integers(case, "D_delta")
    kernel = dict.fromkeys(np.ndindex(*g.kernel_shape), 0)
    pairs = list(composition_products(case))
    for kernel_key, d_key, w_key, identity in pairs:
        kernel[kernel_key] += (identity + d.get(d_key, 0)) * w[w_key]
    if operation == "compose":
        return {"weight": _array(kernel, g.kernel_shape)}

    x, grad_y, bias = (_integers(case, name) for name in ("x", "grad_y", "bias"))
    y_shape = case.tensors["grad_y"].shape
    y = {key: bias.get((key[1],), 0) for key in np.ndindex(*y_shape)}
    grad_x = dict.fromkeys(x, 0)
    grad_kernel = dict.fromkeys(kernel, 0)
    for y_key, x_key, kernel_key in convolution_products(case, y_shape):
        y[y_key] += kernel[kernel_key] * x[x_key]
        grad_x[x_key] += kernel[kernel_key] * grad_y[y_key]
        grad_kernel[kernel_key] += x[x_key] * grad_y[y_key]
    result = {"y": _array(y, y_shape)}
    if operation == "forward":
        return result
    if operation == "fold":
        folded = {"weight": _array(kernel, g.kernel_shape)}
        return result | folded | ({"bias": _array(bias, (g.out_channels,))} if case.bias else {})

    grad_w, grad_d, grad_bias = dict.fromkeys(w, 0), dict.fromkeys(d, 0), dict.fromkeys(bias, 0)
    for kernel_key, d_key, w_key, identity in pairs:
        grad_w[w_key] += (identity + d.get(d_key, 0)) * grad_kernel[kernel_key]
        if g.has_d:
            grad_d[d_key] += w[w_key] * grad_kernel[kernel_key]
    for key in grad_y if case.bias else ():
        grad_bias[(key[1],)] += grad_y[key]
    gradients = {"grad_x": _array(grad_x, case.tensors["x"].shape), "grad_W": _array(grad_w, g.w_shape)}
    if g.has_d:
        gradients["grad_D_delta"] = _array(grad_d, g.d_shape)
    if case.bias:
        gradients["grad_bias"] = _array(grad_bias, (g.out_channels,))
    return gradients


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


def _integers(case: Case, name: str) -> Nested:
    tensor = case.tensors.get(name)
    if tensor is None:
        return {}
    return {index: int(tensor[index]) for index in np.ndindex(*tensor.shape)}


def _array(values: Mapping[tuple[int, ...], int], shape: tuple[int, ...]) -> np.ndarray:
    array = np.zeros(shape)
    for index, value in values.items():
        array[index] = value
    return array
