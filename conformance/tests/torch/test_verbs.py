"""What `overparameterize`, `fold` and `inspect_model` accept, refuse and report; what they catch of mistakes around them."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from doconv_torch import DOConv2d, DOConvMixin, fold, fold_state_dict, inspect_model, overparameterize


def model() -> nn.Sequential:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, (3, 2)))
    return nn.Sequential(encoder, nn.Conv2d(8, 4, 1), nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2))


PATHS = ["0.0", "0.3", "1", "2"]
X = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("where", "converted"),
    [
        (None, ["0.0", "0.3", "2"]),
        ("0.*", ["0.0", "0.3"]),
        (["0.3", "2"], ["0.3", "2"]),
        (lambda path, conv: conv.in_channels == 4, ["0.3", "2"]),
        ("*", ["0.0", "0.3", "2"]),
    ],
)
def test_where_selects_and_both_verbs_report_what_they_did_and_did_not_touch(
    where: object, converted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "doconv")
    net = model()
    before = net.eval()(X)
    assert torch.equal(overparameterize(net, where=where)(X), before)
    states = inspect_model(net)
    assert list(states) == PATHS
    assert [path for path, state in states.items() if state.startswith("DO")] == converted
    assert states["1"] == "plain Conv2d 1x1: a kernel of one tap has no D"
    assert states["0.3"] == ("DOConv2d 3x2, d_mul=6" if "0.3" in converted else "plain Conv2d 3x2")
    first, *lines, last = caplog.messages
    assert last == f"the model had 392 parameters and has {sum(parameter.numel() for parameter in net.parameters())}"
    assert first == f"over-parameterized {len(converted)} of 4 convolutions"
    assert [line.partition(": ")[0] for line in lines] == PATHS
    assert ("0.0: plain Conv2d 3x3, not selected" in lines) == ("0.0" not in converted)

    caplog.clear()
    fold(net)
    assert caplog.messages[0] == f"folded {len(converted)} of 4 convolutions"
    assert "1: plain Conv2d 1x1: a kernel of one tap has no D, was plain before" in caplog.messages
    assert f"{converted[0]}: plain Conv2d {'3x3' if converted[0] == '0.0' else '3x2'}, folded" in caplog.messages
    caplog.clear()
    assert fold(net) is net  # twice is harmless
    assert caplog.messages[0] == "folded 0 of 4 convolutions"
    assert torch.equal(net(X), before)


def test_d_mul_goes_to_every_layer_and_what_is_converted_already_keeps_its_own() -> None:
    net = overparameterize(model(), where="0.3", d_mul=7)
    overparameterize(net, d_mul=12)
    assert inspect_model(net) == {
        "0.0": "DOConv2d 3x3, d_mul=12",
        "0.3": "DOConv2d 3x2, d_mul=7",
        "1": "plain Conv2d 1x1: a kernel of one tap has no D",
        "2": "DOConvTranspose2d 2x2, d_mul=12",
    }


@pytest.mark.parametrize(
    ("net", "options", "error", "text"),
    [
        (nn.Linear(2, 2), {}, ValueError, "the model has no convolution. Received: Linear"),
        ([nn.Conv2d(1, 1, 3)], {}, TypeError, "model must be a torch.nn.Module. Received: list"),
        (model(), {"where": "encoder.*"}, ValueError,
         r"`where` selects no convolution. Received: 'encoder.\*'; the paths are 0.0, 0.3, 1, 2"),
        (model(), {"where": ["0.*", "3"]}, ValueError, "`where` selects no convolution. Received: '3'"),
        (model(), {"where": []}, ValueError, r"`where` selects no convolution. Received: \[\]"),
        (model(), {"where": lambda path, conv: False}, ValueError, "`where` selects no convolution. Received: <function"),
        (model(), {"where": 3}, TypeError, "`where` must be a predicate, a glob pattern or several. Received: 3"),
        (model(), {"where": "1"}, ValueError, "nothing is left .* Received: 1: plain Conv2d 1x1: a kernel of one tap has no D"),
        (overparameterize(model()), {}, ValueError, "nothing is left .* Received: 0.0: DOConv2d 3x3, d_mul=9; 0.3: DO"),
        (DOConv2d(3, 4, 3), {}, ValueError, "nothing is left .* Received: the layer: DOConv2d 3x3, d_mul=9"),
        (model(), {"d_mul": 8}, ValueError, r"d_mul must be at least 9.* Received: 0.0: Conv2d\(3, 4, .*d_mul=8"),
        (model(), {"d_mul": 9.0}, TypeError, "d_mul must be an integer, not float. Received: 0.0: Conv2d"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_said_before_anything_is_changed(
    net: nn.Module, options: dict, error: type[Exception], text: str
) -> None:
    names = list(net.state_dict()) if isinstance(net, nn.Module) else []
    with pytest.raises(error, match=text):
        overparameterize(net, **options)
    assert names == (list(net.state_dict()) if isinstance(net, nn.Module) else [])


@pytest.mark.parametrize("verb", [fold, inspect_model])
def test_no_module_is_refused_by_the_other_verbs_too(verb: object) -> None:
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module. Received: dict"):
        verb({})
    assert not verb(nn.Linear(2, 2)) or verb is fold


def test_values_that_are_not_finite_are_not_spread() -> None:
    net = overparameterize(model())
    nn.init.constant_(net[2].D[0, 0], float("inf"))
    with pytest.raises(ValueError, match=r"can't be folded. Received: 2: its W or D has values that are not finite"):
        fold(net)
    assert inspect_model(net)["0.0"].startswith("DO")


class Autoencoder(nn.Module):
    """The kernel of the decoder is that of the encoder: PyTorch's shapes allow it, D's do not."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3)
        self.decode.weight = self.encode.weight


