"""PyTorch's `.pth` files, by `torch.load(weights_only=True)`, which runs no code of theirs; the caller hands it in."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doconv_core.checkpoint._format import CheckpointError, kind_of

OF_PICKLES = (b"PK\x03\x04", b"\x80")  # the first bytes, with a zip archive around them since PyTorch 1.6


def read_pickle(path: Path, load: Callable[..., Any]) -> Any:
    """What a file holds, on the CPU.

    Args:
        path: the file.
        load: `torch.load`.

    Raises:
        CheckpointError: it is broken, or holds other objects than tensors and plain containers.
        MemoryError: it needs more memory than there is.
        OSError: it cannot be opened.
    """
    for options in ({"mmap": True}, {}):
        try:
            with warnings.catch_warnings(action="ignore"):  # of what PyTorch gives up, in the file or in itself
                return load(path, map_location="cpu", weights_only=True, **options)
        except Exception as error:  # whatever a broken pickle raises; files before PyTorch 1.6 have no map
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place that the file lacks
                raise
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise MemoryError(f"{path} needs more memory than there is") from None
            fault = error
    other = re.search(r"Unsupported (?:global|class|operand).*?([\w.]+\.[\w.]+)", str(fault))
    if other:
        reason = (
            f"it holds objects of {other[1]}; where you trust it, load it and save what has only tensors, "
            "torch.save(model.state_dict(), 'model.pth')"
        )
    else:
        with path.open("rb") as file:
            first = file.read(9)
        kind = "" if first.startswith(OF_PICKLES) else kind_of(first)
        if first[8:] == b"{":
            kind = "a safetensors file, which needs a name that ends in .safetensors"
        if "TorchScript" in str(fault):
            kind = "a TorchScript program: save the state dict of what torch.jit.load gives"
        reason = f"it is {kind}" if kind else "it is broken, or holds objects that are not loaded"
    raise CheckpointError(
        f"{path} cannot be read by torch.load(weights_only=True), and is not read in any other way: {reason}. "
        f"Received: {type(fault).__name__}"
    )
