"""PyTorch on a GPU: training steps of ResNet-50 in every precision, eager and compiled. Without a GPU: "not measured"."""

from __future__ import annotations

import copy
from itertools import product

import torch
import torch_models as models
from measure import Bench, Run, command_line
from torch import nn

from doconv_torch import overparameterize

PRECISIONS = ("float32", "TF32", "bfloat16 autocast", "bfloat16 autocast, channels_last")


def step(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, compiled: bool, autocast: bool) -> Run:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()  # the process waits, so its time is the GPU's

    return run


def steps(bench: Bench) -> None:
    for precision, batch, compiled in product(PRECISIONS, (32, 256), (False, True)):
        case = f"ResNet-50, 224x224, batch {batch}, {precision}, {'compiled' if compiled else 'eager'}"
        if not torch.cuda.is_available():
            bench.note("training step", case, "of plain", {"plain": None, "ours": None})
        else:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "TF32"
            base = models.resnet50().cuda()
            x, y = torch.randn(batch, 3, 224, 224, device="cuda"), torch.randint(0, 1000, (batch,), device="cuda")
            if "channels_last" in precision:
                base, x = base.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
            how = {"compiled": compiled, "autocast": "autocast" in precision}
            ours = overparameterize(copy.deepcopy(base))
            bench.compare(
                "training step", case, "plain", {"plain": step(base, x, y, **how), "ours": step(ours, x, y, **how)}
            )
        if bench.quick:
            return


def main() -> None:
    options = command_line(__doc__).parse_args()
    bench = Bench("PyTorch on a GPU", quick=options.quick, seconds=options.seconds, clock="wall")
    bench.run((steps,), options.only)
    bench.write(["torch", "doconv-core"])


if __name__ == "__main__":
    main()
