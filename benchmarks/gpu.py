"""Everything that is measured on a GPU, in one run of a few minutes: `python benchmarks/gpu.py --out FILE.json`.

Needs this repository and, installed, PyTorch with CUDA and Triton, NumPy; for Flax's rows also flax and a jax with CUDA. First
what must be right: exact integers, and gradients compiled by the default backend. Then steps of networks and compositions by
shape, as ratios of wall times of variants that take turns, each round ended by a synchronisation; device times from CUDA
graphs. The file is written after every section, so that a run that is cut short is of use; a section that ends the process, as
an error on the device does, is noted, and the next ones run in another.

- plain: the network without DO-Conv.
- textbook: the formula written down, `D + I` and one `einsum`.
- products: a few calls for each layer, `W + bmm`; what `overparameterize` gives.
- fused: a Triton kernel for each layer.
- together: `compose_together`, fused; and with products.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]

import torch  # noqa: E402
import torch_models as models  # noqa: E402
from measure import Bench, Run, machine  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import doconv_torch._layers as layers  # noqa: E402
import doconv_torch._products as rule  # noqa: E402
from doconv_torch import DOConvMixin, compose, compose_together, overparameterize  # noqa: E402
from doconv_torch._compose_all import Spec, compose_all  # noqa: E402

OURS = layers._kernel
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAST = torch.channels_last
STEPS = 3


@functools.cache
def eye(taps: int) -> Tensor:
    return torch.eye(taps, device=DEVICE)


def textbook(W: Tensor, D_delta: Tensor | None, groups: int = 1, *, transposed: bool = False) -> Tensor:
    """From the formula: `D = D_delta + I`, `W' = D^T o W`, in the parameters' type."""
    if D_delta is None:
        return W
    with torch.autocast(W.device.type, enabled=False):
        D = D_delta + eye(D_delta.shape[1])
        if groups == 1:
            return torch.einsum("ocs,cks->ock", W, D)
        grouped = W.unflatten(0, (groups, -1)), D.unflatten(0, (groups, -1))
        return torch.einsum("gocs,gcks->gock", *grouped).reshape(*W.shape[:2], -1)


def fused_kernel(
    W: Tensor, D: Tensor | None, groups: int, transposed: bool, kernel_size: tuple[int, ...], channels_last: bool
) -> Tensor:
    """What takes the place of `doconv_torch._layers._kernel`: one fused kernel for each layer."""
    if D is None:
        return OURS(W, D, groups, transposed, kernel_size, channels_last)
    return compose_all([Spec(groups, transposed, kernel_size, channels_last)], [W, D])[0]


# How a variant's layers compose.
WAYS: dict[str, Callable[[], Any]] = {
    "textbook": lambda: patch.multiple(layers, compose=textbook, _kernel=OURS),
    "products": lambda: patch.object(rule, "PRODUCTS", "taps"),
    "fused": lambda: patch.object(layers, "_kernel", fused_kernel),
    "together, products": lambda: patch.object(rule, "PRODUCTS", "taps"),
}
VARIANTS = ("plain", "textbook", "products", "fused", "together, products", "together")


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def variant(name: str, base: nn.Module) -> nn.Module:
    model = copy.deepcopy(base)
    if name != "plain":
        overparameterize(model)
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, DOConvMixin) and layer.D is not None:
                    layer.D.normal_(0, 0.01)
    return compose_together(model) if "together" in name else model


def in_way(name: str, run: Run) -> Run:
    def patched() -> None:
        with WAYS.get(name, contextlib.nullcontext)():
            run()

    return patched


def several(run: Run) -> Run:
    """Some steps and a synchronisation: as in training, the processor is ahead of the device at the start of most."""

    def steps() -> None:
        for _ in range(STEPS):
            run()
        synchronize()

    return steps


def step(model: nn.Module, x: Tensor, y: Tensor, *, autocast: bool = True) -> Run:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        # Without a cache, so that a CUDA graph can be captured.
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=autocast, cache_enabled=False):
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    return run


