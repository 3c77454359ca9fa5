"""torchvision beside a PyTorch that it was not built for: its models are Python and run."""

import sys
from typing import Any

import torch


def import_torchvision() -> Any:
    """Its models in Python; of its compiled operators, which another build of PyTorch lacks, no more than the names."""
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.library.define(
            "torchvision::roi_align",
            "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio, "
            "bool aligned) -> Tensor",
        )
        import torchvision
    return torchvision
