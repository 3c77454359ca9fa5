"""The ways in which a model's layers compose on a GPU, a step in each of them, and what a step takes."""

from __future__ import annotations

import contextlib
import copy
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from measure import Run
from torch import Tensor, nn

import doconv_torch._layers as layers
import doconv_torch._products as rule
from doconv_torch import DOConvMixin, compose_together, overparameterize
from doconv_torch._compose_all import Spec, compose_all

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
