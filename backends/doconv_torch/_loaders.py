"""Loaders of other libraries that go by the names of a model's tensors and not through `load_state_dict`.

A plain checkpoint has `conv.weight` where the layer has `W` and `D`: by names, the kernel is left over and `W` is missing.
PyTorch's own way starts the layer from the kernel (`DOConvMixin._load_from_state_dict`). These would leave the kernel out:

| who | how | here |
|---|---|---|
| `accelerate.load_checkpoint_in_model` with a `device_map` | puts tensors into `_parameters` | it finds the name, and raises |
| `from_pretrained` of Hugging Face's transformers | fills what is missing by initialisers | raises |

Each is known by the frame that calls, as nothing that these loaders call says what was in the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch import nn


def asked_by_accelerate() -> bool:
    """Whether `state_dict` is called by accelerate's loader, which skips without an error what it does not find there."""
    return "accelerate" in sys.modules and any(
        frame.f_code.co_name == "load_checkpoint_in_model" for frame in _frames("accelerate")
    )


def initialisation_is_skipped() -> bool:
    """Whether PyTorch's initialisers do nothing now: a model that is constructed has whatever was in memory until it is loaded.

    diffusers puts others in their place (`low_cpu_mem_usage=False`, and wherever accelerate is not installed), Lightning has a
    mode (`empty_init`).
    """
    probe = torch.zeros((), device="cpu")
    nn.init.constant_(probe, 1)
    return not probe


def refuse_left_out_kernel(layer: Any) -> None:
    """Refuse a new `W` that transformers makes because the file had none, where the file had the plain kernel.

    Raises:
        RuntimeError: `<layer>.weight` is left over from the checkpoint.
    """
    if "transformers" not in sys.modules:
        return
    name = ""
    for frame in _frames("transformers"):
        values = frame.f_locals
        name = name or values.get("param_name", "")
        left_over = values.get("unexpected_keys", getattr(values.get("loading_info"), "unexpected_keys", None))
        if not name or left_over is None:
            continue
        kernel = f"{name.removesuffix('W')}weight"
        # The model for a task and its base differ by a prefix.
        if any(f".{kernel}".endswith(f".{key}") or key.endswith(f".{kernel}") for key in left_over):
            raise RuntimeError(
                "from_pretrained can't start a DO layer from the kernel of a plain checkpoint, it would leave the kernel out "
                "and draw a new W: load the plain class and call `overparameterize` then, or build the model from its "
                f"config and call `load_state_dict`. Received: {kernel}, for {layer}"
            )
        return


def _frames(package: str) -> Iterator[FrameType]:
    """The frames of a package's code among the callers, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(f"{package}."):
            yield frame
        frame = frame.f_back
