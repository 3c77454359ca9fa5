"""`torch.load(weights_only=True)` for what training scripts save: their options stand beside the weights."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch


def load_saved(path: str | os.PathLike[str], **options: Any) -> Any:
    """As `torch.load`; `weights_only=True` passes an `argparse.Namespace`, which timm's and torchvision's scripts save."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, **options)