def test_ties_that_could_not_stay_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"tied to decode.weight, which pairs it with other input channels: D can't be tied"
    ):
        overparameterize(Autoencoder())
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    with pytest.raises(ValueError, match=r"Received: 0: its weight is tied to 1.weight, which is not converted"):
        overparameterize(net, where="0")
    net[2].kernel = net[0].weight
    with pytest.raises(ValueError, match=r"tied to 2.kernel, which is not converted"):
        overparameterize(net)
    assert net[0].weight is net[1].weight


def test_an_alias_selects_the_module_it_names() -> None:
    net = model()
    net.stem = net[0][0]
    assert inspect_model(overparameterize(net, where="stem"))["0.0"].startswith("DOConv2d")


def test_an_optimizer_built_before_overparameterize_refuses_to_step() -> None:
    net = model()
    stale = torch.optim.Adam(net.parameters())
    overparameterize(net)
    net(X).sum().backward()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"built before `overparameterize`, and holds 0.0.weight, .*Received: Adam"):
        stale.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    torch.optim.Adam(net.parameters()).step()
    assert not torch.equal(net[0][0].D, before["0.0.D"])

    # One that was given the new parameters as well is the user's own business.
    net = model()
    mended = torch.optim.SGD(net.parameters(), lr=0.1)
    overparameterize(net)
    mended.add_param_group({"params": [p for name, p in net.named_parameters() if name.endswith((".W", ".D"))]})
    mended.step()


def test_an_optimizer_built_before_fold_refuses_to_step() -> None:
    net = overparameterize(model())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(X).sum().backward()
    optimizer.step()
    fold(net)
    with pytest.raises(RuntimeError, match=r"built before `fold`, and holds 0.0.W, which the model no longer has"):
        optimizer.step()
    torch.optim.SGD(net.parameters(), lr=0.1).step()


@pytest.mark.parametrize("d_mul", [None, 13])
def test_a_plain_checkpoint_starts_the_model_before_and_after_overparameterize(d_mul: int | None) -> None:
    plain = model()
    state, before = plain.state_dict(), plain.eval()(X)
    net = overparameterize(nn.Sequential(*model()), d_mul=d_mul).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    assert net.load_state_dict(state) == ([], [])
    assert torch.equal(net(X), before)
    assert not any(conv.D.any() for conv in (net[0][0], net[0][3], net[2]))
    assert net.load_state_dict(state, assign=True) == ([], [])
    assert torch.equal(net(X), before)

    with pytest.raises(
        RuntimeError, match=r"0.0.weight must have shape \(4, 3, 3, 3\). Received: \(4, 3, 3, 2\), in_ch"
    ):
        net.load_state_dict(state | {"0.0.weight": torch.zeros(4, 3, 3, 2)}, strict=False)


