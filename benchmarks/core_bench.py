"""The reference convolution beside PyTorch's, and the start of the command line. No framework but PyTorch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import torch
from measure import Bench, command_line

from doconv_core import ConvGeometry, convolve, convolve_vjp


def reference(bench: Bench) -> None:
    """A layer of middle size on one thread. The reference computes in float64 whatever comes in."""
    size, channels = (8, 8) if bench.quick else (28, 128)
    geometry = ConvGeometry(in_channels=channels, out_channels=channels, kernel_size=(3, 3), padding=((1, 1), (1, 1)))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, channels, size, size), np.float32)
    weight = rng.standard_normal(geometry.kernel_shape, np.float32)
    variants = {}
    for dtype in (torch.float64, torch.float32):
        tensors = (
            torch.tensor(x, dtype=dtype, requires_grad=True),
            torch.tensor(weight, dtype=dtype, requires_grad=True),
        )
        name = f"PyTorch {str(dtype).removeprefix('torch.')}"
        variants[name] = lambda tensors=tensors: torch.nn.functional.conv2d(*tensors, padding=1)
    case = f"3x3, {channels} channels, {size}x{size}, batch 8"
    forward = variants | {"reference": lambda: convolve(x, weight, None, geometry)}
    bench.compare("reference convolution, forward", case, "PyTorch float32", forward)
    grad = np.ones_like(x)
    backward = {
        name: (lambda run=run: run().backward(torch.from_numpy(grad).to(run().dtype))) for name, run in variants.items()
    }
    backward["reference"] = lambda: (convolve(x, weight, None, geometry), convolve_vjp(x, weight, grad, geometry))
    bench.compare("reference convolution, forward and backward", case, "PyTorch float32", backward)


def help_of_the_command_line(bench: Bench) -> None:
    """Time of the processor, which other processes disturb least."""
    seconds = []
    for _ in range(1 if bench.quick else 7):
        before = os.times()
        subprocess.run([sys.executable, "-m", "doconv_conformance", "--help"], capture_output=True, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    bench.note("start of the command line", "doconv --help", "seconds", {"doconv": sorted(seconds)[len(seconds) // 2]})


def main() -> None:
    options = command_line(__doc__).parse_args()
    torch.set_num_threads(1)
    bench = Bench("core", quick=options.quick, seconds=options.seconds)
    bench.run((reference, help_of_the_command_line), options.only)
    bench.write(["numpy", "torch", "doconv-core"])


if __name__ == "__main__":
    main()
