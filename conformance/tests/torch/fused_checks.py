"""What `test_fused.py` runs in a process of its own: the Triton kernels by Triton's interpreter, on the processor.

Triton decides when it is imported whether it interprets.
"""

import copy
import sys
import traceback
from collections.abc import Callable

import torch
from torch import nn

import doconv_torch._compose_all as compose_all_module
from doconv_torch import _products, _triton, compose_together, overparameterize
from doconv_torch._compose_all import Spec, compose_all

compose_all_module.FUSED_DEVICES = ("cpu",)
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

# Convolutions, `d_mul` and memory format; more rows and lanes than a block has, a surplus, groups, one lane only.
LAYERS: dict[str, tuple[Callable[[], nn.Module], int | None, bool]] = {
    "dense": (lambda: nn.Conv2d(5, 20, 3), None, False),
    "dense, channels last": (lambda: nn.Conv2d(33, 9, 3), None, True),
    "more rows than one sum": (lambda: nn.Conv2d(3, 70, 3), None, True),
    "one channel": (lambda: nn.Conv2d(1, 6, 3), None, False),
    "multiple": (lambda: nn.Conv2d(4, 6, 2), 8, True),
    "surplus": (lambda: nn.Conv1d(4, 6, 3), 11, False),
    "many taps": (lambda: nn.Conv2d(3, 10, 5), None, True),
    "3-D, channels last": (lambda: nn.Conv3d(3, 4, 2), None, True),
    "groups": (lambda: nn.Conv2d(8, 12, 3, groups=4), None, False),
    "groups, channels last": (lambda: nn.Conv2d(8, 12, 3, groups=2), None, True),
    "depthwise": (lambda: nn.Conv2d(40, 40, 3, groups=40), None, False),
    "depthwise, multiplier, channels last": (lambda: nn.Conv2d(6, 12, 3, groups=6), None, True),
    "transposed": (lambda: nn.ConvTranspose2d(5, 6, 3), None, False),
    "transposed, groups, channels last": (lambda: nn.ConvTranspose2d(6, 4, 2, groups=2), 5, True),
}


def integers(shape: torch.Size, seed: int) -> torch.Tensor:
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


def layers() -> list:
    made = []
    for make, d_mul, last in LAYERS.values():
        layer = make()
        made.append(overparameterize(layer.to(memory_format=LAST[layer.weight.ndim]) if last else layer, d_mul=d_mul))
    with torch.no_grad():
        for seed, parameter in enumerate(nn.ModuleList(made).parameters()):
            parameter.copy_(integers(parameter.shape, seed))
    return made


def specs_and_parameters(made: list) -> tuple[list[Spec], list[torch.Tensor]]:
    specs = [Spec(layer.groups, layer.transposed, layer.kernel_size, layer.channels_last) for layer in made]
    return specs, [parameter for layer in made for parameter in (layer.W, layer.D)]


def kernels_by_products(made: list) -> list[torch.Tensor]:
    return [layer._compose() for layer in made]


