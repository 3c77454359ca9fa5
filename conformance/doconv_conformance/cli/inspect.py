"""`doconv inspect`: what a checkpoint holds, layer by layer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doconv_conformance.cli.files import (
    Choice,
    Dialect,
    Ema,
    Exclude,
    Input,
    KernelSize,
    Key,
    Like,
    Prefix,
    Transposed,
    failing,
    hints_from,
    open_input,
    say,
    table_cell,
    takes_stdout,
)
from doconv_conformance.cli.reports import or_stdout
from doconv_conformance.counting import counted

if TYPE_CHECKING:
    from doconv_core.checkpoint import Checkpoint, LayerStats

PICTURES = (".png", ".jpg", ".jpeg", ".svg", ".pdf")


def inspect(
    source: Input,
    dialect: Dialect = None,
    kernel_size: KernelSize = None,
    transposed: Transposed = None,
    like: Like = None,
    exclude: Exclude = None,
    prefix: Prefix = None,
    key: Key = None,
    ema: Ema = False,
    stats: Annotated[
        bool,
        typer.Option(
            "--stats", help="Also show what training made of each layer: D, its spectrum, the kernel, float16."
        ),
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw what --stats shows, as .png, .jpg, .svg or .pdf; needs matplotlib.")
    ] = None,
    json: Annotated[Path | None, typer.Option(callback=or_stdout, help="Write the same as JSON to this file.")] = None,
) -> None:
    """Show the layers of a checkpoint: which are over-parameterized, their sizes, and what a fold would take away.

    Exit status: 0 done, 1 a file that is bad or cannot be written, 2 unusable arguments.
    """
    with failing("inspect"):
        _check_outputs(json, figure, inputs=[source, like])
        hints = hints_from(kernel_size, transposed, like=like, exclude=exclude, prefix=prefix)
        with open_input(source, Choice(dialect, key, ema), hints) as checkpoint:
            found = describe(checkpoint)
            known = _all_stats(checkpoint) if stats or figure else []
        for layer in known:
            next(row for row in found["layers"] if row["path"] == layer.path)["stats"] = _summary(layer)
        if json is not None:
            from doconv_conformance.files import write_json

            write_json(json, found)
        if figure is not None:
            _draw(known, figure, source)
        err = takes_stdout(json, figure)
        _show(found, err=err)
        if known:
            _show_stats(found, err=err)


def _check_outputs(json: Path | None, figure: Path | None, inputs: list[Path | None]) -> None:
    from doconv_conformance.files import check_writable

    try:
        check_writable(json, figure, inputs=inputs)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if figure is not None and figure.suffix.lower() not in PICTURES:
        raise typer.BadParameter(f"--figure must end with one of {', '.join(PICTURES)}. Received: {figure.name}")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `inspect` shows, as plain values."""
    layers = []
    removed = 0
    for path, info in checkpoint.layers.items():
        row: dict[str, Any] = {"path": path, "kind": info.kind, "over_parameterized": info.has_d}
        row["tensors"] = {
            name: {"dtype": checkpoint.source.code(name), "shape": list(checkpoint.source.shapes[name])}
            for name in info.tensors.values()
        }
        if info.kind == "conv":
            row["geometry"] = {key: value for key, value in info.geometry.items() if key not in info.guessed}
        if info.has_d:
            conv, itemsize = info.conv, checkpoint.itemsize(info.tensors["W"])
            row["exact"] = checkpoint.is_exact(path)
            surplus = conv.w_shape[0] * conv.w_shape[1] * (conv.d_mul - conv.taps)
            extra = conv.in_channels * conv.taps * conv.d_mul * (2 if "diagonal" in info.tensors else 1)
            row["parameters"] = {
                "before": math.prod(conv.w_shape) + math.prod(conv.d_shape),
                "after": math.prod(conv.kernel_shape),
            }
            removed += (surplus + extra) * itemsize
        layers.append(row)
    return {
        "layout": checkpoint.layout,
        "layers": layers,
        "aliases": checkpoint.aliases,
        "others": list(checkpoint.others),
        "notes": checkpoint.notes,
        "bytes_removed_by_fold": removed,
    }


def _all_stats(checkpoint: Checkpoint) -> list[LayerStats]:
    from doconv_core.checkpoint import layer_stats

    found = []
    for path, info in checkpoint.layers.items():
        if info.has_d:
            found.append(layer_stats(checkpoint, path))
            checkpoint.release(path)
    return found


