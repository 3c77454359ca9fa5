"""`fold(model, batch_norm=...)`: one convolution where a normalisation follows it for certain, and no other."""

import copy

import pytest
import torch
from torch import Tensor, nn

from conformance.tests.torch.architectures import MODELS, Conv2dSame
from doconv_torch import DOConv2d, fold, overparameterize

X = torch.rand(2, 3, 8, 9, dtype=torch.float64)  # in which an error shows that is no rounding


class Net(nn.Module):
    """Normalisations that follow a convolution, and those that don't alone, once or at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm_first = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.up, self.norm_up = nn.ConvTranspose2d(4, 6, 2), nn.BatchNorm2d(6, affine=False)
        self.point, self.norm_point = nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)
        self.both, self.norm_one = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)  # its output is used twice
        self.twice, self.norm_twice = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.norm_sum = nn.BatchNorm2d(4)
        self.same, self.norm_same = Conv2dSame(4, 4, 3), nn.BatchNorm2d(4)
        self.batch, self.norm_batch = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm_first(self.first(x)))
        x = self.norm_point(self.point(self.norm_up(self.up(x))))
        x = self.both(x)
        x = x + self.norm_one(x)
        x = self.norm_twice(self.twice(x)) + self.norm_twice(self.twice(x + 1))
        x = self.norm_same(self.same(self.norm_sum(x + 1)))
        return self.norm_batch(self.batch(x))


FUSED = ["norm_first", "norm_up", "norm_point"]


def trained(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    overparameterize(net)
    for name, parameter in net.named_parameters():
        if name.endswith(".D"):
            nn.init.normal_(parameter, std=0.1)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None:
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 2)
                nn.init.uniform_(norm.bias, -1, 1)
    return net.eval().double()


def fused_of(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, nn.Identity)]


def test_what_follows_for_certain_is_fused_and_the_rest_stays() -> None:
    net = trained(Net())
    convs = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)}
    with torch.no_grad():
        want = fold(copy.deepcopy(net))(X)
        got = fold(net, batch_norm=True)(X)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    assert fused_of(net) == FUSED
    assert all(net.get_submodule(name) is conv and type(conv.weight) is nn.Parameter for name, conv in convs.items())
    assert net.first.bias is not None


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "unet"])
def test_architectures_keep_their_function(name: str) -> None:
    net = trained(MODELS[name]())
    x = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        want = fold(copy.deepcopy(net))(x)
        got = fold(net, batch_norm=True)(x)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    assert fused_of(net)


def test_pairs_by_path_need_no_trace() -> None:
    class Branching(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    net = trained(Branching())
    before = [type(module) for module in net.modules()]
    with pytest.raises(ValueError, match=r"torch.fx can't trace the model.*give pairs of paths.* Received: TraceError"):
        fold(net, batch_norm=True)
    assert [type(module) for module in net.modules()] == before
    with torch.no_grad():
        want = fold(copy.deepcopy(net))(X)
        got = fold(net, batch_norm=[("first", "norm_first"), ("up", "norm_up")])(X)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    assert fused_of(net) == ["norm_first", "norm_up"]


def test_a_normalisation_of_two_names_and_one_below_a_container() -> None:
    net = trained(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.ReLU()))
    net.again = net[0][1]
    net.forward = lambda x: net[1](net[0](x))
    net.train().eval()
    want = net(X)
    torch.testing.assert_close(fold(net, batch_norm=[("0.0", "0.1")])(X), want, rtol=1e-9, atol=1e-9)
    assert isinstance(net.again, nn.Identity)


class Standardised(nn.Conv2d):
    """A kernel that is scaled comes out as it was."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return super()._conv_forward(x, centred / centred.std((1, 2, 3), keepdim=True), bias)


@pytest.mark.parametrize(
    "conv", [Standardised(3, 4, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1))], ids=["class", "norm"]
)
def test_a_kernel_that_is_computed_from_the_weight_is_not_fused(
    conv: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    net = trained(nn.Sequential(copy.deepcopy(conv), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)))
    before = net(X)
    with pytest.raises(
        ValueError, match=r"0 and 1: .*no convolution of PyTorch's own|0 and 1: its parameters are computed"
    ):
        fold(net, batch_norm=[("0", "1")])
    torch.testing.assert_close(fold(net, batch_norm=True)(X), before, rtol=1e-12, atol=1e-12)
    assert type(net[2]) is nn.Conv2d
    assert not fused_of(net)
    assert "1: stays" in next(record.message for record in caplog.records if record.levelname == "WARNING")


def test_a_hook_between_the_two_keeps_them_apart() -> None:
    net = trained(Net())
    net.first.register_forward_hook(lambda *args: None)
    fold(net, batch_norm=True)
    assert fused_of(net) == FUSED[1:]


@pytest.mark.parametrize(
    ("batch_norm", "error", "text"),
    [
        ("first", TypeError, "must be True or pairs of paths .* Received: 'first'"),
        (1, TypeError, "must be True or pairs of paths .* Received: 1"),
        ([("first",)], TypeError, r"must be True or pairs of paths .* Received: \('first',\)"),
        ([("first", "nowhere")], ValueError, "no layer of this path. Received: nowhere"),
        ([("norm_first", "first")], ValueError, "norm_first and first: BatchNorm2d is no convolution"),
        ([("first", "norm_up")], ValueError, "first and norm_up: the normalisation has no running mean of 4 channels"),
        ([("batch", "norm_batch")], ValueError, "batch and norm_batch: the normalisation has no running mean"),
        ([("same", "norm_same")], ValueError, "same and norm_same: DOConv2dSame is no convolution of PyTorch's own"),
        ([("first", "norm_first"), ("first", "norm_one")], ValueError, "first and norm_first: named twice"),
    ],
)
def test_what_is_no_pair_is_refused_before_anything_changes(
    batch_norm: object, error: type[Exception], text: str
) -> None:
    net = trained(Net())
    with pytest.raises(error, match=text):
        fold(net, batch_norm=batch_norm)
    assert isinstance(net.first, DOConv2d)
    with pytest.raises(ValueError, match=r"call model.eval\(\) first. Received: training"):
        fold(net.train(), batch_norm=True)
    assert isinstance(net.first, DOConv2d)
