"""Steps of networks and compositions by shape on a GPU, as ratios, and what the fused kernels' parts take."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
import torch_models as models
from gpu_ways import (
    DEVICE,
    LAST,
    VARIANTS,
    composed_and_back,
    device_microseconds,
    eager_microseconds,
    eye,
    graphed,
    in_way,
    several,
    step,
    synchronize,
    variant,
)
from measure import Bench, Run
from torch import Tensor, nn

import doconv_torch._products as rule
from doconv_torch import DOConvMixin, compose, overparameterize
from doconv_torch._compose_all import Spec, compose_all

if TYPE_CHECKING:
    from gpu import Script


def network_steps(
    script: Script, benchmark: str, case: str, base: nn.Module, x: Tensor, y: Tensor, names: tuple[str, ...], *,
    autocast: bool = True, how: str = "eager",
) -> None:  # fmt: skip
    """One row: the steps of every variant; and a row of what each one takes of the device's memory."""
    runs, taken = {}, {}
    for name in names:
        try:
            inner = step(variant(name, base), x, y, autocast=autocast)
            run = in_way(name, inner)
            if how == "CUDA graph":
                # The graph goes on to read the model's memory: it is kept by `inner`.
                replay = graphed(run)
                runs[name] = several(lambda replay=replay, inner=inner: replay())
                continue
            run()
            if DEVICE == "cuda":
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                run()
                synchronize()
                taken[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
            runs[name] = several(run)
        except Exception as error:  # the other variants are of use
            traceback.print_exc()
            script.report.setdefault("failed", []).append(f"{benchmark}, {case}, {name}: {str(error)[:300]}")
    script.bench.compare(benchmark, case, "plain", runs)
    if taken:
        script.bench.note("peak of a step above what was allocated", case, "MiB", taken)


def pictures(script: Script, batch: int, classes: int = 1000) -> tuple[Tensor, Tensor]:
    size, batch = (32, 2) if script.quick else (224, batch)
    torch.manual_seed(0)
    x = torch.randn(batch, 3, size, size, device=DEVICE).to(memory_format=LAST)
    return x, torch.randint(0, classes, (batch,), device=DEVICE)


def resnet50(script: Script) -> nn.Module:
    torch.manual_seed(0)
    return models.resnet50().to(DEVICE).to(memory_format=LAST)


def resnet_eager(script: Script, batch: int, seconds: float) -> None:
    script.bench.seconds = seconds
    case = f"ResNet-50, 224x224, batch {batch}, bfloat16 autocast, channels last"
    names = VARIANTS if batch < 256 else ("plain", "textbook", "products", "fused", "together")
    network_steps(script, "training step, eager", case, resnet50(script), *pictures(script, batch), names)


def resnet_graph(script: Script, batch: int, seconds: float) -> None:
    script.bench.seconds = seconds
    case = f"ResNet-50, 224x224, batch {batch}, bfloat16 autocast, channels last"
    names = ("plain", "textbook", "products", "fused", "together")
    base, (x, y) = resnet50(script), pictures(script, batch)
    network_steps(script, "training step, CUDA graph", case, base, x, y, names, how="CUDA graph")


def resnet_compiled(script: Script) -> None:
    batch, base = 32, resnet50(script)
    (x, y), runs = pictures(script, batch), {}
    for name in ("plain", "ours"):
        run = step(torch.compile(variant(name, base)), x, y)
        runs[name] = several(run)
    script.bench.seconds = 4
    case = f"ResNet-50, 224x224, batch {batch}, bfloat16 autocast, channels last"
    script.bench.compare("training step, torch.compile", case, "plain", runs)


def small_network(script: Script) -> None:
    """Six layers of width 16 on 28x28: bound by calls."""
    width, made = 16, [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()]
    for layer in range(5):
        made += [nn.Conv2d(width, width, 3, padding=1, stride=2 if layer in (1, 3) else 1), nn.ReLU()]
    base = nn.Sequential(*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).to(DEVICE)
    x, y = torch.randn(64, 1, 28, 28, device=DEVICE), torch.randint(0, 10, (64,), device=DEVICE)
    script.bench.seconds, case = 3, "6 layers of width 16, 28x28, batch 64, float32"
    network_steps(script, "training step, eager", case, base, x, y, VARIANTS, autocast=False)
    if DEVICE == "cuda":
        names = ("plain", "textbook", "products", "fused", "together")
        network_steps(script, "training step, CUDA graph", case, base, x, y, names, autocast=False, how="CUDA graph")


def convnext(script: Script) -> None:
    torch.manual_seed(0)
    base = models.convnext(8 if script.quick else 96, 1000).to(DEVICE).to(memory_format=LAST)
    script.bench.seconds = 4
    case = "ConvNeXt-like w96, 224x224, batch 64, bfloat16 autocast, channels last"
    names = ("plain", "textbook", "products", "together")
    network_steps(script, "training step, eager", case, base, *pictures(script, 64), names)


SHAPES = ((3, 16, 1), (3, 64, 1), (3, 256, 1), (3, 512, 1), (3, 256, 32), (3, 256, 256), (7, 96, 96))


def compositions(script: Script) -> None:
    """One layer, forward, backward and the cast to bfloat16: device microseconds of a CUDA graph, and eager ones."""
    for size, channels, groups in SHAPES[: 1 if script.quick else None]:
        layer = overparameterize(nn.Conv2d(channels, channels, size, groups=groups, device=DEVICE))
        layer.D.data.normal_(0, 0.1)
        for last in (False, True):
            layer.channels_last = last
            g = torch.randn_like(layer.weight)
            g = (g.contiguous(memory_format=LAST) if last else g).bfloat16()
            runs = {}
            for way in ("textbook", "products", "fused"):
                runs[way] = in_way(way, lambda layer=layer, g=g: composed_and_back(layer, g))
            row = f"{size}x{size} C={channels} G={groups}{', channels last' * last}"
            device = {way: device_microseconds(run) for way, run in runs.items()} if DEVICE == "cuda" else {}
            script.bench.note("composition and cast, CUDA graph", row, "microseconds", device)
            eager = {way: eager_microseconds(run) for way, run in runs.items()}
            script.bench.note("composition and cast, eager", row, "microseconds", eager)


def fused_settings(script: Script) -> None:
    """What the fused kernels' own constants do, in device microseconds."""
    from doconv_torch import _compose_all, _triton

    for sums, rows in ((4096, 32), (2048, 32), (4096, 16), (4096, 128)):
        with patch.multiple(_triton, SUMS=sums, ROWS_PER_SUM=rows):
            _compose_all._known_plans.clear()
            for channels in (64, 512):
                layer = overparameterize(nn.Conv2d(channels, channels, 3, device=DEVICE))
                layer.channels_last = True
                g = torch.randn_like(layer.weight).contiguous(memory_format=LAST).bfloat16()
                run = in_way("fused", lambda layer=layer, g=g: composed_and_back(layer, g))
                case = f"3x3 C={channels}, channels last, {sums} sums, {rows} rows"
                script.bench.note("fused, CUDA graph", case, "microseconds", {"fused": device_microseconds(run)})
    _compose_all._known_plans.clear()


def fused_parts(script: Script) -> None:
    """Device microseconds of the parts of a ResNet-50's composition, all layers together."""
    model = overparameterize(resnet50(script))
    found = [layer for layer in model.modules() if isinstance(layer, DOConvMixin) and layer.D is not None]
    specs = [Spec(layer.groups, False, layer.kernel_size, layer.channels_last) for layer in found]
    parameters = [parameter for layer in found for parameter in (layer.W, layer.D)]

    def forward() -> tuple[Tensor, ...]:
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            return compose_all(specs, parameters)

    grads = [torch.randn_like(kernel) for kernel in forward()]

    def both() -> None:
        torch.autograd.grad(forward(), parameters, grads)

    def casts() -> None:
        for layer in found:
            layer.W.detach().bfloat16()

    parts = {"forward": forward, "forward and backward": both, "the plain layers' casts": casts}
    figures = {name: device_microseconds(run) for name, run in parts.items()}
    script.bench.note("all layers of a ResNet-50, CUDA graph", "channels last", "microseconds", figures)
    figures = {name: eager_microseconds(run) for name, run in parts.items()}
    script.bench.note("all layers of a ResNet-50, eager", "channels last", "microseconds", figures)


def on_the_processor(script: Script) -> None:
    """Which products are faster on this machine's processor, one thread."""
    torch.set_num_threads(1)
    bench = Bench("PyTorch", quick=script.quick, seconds=1, clock="cpu")
    eye.cache_clear()
    for size, channels, groups in (
        (3, 16, 1),
        (3, 64, 1),
        (3, 128, 1),
        (3, 256, 1),
        (3, 512, 1),
        (3, 256, 32),
        (7, 128, 1),
    ):
        W, D = torch.randn(channels, channels // groups, size**2), torch.randn(channels, size**2, size**2) * 0.1
        W, D, g = W.requires_grad_(), D.requires_grad_(), torch.randn_like(W)

        def by(way: str, W: Tensor = W, D: Tensor = D, g: Tensor = g, groups: int = groups) -> Run:
            identity = torch.eye(D.shape[1])

            def run() -> None:
                if way.startswith("textbook"):
                    grouped = W.unflatten(0, (groups, -1)), (D + identity).unflatten(0, (groups, -1))
                    kernel = torch.einsum("gocs,gcks->gock", *grouped).reshape(*W.shape[:2], -1)
                    kernel = kernel.contiguous() if way.endswith("contiguous") else kernel
                else:
                    with patch.object(rule, "PRODUCTS", way):
                        kernel = compose(W, D, groups)
                W.grad = D.grad = None
                with patch.object(rule, "PRODUCTS", "auto" if way.startswith("textbook") else way):
                    kernel.backward(g)

            return run

        variants = {way: by(way) for way in ("textbook", "textbook, contiguous", *rule.WAYS)}
        bench.compare("composition, which products", f"{size}x{size} C={channels} G={groups}", "textbook", variants)
    script.bench.rows += bench.rows
