"""Ways to load a plain checkpoint into over-parameterized layers: right, or refused."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from doconv_torch import DOConv2d, DOConvTranspose2d, overparameterize

X = torch.rand(1, 3, 7, 7)


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 2, bias=False), nn.Conv2d(4, 2, 1)
    )


class Net(nn.Module):
    """A class that over-parameterizes in its constructor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = overparameterize(plain())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def load(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    net.load_state_dict(state)
    return net


def load_by_assignment(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    net.load_state_dict(state, assign=True)
    return net


def load_into_meta(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    with torch.device("meta"):
        return load_by_assignment(Net(), state)


def load_distributed(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """What `accelerate.load_checkpoint_in_model` calls: it puts the model's own `W` and `D` beside what it found."""
    set_model_state_dict(net, state, options=StateDictOptions(full_state_dict=True))
    return net


def load_distributed_leniently(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    set_model_state_dict(net, state, options=StateDictOptions(full_state_dict=True, strict=False))
    return net


def set_by_name(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """A loader that walks over the checkpoint."""
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        module = net.get_submodule(path)
        if leaf in module._buffers:
            module._buffers[leaf] = tensor
        else:
            setattr(module, leaf, nn.Parameter(tensor))
    return net


@pytest.mark.filterwarnings("ignore:.*_get_pg_default_device:UserWarning")  # PyTorch's own
@pytest.mark.parametrize(
    "way", [load, load_by_assignment, load_into_meta, load_distributed, load_distributed_leniently, set_by_name]
)
def test_a_plain_checkpoint_starts_the_layers(way: Callable) -> None:
    want = Plain().eval()
    state = {name: tensor.clone() for name, tensor in want.state_dict().items()}
    net = Net()
    for layer in net.body:
        if getattr(layer, "D", None) is not None:
            nn.init.normal_(layer.D)
    net = way(net, state).eval()
    assert torch.equal(net(X), want(X))
    assert not net.body[0].D.any()


@pytest.mark.filterwarnings("ignore:.*_get_pg_default_device:UserWarning")  # PyTorch's own
@pytest.mark.parametrize("way", [load, load_by_assignment, load_into_meta, load_distributed, set_by_name])
def test_its_own_checkpoint_loads_the_same_ways(way: Callable) -> None:
    want = Net().eval()
    nn.init.normal_(want.body[0].D)
    net = way(Net(), copy.deepcopy(want.state_dict())).eval()
    assert torch.equal(net(X), want(X))


def test_a_kernel_and_a_w_that_differ_are_refused() -> None:
    net, state = Net(), Net().state_dict() | Plain().state_dict()
    before = net.body[0].W.clone()
    with pytest.raises(RuntimeError, match=r"body\.0\.weight is a plain kernel beside W or D"):
        net.load_state_dict(state, strict=False)
    with pytest.raises(RuntimeError, match=r"body\.0\.weight is a plain kernel beside W or D"):
        net.load_state_dict({"body.0.weight": torch.rand(4, 3, 3, 3), "body.0.D": torch.rand(3, 9, 9)}, strict=False)
    assert torch.equal(net.body[0].W, before)


@pytest.mark.parametrize("make", [DOConv2d, DOConvTranspose2d])
def test_a_layer_that_was_never_loaded_says_so(make: Callable) -> None:
    conv = make(3, 4, 3, device="meta")
    conv.bias = nn.Parameter(torch.zeros(4))  # a loader that knows the plain names
    with pytest.raises(RuntimeError, match=r"they were never loaded.* Received: DOConv"):
        conv(X)
    assert conv(X.to("meta")).is_meta
    tensors = {name: torch.rand(parameter.shape) for name, parameter in conv.named_parameters()}
    assert torch.func.functional_call(conv, tensors, X).isfinite().all()
