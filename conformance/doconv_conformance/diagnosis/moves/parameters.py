"""What can happen to the trainable parameters: `W` and `D_delta`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from doconv_conformance.diagnosis.moves.generic import (
    ORDERS,
    Move,
    along,
    by_group,
    in_bytes,
    move,
    re_read,
    scaled,
    swapped,
    tap_orders,
)
from doconv_conformance.faults.faulty_port import Fault
from doconv_core.composition import identity
from doconv_core.geometry import ConvGeometry


def _addressed(hook: str, strides: dict[str, Callable[[ConvGeometry], tuple[int, int]]]) -> Iterator[Fault]:
    """Read at `i * a + k * b + s` of the buffer, modulo its length, with other steps `a` and `b` than the tensor has."""
    for words, steps in strides.items():

        def change(tensor: np.ndarray, g: ConvGeometry, steps: Any = steps) -> np.ndarray:
            first, second, third = np.indices(tensor.shape)
            a, b = steps(g)
            return tensor.ravel()[(first * a + second * b + third) % tensor.size]

        yield move(
            hook, f"addressed-{words}", f"reads {{}} in steps of {words}", "the address of an entry of {}", change
        )


@cache
def of_w(hook: str) -> tuple[Fault, ...]:
    """Everything that can happen to `W`, or to one part's reading of it."""
    found = [*scaled(hook), *in_bytes(hook), *re_read(hook, ORDERS["W"]), swapped(hook, 0, 1, ("C_out", "C_in/G"))]
    found += _addressed(hook, {
        "C_in/G * K and K": lambda g: (g.w_shape[1] * g.taps, g.taps),
        "C_in/G * S and K": lambda g: (g.w_shape[1] * g.d_mul, g.taps),
        "C_in/G * K and S": lambda g: (g.w_shape[1] * g.taps, g.d_mul),
        "C_in * S and S": lambda g: (g.in_channels * g.d_mul, g.d_mul),
        "C_out * S and S": lambda g: (g.w_shape[0] * g.d_mul, g.d_mul),
    })  # fmt: skip
    for axis, name in enumerate(("the output channels", "the input channels", "S")):
        found += along(hook, axis, name)
    found += tap_orders(hook, 2)
    found += by_group(hook, 0)
    found.append(
        move(
            hook,
            "first-tile-only",
            "uses only the first K columns of {}",
            "the number of columns summed: S",
            lambda W, g: np.where(np.arange(g.d_mul) < g.taps, W, 0.0),
        )
    )
    found.append(
        move(
            hook,
            "surplus-dropped",
            "leaves out the surplus columns of {}",
            "the number of columns summed: S",
            lambda W, g: np.where(np.arange(g.d_mul) < g.taps * (g.d_mul // g.taps), W, 0.0),
        )
    )
    found.append(
        move(
            hook,
            "columns-modulo-K",
            "reads column s modulo K of {} for column s",
            "the index of a column, s, against that of a tap",
            lambda W, g: W[..., np.arange(g.d_mul) % g.taps],
        )
    )
    found.append(
        move(
            hook,
            "surplus-wrapped",
            "reads the surplus columns of {} from the first columns again",
            "the columns s >= K * (S // K)",
            lambda W, g: W[
                ...,
                np.where(
                    np.arange(g.d_mul) < g.taps * (g.d_mul // g.taps), np.arange(g.d_mul), np.arange(g.d_mul) % g.taps
                ),
            ],
        )
    )
    found.append(
        move(
            hook,
            "tiles-interleaved",
            "takes the tiles of {} for interleaved: column s belongs to tap s // (S // K)",
            "the order of the columns",
            _tiles_interleaved,
        )
    )
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
    found.append(
        move(
            hook,
            "transposed",
            "exchanges the tap and the column of {} (D[i, s, k] for D[i, k, s])",
            "the axes of {}: (C_in, K, S)",
            lambda D, g: np.concatenate([D[..., : g.taps].swapaxes(1, 2), D[..., g.taps :]], -1),
        )
    )
    found += _addressed(hook, {
        "K * K and S": lambda g: (g.taps**2, g.d_mul), "K * K and K": lambda g: (g.taps**2, g.taps),
        "K * S and K": lambda g: (g.taps * g.d_mul, g.taps), "S * S and S": lambda g: (g.d_mul**2, g.d_mul),
        "K and S": lambda g: (g.taps, g.d_mul), "S and S": lambda g: (g.d_mul, g.d_mul),
    })  # fmt: skip
    for axis, name in enumerate(("the input channels", "the taps", "S")):
        found += along(hook, axis, name)
    found += tap_orders(hook, 1)
    found += (
        move(
            hook,
            f"columns-{fault.name.split('-', 1)[1]}",
            fault.words.replace("the taps of", "the columns of"),
            fault.look_at,
            fault.hooks["W"],
        )
        for fault in tap_orders("W", 2)
    )
    found += by_group(hook, 0)
    found += masks(hook)
    return tuple(found)


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
    yield move(
        hook,
        "surplus-dropped",
        "leaves out the surplus columns of {}, beyond the whole tiles",
        "the columns s >= K * (S // K)",
        kept(lambda k, s, g: s < tiled(g)),
    )
    yield move(
        hook,
        "first-tile-only",
        "uses only the first K columns of {}",
        "the columns s >= K",
        kept(lambda k, s, g: s < g.taps),
    )
    yield move(hook, "lower", "uses only the part of {} on and below the diagonal", at, kept(lambda k, s, g: s <= k))
    yield move(hook, "upper", "uses only the part of {} on and above the diagonal", at, kept(lambda k, s, g: s >= k))
