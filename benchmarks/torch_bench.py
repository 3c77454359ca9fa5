"""PyTorch: composition, training steps, inference, micro-batches, memory. `python benchmarks/torch_bench.py --help`."""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import timeit
from collections.abc import Callable
from itertools import product
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch_models as models
from measure import Bench, Run, command_line
from torch import Tensor, nn

import doconv_torch._layers as layers
import doconv_torch._products as rule
from doconv_torch import (
    compose_together,
    composed_once,
    fold,
    overparameterize,
    recompute_kernels,
    store_by_channel,
)
from doconv_torch._compose import _Compose, compose


def textbook(W: Tensor, D_delta: Tensor | None, groups: int = 1, *, transposed: bool = False) -> Tensor:
    """From the formula: `D = D_delta + I`, `W' = D^T o W`."""
    if D_delta is None:
        return W
    D = D_delta + torch.eye(D_delta.shape[1], dtype=W.dtype, device=W.device)
    grouped = W.unflatten(0, (groups, -1)), D.unflatten(0, (groups, -1))
    return torch.einsum("gocs,gcks->gock", *grouped).reshape(*W.shape[:2], -1)


def contiguous_textbook(W: Tensor, D_delta: Tensor, groups: int = 1) -> Tensor:
    """The same in the memory order of a convolution's weight: what einsum gives lies otherwise, and each convolution, forward
    and backward, would copy it.
    """
    return textbook(W, D_delta, groups).contiguous()


def products(W: Tensor, D: Tensor, groups: int = 1) -> Run:
    """The three matrix products alone, into memory that is there, in the order of memory that is faster: no composition that
    uses the framework's product can be faster.
    """
    channels, taps, columns = D.shape
    shared = len(W) // groups
    with torch.no_grad():
        D, grad_D = D.detach(), torch.empty_like(D)
        w, g, out = (torch.randn(channels, shared, n) for n in (columns, taps, taps))
        grad_w, w_T, g_T = torch.empty_like(w), w.mT.contiguous(), g.mT.contiguous()
        out_T, grad_w_T = torch.empty_like(g_T), torch.empty_like(w_T)

    def along_taps() -> None:
        torch.bmm(w, D.mT, out=out), torch.bmm(g, D, out=grad_w), torch.bmm(g.mT, w, out=grad_D)

    def along_kernels() -> None:
        torch.bmm(D, w_T, out=out_T), torch.bmm(D.mT, g_T, out=grad_w_T), torch.bmm(g_T, w_T.mT, out=grad_D)

    return min((along_taps, along_kernels), key=lambda run: min(timeit.repeat(run, number=1, repeat=5)))


def with_products(run: Run, model: nn.Module) -> Run:
    """`run`, and the products of every layer of `model`."""
    layers = (layer for layer in model.modules() if getattr(layer, "D", None) is not None)
    alone = [products(layer.W, layer.D, layer.groups) for layer in layers]
    return lambda: (run(), *[product() for product in alone])


def by_textbook(run: Run) -> Run:
    def patched() -> Any:
        with patch.object(layers, "compose", textbook):
            return run()

    return patched