def check_all_kinds_in_a_few_launches() -> None:
    made = layers()
    specs, parameters = specs_and_parameters(made)
    kernels = compose_all(specs, parameters)
    plans = compose_all_module._plans(tuple(specs), tuple(parameters))
    fused = {name for number, name in enumerate(LAYERS) if any(number in members for _, members in plans)}
    apart = ("one channel", "many taps", "depthwise", "transposed")
    assert fused == {name for name in LAYERS if not name.startswith(apart)}
    assert len(plans) < len(fused)
    expected = kernels_by_products(made)
    for name, ours, want in zip(LAYERS, kernels, expected, strict=True):
        assert torch.equal(ours, want), name
        assert ours.stride() == want.stride() or 1 in ours.shape, (name, ours.stride(), want.stride())
    gs = [integers(kernel.shape, 50 + seed) for seed, kernel in enumerate(expected)]
    results = [torch.autograd.grad(each, parameters, gs) for each in (kernels, expected)]
    for number, (ours, want) in enumerate(zip(*results, strict=True)):
        assert torch.equal(ours, want), (list(LAYERS)[number // 2], "WD"[number % 2])


def check_gradients_of_any_layout_and_of_some_layers_only() -> None:
    made = layers()
    specs, parameters = specs_and_parameters(made)
    parameters[0].requires_grad_(False)
    kernels, expected = compose_all(specs, parameters), kernels_by_products(made)
    used = [number for number in range(len(made)) if number % 3 == 0]
    results = []
    for each in (kernels, expected):
        for parameter in parameters:
            parameter.grad = None
        gs = [integers(each[number].shape, number).transpose(0, 1).contiguous().transpose(0, 1) for number in used]
        torch.autograd.backward([each[number] for number in used], gs)
        results.append([parameter.grad for parameter in parameters])
    assert results[0][0] is None
    assert results[0][1] is not None
    for number, (ours, want) in enumerate(zip(*results, strict=True)):
        assert (ours is None) == (want is None), number
        assert ours is None or torch.equal(ours, want), number


def check_it_starts_from_the_plain_kernel_bit_for_bit() -> None:
    conv = nn.Conv2d(5, 20, 3)
    weight = conv.weight.detach().clone()
    layer = overparameterize(conv, d_mul=20)
    assert torch.equal(compose_all(*specs_and_parameters([layer]))[0], weight)


def check_the_cast_to_autocasts_type() -> None:
    """In integers that bfloat16 has: the interpreter cuts off what a device rounds (`benchmarks/gpu.py` looks at that)."""
    layer = overparameterize(nn.Conv2d(5, 20, 3))
    set_integers(layer)
    full = compose_all(*specs_and_parameters([layer]))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = compose_all(*specs_and_parameters([layer]))[0]
    assert cast.dtype == torch.bfloat16
    assert torch.equal(cast, full)
    g = integers(cast.shape, 9)
    for ours, want in zip(
        torch.autograd.grad(cast, (layer.W, layer.D), g.bfloat16()),
        torch.autograd.grad(full, (layer.W, layer.D), g),
        strict=True,
    ):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, want)


def set_integers(model: nn.Module) -> None:
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(integers(parameter.shape, seed).clamp(-1, 1))


def check_a_layer_under_another_autocast_composes_for_itself() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.full = overparameterize(nn.Conv2d(2, 3, 3)), overparameterize(nn.Conv2d(3, 2, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.low(x)
            self.types = [self.low._compose().dtype]
            with torch.autocast("cpu", enabled=False):
                self.types.append(self.full._compose().dtype)
                return self.full(x.float())

    plain = Mixed()
    set_integers(plain)
    model = compose_together(copy.deepcopy(plain))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = [each(torch.ones(1, 2, 6, 6)) for each in (plain, model)]
    assert model.types == [torch.bfloat16, torch.float32]
    assert torch.equal(*results)
    for each in (plain, model):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = each(torch.ones(1, 2, 6, 6))
        y.sum().backward()
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def check_double_backward_goes_by_products() -> None:
    layer = overparameterize(nn.Conv2d(2, 3, 2))
    nn.init.normal_(layer.D)
    results = []
    for kernel in (compose_all(*specs_and_parameters([layer]))[0], layer._compose()):
        grads = torch.autograd.grad(kernel.square().sum(), (layer.W, layer.D), create_graph=True)
        results.append(torch.autograd.grad(sum(grad.square().sum() for grad in grads), (layer.W, layer.D)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def check_what_it_does_not_take_goes_by_products() -> None:
    layer = overparameterize(nn.Conv2d(2, 3, 2))
    specs, parameters = specs_and_parameters([layer])
    assert len(compose_all_module._plans(tuple(specs), tuple(parameters))) == 1
    doubles = tuple(parameter.double() for parameter in parameters)
    assert not compose_all_module._plans(tuple(specs), doubles)
    strided = (layer.W.detach().permute(1, 2, 0).contiguous().permute(2, 0, 1), parameters[1])
    assert not compose_all_module._plans(tuple(specs), strided)
    _products.PRODUCTS = "taps"
    try:
        assert not compose_all_module._plans(tuple(specs), tuple(parameters))
    finally:
        _products.PRODUCTS = "auto"


def check_known_tables_are_few() -> None:
    compose_all_module._known_plans.clear()
    layer = overparameterize(nn.Conv2d(2, 3, 2))
    specs, parameters = specs_and_parameters([layer])
    first = compose_all_module._plans(tuple(specs), tuple(parameters))
    assert compose_all_module._plans(tuple(specs), tuple(parameters)) is first
    kept = []
    for _ in range(compose_all_module.MAX_KNOWN_PLANS + 3):
        kept.append(overparameterize(nn.Conv2d(2, 3, 2)))
        compose_all_module._plans(*map(tuple, specs_and_parameters(kept[-1:])))
    assert len(compose_all_module._known_plans) == compose_all_module.MAX_KNOWN_PLANS
    assert compose_all_module._plans(tuple(specs), tuple(parameters)) is not first


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    assert type(_triton._multiply).__name__ == "InterpretedFunction"
    for name, check in CHECKS.items():
        try:
            check()
            print(f"passed {name}")
        except Exception:
            print(f"failed {name}")
            traceback.print_exc(file=sys.stdout)
