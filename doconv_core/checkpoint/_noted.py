"""What PyTorch's layers of this project note of themselves in the metadata of a state dict, which `torch.save` keeps.

The shapes of `W` and `D` do not show the sides of a kernel, nor whether the layer is a transposed one. A state dict that was
copied by a comprehension, and a safetensors file, have no such metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doconv_core.checkpoint._prefixes import without_inner

NOTE = "doconv"  # beside "version" in a module's metadata
LARGEST = 2**31


@dataclass(frozen=True)
class Noted:
    """What a layer notes: the sides of its kernel, and whether it is a transposed convolution."""

    kernel_size: tuple[int, ...]
    transposed: bool

    def to_json(self) -> dict[str, Any]:
        """As the layer writes it: plain values, which `torch.load(weights_only=True)` reads."""
        return {"kernel_size": list(self.kernel_size), "transposed": self.transposed}


def read_note(metadata: Any) -> Noted | None:
    """What the layer noted in the metadata of its module; None where it noted nothing, or nothing that a layer writes."""
    found = metadata.get(NOTE) if isinstance(metadata, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    size, transposed = found.get("kernel_size"), found.get("transposed")
    if not isinstance(size, Sequence) or not 1 <= len(size) <= 3 or not isinstance(transposed, bool):
        return None
    if not all(type(side) is int and 0 < side < LARGEST for side in size):
        return None
    return Noted(tuple(size), transposed)


def read_notes(modules: Any) -> dict[str, Noted]:
    """The notes of all layers by path, without what wrappers put into it.

    Args:
        modules: the metadata of a state dict by path of a module (`state_dict._metadata`), or anything else, as files have it.
    """
    notes = {path: read_note(metadata) for path, metadata in modules.items()} if isinstance(modules, Mapping) else {}
    return {
        without_inner(f"{path}.").removesuffix("."): note
        for path, note in notes.items()
        if isinstance(path, str) and note is not None
    }
