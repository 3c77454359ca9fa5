"""A failing case with one option changed at a time: asked, so that a condition is measured, not an accident of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_core.geometry import ConvGeometry


def variants(case: Case) -> Iterator[Case]:
    """The case itself, where its numbers are others, and valid cases that differ from it in one option."""
    yield replace(case, name=f"{case.name}-varied")
    g = case.geometry
    rank, ones = g.spatial_rank, (1,) * g.spatial_rank
    yield replace(case, name=f"{case.name}-varied", bias=not case.bias)
    if g.has_d:
        yield replace(case, name=f"{case.name}-varied", delta="zero")
    for batch in dict.fromkeys((1, 2, case.batch + 1, case.batch + 2)):
        if batch != case.batch:
            yield replace(case, name=f"{case.name}-varied", batch=batch)
    for more in dict.fromkeys(((1,) * rank, (*(0,) * (rank - 1), 1))):  # sizes of the other parity
        yield replace(
            case, name=f"{case.name}-varied", input_size=tuple(map(sum, zip(case.input_size, more, strict=True)))
        )
    padding = tuple((low, high) for low, high in g.padding)
    zeros = tuple((0, 0) for _ in ones)
    changes: list[dict[str, Any]] = [
        {"stride": ones if max(g.stride) > 1 else tuple(2 for _ in ones), "output_padding": (0,) * rank},
        {"dilation": ones if max(g.dilation) > 1 else tuple(2 for _ in ones)},
        {"padding": zeros if any(map(any, padding)) else tuple((1, 0) for _ in ones), "padding_mode": "zeros"},
        {"padding": tuple((low, low) for low, _ in padding)},
        {"output_padding": (0,) * rank if any(g.output_padding) else tuple(n - 1 for n in g.stride)},
        {"transposed": not g.transposed, "padding_mode": "zeros", "output_padding": (0,) * rank},
        {"d_mul": g.taps},
        {"d_mul": 2 * g.taps},
        {"d_mul": g.taps + 1 if g.taps > 1 else 1},
        {"in_channels": 2 * g.in_channels, "out_channels": 2 * g.out_channels, "groups": 2 * g.groups},
        {"in_channels": g.in_channels // g.groups, "out_channels": g.out_channels // g.groups, "groups": 1},
        {"in_channels": 2 * g.in_channels},
        {"out_channels": 2 * g.out_channels},
        {"out_channels": g.in_channels},
        *({"padding_mode": mode} for mode in ("zeros", "reflect", "replicate", "circular") if not g.transposed),
    ]
    seen = {case.geometry}
    for change in changes:
        geometry = _valid(case, g.to_json() | change)
        if geometry is not None and geometry not in seen:
            seen.add(geometry)
            yield replace(case, name=f"{case.name}-varied", geometry=geometry)
    yield from of_other_ranks(case)


def _valid(case: Case, fields: dict[str, Any], input_size: tuple[int, ...] | None = None) -> ConvGeometry | None:
    try:
        geometry = ConvGeometry.from_json(fields)
        geometry.output_size(input_size or case.input_size)
    except (ValueError, TypeError):
        return None
    return geometry


AXES = ("kernel_size", "stride", "padding", "dilation", "output_padding")


def of_other_ranks(case: Case) -> Iterator[Case]:
    """The same without the first axis, and with one more in front of it."""
    g = case.geometry
    fields = g.to_json()
    per_column = g.d_mul - g.taps
    for rank in (g.spatial_rank - 1, g.spatial_rank + 1):
        if rank not in (1, 2, 3):
            continue
        axis = slice(1, None) if rank < g.spatial_rank else slice(None)
        more = [] if rank < g.spatial_rank else [fields["kernel_size"][0]]
        first = {name: [] if not more else list(fields[name][:1]) for name in AXES}
        changed = fields | {name: [*first[name], *fields[name][axis]] for name in AXES}
        size = (*case.input_size[:1], *case.input_size) if more else case.input_size[1:]
        changed["d_mul"] = int(np.prod(changed["kernel_size"])) + (
            per_column if np.prod(changed["kernel_size"]) > 1 else 0
        )
        geometry = _valid(case, changed, size)
        if geometry is not None:
            yield replace(case, name=f"{case.name}-varied", geometry=geometry, input_size=size)
