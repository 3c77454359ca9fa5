"""What can happen along the axes of any tensor: orders, ends, factors, groups, taps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, permutations
from typing import Any

import numpy as np

from doconv_conformance.faults.faulty_port import Fault, Linear
from doconv_core.geometry import ConvGeometry

# `(tensor, geometry) -> tensor`. A lambda that remembers a variable by a default has no type that mypy could infer.
Move = Any
AXES = ("first", "second", "third")
TENSORS = {
    "W": "W",
    "D_delta": "D",
    "kernel": "the composed kernel",
    "delta_W": "W in the product with D_delta",
    "identity_W": "W in its product with the identity",
    "grad_W": "the gradient of W",
    "grad_D_delta": "the gradient of D_delta",
    "grad_kernel": "the gradient of the composed kernel",
    "grad_x": "the gradient of x",
    "grad_bias": "the gradient of the bias",
    "x": "x",
    "y": "y",
    "bare": "the output before the bias",
    "bias": "the bias",
    "conv_kernel": "the kernel that it convolves with",
    "grad_x_kernel": "the kernel that the gradient of x is made of",
    "grad_delta_D": "D in the gradient of W",
    "grad_delta_W": "W in the gradient of D_delta",
}
ORDERS = {"W": ("C_out", "C_in/G", "S"), "D_delta": ("C_in", "K", "S")}


def move(hook: str, name: str, words: str, look_at: str, change: Move) -> Fault:
    """A fault that moves elements of one tensor. `{}` in the words stands for the tensor."""
    return Fault(f"{hook}-{name}", words.format(TENSORS[hook]), look_at.format(TENSORS[hook]), {hook: change})


def re_read(hook: str, axes: tuple[str, str, str]) -> Iterator[Fault]:
    """A tensor of three axes whose buffer is read as if they came in another order."""
    for order in permutations(range(3)):
        if order == (0, 1, 2):
            continue
        read = f"({', '.join(axes[axis] for axis in order)})"

        def change(tensor: np.ndarray, g: ConvGeometry, order: tuple[int, ...] = order) -> np.ndarray:
            return tensor.reshape([tensor.shape[axis] for axis in order]).transpose(np.argsort(order))

        yield move(
            hook, f"read-as-{read}", f"reads {{}} as {read} where it is ({', '.join(axes)})", "the axes of {}", change
        )


def swapped(hook: str, first: int, second: int, names: tuple[str, str]) -> Fault:
    """Two axes exchanged, where they have the same length."""

    def change(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
        return tensor.swapaxes(first, second) if tensor.shape[first] == tensor.shape[second] else tensor

    return move(
        hook,
        f"swap-{names[0]}-{names[1]}",
        f"exchanges the axes {names[0]} and {names[1]} of {{}}",
        "the axes of {}",
        change,
    )


def along(hook: str, axis: int, name: str) -> Iterator[Fault]:
    """What happens along one axis: reversed, rotated, its ends lost or repeated."""

    def only(keep: Any) -> Move:
        def change(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
            size = tensor.shape[axis]
            shape = [1] * tensor.ndim
            shape[axis] = size
            return np.where(keep(np.arange(size), size).reshape(shape), tensor, 0.0)

        return change

    yield move(
        hook,
        f"{name}-reversed",
        f"has {{}} in reverse order along {name}",
        f"the order of {name} in {{}}",
        lambda tensor, g: np.flip(tensor, axis),
    )
    yield move(
        hook,
        f"{name}-until-zero",
        f"stops at the first 0 of {{}} along {name}",
        f"what a zero ends along {name}",
        lambda tensor, g: tensor * np.cumprod(tensor != 0, axis),
    )
    for step, words in ((1, "one ahead"), (-1, "one behind")):
        yield move(
            hook,
            f"{name}-{words.replace(' ', '-')}",
            f"reads {{}} {words} along {name}",
            f"an index along {name} of {{}}",
            lambda tensor, g, step=step: np.roll(tensor, -step, axis),
        )
    yield move(
        hook,
        f"{name}-last-dropped",
        f"leaves out the last entry of {{}} along {name}",
        f"the range of {name}",
        only(lambda at, size: at < size - 1),
    )
    yield move(
        hook,
        f"{name}-first-dropped",
        f"leaves out the first entry of {{}} along {name}",
        f"the range of {name}",
        only(lambda at, size: at > 0),
    )
    yield move(
        hook,
        f"{name}-first-only",
        f"takes the first entry of {{}} along {name} for all",
        f"the index along {name}",
        lambda tensor, g: np.repeat(np.take(tensor, [0], axis), tensor.shape[axis], axis),
    )
    yield move(
        hook,
        f"{name}-last-only",
        f"takes the last entry of {{}} along {name} for all",
        f"the index along {name}",
        lambda tensor, g: np.repeat(np.take(tensor, [-1], axis), tensor.shape[axis], axis),
    )
    for label, words, of in (("mean", "the mean", np.mean), ("sum", "the sum", np.sum)):
        yield move(
            hook,
            f"{name}-{label}",
            f"takes {words} of {{}} along {name} for every entry",
            f"the index along {name}",
            lambda tensor, g, of=of: np.broadcast_to(of(tensor, axis=axis, keepdims=True), tensor.shape),
        )
    yield move(
        hook,
        f"{name}-centred",
        f"subtracts from {{}} its mean along {name}",
        "a normalisation of {}",
        lambda tensor, g: tensor - np.mean(tensor, axis=axis, keepdims=True),
    )
    for label, words, index in (
        ("pairs-exchanged", "exchanges each even entry of {} with the odd one after it", _pairs_exchanged),
        ("halves-exchanged", "exchanges the halves of {}", lambda at, size: (at + size // 2) % size),
        *(
            (
                f"modulo-{width}",
                f"takes entry i modulo {width} of {{}} for entry i",
                lambda at, size, width=width: at % width,
            )
            for width in (2, 4, 8, 16)
        ),
    ):
        yield move(
            hook,
            f"{name}-{label}",
            f"{words} along {name}",
            f"the index along {name}",
            lambda tensor, g, index=index: np.take(
                tensor, index(np.arange(tensor.shape[axis]), tensor.shape[axis]), axis
            ),
        )
    yield move(
        hook,
        f"{name}-all-but-last-dropped",
        f"leaves out all but the last entry of {{}} along {name}",
        f"the range of {name}",
        only(lambda at, size: at == size - 1),
    )
    yield move(
        hook,
        f"{name}-pairs",
        f"takes each even entry of {{}} along {name} for the odd one after it",
        f"the index along {name}",
        lambda tensor, g: np.take(tensor, np.arange(tensor.shape[axis]) // 2 * 2, axis),
    )
    yield move(
        hook,
        f"{name}-odd-dropped",
        f"leaves out the odd entries of {{}} along {name}",
        f"a loop along {name} in steps of 2",
        only(lambda at, size: at % 2 == 0),
    )
    yield move(
        hook,
        f"{name}-even-dropped",
        f"leaves out the even entries of {{}} along {name}",
        f"a loop along {name} in steps of 2",
        only(lambda at, size: at % 2 == 1),
    )
    yield move(
        hook,
        f"{name}-all-but-first-dropped",
        f"leaves out all but the first entry of {{}} along {name}",
        f"the range of {name}",
        only(lambda at, size: at < 1),
    )
    yield move(
        hook,
        f"{name}-last-of-several-dropped",
        f"leaves out the last entry of {{}} along {name} where there are several",
        f"the range of {name}",
        only(lambda at, size: (at < size - 1) | (size == 1)),
    )
    for width in (4, 8, 16):  # the remainder of a loop over vectors
        yield move(
            hook,
            f"{name}-remainder-of-{width}-and-below",
            f"leaves out what is beyond the last multiple of {width} along {name} of {{}}, everything where there are fewer",
            f"the remainder of a loop over blocks of {width}",
            only(lambda at, size, width=width: at < size // width * width),
        )
        yield move(
            hook,
            f"{name}-remainder-of-{width}",
            f"leaves out what is beyond the last multiple of {width} along {name} of {{}}",
            f"the remainder of a loop over blocks of {width}",
            only(lambda at, size, width=width: (at < size // width * width) | (size < width)),
        )
    for width in (4, 8, 16, 32, 64, 128, 256):
        yield move(
            hook,
            f"{name}-first-{width}",
            f"takes only the first {width} entries of {{}} along {name}",
            f"a buffer or a loop of {width}",
            only(lambda at, size, width=width: at < width),
        )


def in_bytes(hook: str) -> Iterator[Fault]:
    """Indices that are counted in a byte, so that element 256 is element 0 again: of the whole tensor, or of a part of it."""
    for axes, of in ((0, "in the whole tensor"), (1, "in each entry of its first axis"), (2, "in each channel")):

        def read(tensor: np.ndarray, g: ConvGeometry, axes: int = axes) -> np.ndarray:
            flat = tensor.reshape(*tensor.shape[:axes], -1)
            return flat[..., np.arange(flat.shape[-1]) % 256].reshape(tensor.shape)

        def written(tensor: np.ndarray, g: ConvGeometry, axes: int = axes) -> np.ndarray:
            flat = tensor.reshape(*tensor.shape[:axes], -1)
            size, last = flat.shape[-1], np.zeros_like(flat)
            kept = np.arange(max(size - 256, 0), size)  # what is written later stays
            last[..., kept % 256] = flat[..., kept]
            return last.reshape(tensor.shape)

        for name, words, change in (("read", "reads", read), ("written", "writes", written)):
            if name == "read" or hook in ("y", "bare", "kernel"):
                said = f"{words} element i modulo 256 of {{}} for element i, counted {of}"
                yield move(hook, f"byte-{name}-{axes}", said, "an index of {} that is kept in 8 bits", change)


def _pairs_exchanged(at: np.ndarray, size: int) -> np.ndarray:
    return np.where(at ^ 1 < size, at ^ 1, at)


def scaled(hook: str) -> Iterator[Fault]:
    """Factors."""
    for factor, words in ((-1, "negates {}"), (2, "counts {} twice"), (0, "takes zeros for {}")):
        yield move(
            hook, f"times-{factor}", words, "a factor or a sign of {}", lambda tensor, g, factor=factor: factor * tensor
        )
    for name, words, change in (
        ("absolute", "takes the absolute values of {}", np.abs),
        ("positive", "takes 0 for negative entries of {}", lambda tensor: np.maximum(tensor, 0)),
        ("squared", "squares {}", np.square),
        ("halved", "halves {}", lambda tensor: tensor / 2),
    ):
        yield move(hook, name, words, "what is done to {}", lambda tensor, g, change=change: change(tensor))
    yield move(
        hook,
        "centred",
        "subtracts from each {} its mean over all but the first axis",
        "a normalisation of {}",
        lambda tensor, g: tensor - tensor.mean(axis=tuple(range(1, tensor.ndim)), keepdims=True),
    )
    for name, words, of in (
        ("over-G", "divided by the number of groups", lambda g: 1 / g.groups),
        ("over-K", "divided by the number of taps", lambda g: 1 / g.taps),
        ("over-S", "divided by the depth multiplier", lambda g: 1 / g.d_mul),
        ("over-in", "divided by C_in/G", lambda g: g.groups / g.in_channels),
        ("over-out", "divided by C_out/G", lambda g: g.groups / g.out_channels),
        ("over-tiles", "divided by the number of whole tiles", lambda g: 1 / (g.d_mul // g.taps)),
        ("over-root-K", "divided by the root of the number of taps", lambda g: g.taps**-0.5),
        ("G", "times the number of groups", lambda g: g.groups),
        ("K", "times the number of taps", lambda g: g.taps),
        ("S", "times the depth multiplier", lambda g: g.d_mul),
        ("in-per-group", "times C_in/G", lambda g: g.in_channels // g.groups),
        ("out-per-group", "times C_out/G", lambda g: g.out_channels // g.groups),
        ("tiles", "times the number of whole tiles", lambda g: g.d_mul // g.taps),
    ):
        yield move(
            hook, f"times-{name}", f"takes {{}} {words}", "a factor of {}", lambda tensor, g, of=of: of(g) * tensor
        )


def by_group(hook: str, axis: int) -> Iterator[Fault]:
    """Channels in groups: interleaved, groups in reverse order, the first group's for all."""

    def split(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
        return np.moveaxis(tensor, axis, 0).reshape(
            g.groups, tensor.shape[axis] // g.groups, *np.delete(tensor.shape, axis)
        )

    def back(parts: np.ndarray, tensor: np.ndarray) -> np.ndarray:
        return np.moveaxis(parts.reshape(tensor.shape[axis], *np.delete(tensor.shape, axis)), 0, axis)

    def shuffled(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
        return back(split(tensor, g).swapaxes(0, 1), tensor)

    def unshuffled(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
        parts = np.moveaxis(tensor, axis, 0)
        parts = parts.reshape(tensor.shape[axis] // g.groups, g.groups, *np.delete(tensor.shape, axis))
        return back(parts.swapaxes(0, 1), tensor)

    which = "channels of {}"
    yield move(
        hook,
        "interleaved",
        "interleaves the groups in the channels of {}: 0 1 | 2 3 becomes 0 2 | 1 3",
        "the order of the " + which,
        shuffled,
    )
    yield move(
        hook,
        "uninterleaved",
        "takes the channels of {} for interleaved by group: those of one group lie G apart",
        "the order of the " + which,
        unshuffled,
    )
    yield move(
        hook,
        "groups-reversed",
        "has the groups of {} in reverse order",
        "the index of the group in {}",
        lambda tensor, g: back(split(tensor, g)[::-1], tensor),
    )
    yield move(
        hook,
        "first-group",
        "takes the first group of {} for every group",
        "the offset of the group in {}",
        lambda tensor, g: back(np.repeat(split(tensor, g)[:1], g.groups, 0), tensor),
    )
    yield move(
        hook,
        "next-group",
        "takes the next group of {} for each",
        "the index of the group in {}",
        lambda tensor, g: back(np.roll(split(tensor, g), -1, 0), tensor),
    )
    for end, beyond in (("clamped", "not beyond the last"), ("wrapped", "modulo the number of channels")):
        for name, start, words in _starts(hook):
            yield move(
                hook,
                f"group-start-{name}-{end}",
                f"takes the channels of {{}} for group g from {words} on, {beyond}",
                "the first channel of a group in {}",
                lambda tensor, g, start=start, end=end: _from_starts(tensor, axis, g, start, end),
            )
    yield move(
        hook,
        "within-reversed",
        "has the channels within each group of {} in reverse order",
        "the channel within the group",
        lambda tensor, g: back(split(tensor, g)[:, ::-1], tensor),
    )

    yield move(
        hook,
        "summed-into-first-group",
        "adds the channels of every group of {} to those of the first group and leaves the others zero",
        "the offset of the group in {}",
        Linear(
            lambda tensor, g: back(_summed_into_first(split(tensor, g)), tensor),
            lambda grad, g: back(np.repeat(split(grad, g)[:1], g.groups, 0), grad),
        ),
    )

    def part(parts: np.ndarray, keep: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        size = parts.shape[1]
        return np.where(keep(np.arange(size), size).reshape(1, -1, *[1] * (parts.ndim - 2)), parts, 0.0)

    for label, words, keep in (
        ("last", "the last channel", lambda at, size: at < size - 1),
        ("last-of-several", "the last of several channels", lambda at, size: (at < size - 1) | (size == 1)),
        ("first", "the first channel", lambda at, size: at > 0),
        ("rest", "all but the first channel", lambda at, size: at < 1),
        *(
            (
                f"beyond-{width}",
                f"the channels beyond the last multiple of {width}",
                lambda at, size, width=width: (at < size // width * width) | (size < width),
            )
            for width in (2, 4, 8, 16)
        ),
    ):
        yield move(
            hook,
            f"group-{label}-dropped",
            f"leaves out {words} of each group of {{}}",
            "the loop over the channels of a group",
            lambda tensor, g, keep=keep: back(part(split(tensor, g), keep), tensor),
        )
    yield move(
        hook,
        "first-of-group",
        "takes the first channel of each group of {} for the whole group",
        "the channel within the group",
        lambda tensor, g: back(np.repeat(split(tensor, g)[:, :1], tensor.shape[axis] // g.groups, 1), tensor),
    )


def _starts(hook: str) -> Iterator[tuple[str, Callable[[ConvGeometry], int], str]]:
    """How far groups lie apart, where a port takes something else for it."""
    if hook in ("x", "grad_x"):
        yield "of-outputs", lambda g: g.out_channels // g.groups, "g * (C_out/G)"
    elif hook in ("y", "bare", "bias", "grad_bias"):
        yield "of-inputs", lambda g: g.in_channels // g.groups, "g * (C_in/G)"
    else:
        return
    yield "of-number", lambda g: 1, "g"


def _from_starts(
    tensor: np.ndarray, axis: int, g: ConvGeometry, start: Callable[[ConvGeometry], int], end: str
) -> np.ndarray:
    size = tensor.shape[axis]
    of_group = size // g.groups
    first = np.arange(g.groups) * start(g)
    first = np.minimum(first, size - of_group) if end == "clamped" else first
    return np.take(tensor, (first[:, None] + np.arange(of_group)).ravel() % size, axis)


def _summed_into_first(parts: np.ndarray) -> np.ndarray:
    return np.concatenate([parts.sum(0, keepdims=True), np.zeros((len(parts) - 1, *parts.shape[1:]))])


def tap_orders(hook: str, axis: int) -> Iterator[Fault]:
    """Taps, row-major on `axis` (or on the last axes of a kernel), in another order."""
    flips = [axes for count in range(3) for axes in combinations(range(3), count + 1)]
    for axes in flips:
        if axes == (0, 1, 2):
            continue  # the whole flip has its own words below
        where = " and ".join(AXES[a] for a in axes)
        yield move(
            hook,
            f"taps-flipped-{'-'.join(AXES[a] for a in axes)}",
            f"has the taps of {{}} flipped along the {where} spatial axis",
            "the order of the taps of {}",
            _ordered(axis, lambda order, g, axes=axes: np.flip(order, tuple(a for a in axes if a < order.ndim))),
        )
    yield move(
        hook,
        "taps-flipped",
        "has the taps of {} flipped along every axis",
        "cross-correlation against convolution",
        _ordered(axis, lambda order, g: np.flip(order)),
    )
    yield move(
        hook,
        "taps-flipped-last",
        "has the taps of {} flipped along the last axis",
        "the order of the taps of {}",
        _ordered(axis, lambda order, g: np.flip(order, -1)),
    )
    yield move(
        hook,
        "taps-column-major",
        "has the taps of {} in column-major order: the first axis runs fastest",
        "the order of the taps of {}",
        _ordered(axis, lambda order, g: np.arange(order.size).reshape(order.shape, order="F")),
    )
    yield move(
        hook,
        "taps-written-column-major",
        "takes the taps of {} for column-major",
        "the order of the taps of {}",
        _ordered(axis, lambda order, g: np.argsort(np.arange(order.size).reshape(order.shape, order="F").ravel())),
    )
    yield move(
        hook,
        "taps-exchanged",
        "exchanges the spatial axes of {} where they are equally long",
        "the order of the axes of {}",
        _ordered(axis, lambda order, g: order.T if len(set(order.shape)) == 1 else order),
    )
    for axes in permutations(range(3)):
        if axes in ((0, 1, 2), (2, 1, 0)):
            continue  # as they are, or column-major
        said = f"the {AXES[axes[0]]} axis runs slowest, the {AXES[axes[2]]} fastest"
        for name, words, inverse in (("read", "has the taps of {} in another order in 3-D", False),
                                     ("written", "takes the taps of {} for being in another order in 3-D", True)):  # fmt: skip
            yield move(
                hook,
                f"taps-{name}-{''.join(map(str, axes))}",
                f"{words}: {said}",
                "the order of the taps of {}",
                _ordered(axis, lambda order, g, axes=axes, inverse=inverse: _in_order(order, axes, inverse)),
            )
    for first, second in ((0, 1), (1, 2), (0, 2)):
        yield move(
            hook,
            f"taps-exchanged-{first}-{second}",
            f"exchanges the {AXES[first]} and the {AXES[second]} spatial axis of {{}} in 3-D",
            "the order of the axes of {}",
            _ordered(
                axis,
                lambda order, g, first=first, second=second: (
                    order.swapaxes(first, second)
                    if order.ndim == 3 and order.shape[first] == order.shape[second]
                    else order
                ),
            ),
        )


def _in_order(order: np.ndarray, axes: tuple[int, int, int], inverse: bool) -> np.ndarray:
    """The taps of three axes numbered with the first of `axes` slowest."""
    if order.ndim != 3:
        return order
    numbered = np.arange(order.size).reshape([order.shape[a] for a in axes]).transpose(np.argsort(axes)).ravel()
    return np.argsort(numbered) if inverse else numbered


def _ordered(axis: int, order_of: Any) -> Move:
    def change(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
        order = order_of(np.arange(g.taps).reshape(g.kernel_size), g).ravel()
        if tensor.ndim == 2 + g.spatial_rank and tensor.shape[2:] == g.kernel_size and axis == 2:
            return tensor.reshape(*tensor.shape[:2], -1)[..., order].reshape(tensor.shape)
        whole = np.arange(tensor.shape[axis])
        for tile in range(tensor.shape[axis] // g.taps):  # tile by tile, what is beyond stays
            whole[tile * g.taps : (tile + 1) * g.taps] = tile * g.taps + order
        return np.take(tensor, whole, axis)

    return change


def has_axis(axis: int) -> Callable[[ConvGeometry], bool]:
    return lambda g: g.spatial_rank > axis
