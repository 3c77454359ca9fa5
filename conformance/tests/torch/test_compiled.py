"""`torch.compile` with its default backend: gradients equal those of eager, exactly, for every class of geometry.

The compiler chooses the memory layout of what flows between operations, the gradient of a composed kernel included. All layers
are compiled in one graph, so that a way costs one compilation.
"""

import contextlib
import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from doconv_torch import overparameterize, store_by_channel

pytestmark = [
    # Dynamo makes an instance of `torch.autograd.Function` to trace one.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning"),  # the compiler's own imports
]

# Convolutions and their `d_mul`: as many columns as taps, a multiple, a surplus.
LAYERS: dict[str, tuple[Callable[[], nn.Module], int | None]] = {
    "1-D": (lambda: nn.Conv1d(8, 16, 3), None),
    "1-D, groups": (lambda: nn.Conv1d(8, 16, 3, groups=4), 7),
    "1-D, transposed": (lambda: nn.ConvTranspose1d(8, 6, 3), 6),
    "2-D": (lambda: nn.Conv2d(8, 16, 3), None),
    "2-D, multiple": (lambda: nn.Conv2d(8, 16, (3, 2)), 12),
    "2-D, surplus": (lambda: nn.Conv2d(8, 17, 2), 7),
    "2-D, many taps": (lambda: nn.Conv2d(3, 17, (5, 4), padding=2), None),
    "2-D, groups": (lambda: nn.Conv2d(8, 16, 3, groups=4), None),
    "2-D, groups of many": (lambda: nn.Conv2d(8, 36, 3, groups=2), 10),
    "2-D, depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8), None),
    "2-D, depthwise, surplus": (lambda: nn.Conv2d(8, 16, 3, groups=8), 11),
    "2-D, transposed": (lambda: nn.ConvTranspose2d(8, 16, 3), None),
    "2-D, transposed, groups": (lambda: nn.ConvTranspose2d(8, 6, 2, groups=2), 9),
    "3-D": (lambda: nn.Conv3d(8, 16, 2), None),
    "3-D, groups": (lambda: nn.Conv3d(8, 6, 2, groups=2), 17),
    "3-D, transposed": (lambda: nn.ConvTranspose3d(8, 6, 2), None),
}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Apart(nn.Module):
    """Layers side by side, each with an input of its own."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]


def integers(shape: tuple[int, ...], seed: int, most: int = 1) -> torch.Tensor:
    """So small that every sum is exact in any type and order."""
    return torch.randint(-most, most + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def layers(last: bool) -> Apart:
    made = []
    for make, d_mul in LAYERS.values():
        layer = make()
        if last and layer.weight.ndim in LAST:
            layer = layer.to(memory_format=LAST[layer.weight.ndim])
        made.append(overparameterize(layer, d_mul=d_mul))
    with torch.no_grad():
        for seed, parameter in enumerate(nn.ModuleList(made).parameters()):
            parameter.copy_(integers(parameter.shape, seed))
    return Apart(made)


def inputs(model: Apart, batch: int, dtype: torch.dtype, last: bool) -> list[torch.Tensor]:
    made = []
    for seed, layer in enumerate(model.layers):
        x = integers((batch, layer.in_channels, *[5] * len(layer.kernel_size)), seed).to(dtype)
        made.append(x.contiguous(memory_format=LAST[x.ndim]) if last and x.ndim in LAST else x)
    return made


def gradients(model: Apart, run: Callable, xs: list[torch.Tensor], around: Callable) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with around():
        ys = run(xs)
    # One sparse upstream gradient: it keeps the sums of bfloat16 exact, and every tap sees another part of the input.
    gs = [integers(y.shape, seed).to(y.dtype) * (integers(y.shape, seed + 99, 2) == 2) for seed, y in enumerate(ys)]
    torch.autograd.backward(ys, gs)
    values = dict(zip(LAYERS, (y.detach().float() for y in ys), strict=True))
    names = dict(zip(map(str, range(len(LAYERS))), LAYERS, strict=True))
    for name, parameter in model.named_parameters():
        _, index, role = name.split(".")
        assert parameter.grad is not None
        values[f"{names[index]}: {role}.grad"] = parameter.grad.float().clone()
    return values


WAYS: dict[str, dict] = {
    "static": {},
    "dynamic": {"dynamic": True},
    "channels last, bfloat16": {"last": True, "dtype": torch.bfloat16},
    "by channel, autocast": {
        "prepare": store_by_channel,
        "around": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_gradients_compiled_by_the_default_backend_equal_the_eager_ones(way: str) -> None:
    options = WAYS[way]
    last, dtype, around = (
        options.get("last", False),
        options.get("dtype"),
        options.get("around", contextlib.nullcontext),
    )
    torch.compiler.reset()
    model = options.get("prepare", lambda model: model)(layers(last).to(dtype))
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, fullgraph=True)
    for batch in (2, 3) if "dynamic" in options else (2,):
        xs = inputs(model, batch, dtype or torch.float32, last)
        if "dynamic" in options:
            for x in xs:
                torch._dynamo.mark_dynamic(x, 0)
        with torch.compiler.set_stance("fail_on_recompile" if batch == 3 else "default"):
            got = gradients(twin, compiled, xs, around)
        expected = gradients(model, model, xs, around)
        assert [name for name, value in expected.items() if not torch.equal(got[name], value)] == []
        assert all(value.any() for value in expected.values())


def test_a_backward_pass_compiled_under_autocast_composes_in_float32() -> None:
    """The compiler traces derivatives under the autocast of the forward pass, which would round 257 to bfloat16, 256."""
    torch.compiler.reset()
    layer = overparameterize(nn.Conv2d(3, 4, 3, bias=False))
    with torch.no_grad():
        layer.W.fill_(257)
        layer.D.fill_(257)
    x = integers((2, 3, 5, 5), 0)
    got = {}
    for name, run in {"eager": layer, "compiled": torch.compile(layer, fullgraph=True)}.items():
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = run(x)
        y.backward(integers(y.shape, 1).to(y.dtype))
        assert layer.W.grad is not None
        assert layer.D.grad is not None
        got[name] = layer.W.grad.clone(), layer.D.grad.clone()
    for eager, compiled in zip(*got.values(), strict=True):
        assert eager.any()
        assert torch.equal(eager, compiled)
