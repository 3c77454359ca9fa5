"""Ways in which elements of a tensor change places or are lost: what ports do to `W`, `D`, the kernel, `x`, `y`, the bias.

Each is a fault with one hook. Written once for the forward direction; the gradient of what was moved follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations, permutations

import numpy as np

from doconv_conformance.faults.faulty_port import Fault
from doconv_core.composition import identity
from doconv_core.geometry import ConvGeometry

Move = Callable[[np.ndarray, ConvGeometry], np.ndarray]
AXES = ("first", "second", "third")
TENSORS = {"W": "W", "D_delta": "D", "kernel": "the composed kernel", "delta_W": "W in the product with D_delta",
           "identity_W": "W in its product with the identity", "grad_W": "the gradient of W",
           "grad_D_delta": "the gradient of D_delta", "grad_kernel": "the gradient of the composed kernel",
           "grad_x": "the gradient of x", "grad_bias": "the gradient of the bias", "x": "x", "y": "y", "bare": "y, before the bias,", "bias": "the bias", "conv_kernel": "the kernel that it convolves with",
           "grad_x_kernel": "the kernel that the gradient of x is made of", "grad_delta_D": "D in the gradient of W",
           "grad_delta_W": "W in the gradient of D_delta"}  # fmt: skip
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

    return move(hook, f"swap-{names[0]}-{names[1]}", f"exchanges the axes {names[0]} and {names[1]} of {{}}", "the axes of {}",
                change)  # fmt: skip


def along(hook: str, axis: int, name: str) -> Iterator[Fault]:
    """What happens along one axis: reversed, rotated, its ends lost or repeated."""

    def only(keep: Callable[[np.ndarray, int], np.ndarray]) -> Move:
        def change(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
            size = tensor.shape[axis]
            shape = [1] * tensor.ndim
            shape[axis] = size
            return np.where(keep(np.arange(size), size).reshape(shape), tensor, 0.0)

        return change

    yield move(hook, f"{name}-reversed", f"has {{}} in reverse order along {name}", f"the order of {name} in {{}}",
               lambda tensor, g: np.flip(tensor, axis))  # fmt: skip
    for step, words in ((1, "one ahead"), (-1, "one behind")):
        yield move(hook, f"{name}-{words.replace(' ', '-')}", f"reads {{}} {words} along {name}", f"an index along {name} of {{}}",
                   lambda tensor, g, step=step: np.roll(tensor, -step, axis))  # fmt: skip
    yield move(hook, f"{name}-last-dropped", f"leaves out the last entry of {{}} along {name}", f"the range of {name}",
               only(lambda at, size: at < size - 1))  # fmt: skip
    yield move(hook, f"{name}-first-dropped", f"leaves out the first entry of {{}} along {name}", f"the range of {name}",
               only(lambda at, size: at > 0))  # fmt: skip
    yield move(hook, f"{name}-first-only", f"takes the first entry of {{}} along {name} for all", f"the index along {name}",
               lambda tensor, g: np.repeat(np.take(tensor, [0], axis), tensor.shape[axis], axis))  # fmt: skip
    yield move(hook, f"{name}-last-only", f"takes the last entry of {{}} along {name} for all", f"the index along {name}",
               lambda tensor, g: np.repeat(np.take(tensor, [-1], axis), tensor.shape[axis], axis))  # fmt: skip
    yield move(hook, f"{name}-odd-dropped", f"leaves out the odd entries of {{}} along {name}", f"a loop along {name} in steps of 2",
               only(lambda at, size: at % 2 == 0))  # fmt: skip
    yield move(hook, f"{name}-even-dropped", f"leaves out the even entries of {{}} along {name}", f"a loop along {name} in steps of 2",
               only(lambda at, size: at % 2 == 1))  # fmt: skip
    yield move(hook, f"{name}-all-but-first-dropped", f"leaves out all but the first entry of {{}} along {name}", f"the range of {name}",
               only(lambda at, size: at < 1))  # fmt: skip
    yield move(hook, f"{name}-last-of-several-dropped", f"leaves out the last entry of {{}} along {name} where there are several",
               f"the range of {name}", only(lambda at, size: (at < size - 1) | (size == 1)))  # fmt: skip
    for width in (4, 8, 16):  # the remainder of a loop over vectors
        yield move(hook, f"{name}-remainder-of-{width}",
                   f"leaves out what is beyond the last multiple of {width} along {name} of {{}}",
                   f"the remainder of a loop over blocks of {width}",
                   only(lambda at, size, width=width: (at < size // width * width) | (size < width)))  # fmt: skip
        yield move(hook, f"{name}-first-{width}", f"takes only the first {width} entries of {{}} along {name}",
                   f"a buffer or a loop of {width}", only(lambda at, size, width=width: at < width))  # fmt: skip


def scaled(hook: str) -> Iterator[Fault]:
    """Factors."""
    for factor, words in ((-1, "negates {}"), (2, "counts {} twice"), (0, "takes zeros for {}")):
        yield move(
            hook, f"times-{factor}", words, "a factor or a sign of {}", lambda tensor, g, factor=factor: factor * tensor
        )
    for name, words, of in (
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
    yield move(hook, "interleaved", "interleaves the groups in the channels of {}: 0 1 | 2 3 becomes 0 2 | 1 3",
               "the order of the " + which, shuffled)  # fmt: skip
    yield move(hook, "uninterleaved", "takes the channels of {} for interleaved by group: those of one group lie G apart",
               "the order of the " + which, unshuffled)  # fmt: skip
    yield move(hook, "groups-reversed", "has the groups of {} in reverse order", "the index of the group in {}",
               lambda tensor, g: back(split(tensor, g)[::-1], tensor))  # fmt: skip
    yield move(hook, "first-group", "takes the first group of {} for every group", "the offset of the group in {}",
               lambda tensor, g: back(np.repeat(split(tensor, g)[:1], g.groups, 0), tensor))  # fmt: skip
    yield move(hook, "next-group", "takes the next group of {} for each", "the index of the group in {}",
               lambda tensor, g: back(np.roll(split(tensor, g), -1, 0), tensor))  # fmt: skip
    yield move(hook, "within-reversed", "has the channels within each group of {} in reverse order", "the channel within the group",
               lambda tensor, g: back(split(tensor, g)[:, ::-1], tensor))  # fmt: skip

    def part(parts: np.ndarray, keep: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        size = parts.shape[1]
        return np.where(keep(np.arange(size), size).reshape(1, -1, *[1] * (parts.ndim - 2)), parts, 0.0)

    for label, words, keep in (
        ("last", "the last channel", lambda at, size: at < size - 1),
        ("last-of-several", "the last of several channels", lambda at, size: (at < size - 1) | (size == 1)),
        ("first", "the first channel", lambda at, size: at > 0),
        ("rest", "all but the first channel", lambda at, size: at < 1),
        *((f"beyond-{width}", f"the channels beyond the last multiple of {width}",
           lambda at, size, width=width: (at < size // width * width) | (size < width)) for width in (2, 4, 8, 16)),
    ):  # fmt: skip
        yield move(hook, f"group-{label}-dropped", f"leaves out {words} of each group of {{}}", "the loop over the channels of a group",
                   lambda tensor, g, keep=keep: back(part(split(tensor, g), keep), tensor))  # fmt: skip
    yield move(hook, "first-of-group", "takes the first channel of each group of {} for the whole group",
               "the channel within the group",
               lambda tensor, g: back(np.repeat(split(tensor, g)[:, :1], tensor.shape[axis] // g.groups, 1), tensor))  # fmt: skip


def tap_orders(hook: str, axis: int) -> Iterator[Fault]:
    """Taps, row-major on `axis` (or on the last axes of a kernel), in another order."""
    flips = [axes for count in range(3) for axes in combinations(range(3), count + 1)]
    for axes in flips:
        if axes == (0, 1, 2):
            continue  # the whole flip has its own words below
        where = " and ".join(AXES[a] for a in axes)
        yield move(hook, f"taps-flipped-{'-'.join(AXES[a] for a in axes)}",
                   f"has the taps of {{}} flipped along the {where} spatial axis", "the order of the taps of {}",
                   _ordered(axis, lambda order, g, axes=axes: np.flip(order, [a for a in axes if a < order.ndim])))  # fmt: skip
    yield move(hook, "taps-flipped", "has the taps of {} flipped along every axis", "cross-correlation against convolution",
               _ordered(axis, lambda order, g: np.flip(order)))  # fmt: skip
    yield move(hook, "taps-flipped-last", "has the taps of {} flipped along the last axis", "the order of the taps of {}",
               _ordered(axis, lambda order, g: np.flip(order, -1)))  # fmt: skip
    yield move(hook, "taps-column-major", "has the taps of {} in column-major order: the first axis runs fastest",
               "the order of the taps of {}",
               _ordered(axis, lambda order, g: np.arange(order.size).reshape(order.shape, order="F")))  # fmt: skip
    yield move(hook, "taps-written-column-major", "takes the taps of {} for column-major", "the order of the taps of {}",
               _ordered(axis, lambda order, g: np.argsort(np.arange(order.size).reshape(order.shape, order="F").ravel())))  # fmt: skip
    yield move(hook, "taps-exchanged", "exchanges the spatial axes of {} where they are equally long", "the order of the axes of {}",
               _ordered(axis, lambda order, g: order.T if len(set(order.shape)) == 1 else order))  # fmt: skip
    for first, second in ((0, 1), (1, 2), (0, 2)):
        yield move(hook, f"taps-exchanged-{first}-{second}",
                   f"exchanges the {AXES[first]} and the {AXES[second]} spatial axis of {{}} in 3-D", "the order of the axes of {}",
                   _ordered(axis, lambda order, g, first=first, second=second: order.swapaxes(first, second)
                            if order.ndim == 3 and order.shape[first] == order.shape[second] else order))  # fmt: skip


def _ordered(axis: int, order_of: Callable[[np.ndarray, ConvGeometry], np.ndarray]) -> Move:
    def change(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
        order = order_of(np.arange(g.taps).reshape(g.kernel_size), g).ravel()
        if tensor.ndim == 2 + g.spatial_rank and tensor.shape[2:] == g.kernel_size and axis == 2:
            return tensor.reshape(*tensor.shape[:2], -1)[..., order].reshape(tensor.shape)
        whole = np.arange(tensor.shape[axis])
        for tile in range(tensor.shape[axis] // g.taps):  # tile by tile, what is beyond stays
            whole[tile * g.taps : (tile + 1) * g.taps] = tile * g.taps + order
        return np.take(tensor, whole, axis)

    return change


def masks(hook: str) -> Iterator[Fault]:
    """Parts of `D`, `(C_in, K, S)`, that are lost."""

    def kept(condition: Callable[[np.ndarray, np.ndarray, ConvGeometry], np.ndarray]) -> Move:
        def change(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
            k, s = np.indices((g.taps, g.d_mul))
            return np.where(condition(k, s, g), tensor, 0.0)

        return change

    def tiled(g: ConvGeometry) -> int:
        return g.taps * (g.d_mul // g.taps)

    at = "a mask on {}"
    yield move(
        hook, "diagonal-only", "uses {} only where the identity has a one", at, kept(lambda k, s, g: identity(g) == 1)
    )
    yield move(
        hook,
        "off-diagonal-only",
        "uses {} only where the identity has a zero",
        at,
        kept(lambda k, s, g: identity(g) == 0),
    )
    yield move(hook, "surplus-dropped", "leaves out the surplus columns of {}, beyond the whole tiles", "the columns s >= K * (S // K)",
               kept(lambda k, s, g: s < tiled(g)))  # fmt: skip
    yield move(
        hook,
        "first-tile-only",
        "uses only the first K columns of {}",
        "the columns s >= K",
        kept(lambda k, s, g: s < g.taps),
    )
    yield move(hook, "lower", "uses only the part of {} on and below the diagonal", at, kept(lambda k, s, g: s <= k))
    yield move(hook, "upper", "uses only the part of {} on and above the diagonal", at, kept(lambda k, s, g: s >= k))


@cache
def of_w(hook: str) -> tuple[Fault, ...]:
    """Everything that can happen to `W`, or to one part's reading of it."""
    found = [*scaled(hook), *re_read(hook, ORDERS["W"]), swapped(hook, 0, 1, ("C_out", "C_in/G"))]
    for axis, name in enumerate(("the output channels", "the input channels", "S")):
        found += along(hook, axis, name)
    found += tap_orders(hook, 2)
    found += by_group(hook, 0)
    found.append(move(hook, "first-tile-only", "uses only the first K columns of {}", "the number of columns summed: S",
                      lambda W, g: np.where(np.arange(g.d_mul) < g.taps, W, 0.0)))  # fmt: skip
    found.append(move(hook, "surplus-dropped", "leaves out the surplus columns of {}", "the number of columns summed: S",
                      lambda W, g: np.where(np.arange(g.d_mul) < g.taps * (g.d_mul // g.taps), W, 0.0)))  # fmt: skip
    found.append(move(hook, "tiles-interleaved", "takes the tiles of {} for interleaved: column s belongs to tap s // (S // K)",
                      "the order of the columns", _tiles_interleaved))  # fmt: skip
    return tuple(found)


def _tiles_interleaved(W: np.ndarray, g: ConvGeometry) -> np.ndarray:
    tiles = g.d_mul // g.taps
    order = np.arange(g.d_mul)
    order[: tiles * g.taps] = np.arange(tiles * g.taps).reshape(g.taps, tiles).T.ravel()
    return W[..., order]


@cache
def of_d(hook: str) -> tuple[Fault, ...]:
    """Everything that can happen to `D`, `(C_in, K, S)`."""
    found = [*scaled(hook), *re_read(hook, ORDERS["D_delta"])]
    found.append(move(hook, "transposed", "exchanges the tap and the column of {} (D[i, s, k] for D[i, k, s])", "the axes of {}: (C_in, K, S)",
                      lambda D, g: np.concatenate([D[..., : g.taps].swapaxes(1, 2), D[..., g.taps :]], -1)))  # fmt: skip
    for axis, name in enumerate(("the input channels", "the taps", "S")):
        found += along(hook, axis, name)
    found += tap_orders(hook, 1)
    found += (
        move(hook, f"columns-{fault.name.split('-', 1)[1]}", fault.words.replace("the taps of", "the columns of"), fault.look_at,
             fault.hooks["W"])
        for fault in tap_orders("W", 2)
    )  # fmt: skip
    found += by_group(hook, 0)
    found += masks(hook)
    return tuple(found)


@cache
def of_kernel(hook: str) -> tuple[Fault, ...]:
    """Everything that can happen to a kernel, `(C_out, C_in/G, *kernel_size)`."""
    found = [*scaled(hook), *tap_orders(hook, 2), swapped(hook, 0, 1, ("of the output", "of the input channels"))]
    found.append(move(hook, "read-as-C_in/G,C_out", "reads {} as (C_in/G, C_out, *kernel_size)", "the axes of {}",
                      lambda kernel, g: kernel.reshape(kernel.shape[1], kernel.shape[0], *g.kernel_size).swapaxes(0, 1)))  # fmt: skip
    found.append(move(hook, "written-as-C_in/G,C_out", "writes {} as (C_in/G, C_out, *kernel_size)", "the axes of {}",
                      lambda kernel, g: np.ascontiguousarray(kernel.swapaxes(0, 1)).reshape(kernel.shape)))  # fmt: skip
    for order, words in (
        ((2, 0, 1), "(taps, C_out, C_in/G)"),
        ((0, 2, 1), "(C_out, taps, C_in/G)"),
        ((2, 1, 0), "(taps, C_in/G, C_out)"),
    ):

        def change(kernel: np.ndarray, g: ConvGeometry, order: tuple[int, ...] = order) -> np.ndarray:
            flat = kernel.reshape(*kernel.shape[:2], -1)
            return np.ascontiguousarray(flat.transpose(order)).reshape(kernel.shape)

        found.append(move(hook, f"written-as-{words}", f"writes {{}} as {words}", "the axes of {}", change))
    for axis, name in enumerate(("the output channels", "the input channels")):
        found += along(hook, axis, name)
    for axis in range(3):
        found += (
            Fault(fault.name, fault.words, fault.look_at, fault.hooks, lambda g, axis=axis: g.spatial_rank > axis)
            for fault in along(hook, axis + 2, f"the {AXES[axis]} spatial axis")
            if "reversed" not in fault.name
        )
    found += by_group(hook, 0)
    found.append(move(hook, "last-tap-dropped", "leaves out the last tap of {}", "the number of taps",
                      lambda kernel, g: np.where(np.arange(g.taps).reshape(g.kernel_size) < g.taps - 1, kernel, 0.0)))  # fmt: skip
    found.append(move(hook, "first-tap-dropped", "leaves out the first tap of {}", "the number of taps",
                      lambda kernel, g: np.where(np.arange(g.taps).reshape(g.kernel_size) > 0, kernel, 0.0)))  # fmt: skip
    return tuple(found)


@cache
def of_activations(hook: str) -> tuple[Fault, ...]:
    """Everything that can happen to `x` or `y`, `(N, C, *space)`."""
    found = [*scaled(hook), *by_group(hook, 1), *along(hook, 0, "the batch"), *along(hook, 1, "the channels")]
    for axis in range(3):
        found += (
            Fault(fault.name, fault.words, fault.look_at, fault.hooks, lambda g, axis=axis: g.spatial_rank > axis)
            for fault in along(hook, axis + 2, f"the {AXES[axis]} spatial axis")
        )
    found += along(hook, -1, "the last axis")
    if hook in ("y", "bare"):
        found.append(move(hook, "output-padding-zeros", "leaves zeros in the rows of output padding of {}", "what output padding keeps",
                          lambda t, g: _output_padding(t, g, 0)))  # fmt: skip
        found.append(move(hook, "output-padding-low", "has the rows of output padding of {}, zeros, at the low end", "which end output padding is at",
                          lambda t, g: _output_padding(t, g, 1)))  # fmt: skip
    found.append(move(hook, "swapped", "exchanges the spatial axes of {} where they are equally long", "the order of the spatial axes",
                      lambda t, g: t.swapaxes(-1, -2) if g.spatial_rank > 1 and t.shape[-1] == t.shape[-2] else t))  # fmt: skip
    found.append(move(hook, "channels-last", "reads {} as (N, *space, C)", "the layout of {}",
                      lambda t, g: np.moveaxis(t.reshape(len(t), *t.shape[2:], t.shape[1]), -1, 1)))  # fmt: skip
    found.append(move(hook, "channels-last-written", "writes {} as (N, *space, C)", "the layout of {}",
                      lambda t, g: np.ascontiguousarray(np.moveaxis(t, 1, -1)).reshape(t.shape)))  # fmt: skip
    found.append(move(hook, "channels-first", "reads {} as (C, N, *space)", "the layout of {}",
                      lambda t, g: t.reshape(t.shape[1], t.shape[0], *t.shape[2:]).swapaxes(0, 1)))  # fmt: skip
    return tuple(found)


def _output_padding(y: np.ndarray, g: ConvGeometry, at_low_end: int) -> np.ndarray:
    for axis, extra in enumerate(g.output_padding, start=2):
        kept = np.take(y, range(y.shape[axis] - extra), axis)
        ends = (extra, 0) if at_low_end else (0, extra)
        y = np.pad(kept, [ends if at == axis else (0, 0) for at in range(y.ndim)])
    return y


@cache
def of_bias(hook: str) -> tuple[Fault, ...]:
    """Everything that can happen to the bias, `(C_out,)`."""
    return (*scaled(hook), *along(hook, 0, "the channels"), *by_group(hook, 0))
