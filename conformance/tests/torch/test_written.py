"""A write to the composed kernel takes effect as on the plain layer's Parameter, or raises."""

import copy
import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from doconv_torch import DOConv2d, compose_together, composed_once, fold, overparameterize

X, KERNEL = torch.rand(1, 3, 6, 6), torch.rand(4, 3, 3, 3)


def plain() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3)


def trained() -> DOConv2d:
    """With a `D` that has an effect."""
    conv = overparameterize(plain())
    nn.init.normal_(conv.D)
    return conv


def add_to_data(conv: nn.Conv2d) -> None:
    conv.weight.data += 1


def add_in_place(conv: nn.Conv2d) -> None:
    with torch.no_grad():
        conv.weight += 1


def merge(conv: nn.Conv2d) -> None:
    conv.weight.data = conv.weight.data + KERNEL


def replace_data(conv: nn.Conv2d) -> None:
    conv.weight.data = KERNEL


def write_after_a_pass(conv: nn.Conv2d) -> None:
    data = conv.weight.data
    conv(X)
    data.add_(1)


def write_twice(conv: nn.Conv2d) -> None:
    data = conv.weight.data
    data[0] = 1
    data[:, 1].mul_(2)


def in_inference_mode(conv: nn.Conv2d) -> None:
    with torch.inference_mode():
        conv.weight.data[0].zero_()


def max_norm(conv: nn.Conv2d) -> None:
    """A constraint in a user's forward pass."""

    def forward(conv: nn.Conv2d) -> torch.Tensor:
        conv.weight.data = torch.renorm(conv.weight.data, 2, 0, 0.5)
        return conv._conv_forward(X, conv.weight, conv.bias)

    forward(conv)


WRITES: dict[str, Callable[[nn.Conv2d], object]] = {
    "apply_": lambda conv: conv.weight.data.apply_(lambda value: value + 1),
    "map_": lambda conv: conv.weight.data.map_(KERNEL, lambda value, other: value + other),
    "nn.init": lambda conv: nn.init.kaiming_normal_(conv.weight),
    "nn.init of data": lambda conv: nn.init.ones_(conv.weight.data),
    "copy": lambda conv: conv.weight.data.copy_(KERNEL),
    "scale": lambda conv: conv.weight.data.mul_(2),
    "item": lambda conv: conv.weight.data.__setitem__((slice(None), 0), 0.0),
    "view": lambda conv: conv.weight.data[:, 0].zero_(),
    "view of a view": lambda conv: conv.weight.data.view(-1)[3:5].unsqueeze(0).fill_(7),
    "detached": lambda conv: conv.weight.detach().permute(1, 0, 2, 3)[0].fill_(7),
    "one of a list": lambda conv: conv.weight.data.unbind(0)[1].fill_(7),
    "out=": lambda conv: torch.mul(KERNEL, 2, out=conv.weight.data),
    "for each": lambda conv: torch._foreach_mul_([torch.ones(3), conv.weight.data], 3.0),
    "the same device": lambda conv: conv.weight.detach().cpu().add_(1),
    "a function": lambda conv: functional.relu(conv.weight.data, inplace=True),
    "mask": lambda conv: conv.weight.data.masked_fill_(conv.weight.data > 0, 0),
} | {f.__name__: f for f in (
    add_to_data, add_in_place, merge, replace_data, write_after_a_pass, write_twice, in_inference_mode, max_norm,
)}  # fmt: skip


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_has_the_effect_that_it_has_on_a_plain_layer(write: Callable[[nn.Conv2d], object]) -> None:
    conv = trained()
    want = plain()
    want.weight.data = conv.weight.detach().clone()
    for each in (conv, want):
        torch.manual_seed(1)
        write(each)
    assert torch.equal(conv.weight, want.weight)
    assert torch.equal(conv(X), want(X))
    assert not conv.D.any()
    assert torch.equal(fold(conv).weight, want.weight)


def test_a_gradient_or_a_hook_of_a_kernel_that_one_access_composed_is_not_lost_in_silence() -> None:
    conv = trained()
    with pytest.raises(
        RuntimeError, match=r"has no gradient: set those of W and D. Received: torch.Size\(\[4, 3, 3, 3\]\)"
    ):
        conv.weight.grad = torch.ones_like(conv.weight)
    conv.weight.grad = None  # as loops that reset gradients do
    with pytest.warns(UserWarning, match="register hooks on W and D"):
        conv.weight.register_hook(lambda grad: None)


def test_a_kernel_of_one_tap_is_written_to_as_well() -> None:
    conv = DOConv2d(3, 4, 1)
    nn.init.ones_(conv.weight.data)
    assert (conv.W == 1).all()


def test_a_layer_does_not_change_its_sizes() -> None:
    """As channels are pruned by hand, in either order: nothing is written in part."""
    conv, other, before = trained(), trained(), trained().weight
    conv.out_channels = 2
    with pytest.raises(
        ValueError, match=r"its W and D do not follow: fold it before. Received: W of shape \(4, 3, 9\)"
    ):
        conv.weight = nn.Parameter(KERNEL[:2])
    with pytest.raises(ValueError, match=r"weight must have shape \(4, 3, 3, 3\).*to change a layer's sizes, fold it"):
        other.weight.data = KERNEL[:2]
    conv.out_channels = 4
    for layer in (conv, other):
        assert layer.D.any()
        assert layer.weight.shape == before.shape