def test_a_layer_of_one_tap_loads_a_plain_kernel_too() -> None:
    plain, conv = nn.Conv2d(3, 4, 1), DOConv2d(3, 4, 1)
    conv.load_state_dict(plain.state_dict())
    assert torch.equal(conv(X), plain(X))
    assert list(conv.state_dict()) == ["W", "bias"]


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_model_is_wrapped_after_and_folded_inside_its_wrapper() -> None:
    with pytest.raises(ValueError, match=r"wrap it after `overparameterize`. Received: DistributedDataParallel"):
        overparameterize(DistributedDataParallel(model()))

    single, wrapped = overparameterize(model()), DistributedDataParallel(overparameterize(model()))
    for net in (single, wrapped):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(X).square().mean().backward()
            optimizer.step()
    trained = single.state_dict()
    assert all(
        torch.equal(tensor, trained[name.removeprefix("module.")]) for name, tensor in wrapped.state_dict().items()
    )
    assert wrapped.module[2].D.any()

    state = fold_state_dict(wrapped.state_dict(), like=model())
    fold(wrapped)
    assert all(torch.equal(tensor, state[name]) for name, tensor in wrapped.module.state_dict().items())
    plain = model().eval()
    plain.load_state_dict(state)
    assert torch.equal(plain(X), wrapped.eval()(X))


@pytest.mark.parametrize(
    ("max_taps", "converted"), [(None, [0, 1, 2]), (49, [0, 1, 2]), (48, [0, 2]), (np.int64(9), [0, 2])]
)
def test_kernels_of_many_taps_can_stay_plain(
    max_taps: int | None, converted: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "doconv")
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 7, groups=4), nn.ConvTranspose2d(4, 4, 2), nn.Conv2d(4, 4, 1)
    )
    overparameterize(net, max_taps=max_taps)
    assert [index for index, layer in enumerate(net) if isinstance(layer, DOConvMixin)] == converted
    above = f"1: plain Conv2d 7x7, more taps than max_taps={max_taps}"
    assert (above in caplog.messages) == (1 not in converted)
    with pytest.raises(ValueError, match="nothing is left to over-parameterize"):
        overparameterize(nn.Conv2d(3, 4, 3), max_taps=8)


@pytest.mark.parametrize(
    ("max_taps", "error", "text"),
    [(0, ValueError, "at least one. Received: 0"), (True, TypeError, "must be an integer. Received: True"),
     (9.0, TypeError, "must be an integer. Received: 9.0")],
)  # fmt: skip
def test_max_taps_is_a_number_of_taps(max_taps: object, error: type[Exception], text: str) -> None:
    net = model()
    with pytest.raises(error, match=text):
        overparameterize(net, max_taps=max_taps)
    assert not any(isinstance(layer, DOConvMixin) for layer in net.modules())


def test_a_model_that_grows_much_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"):
        large = overparameterize(nn.Sequential(nn.Conv2d(3, 128, 3), nn.Conv2d(128, 128, 31, groups=128)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    numbers = sum(parameter.numel() for parameter in large.parameters())
    text = caplog.messages[0]
    assert text.startswith(f"the model had 126,720 parameters and has {numbers:,}; D grows with the square of the taps")
    assert "`max_taps` leaves large kernels plain, the largest here is DOConv2d(128, 128, kernel_size=(31, 31)" in text
    caplog.clear()
    with torch.device("meta"):
        overparameterize(nn.Sequential(nn.Conv2d(512, 512, 3), nn.Conv2d(3, 4, 5)))
    assert not caplog.records


@pytest.mark.parametrize("d_mul", [2**31, 2**62, 2**63])
def test_nothing_has_changed_where_memory_does_not_suffice(d_mul: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    before, want = list(net.parameters()), net(X)
    with pytest.raises((RuntimeError, TypeError, ValueError, OverflowError)):
        overparameterize(net, d_mul=d_mul)
    assert [type(layer) for layer in net] == [nn.Conv2d, nn.Conv2d]
    assert all(one is other for one, other in zip(net.parameters(), before, strict=True))
    assert torch.equal(net(X), want)


@pytest.mark.parametrize("copied", [False, True], ids=["in place", "of a copy"])
def test_both_verbs_make_parameters_that_train_inside_inference_mode(copied: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False))
    for verb in (overparameterize, fold):
        with torch.inference_mode():
            net = verb(copy.deepcopy(net) if copied else net)
        net(X).sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
