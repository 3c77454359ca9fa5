"""Optimizers: parameters that a loop leaves out, and steps that scale with a norm, which is zero for a new `D`."""

import copy
import warnings
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from doconv_torch import DOConv2d, DOConvMixin, overparameterize

X = torch.rand(4, 3, 9, 9)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return overparameterize(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)))


def train(*pairs: tuple[nn.Module, torch.optim.Optimizer], steps: int = 3) -> None:
    for _ in range(steps):
        for model, optimizer in pairs:
            optimizer.zero_grad()
            (model(X) - 1).square().mean().backward()
            optimizer.step()


def collected(model: nn.Module) -> list[nn.Parameter]:
    """The loop of YOLOv5 and of many that copied it."""
    groups = []
    for module in model.modules():
        if hasattr(module, "bias") and isinstance(module.bias, nn.Parameter):
            groups.append(module.bias)
        if hasattr(module, "weight") and isinstance(module.weight, nn.Parameter):
            groups.append(module.weight)
    return groups


def by_name(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if "W" not in name]


@pytest.mark.parametrize("collect", [collected, by_name])
@pytest.mark.parametrize("copied", [False, True])
def test_a_loop_that_leaves_layers_out_is_warned_of_once(collect: Callable, copied: bool) -> None:
    model = copy.deepcopy(network()) if copied else network()
    optimizer = torch.optim.SGD(collect(model), lr=0.01)
    with pytest.warns(
        UserWarning, match=r"no optimizer .* holds them.* Received: SGD without those of DOConv2d"
    ) as got:
        train((model, optimizer), steps=5)
    assert [warning.filename for warning in got] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train((model, torch.optim.Adam(collect(model))))


@pytest.mark.parametrize("names", [("W", "D"), ("D",)])
def test_layers_that_are_frozen_are_meant(names: tuple[str, ...]) -> None:
    model = network()
    for layer in model.modules():
        if isinstance(layer, DOConvMixin):
            for name in names:
                getattr(layer, name).requires_grad_(False)
    train((model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)))


def test_trained_parameters_can_be_swapped() -> None:
    model, other = network(), nn.Sequential(nn.Linear(9, 1))
    train((model, torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.01)))
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        assert model.double()[0].W.dtype == other.double()[0].weight.dtype == torch.float64
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_two_optimizers_of_two_models_and_of_two_parts_share_the_work() -> None:
    one, other = network(), network()
    train((one, torch.optim.SGD(one.parameters(), lr=0.01)), (other, torch.optim.Adam(other.parameters())))
    halves = network()
    first, last = torch.optim.SGD(halves[0].parameters(), lr=0.01), torch.optim.SGD(halves[1:].parameters(), lr=0.01)
    train((halves, first), (halves, last))
    for model in (one, other, halves):
        assert model[0].D.any()


def test_an_optimizer_of_another_model_says_nothing_of_this_one() -> None:
    alone, other = network(), nn.Sequential(nn.Linear(9, 1))
    (alone(X) - 1).square().mean().backward()  # gradients that no optimizer is to use
    train((other, torch.optim.SGD(other.parameters(), lr=0.01)), steps=5)


# The remedies of docs/torch.md. `E`, which D is added to, has the root mean square K ** -0.5: the scale of D.


def parts(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    deltas = [parameter for name, parameter in model.named_parameters() if name.rpartition(".")[2] == "D"]
    return deltas, [parameter for parameter in model.parameters() if all(parameter is not delta for delta in deltas)]


def adafactor(model: nn.Module, remedy: bool) -> torch.optim.Optimizer:
    deltas, others = parts(model)
    return torch.optim.Adafactor([{"params": others}, {"params": deltas} | ({"eps": (None, 1 / 3)} if remedy else {})])


class ClippedSGD(torch.optim.SGD):
    """SGD with adaptive gradient clipping (Brock et al., arXiv 2102.06171), here by the norm of a whole tensor."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                limit = group["clip"] * parameter.detach().norm().clamp(min=1e-3)
                parameter.grad.mul_((limit / parameter.grad.norm().clamp(min=1e-12)).clamp(max=1))
        super().step(closure)


def clipped(model: nn.Module, remedy: bool) -> torch.optim.Optimizer:
    deltas, others = parts(model)
    optimizer = ClippedSGD([{"params": others}, {"params": deltas}], lr=1.0)
    for group in optimizer.param_groups:
        group["clip"] = 0.01
    if remedy:
        optimizer.param_groups[1]["clip"] = float("inf")
    return optimizer


def relative_moves(model: nn.Module, before: Iterable[Tensor]) -> tuple[float, float]:
    """How far `D` and `W` of the first layer went, as fractions of `E` and of `W`."""
    W, _ = before
    layer = model[0]
    assert isinstance(layer, DOConv2d)
    identity = (layer.D.shape[0] * layer.D.shape[1]) ** 0.5
    return layer.D.norm().item() / identity, ((layer.W - W).norm() / W.norm()).item()


@pytest.mark.parametrize("make", [adafactor, clipped])
def test_optimizers_that_scale_by_norms_move_d_in_a_group_of_its_own(make: Callable) -> None:
    moves = {}
    for remedy in (False, True):
        model = network()
        before = [parameter.detach().clone() for parameter in (model[0].W, model[0].D)]
        train((model, make(model, remedy)), steps=30)
        moves[remedy] = relative_moves(model, before)
    (still, W), (moved, W_beside) = moves[False], moves[True]
    assert still < 0.02 * W
    assert 0.1 * W_beside < moved < 10 * W_beside
