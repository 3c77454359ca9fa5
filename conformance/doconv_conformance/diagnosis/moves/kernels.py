"""What can happen to a kernel, composed, folded or used."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from doconv_conformance.diagnosis.moves.generic import (
    AXES,
    along,
    by_group,
    has_axis,
    in_bytes,
    move,
    scaled,
    swapped,
    tap_orders,
)
from doconv_conformance.faults.faulty_port import Fault
from doconv_core.geometry import ConvGeometry


@cache
def of_kernel(hook: str) -> tuple[Fault, ...]:
    """Everything that can happen to a kernel, `(C_out, C_in/G, *kernel_size)`."""
    found = [
        *scaled(hook),
        *in_bytes(hook),
        *tap_orders(hook, 2),
        swapped(hook, 0, 1, ("of the output", "of the input channels")),
    ]
    found.append(
        move(
            hook,
            "read-as-C_in/G,C_out",
            "reads {} as (C_in/G, C_out, *kernel_size)",
            "the axes of {}",
            lambda kernel, g: kernel.reshape(kernel.shape[1], kernel.shape[0], *g.kernel_size).swapaxes(0, 1),
        )
    )
    found.append(
        move(
            hook,
            "written-as-C_in/G,C_out",
            "writes {} as (C_in/G, C_out, *kernel_size)",
            "the axes of {}",
            lambda kernel, g: np.ascontiguousarray(kernel.swapaxes(0, 1)).reshape(kernel.shape),
        )
    )
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
            replace(fault, where=has_axis(axis))
            for fault in along(hook, axis + 2, f"the {AXES[axis]} spatial axis")
            if "reversed" not in fault.name
        )
    found += by_group(hook, 0)
    found.append(
        move(
            hook,
            "last-tap-dropped",
            "leaves out the last tap of {}",
            "the number of taps",
            lambda kernel, g: np.where(np.arange(g.taps).reshape(g.kernel_size) < g.taps - 1, kernel, 0.0),
        )
    )
    found.append(
        move(
            hook,
            "last-tap-only",
            "leaves out all but the last tap of {}",
            "whether the taps' shares are added or assigned",
            lambda kernel, g: np.where(np.arange(g.taps).reshape(g.kernel_size) == g.taps - 1, kernel, 0.0),
        )
    )
    found.append(
        move(
            hook,
            "first-tap-only",
            "leaves out all but the first tap of {}",
            "whether the taps' shares are added or assigned",
            lambda kernel, g: np.where(np.arange(g.taps).reshape(g.kernel_size) == 0, kernel, 0.0),
        )
    )
    found.append(
        move(
            hook,
            "first-tap-dropped",
            "leaves out the first tap of {}",
            "the number of taps",
            lambda kernel, g: np.where(np.arange(g.taps).reshape(g.kernel_size) > 0, kernel, 0.0),
        )
    )
    return tuple(found)
