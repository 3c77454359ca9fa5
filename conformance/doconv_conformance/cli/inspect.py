"""`doconv inspect`: what a checkpoint holds, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doconv_conformance.cli.files import (
    Dialect,
    Input,
    KernelSize,
    Like,
    Transposed,
    failing,
    hints_from,
    open_input,
)

if TYPE_CHECKING:
    from doconv_core.checkpoint import Checkpoint


def inspect(
    source: Input,
    dialect: Dialect = None,
    kernel_size: KernelSize = None,
    transposed: Transposed = None,
    like: Like = None,
    json: Annotated[Path | None, typer.Option(help="Write the same as JSON to this file.")] = None,
) -> None:
    """Show the layers of a checkpoint: which are over-parameterized, their sizes, and what a fold would take away.

    Exit status: 0 done, 1 a file that is bad or cannot be written, 2 unusable arguments.
    """
    with failing("inspect"):
        if json is not None and not json.parent.is_dir():
            raise typer.BadParameter(f"the folder of {json} does not exist")
        with open_input(source, dialect, hints_from(kernel_size, transposed, like=like)) as checkpoint:
            found = describe(checkpoint)
        if json is not None:
            from doconv_conformance.files import write_json

            write_json(json, found)
        _show(found)


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
            conv, itemsize = info.conv, checkpoint.source.array(info.tensors["W"]).itemsize
            row["exact"] = checkpoint.is_exact(path)
            surplus = conv.w_shape[0] * conv.w_shape[1] * (conv.d_mul - conv.taps)
            extra = conv.in_channels * conv.taps * conv.d_mul * (2 if "diagonal" in info.tensors else 1)
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


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120)
    table = Table("layer", "kind", "kernel", "channels", "groups", "d_mul", "type")
    for row in found["layers"]:
        geometry = row.get("geometry", {})
        kind = "transposed conv" if geometry.get("transposed") else row["kind"]
        channels = f"{geometry.get('in_channels', '?')} to {geometry.get('out_channels', '?')}" if geometry else ""
        numbers = [str(geometry.get(option, "")) for option in ("groups", "d_mul")]
        size = "x".join(map(str, geometry.get("kernel_size", ())))
        types = sorted({tensor["dtype"] for tensor in row["tensors"].values()})
        kind = f"DO-Conv, {kind}" if row["over_parameterized"] else kind
        table.add_row(escape(row["path"]), kind, size, channels, *numbers, ", ".join(types))
    console.print(table)
    count = sum(row["over_parameterized"] for row in found["layers"])
    typer.echo(
        f"layout {found['layout']}; {count} of {len(found['layers'])} layers are over-parameterized, "
        f"{len(found['others'])} tensors belong to none; a fold takes {found['bytes_removed_by_fold']} bytes away"
    )
    for row in found["layers"]:
        if row.get("exact") is False:
            typer.echo(f"note: {row['path']}: can only be folded: its groups pair with D as no layer here does")
    for note in found["notes"]:
        typer.echo(f"note: {note}")