def graphed(run: Run) -> Run:
    """The same calls as one CUDA graph: the device's time without the processor's."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class Script:
    """The sections, the time they have, and the file."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out, self.quick = options.out, options.quick
        self.start, self.seconds = time.perf_counter(), options.minutes * 60
        self.bench = Bench("PyTorch on a GPU", quick=options.quick, seconds=4, clock="wall")
        gpu = torch.cuda.get_device_name() if DEVICE == "cuda" else None
        self.earlier: list[dict[str, Any]] = []
        self.report: dict[str, Any] = {"machine": machine() | {"gpu": gpu}, "quick": self.quick, "sections": {}}
        self.report["date"] = time.strftime("%Y-%m-%d")
        self.report["versions"] = {"torch": torch.__version__}
        with contextlib.suppress(ImportError):
            import triton

            self.report["versions"]["triton"] = triton.__version__
        if options.child and self.out.exists():  # what the process before this one wrote
            self.report |= json.loads(self.out.read_text())
            self.earlier = self.report["rows"]

    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.start)

    def run(self, names: list[str]) -> None:
        """Every section that the time left allows: a section says how many seconds it needs."""
        for name in names:
            needs, section = SECTIONS[name]
            begun = time.perf_counter()
            self.report["begun"] = name
            self.write()
            if self.left() < needs:
                done: Any = f"left out: {self.left():.0f} s were left"
            else:
                signal.alarm(max(1, int(self.left()) + 5))
                try:
                    done = section(self) or "done"
                except Exception as error:  # the other sections are of use
                    traceback.print_exc()
                    done = f"{type(error).__name__}: {str(error)[:300]}"
                finally:
                    signal.alarm(0)
            self.report["sections"][name] = {"seconds": round(time.perf_counter() - begun, 1), "result": done}
            print(f"-- {name}: {self.report['sections'][name]}", file=sys.stderr, flush=True)
            self.write()
            torch.compiler.reset()
            if DEVICE == "cuda":
                torch.cuda.empty_cache()  # raises after an error on the device, which nothing gets over in this process
        self.report.pop("begun")
        self.write()

    def write(self) -> None:
        self.report["rows"] = self.earlier + self.bench.rows
        write_whole(self.out, self.report)