def test_the_kernel_of_another_layer_is_no_tie() -> None:
    a, b = trained(), trained()
    nn.init.normal_(b.W)
    before = b.weight.detach().clone()
    with pytest.raises(ValueError, match=r"tie both parameters, `b.W = a.W; b.D = a.D`"):
        b.weight = a.weight
    assert torch.equal(b.weight, before)
    b.weight = a.weight.detach()
    assert torch.equal(b.weight, a.weight)
    b.W, b.D = a.W, a.D
    fold(nn.ModuleList([a, b]))
    assert a.weight is b.weight


def test_re_parameterised_blocks_fuse() -> None:
    torch.manual_seed(0)
    large, small = overparameterize(nn.ModuleList([nn.Conv2d(4, 4, 7, padding=3), nn.Conv2d(4, 4, 3, padding=1)]))
    nn.init.normal_(large.D, std=0.1)
    x = torch.rand(1, 4, 9, 9)
    want = large(x) + small(x)
    with torch.no_grad():
        large.weight.data.copy_(large.weight + functional.pad(small.weight, [2, 2, 2, 2]))
        large.bias += small.bias
    torch.testing.assert_close(large(x), want)


def test_reading_changes_nothing_and_what_is_computed_from_a_kernel_is_plain() -> None:
    conv = trained()
    before = [parameter._version for parameter in conv.parameters()]
    penalty = conv.weight.square().sum() + conv.weight[0].abs().sum()
    penalty.backward()
    assert conv.W.grad.any()
    assert conv.D.grad.any()
    for made in (conv.weight + 1, conv.weight.clone(), conv.weight.double(), copy.deepcopy(conv.weight.data)):
        assert type(made) is torch.Tensor
        made.data.zero_()
    for parameter in (nn.Parameter(conv.weight), nn.Parameter(conv.weight.data), nn.Parameter(conv.weight[0])):
        assert type(parameter) is nn.Parameter
        parameter.data.zero_()
    assert [parameter._version for parameter in conv.parameters()] == before
    assert conv.weight.any()


def test_files_hold_plain_tensors() -> None:
    conv, file = trained(), io.BytesIO()
    torch.save({"weight": conv.weight, "data": conv.weight.data}, file)
    file.seek(0)
    for made in (*torch.load(file, weights_only=True).values(), pickle.loads(pickle.dumps(conv.weight.data))):
        assert type(made) is torch.Tensor
        assert torch.equal(made, conv.weight)


def test_arrays_of_numpy_are_read_only() -> None:
    conv = trained()
    for array in (conv.weight.detach().numpy(), np.asarray(conv.weight.data), conv.weight.data.numpy(force=True)):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert conv.weight.any()


@pytest.mark.parametrize(
    "change",
    [
        lambda conv: nn.init.ones_(conv.D),
        lambda conv: nn.init.ones_(conv.weight),
        lambda conv: conv.load_state_dict(plain().state_dict()),
        fold,
    ],
)
def test_a_write_to_a_kernel_that_is_out_of_date_raises(change: Callable) -> None:
    conv = trained()
    kernel = conv.weight.data
    change(conv)
    state = copy.deepcopy(conv.state_dict())
    with pytest.raises(RuntimeError, match="a kernel was written to after its layer had changed"):
        kernel.zero_()
    for name, tensor in conv.state_dict().items():
        assert torch.equal(tensor, state[name])
    kernel.clone().zero_()  # reading it is fine


def test_a_layer_that_is_gone_is_not_missed() -> None:
    kernel = trained().weight.data
    assert not kernel.zero_().any()


def test_a_write_inside_composed_once_raises_at_the_next_use() -> None:
    conv = trained()

    def write() -> None:
        with composed_once(conv):
            conv(X)
            conv.weight.data.zero_()
            conv(X)

    with pytest.raises(RuntimeError, match="changed inside composed_once"):
        write()


def test_kernels_that_were_composed_together_are_written_to_one_by_one() -> None:
    torch.manual_seed(0)
    net = compose_together(overparameterize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3))))
    held = []
    for conv in net:
        nn.init.normal_(conv.D)
        conv.register_forward_hook(lambda conv, *args: held.append(conv.weight.data))
    net(X)
    held[0].zero_()
    assert not net[0].D.any()
    assert net[1].D.any()
    held[1].mul_(2)
    assert not net[1].D.any()


def test_pytorchs_own_forward_pass_reads_a_plain_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    types = list[type]()
    conv = trained()
    monkeypatch.setattr(conv, "_conv_forward", lambda x, weight, bias: types.append(type(weight)))
    conv(X)
    assert types == [torch.Tensor]
    assert type(conv.weight) is not torch.Tensor