def composition(bench: Bench) -> None:
    channels = (64, 128, 256, 512)
    for size, C, groups in product((3, 7), channels, ("1", "32", "C")):
        G = C if groups == "C" else int(groups)
        torch.manual_seed(0)
        W, D, g = (
            torch.randn(C, C // G, size**2),
            torch.randn(C, size**2, size**2) * 0.1,
            torch.randn(C, C // G, size**2),
        )
        variants = {
            "textbook": _gradient(textbook, W, D, G, g),
            "textbook, contiguous": _gradient(contiguous_textbook, W, D, G, g),
            "ours": _gradient(compose, W, D, G, g),
        }
        if G == 1:
            by_channel = W.permute(1, 2, 0).contiguous().permute(2, 0, 1)
            variants["ours, W by channel"] = _gradient(compose, by_channel, D, G, g)
        variants |= {"ours, without autograd": _calls(W, D, G, g), "products alone": products(W, D, G)}
        bench.compare("composition, forward and backward", f"{size}x{size} C={C} G={groups}", "textbook", variants)
        if bench.quick:
            return


def choices(bench: Bench) -> None:
    """All products by hand, those that the rule chooses, and how much slower they are than the better ones."""
    for size, C, groups in product((3, 5, 7), (16, 32, 64, 128, 256, 512), ("1", "4", "C")):
        G = C if groups == "C" else int(groups)
        if size > 3 and C > 256:
            continue
        torch.manual_seed(0)
        W, g = (torch.randn(C, C // G, size**2) for _ in range(2))
        D = torch.randn(C, size**2, size**2) * 0.1
        variants = {name: _by_hand(name, _gradient(compose, W, D, G, g)) for name in (*rule.WAYS, "auto")} | {
            "textbook": _gradient(textbook, W, D, G, g),
            "textbook, contiguous": _gradient(contiguous_textbook, W, D, G, g),
        }
        case = f"{size}x{size} C={C} G={groups}"
        row = bench.compare("composition, which products", case, "textbook", variants)
        best = min(row["results"][name]["value"] for name in rule.WAYS)
        chosen = rule.products_for(W, D).__name__.rpartition("._")[2]
        bench.note("composition, the chosen against the better products", case, "ratio",
                   {chosen: row["results"][chosen]["value"] / best})  # fmt: skip
        if bench.quick:
            return


def _by_hand(products: str, run: Run) -> Run:
    def patched() -> None:
        with patch.object(rule, "PRODUCTS", products):
            run()

    return patched


def _gradient(function: Callable[..., Tensor], W: Tensor, D: Tensor, G: int, g: Tensor) -> Run:
    W, D = W.detach().requires_grad_(), D.detach().clone().requires_grad_()

    def run() -> None:
        W.grad = D.grad = None
        function(W, D, G).backward(g)

    return run


def _calls(W: Tensor, D: Tensor, G: int, g: Tensor) -> Run:
    """What `compose` calls, forward and backward."""
    context = SimpleNamespace(
        saved_tensors=(W, D), needs_input_grad=(True, True, False), save_for_backward=lambda *_: None
    )

    @torch.no_grad()
    def run() -> None:
        _Compose.forward(context, W, D, G)
        _Compose.backward(context, g)

    return run


def main_network(bench: Bench) -> nn.Sequential:
    return models.resnet18(8 if bench.quick else 64)


MAIN = "ResNet-18 w64, ImageNet form"
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18 w64, CIFAR form": lambda: models.resnet18(stem="cifar"),
    "ResNet-18 w32, ImageNet form": lambda: models.resnet18(32),
    "MobileNetV2": models.mobilenet_v2,
    "ConvNeXt-like": models.convnext,
}
BATCHES = {MAIN: (1, 8, 32), "ResNet-18 w64, CIFAR form": (8, 32)}


def steps(bench: Bench) -> None:
    for name, network in {MAIN: lambda: main_network(bench), **NETWORKS}.items():
        for batch in BATCHES.get(name, (8,)):
            base, x, y = _made(network, batch)
            ours = overparameterize(copy.deepcopy(base))
            variants = {
                "plain": _step(base, x, y),
                "textbook": by_textbook(_step(copy.deepcopy(ours), x, y)),
                "ours": _step(copy.deepcopy(ours), x, y),
                "together": _step(compose_together(copy.deepcopy(ours)), x, y),
                "ours, W by channel": _step(store_by_channel(copy.deepcopy(ours)), x, y),
                "plain + products": with_products(_step(copy.deepcopy(base), x, y), ours),
            }
            bench.compare("training step", f"{name}, 64x64, batch {batch}", "plain", variants)
            if bench.quick:
                return


def _made(network: Callable[[], nn.Module], batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return network(), torch.randn(batch, 3, 64, 64), torch.randint(0, 10, (batch,))


def _step(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return run


def small_network(bench: Bench) -> None:
    """Six layers of width 16 on 28x28: calls weigh most."""
    torch.manual_seed(0)
    made: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()]
    for layer in range(5):
        made += [nn.Conv2d(16, 16, 3, padding=1, stride=2 if layer in (1, 3) else 1), nn.ReLU()]
    base = nn.Sequential(*made, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    x, y = torch.randn(2 if bench.quick else 64, 1, 28, 28), torch.randint(0, 10, (2 if bench.quick else 64,))
    ours = overparameterize(copy.deepcopy(base))
    variants = {
        "plain": _step(base, x, y),
        "textbook": by_textbook(_step(copy.deepcopy(ours), x, y)),
        "ours": _step(copy.deepcopy(ours), x, y),
        "together": _step(compose_together(copy.deepcopy(ours)), x, y),
    }
    bench.compare("training step", "6 layers of width 16, 28x28, batch 64", "plain", variants)


def inference(bench: Bench) -> None:
    base, x, _ = _made(lambda: main_network(bench), 1)
    ours = overparameterize(copy.deepcopy(base)).eval()
    base.eval()

    def passes(model: nn.Module) -> Run:
        return torch.no_grad()(lambda: model(x))

    variants = {"plain": passes(base), "textbook": by_textbook(passes(ours)), "ours": passes(ours)}
    once = copy.deepcopy(ours)
    with composed_once(once):
        bench.compare(
            "inference", f"{MAIN}, 64x64, batch 1", "plain",
            variants | {"composed once": passes(once), "folded": passes(fold(copy.deepcopy(ours)))},
        )  # fmt: skip


def micro_batches(bench: Bench) -> None:
    base, x, y = _made(lambda: main_network(bench), 8)
    count = 1 if bench.quick else 8
    ours = overparameterize(copy.deepcopy(base))

    def accumulate(model: nn.Module, *, once: bool = False) -> Run:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

        def backward() -> None:
            for _ in range(count):
                nn.functional.cross_entropy(model(x), y).backward()

        def run() -> None:
            optimizer.zero_grad()
            if once:
                with composed_once(model):
                    backward()
            else:
                backward()
            optimizer.step()

        return run

    twins = [copy.deepcopy(ours) for _ in range(3)]
    variants = {"plain": accumulate(base), "textbook": by_textbook(accumulate(twins[0])), "ours": accumulate(twins[1]),
                "composed once": accumulate(twins[2], once=True)}  # fmt: skip
    bench.compare("8 micro-batches of 8", f"{MAIN}, 64x64", "plain", variants)


MEMORY = ("plain", "textbook", "ours", "recompute")


def memory(bench: Bench) -> None:
    """Bytes kept for the backward pass beyond the parameters; peak of a process that trains three steps."""
    saved = {name: _saved(bench, name) for name in MEMORY}
    case = f"{MAIN}, 64x64, batch 8"
    bench.note(
        "kept for the backward pass, beyond plain", case, "bytes", {n: saved[n] - saved["plain"] for n in MEMORY}
    )
    peaks: dict[str, float | None] = {}
    for name in MEMORY if not bench.quick else ():
        done = subprocess.run([sys.executable, __file__, "--peak", name], capture_output=True, text=True, check=True)
        peaks[name] = float(done.stdout)
    if peaks:
        bench.note("peak memory of the process", case, "MiB", peaks)


def _saved(bench: Bench, name: str) -> int:
    base, x, y = _made(lambda: main_network(bench), 8)
    model = base if name == "plain" else overparameterize(base)
    kept: dict[int, int] = {}
    alive = []

    def pack(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        alive.append(saved)
        return saved

    import doconv_torch._recompute as recompute

    def pack_or_recompute(saved: Tensor) -> Any:
        packed = original(saved)
        return pack(packed) if isinstance(packed, Tensor) else packed

    original = recompute._pack
    forward: Run = lambda: nn.functional.cross_entropy(model(x), y)  # noqa: E731
    if name == "recompute":
        with patch.object(recompute, "_pack", pack_or_recompute), recompute_kernels():
            forward()
    else:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            (by_textbook(forward) if name == "textbook" else forward)()
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    return sum(size for address, size in kept.items() if address not in parameters)


def peak(name: str) -> float:
    base, x, y = _made(models.resnet18, 8)
    run = _step(base if name == "plain" else overparameterize(base), x, y)
    if name == "textbook":
        run = by_textbook(run)
    for _ in range(3):
        if name == "recompute":
            with recompute_kernels():
                run()
        else:
            run()
    with open("/proc/self/status") as file:  # `ru_maxrss` would include the parent's, from before exec
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def compiled(bench: Bench) -> None:
    """The step under `torch.compile`, each variant compiled by itself."""
    base, x, y = _made(lambda: main_network(bench), 8)
    backend = "aot_eager" if bench.quick else "inductor"
    variants = {
        name: _step(torch.compile(model, backend=backend), x, y)
        for name, model in {"ours": overparameterize(copy.deepcopy(base)), "plain": base}.items()
    }
    bench.compare("training step, torch.compile", f"{MAIN}, 64x64, batch 8", "plain", variants)


BENCHMARKS = (composition, choices, steps, small_network, inference, micro_batches, memory, compiled)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--peak", choices=MEMORY, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(peak(options.peak))
        return
    bench = Bench("PyTorch", quick=options.quick, seconds=options.seconds)
    bench.run(BENCHMARKS, options.only)
    bench.write(["torch", "doconv-core"])


if __name__ == "__main__":
    main()