def integers(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def correctness(script: Script) -> dict[str, Any]:
    """Every way against the reference on the processor, in integers: exactly."""
    convs = {
        "dense": lambda: nn.Conv2d(40, 24, 3, padding=1),
        "groups": lambda: nn.Conv2d(16, 24, 3, groups=4),
        "depthwise": lambda: nn.Conv2d(70, 70, 3, groups=70),
        "depthwise 7x7": lambda: nn.Conv2d(40, 40, 7, groups=40),
        "transposed": lambda: nn.ConvTranspose2d(8, 6, 3, groups=2),
        "1-D, surplus": lambda: nn.Conv1d(8, 9, 3),
    }
    results: dict[str, Any] = {}
    references, names = [], []
    for last in (False, True):
        for name, make in convs.items():
            if last and name not in ("dense", "groups"):
                continue
            conv = make().to(memory_format=LAST) if last else make()
            reference = overparameterize(conv, d_mul=10 if "surplus" in name else None)
            for seed, parameter in enumerate(reference.parameters()):
                parameter.data.copy_(integers(tuple(parameter.shape), seed))
            references.append(reference)
            names.append(name + ", channels last" * last)
    gs = [integers(tuple(reference.weight.shape), 9) for reference in references]
    want = [gradients([reference._compose()], [reference], [g]) for reference, g in zip(references, gs, strict=True)]
    models = [copy.deepcopy(reference).to(DEVICE) for reference in references]
    gs = [g.to(DEVICE) for g in gs]
    for way in ("textbook", "products", "fused"):
        for name, model, g, expected in zip(names, models, gs, want, strict=True):
            if way != "textbook" or not (model.transposed or "surplus" in name):
                with WAYS[way]():
                    got = gradients([model._compose()], [model], [g])
                results[f"{way}, {name}"] = all(torch.equal(a, b.cpu()) for a, b in zip(expected, got, strict=True))
    specs = [Spec(model.groups, model.transposed, model.kernel_size, model.channels_last) for model in models]
    kernels = compose_all(specs, [parameter for model in models for parameter in (model.W, model.D)])
    got = gradients(list(kernels), models, gs)
    for number, name in enumerate(names):
        mine = [got[number], *got[len(names) + 2 * number :][:2]]
        results[f"together, {name}"] = all(torch.equal(a, b.cpu()) for a, b in zip(want[number], mine, strict=True))
    layer = overparameterize(nn.Conv2d(40, 24, 3)).to(DEVICE)
    layer.D.data.normal_()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        cast = fused_kernel(layer.W, layer.D, 1, False, (3, 3), False)
    full = fused_kernel(layer.W, layer.D, 1, False, (3, 3), False)
    results["one rounding to bfloat16"] = torch.equal(cast.bfloat16(), full.bfloat16())
    wrong = [name for name, equal in results.items() if not equal]
    return {"exact": len(results) - len(wrong), "wrong": wrong}


def gradients(kernels: list[Tensor], models: list[Any], gs: list[Tensor]) -> list[Tensor]:
    """The kernels, then each layer's gradients of `W` and `D`."""
    parameters = [parameter for model in models for parameter in (model.W, model.D)]
    return [*(kernel.detach() for kernel in kernels), *torch.autograd.grad(kernels, parameters, gs)]


def compiled_gradients(script: Script) -> dict[str, Any]:
    """The default backend against eager, in integers: the exact gradients of `W` and `D`."""
    convs = [
        nn.Conv2d(8, 16, 3),
        nn.Conv2d(8, 16, 3, groups=4),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ConvTranspose2d(8, 6, 2),
    ]
    model = nn.ModuleList(overparameterize(conv) for conv in convs).to(DEVICE)
    for seed, parameter in enumerate(model.parameters()):
        parameter.data.copy_(integers(tuple(parameter.shape), seed))
    x = integers((2, 8, 9, 9), 99).to(DEVICE)

    def total() -> Tensor:
        return sum(conv(x).pow(2).sum() for conv in model)

    got = []
    for run in (total, torch.compile(total, fullgraph=True)):
        model.zero_grad()
        run().backward()
        got.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    return {"wrong": [name for name, grad in got[0].items() if not torch.equal(grad, got[1][name])]}


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


def composed_and_back(layer: Any, g: Tensor) -> None:
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        weight = layer._compose()
    torch.autograd.grad(weight.bfloat16(), (layer.W, layer.D), g)


def device_microseconds(run: Run) -> float:
    def ten() -> None:
        for _ in range(10):
            run()

    replay, start, end = graphed(ten), *(torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for _ in range(10):
        start.record()
        replay()
        end.record()
        synchronize()
        times.append(start.elapsed_time(end) * 100)
    return statistics.median(times)


def eager_microseconds(run: Run) -> float:
    for _ in range(3):
        run()
    times = []
    for _ in range(7):
        synchronize()
        before = time.perf_counter()
        for _ in range(20):
            run()
        synchronize()
        times.append((time.perf_counter() - before) / 20 * 1e6)
    return statistics.median(times)


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
                if way == "textbook":
                    grouped = W.unflatten(0, (groups, -1)), (D + identity).unflatten(0, (groups, -1))
                    kernel = torch.einsum("gocs,gcks->gock", *grouped).reshape(*W.shape[:2], -1)
                else:
                    with patch.object(rule, "PRODUCTS", way):
                        kernel = compose(W, D, groups)
                W.grad = D.grad = None
                with patch.object(rule, "PRODUCTS", way if way != "textbook" else "auto"):
                    kernel.backward(g)

            return run

        variants = {way: by(way) for way in ("textbook", "taps", "kernels")}
        bench.compare("composition, which products", f"{size}x{size} C={channels} G={groups}", "textbook", variants)
    script.bench.rows += bench.rows


def flax_steps(script: Script) -> Any:
    """Flax in a process of its own; its memory is its own, too."""
    command = [sys.executable, __file__, "--flax", "--out", str(script.out)] + ["--quick"] * script.quick
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    limit = max(script.left(), 20)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    if done.returncode or not lines:
        return done.stderr[-400:]
    script.bench.rows += json.loads(lines[-1])
    return None


def flax_alone(quick: bool) -> None:
    """What `flax_steps` starts: prints its rows as JSON."""
    import flax_bench
    import jax
    import jax.numpy as jnp

    bench = Bench("Flax on a GPU", quick=quick, seconds=3, clock="wall")
    width, size, batches = (8, 8, (2,)) if quick else (64, 64, (256, 32))
    on = "" if jax.default_backend() == "gpu" else f", on {jax.default_backend()}"
    flax_bench.linen_steps(bench, width, size, batches, jnp.bfloat16, f", bfloat16{on}")
    print(json.dumps(bench.rows))


# In the order of what they say; with the seconds that each needs.
SECTIONS: dict[str, tuple[float, Callable[[Script], Any]]] = {
    "correctness": (0, correctness),
    "small network": (10, small_network),
    "resnet 32 eager": (10, lambda script: resnet_eager(script, 32, 5)),
    "resnet 32 graph": (10, lambda script: resnet_graph(script, 32, 3)),
    "parts": (5, fused_parts),
    "resnet 256 eager": (20, lambda script: resnet_eager(script, 256, 9)),
    "processor": (8, on_the_processor),
    "compositions": (12, compositions),
    "resnet 256 graph": (15, lambda script: resnet_graph(script, 256, 4)),
    "resnet compiled": (40, resnet_compiled),
    "compiled gradients": (15, compiled_gradients),
    "convnext": (12, convnext),
    "settings": (15, fused_settings),
    "flax": (45, flax_steps),
}
NEED_A_GPU = ("settings", "parts", "resnet 32 graph", "resnet 256 graph")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        figures = ", ".join(
            f"{name} {result['value']:.3f}" + (f" ({result['wall_ms']:.2f} ms)" if name == "plain" else "")
            for name, result in row["results"].items()
        )
        control = f", A/A {row['control']:.3f}" if "control" in row else ""
        yield f"{row['framework']}: {row['benchmark']}; {row['case']}; {row['unit']}: {figures}{control}"


def _too_late(number: int, frame: Any) -> None:
    raise TimeoutError("the time of the run is over")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--minutes", type=float, default=4, help="sections that would end later are left out")
    parser.add_argument("--only", default="", help="sections whose names contain this")
    parser.add_argument("--quick", action="store_true", help="each section once, small, to see that it runs")
    parser.add_argument("--sections", default="", help="these, with commas between: " + ", ".join(SECTIONS))
    parser.add_argument("--flax", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flax:
        flax_alone(options.quick)
        return
    if DEVICE == "cpu" and not options.quick:
        parser.error("no CUDA device was found; --quick runs everything that a processor can")
    names = [name for name in SECTIONS if options.only in name]
    if options.sections:
        names = options.sections.split(",")
    if DEVICE == "cpu":
        names = [name for name in names if name not in NEED_A_GPU]
    if options.child:
        torch.backends.cudnn.benchmark = True
        signal.signal(signal.SIGALRM, _too_late)
        Script(options).run(names)
        return
    options.out.unlink(missing_ok=True)
    begun = time.perf_counter()
    while names:
        minutes = options.minutes - (time.perf_counter() - begun) / 60
        more = ["--quick"] * options.quick
        command = [sys.executable, __file__, "--child", "--out", str(options.out), "--minutes", str(minutes), *more]
        subprocess.run([*command, "--sections", ",".join(names)])
        report = json.loads(options.out.read_text())
        if "begun" in report and report["begun"] not in report["sections"]:
            report["sections"][report["begun"]] = {"result": "ended the process"}
            write_whole(options.out, report)
        names = [name for name in names if name not in report["sections"]]
    print("\n".join(table(report["rows"])))
    print(json.dumps({name: section["result"] for name, section in report["sections"].items()}))


def write_whole(path: Path, report: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
