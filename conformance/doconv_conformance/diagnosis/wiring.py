"""Which group's input channels an output channel reads, by every short formula of its number."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from doconv_conformance.faults.faulty_port import Fault
from doconv_core.convolution import convolve
from doconv_core.geometry import ConvGeometry

GROUPS: dict[str, Callable[[np.ndarray, ConvGeometry], np.ndarray]] = {
    "min(floor(o / (C_in/G)), G - 1)": lambda o, g: np.minimum(o // (g.in_channels // g.groups), g.groups - 1),
    "floor(o / (C_in/G)) mod G": lambda o, g: o // (g.in_channels // g.groups) % g.groups,
    "o mod G": lambda o, g: o % g.groups,
    "min(floor(o / G), G - 1)": lambda o, g: np.minimum(o // g.groups, g.groups - 1),
}


@cache
def wirings() -> tuple[Fault, ...]:
    """As faults of plain convolutions with groups."""
    return tuple(_wired(words, of) for words, of in GROUPS.items())


def _wired(words: str, of: Callable[[np.ndarray, ConvGeometry], np.ndarray]) -> Fault:
    def convolved(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None, g: ConvGeometry) -> np.ndarray:
        of_group = g.in_channels // g.groups
        dense = np.zeros((g.out_channels, g.in_channels, *g.kernel_size))
        for o, group in enumerate(of(np.arange(g.out_channels), g)):
            dense[o, group * of_group : (group + 1) * of_group] = kernel[o]
        one = ConvGeometry.from_json(g.to_json() | {"groups": 1})
        return convolve(x, dense, bias, one, dtype=np.float64)

    return Fault(
        f"wiring-{words}", f"reads the input channels of group {words} for output channel o",
        "the input channels of an output channel: those of group floor(o / (C_out/G))", {"convolve": convolved},
        lambda g: g.groups > 1 and not g.transposed,
    )  # fmt: skip
