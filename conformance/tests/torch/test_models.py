"""Whole models: over-parameterized without a change of their outputs, trained, folded, loaded into the plain architecture."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from conformance.tests.torch.architectures import MODELS, Conv2dSame
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, gamma
from doconv_torch import DOConvMixin, fold, fold_state_dict, inspect_model, overparameterize

STEPS, BATCH = 10, 16
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def digits(count: int) -> tuple[Tensor, Tensor]:
    """Pictures `(count, 1, 8, 8)` in [0, 1] and their classes."""
    data = load_digits()
    pictures = torch.tensor(data.images[:count] / 16, dtype=torch.float32).unsqueeze(1)
    return pictures, torch.tensor(data.target[:count])


def build(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def train(model: nn.Module) -> list[float]:
    """The losses of ten steps."""
    pictures, classes = digits(STEPS * BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    model.train()
    for x, target in zip(pictures.split(BATCH), classes.split(BATCH), strict=True):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def calibrate(model: nn.Module) -> None:
    """Give the batch normalisations the statistics of the data, which ten steps are too few for."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model.train()(digits(64)[0])
    model.eval()


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def trained(request: pytest.FixtureRequest) -> tuple[Callable[[], nn.Module], nn.Module]:
    """How the plain model is built, and the over-parameterized one after its ten steps. Tests work on copies."""
    model = overparameterize(build(request.param))
    losses = train(model)
    assert all(math.isfinite(loss) for loss in losses)
    calibrate(model)
    return request.param, model


def layers(model: nn.Module) -> dict[str, DOConvMixin]:
    return {path: conv for path, conv in model.named_modules() if isinstance(conv, DOConvMixin)}


@each_model
def test_outputs_are_the_same_after_overparameterize(make: Callable[[], nn.Module]) -> None:
    plain, x = build(make), digits(BATCH)[0]
    model = overparameterize(copy.deepcopy(plain))
    for mode in (True, False):  # batch statistics, then the running ones that resulted
        assert torch.equal(model.train(mode)(x), plain.train(mode)(x))
    convs = {path: conv for path, conv in plain.named_modules() if isinstance(conv, _ConvNd)}
    assert list(layers(model)) == [path for path, conv in convs.items() if math.prod(conv.kernel_size) > 1]
    assert list(inspect_model(model)) == list(convs)


def test_ten_steps_train_every_w_and_d(trained: tuple) -> None:
    make, model = trained
    start = overparameterize(build(make)).state_dict()
    for path, conv in layers(model).items():
        assert (start[f"{path}.W"] != conv.W).any(), path
        assert conv.D.any(), path


def in_situ(model: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor, dict]]:
    """The input, the output and the options of the call of every DO layer, as the model runs."""
    seen: dict[str, tuple[Tensor, Tensor, dict]] = {}
    handles = [
        conv.register_forward_hook(
            lambda _, args, options, y, path=path: seen.update({path: (args[0], y, options)}), with_kwargs=True
        )
        for path, conv in layers(model).items()
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return seen


@torch.no_grad()
def kernel_bound(conv: DOConvMixin) -> Tensor:
    """How far the kernel composed in float32 and the one that `fold` composes in float64 and rounds once may be apart.

    Both are sums of `S` products, the tiles of `W` and one addition more; the second is rounded to float32 at the end.
    """
    sizes = copy.deepcopy(conv).double()
    for parameter in (sizes.W, sizes.D):
        parameter.abs_()
    n, single, double = conv.d_mul + 2, UNIT_ROUNDOFF["float32"], UNIT_ROUNDOFF["float64"]
    return (gamma(n, single) + gamma(n, double) + single * (1 + gamma(n, double))) * sizes.weight


@torch.no_grad()
def plain_double(conv: DOConvMixin, weight: Tensor, bias: Tensor | None, x: Tensor, options: dict) -> Tensor:
    """The plain layer in float64 with another kernel."""
    plain = fold(copy.deepcopy(conv)).double()
    plain.load_state_dict({"weight": weight.double()} | ({} if plain.bias is None else {"bias": bias}))
    return plain(x.double(), **options)


def test_folded_layers_equal_unfolded_ones_within_the_bound_where_the_model_uses_them(trained: tuple) -> None:
    """Each layer on the input that it meets in the trained model.

    With kernels `w, w'` at most `e` apart, both outputs are sums of `n = K * C_in/G + 1` products, in float32 and in any order:
    `|y - y'| <= conv(|x|, e) + 2 * gamma(n) * (conv(|x|, |w| + e) + |b|)`.
    """
    model, x = trained[1], digits(8)[0]
    for path, (seen, y, options) in in_situ(model, x).items():
        conv = model.get_submodule(path)
        folded = fold(copy.deepcopy(conv))
        bound = kernel_bound(conv)
        with torch.no_grad():
            assert ((conv.weight.double() - folded.weight.double()).abs() <= bound).all(), path
            error = (y.double() - folded(seen, **options).double()).abs()
        zero = None if conv.bias is None else torch.zeros_like(conv.bias)
        bias = None if conv.bias is None else conv.bias.abs()
        n = math.prod(conv.kernel_size) * conv.in_channels // conv.groups + 1
        allowed = plain_double(conv, bound, zero, seen.abs(), options)
        scale = plain_double(conv, folded.weight.abs().double() + bound, bias, seen.abs(), options)
        allowed += 2 * gamma(n, UNIT_ROUNDOFF["float32"]) * scale
        assert (error <= allowed).all(), path
        with torch.no_grad():  # the bounds tell a fold that forgets `D`
            forgetful = copy.deepcopy(conv)
            forgetful.D.zero_()
            assert ((forgetful.weight.double() - folded.weight.double()).abs() > bound).any(), path
            assert ((y - forgetful(seen, **options)).double().abs() > allowed).any(), path


def test_the_folded_model_equals_the_unfolded_one(trained: tuple) -> None:
    """The two models differ in the rounding of their kernels and in nothing else.

    So with parameters whose composition is exact in float32, the whole models agree bit for bit: the trained ones, with `D`
    scaled up to 1/4 and both rounded to 8 bits. What rounding adds is bounded layer by layer in the test above.
    """
    make, model = trained
    model, x = copy.deepcopy(model), digits(64)[0]
    with torch.no_grad():
        for conv in layers(model).values():
            for parameter, largest in ((conv.W, 1.0), (conv.D, 0.25)):
                power = 2.0 ** math.frexp(parameter.abs().max().item())[1]
                parameter.mul_(2**8 / power).round_().mul_(largest / 2**8)
        calibrate(model)
        before = model(x)
        state = fold_state_dict(model.state_dict(), like=make())
        assert fold(fold(model)) is model
        assert torch.equal(model(x), before)

    assert not layers(model)
    plain = make().eval()
    assert [type(module) for module in plain.modules()] == [type(module) for module in model.modules()]
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in model.named_parameters()]
    for folded in (model.state_dict(), state):
        plain.load_state_dict(folded, strict=True)
        assert torch.equal(plain(x), before)


def test_ties_stay_ties(trained: tuple) -> None:
    make, model = trained
    plain, folded = build(make), fold(copy.deepcopy(model))
    assert len(list(folded.parameters())) == len(list(plain.parameters()))
    if make is MODELS["tied"]:
        assert model.first.W is model.second.W
        assert model.first.D is model.second.D
        assert model.first is model.again
        assert folded.first.weight is folded.second.weight
        assert not torch.equal(folded.first.bias, folded.second.bias)
    if make is MODELS["same"]:
        assert type(folded[0]) is Conv2dSame
