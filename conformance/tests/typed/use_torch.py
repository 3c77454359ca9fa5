"""What a user of the PyTorch backend writes, with the types that it promises."""

from typing import assert_type

import torch
from torch import nn

from doconv_torch import DOConv2d, fold, inspect_model, load_checkpoint, overparameterize, save_checkpoint


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = DOConv2d(3, 8, 3, padding=1, d_mul=12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y


net = overparameterize(Net(), where=lambda path, conv: path != "head", d_mul=9)
assert_type(net, Net)
assert_type(fold(net), Net)
assert_type(inspect_model(net), dict[str, str])
assert_type(net.conv.d_mul, int)
weight: torch.Tensor = net.conv.weight
plain: nn.Conv2d = DOConv2d(3, 8, 3)  # takes the place of the layer that it replaces
save_checkpoint(net, "net.safetensors")
assert_type(load_checkpoint("net.safetensors", net), Net)

DOConv2d(3, 8, "3")  # error: a string
overparameterize(Net(), 9)  # error: by keyword only
