"""What must be right on a GPU before anything is measured: integers, exactly."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from gpu_ways import DEVICE, LAST, WAYS, fused_kernel
from torch import Tensor, nn

from doconv_torch import overparameterize
from doconv_torch._compose_all import Spec, compose_all

if TYPE_CHECKING:
    from gpu import Script


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
