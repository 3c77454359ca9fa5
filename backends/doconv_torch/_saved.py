"""`torch.load(weights_only=True)` for what training scripts save: their options stand beside the weights."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import Any

import torch

# Values without code: the options of timm's and torchvision's scripts, and paths among them, on any system and Python.
OPTIONS = [
    argparse.Namespace,
    *(
        (pure, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name, pure in (
            ("PosixPath", pathlib.PurePosixPath),
            ("WindowsPath", pathlib.PureWindowsPath),
            ("PurePosixPath", pathlib.PurePosixPath),
            ("PureWindowsPath", pathlib.PureWindowsPath),
        )
    ),
]


def load_saved(path: str | os.PathLike[str], **options: Any) -> Any:
    """As `torch.load`; an `argparse.Namespace` and paths are let through by `weights_only=True`, and nothing else besides."""
    with torch.serialization.safe_globals(OPTIONS):
        return torch.load(path, **options)