def _summary(layer: LayerStats) -> dict[str, Any]:
    """A layer's numbers as plain values; None in place of what is not finite, which JSON does not have."""
    import numpy as np

    least, most = float(layer.spectrum.min()), float(layer.spectrum.max())
    quartiles = np.quantile(layer.from_identity, (0, 0.5, 1)).tolist()
    return {
        "from_identity": dict(zip(("min", "median", "max"), quartiles, strict=True)),
        "singular_values": {"min": least, "median": float(np.median(layer.spectrum)), "max": most},
        "condition": _finite(most / least) if least else None,
        "kernel_change": _finite(layer.kernel_change),
        "kernel_range": {"smallest": layer.smallest, "largest": layer.largest},
        "float16": {
            "overflows": layer.half_overflows,
            "vanishes": layer.half_vanishes,
            "subnormal": layer.half_subnormal,
        },
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _draw(known: list[LayerStats], figure: Path, source: Path) -> None:
    from doconv_conformance.reports.layers_figure import write_layers_figure
    from doconv_core.checkpoint import CheckpointError

    if not known:
        raise CheckpointError(f"{source} has no over-parameterized layer to draw. Received: --figure {figure}")
    write_layers_figure(known, figure, title=source.name)


def _show(found: dict[str, Any], *, err: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=err, width=None if Console(stderr=err).is_terminal else 120)
    table = Table("layer", "kind", "kernel", "channels", "groups", "d_mul", "type")
    for row in found["layers"]:
        geometry = row.get("geometry", {})
        kind = "transposed conv" if geometry.get("transposed") else row["kind"]
        channels = f"{geometry.get('in_channels', '?')} to {geometry.get('out_channels', '?')}" if geometry else ""
        numbers = [str(geometry.get(option, "")) for option in ("groups", "d_mul")]
        size = "x".join(map(str, geometry.get("kernel_size", ())))
        types = sorted({tensor["dtype"] for tensor in row["tensors"].values()})
        kind = f"DO-Conv, {kind}" if row["over_parameterized"] else kind
        table.add_row(table_cell(row["path"]), kind, size, channels, *numbers, ", ".join(types))
    console.print(table)
    count = sum(row["over_parameterized"] for row in found["layers"])
    say(
        f"layout {found['layout']}; {count} of {counted(len(found['layers']), 'layer')} {'is' if count == 1 else 'are'} "
        f"over-parameterized, {counted(len(found['others']), 'tensor')} of no layer; a fold takes "
        f"{counted(found['bytes_removed_by_fold'], 'byte')} away",
        err=err,
    )
    for row in found["layers"]:
        if row.get("exact") is False:
            say(f"note: {row['path']}: can only be folded: its groups pair with D as no layer here does", err=err)
    for note in found["notes"]:
        say(f"note: {note}", err=err)


def _show_stats(found: dict[str, Any], *, err: bool = False) -> None:
    """A line per layer: what is far from the start, and what float16 would lose."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=err, width=None if Console(stderr=err).is_terminal else 120)
    table = Table("layer", "|D_delta|/|E|", "singular values", "|W'-W|/|W|", "parameters", "folded", "float16")
    rows = [row for row in found["layers"] if "stats" in row]
    for row in rows:
        known, count = row["stats"], row["parameters"]
        distance, singular = known["from_identity"], known["singular_values"]
        table.add_row(
            table_cell(row["path"]),
            f"{distance['median']:.3g} (to {distance['max']:.3g})",
            f"{singular['min']:.3g} to {singular['max']:.3g}",
            "W is zero" if known["kernel_change"] is None else f"{known['kernel_change']:.3g}",
            f"{count['before']:,}",
            f"{count['after']:,}",
            _half_words(known["float16"]),
        )
    console.print(table)
    before, after = (sum(row["parameters"][name] for row in rows) for name in ("before", "after"))
    say(f"{before:,} parameters train in these layers, {after:,} are left folded", err=err)


def _half_words(half: dict[str, Any]) -> str:
    words = [f"{half['overflows']:,} overflow"] if half["overflows"] else []
    words += [
        f"{half[key]:.2%} {verb}" for key, verb in (("vanishes", "vanish"), ("subnormal", "lose bits")) if half[key]
    ]
    return ", ".join(words) or "fits"
