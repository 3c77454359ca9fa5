"""What can happen to the input, the output and the bias."""

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
)
from doconv_conformance.faults.faulty_port import Fault
from doconv_core.geometry import ConvGeometry


@cache
def of_activations(hook: str) -> tuple[Fault, ...]:
    """Everything that can happen to `x` or `y`, `(N, C, *space)`."""
    found = [*scaled(hook), *by_group(hook, 1), *along(hook, 0, "the batch"), *along(hook, 1, "the channels")]
    found += in_bytes(hook)
    for axis in range(3):
        found += (
            replace(fault, where=has_axis(axis)) for fault in along(hook, axis + 2, f"the {AXES[axis]} spatial axis")
        )
    found += along(hook, -1, "the last axis")
    if hook in ("y", "bare"):
        found.append(
            move(
                hook,
                "output-padding-zeros",
                "leaves zeros in the rows of output padding of {}",
                "what output padding keeps",
                lambda t, g: _output_padding(t, g, 0),
            )
        )
        found.append(
            move(
                hook,
                "output-padding-low",
                "has the rows of output padding of {}, zeros, at the low end",
                "which end output padding is at",
                lambda t, g: _output_padding(t, g, 1),
            )
        )
    found.append(
        move(
            hook,
            "swapped",
            "exchanges the spatial axes of {} where they are equally long",
            "the order of the spatial axes",
            lambda t, g: t.swapaxes(-1, -2) if g.spatial_rank > 1 and t.shape[-1] == t.shape[-2] else t,
        )
    )
    for axis, name in ((2, "first spatial"), (-1, "last")):
        found.append(
            move(
                hook,
                f"channels-exchanged-{axis}",
                f"exchanges the channels and the {name} axis of {{}} where they are equally long",
                "the layout of {}",
                lambda t, g, axis=axis: t.swapaxes(1, axis) if t.shape[1] == t.shape[axis] else t,
            )
        )
    found.append(
        move(
            hook,
            "batch-exchanged",
            "exchanges the batch and the channels of {} where they are equally long",
            "the layout of {}",
            lambda t, g: t.swapaxes(0, 1) if t.shape[0] == t.shape[1] else t,
        )
    )
    found.append(
        move(
            hook,
            "channels-last-alike",
            "takes {} for (N, *space, C) where its last axis is as long as there are channels",
            "the layout of {}",
            lambda t, g: (
                np.moveaxis(t.reshape(len(t), *t.shape[2:], t.shape[1]), -1, 1).reshape(t.shape)
                if t.shape[-1] == t.shape[1]
                else t
            ),
        )
    )
    found.append(
        move(
            hook,
            "channels-last",
            "reads {} as (N, *space, C)",
            "the layout of {}",
            lambda t, g: np.moveaxis(t.reshape(len(t), *t.shape[2:], t.shape[1]), -1, 1),
        )
    )
    found.append(
        move(
            hook,
            "channels-last-written",
            "writes {} as (N, *space, C)",
            "the layout of {}",
            lambda t, g: np.ascontiguousarray(np.moveaxis(t, 1, -1)).reshape(t.shape),
        )
    )
    found.append(
        move(
            hook,
            "channels-first",
            "reads {} as (C, N, *space)",
            "the layout of {}",
            lambda t, g: t.reshape(t.shape[1], t.shape[0], *t.shape[2:]).swapaxes(0, 1),
        )
    )
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
