"""Portable checkpoints of PyTorch models, and the authors' files."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import nn

import doconv_torch
from doconv_conformance.cases import generator
from doconv_core import ConvGeometry, compose
from doconv_torch import load_checkpoint, load_original, overparameterize, save_checkpoint


class Net(nn.Module):
    """A conv used under two names, a tied weight, every kind of layer, and a tensor of none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.again = self.stem
        self.bn = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, (2, 3), stride=2, groups=2)
        self.line = nn.Sequential(nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4, affine=True), nn.GroupNorm(2, 4))
        self.volume = nn.Conv3d(1, 2, (1, 2, 2), dtype=torch.bfloat16)
        self.one = doconv_torch.DOConv2d(4, 6, 1)
        self.words = nn.Embedding(5, 6)
        self.norms = nn.ModuleList([nn.LayerNorm(6), nn.RMSNorm(6)])
        self.head = nn.Linear(6, 5, bias=False)
        self.head.weight = self.words.weight


def net(seed: int, *, over: bool = True) -> Net:
    torch.manual_seed(seed)
    model = Net()
    if over:
        overparameterize(model)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) * 5)
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("over", [True, False])
def test_there_and_back(over: bool, tmp_path: Path) -> None:
    model, other = net(0, over=over), net(1, over=over)
    parameters = dict(other.named_parameters())
    save_checkpoint(model, tmp_path / "file")
    assert load_checkpoint(tmp_path / "file", other) is other
    assert same(model, other)
    assert all(parameter is parameters[name] for name, parameter in other.named_parameters())
    assert other.again is other.stem
    assert other.head.weight is other.words.weight
    names = load_file(tmp_path / "file").keys()
    assert not any(name.startswith("again") for name in names)
    assert ("stem.D_delta" in names) is over
    assert "one.weight" in names


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # PyTorch's own
def test_wrappers_leave_no_trace(tmp_path: Path) -> None:
    save_checkpoint(nn.DataParallel(net(0)), tmp_path / "wrapped")
    save_checkpoint(net(0), tmp_path / "bare")
    assert (tmp_path / "wrapped").read_bytes() == (tmp_path / "bare").read_bytes()
    other = net(1)
    load_checkpoint(tmp_path / "bare", torch.compile(other))
    assert same(other, net(0))


def test_what_no_layer_covers_is_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MultiheadAttention(4, 2), nn.LayerNorm((2, 2)), nn.PReLU())
    with pytest.raises(
        ValueError, match=r"Received: 1\.in_proj_weight, 1\.in_proj_bias, 2\.weight, 2\.bias, 3\.weight"
    ):
        save_checkpoint(model, tmp_path / "file")
    save_checkpoint(model, tmp_path / "file", strict=False)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    load_checkpoint(tmp_path / "file", other)
    assert same(model, other)


def test_a_kernel_that_is_computed_is_no_kernel(tmp_path: Path) -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match=r"Received: .*parametrizations\.weight\.original0"):
        save_checkpoint(model, tmp_path / "file")


def test_only_modules(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module. Received: dict"):
        save_checkpoint({}, tmp_path / "file")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "nothing", net(0))
    save_checkpoint(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "file")
    with pytest.raises(ValueError, match=r"0 has stride \[1, 1\] in the file, \[2, 2\] in the model"):
        load_checkpoint(tmp_path / "file", nn.Sequential(nn.Conv2d(3, 4, 3, stride=2)))


SIZES = {
    "a": (3, 8, 1),
    "b": (8, 12, 4),
    "c": (12, 12, 12),
    "d": (12, 6, 6),
}  # C_in, C_out, G; only b cannot be imported


def original(**extra: Any) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """A state dict as the authors' PyTorch file makes it, kernels 3x2, and its kernels by their formula."""
    state, kernels = {}, {}
    for path, (channels, outputs, groups) in SIZES.items():
        W = generator.integers(f"torch/{path}/W", (outputs, channels // groups, 6), -3, 3)
        D = generator.integers(f"torch/{path}/D", (channels, 6, 6), -3, 3)
        rows = np.array([[(o % groups) * (channels // groups) + c for c in range(W.shape[1])] for o in range(outputs)])
        kernel = np.einsum("ocks,ocs->ock", (D + np.eye(6))[rows], W)
        kernels[path] = kernel.reshape(*W.shape[:2], 3, 2).astype(np.float32)
        state |= {f"{path}.W": W, f"{path}.D": D, f"{path}.d_diag": np.stack([np.eye(6)] * channels)}
        state[f"{path}.bias"] = np.arange(outputs)
    state["one.W"] = generator.floats("torch/one", (4, 6, 1))
    tensors = {f"module.{name}": torch.from_numpy(array).float() for name, array in state.items()}
    return tensors | extra, kernels


def target(*, over: bool) -> nn.Module:
    convs = {path: nn.Conv2d(ins, outs, (3, 2), groups=groups) for path, (ins, outs, groups) in SIZES.items()}
    model = nn.ModuleDict(convs)
    if over:
        overparameterize(model)
    model["one"] = doconv_torch.DOConv2d(6, 4, 1, bias=False) if over else nn.Conv2d(6, 4, 1, bias=False)
    return model


@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize("form", ["pth", "nested", "safetensors", "state dict"])
def test_the_authors_files(over: bool, form: str, tmp_path: Path) -> None:
    state, kernels = original()
    source: Any = tmp_path / ("file.safetensors" if form == "safetensors" else "file.pth")
    if form == "safetensors":
        save_file(state, source)
    elif form == "state dict":
        source = state
    else:
        torch.save({"epoch": 3, "state_dict": state} if form == "nested" else state, source)
    model = load_original(source, target(over=over))
    for path, kernel in kernels.items():
        assert torch.equal(model[path].weight, torch.from_numpy(kernel)), path
        assert torch.equal(model[path].bias, state[f"module.{path}.bias"])
        if over:
            assert torch.equal(model[path].W, state[f"module.{path}.W"]) is (path != "b")
            conv = model[path].geometry
            assert isinstance(conv, ConvGeometry)
            again = compose(model[path].W.detach().numpy(), model[path].D.detach().numpy(), conv)
            np.testing.assert_array_equal(again, kernel)
    assert torch.equal(model["one"].weight.flatten(), state["module.one.W"].flatten())


def test_the_authors_files_that_do_not_fit(tmp_path: Path) -> None:
    state, _ = original()
    del state["module.c.D"]
    with pytest.raises(ValueError, match=r"state dict: c\.W has no c\.D beside it"):
        load_original(state, target(over=True))
    with pytest.raises(ValueError, match=r"dialect must be original-torch or original-tf. Received: 'doconv'"):
        load_original(state, target(over=True), dialect="doconv")
    with pytest.raises(ValueError, match=r"state dict holds no state dict. Received: epoch"):
        load_original({"epoch": 3}, target(over=True))
    (tmp_path / "bad.pth").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match=r"bad\.pth cannot be read by torch\.load\(weights_only=True\)"):
        load_original(tmp_path / "bad.pth", target(over=True))
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")  # a pickled module could run code
    with pytest.raises(ValueError, match=r"whole\.pth cannot be read by torch\.load\(weights_only=True\)"):
        load_original(tmp_path / "whole.pth", target(over=True))
    with pytest.raises(FileNotFoundError):
        load_original(tmp_path / "nothing.pth", target(over=True))
    state, _ = original(**{"module.extra.weight": torch.ones(3)})
    with pytest.raises(ValueError, match=r"left over in the file: extra"):
        load_original(state, target(over=True))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [(8, 4), (4, 4)])
def test_the_authors_files_of_a_network_with_plain_transposed_layers(channels: tuple[int, int], bias: bool) -> None:
    def network() -> nn.Module:
        return nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "up": nn.ConvTranspose2d(*channels, 2, 2, bias=bias)})

    given = overparameterize(network(), where="conv")
    diagonal = {"conv.D_diag": torch.eye(9).repeat(3, 1, 1)}
    for model in (overparameterize(network(), where="conv"), network()):
        load_original(given.state_dict() | diagonal, model)
        assert torch.equal(model["up"].weight, given["up"].weight)
        assert torch.equal(model["conv"].weight, given["conv"].weight)


def test_layers_of_this_project_are_not_taken_for_the_authors() -> None:
    """Where their pairing of kernels with rows of D differs, only the stored identity tells the two apart."""
    ours = overparameterize(nn.Sequential(nn.Conv2d(8, 12, 3, groups=4)))
    target = overparameterize(nn.Sequential(nn.Conv2d(8, 12, 3, groups=4)))
    with pytest.raises(ValueError, match=r"the layers of this project wrote it, .* Received: original-torch"):
        load_original(ours.state_dict(), target)
    with pytest.raises(ValueError, match=r"no D_diag beside D.*load_state_dict.*Received: 0"):
        load_original(dict(ours.state_dict()), target)
    dense = overparameterize(nn.Sequential(nn.Conv2d(8, 12, 3)))
    copied = dict(dense.state_dict())
    assert torch.equal(load_original(copied, nn.Sequential(nn.Conv2d(8, 12, 3)))[0].weight, dense[0].weight)


@pytest.mark.parametrize("prefix", ["", "module.", "net.", "model.module.", "_orig_mod."])
def test_the_authors_files_below_any_prefix(prefix: str) -> None:
    state, kernels = original()
    state = {prefix + name.removeprefix("module."): tensor for name, tensor in state.items()}
    model = load_original(state | {"n_averaged": torch.tensor(3)}, target(over=True), strict=False)
    for path, kernel in kernels.items():
        assert torch.equal(model[path].weight, torch.from_numpy(kernel)), path
    load_original(state, target(over=False))


def test_a_choice_between_weights_and_their_average_is_asked_for() -> None:
    state, kernels = original()
    other = {name: torch.zeros_like(tensor) if name.endswith("W") else tensor for name, tensor in state.items()}
    for plain, average in (("params", "params_ema"), ("state_dict", "state_dict_ema")):
        both = {average: other, plain: state, "epoch": 3}
        with pytest.raises(ValueError, match=rf"choose one by `key`\..* Received: .*of {plain}; .*of {average}"):
            load_original(both, target(over=False))
        model = load_original(both, target(over=False), key=plain)
        assert torch.equal(model["a"].weight, torch.from_numpy(kernels["a"]))
        assert not load_original(both, target(over=False), key=average)["a"].weight.any()
    two = {f"{who}.{name.removeprefix('module.')}": t for who in ("one", "two") for name, t in state.items()}
    with pytest.raises(ValueError, match=r"choose one by `prefix`\. Received: one\., two\."):
        load_original(two, target(over=False))
    model = load_original(two, target(over=False), prefix="two.")
    assert torch.equal(model["a"].weight, torch.from_numpy(kernels["a"]))
    with pytest.raises(ValueError, match=r"no name begins with the prefix 'three\.'"):
        load_original(two, target(over=False), prefix="three.")
    with pytest.raises(ValueError, match="has no key ema"):
        load_original(two, target(over=False), key="ema")


@pytest.mark.parametrize("over", [False, True])
def test_a_trained_diagonal_counts(over: bool, caplog: pytest.LogCaptureFixture) -> None:
    state, kernels = original()
    state["module.a.D"] = state["module.a.D"] - 1
    state["module.a.d_diag"] = state["module.a.d_diag"] + 1
    with caplog.at_level("INFO", logger="doconv"):
        model = load_original(state, target(over=over))
    assert torch.equal(model["a"].weight, torch.from_numpy(kernels["a"]))
    assert "D_diag is not the identity, it was trained: read as D + D_diag: a" in caplog.text


@pytest.mark.parametrize(("make", "rank"), [(nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3)])
def test_layers_of_one_tap_in_networks_of_any_rank(make: type[nn.Module], rank: int) -> None:
    model = nn.Sequential(make(4, 4, 3, bias=False), make(4, 4, 1, bias=False))
    state = {"0.W": torch.rand(4, 4, 3**rank), "0.D": torch.zeros(4, 3**rank, 3**rank), "1.W": torch.rand(4, 4, 1)}
    load_original(state, model)
    assert torch.equal(model[1].weight.flatten(), state["1.W"].flatten())
    over = overparameterize(nn.Sequential(make(4, 4, 3, bias=False), make(4, 4, 1, bias=False)))
    assert torch.equal(load_original(state, over)[0].D, state["0.D"])


@pytest.mark.parametrize(
    "odd", [torch.rand(3).to_sparse(), torch.rand(3).to(torch.float8_e4m3fn), torch.rand(3, device="meta")]
)
def test_tensors_that_numpy_does_not_know_are_named(odd: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="state dict: odd has no values that NumPy knows"):
        load_original(original()[0] | {"odd": odd}, target(over=False))


def test_a_few_values_repeated_are_refused_before_they_take_memory() -> None:
    state = {"conv.W": torch.zeros(1).expand(2**40, 2, 9), "conv.D": torch.zeros(2, 9, 9)}
    with pytest.raises(ValueError, match=r"conv\.W is a few values repeated\. Received: shape \(1099511627776, 2, 9\)"):
        load_original(state, target(over=False))


def test_weights_at_the_top_beside_an_average_are_a_choice_too() -> None:
    state, kernels = original()
    with pytest.raises(ValueError, match=r"choose one by `key`\. Received: .*at the top \(key=''\); .*those of ema"):
        load_original(state | {"ema": state}, target(over=False))
    model = load_original(state | {"ema": state}, target(over=False), key="")
    assert torch.equal(model["a"].weight, torch.from_numpy(kernels["a"]))


class Task(nn.Module):
    """What a trainer makes of a model: its names below one of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.net = model


def test_the_file_of_a_trainer_loads_into_the_model(tmp_path: Path) -> None:
    trained, there = net(0), net(1)
    save_checkpoint(Task(trained), tmp_path / "file", strict=False)
    load_checkpoint(tmp_path / "file", there)
    assert same(there, trained)


@pytest.mark.parametrize("name_map", [{"stem": 5}, ["ab"]])
def test_a_name_map_of_another_form_is_refused_before_any_work(name_map: Any, tmp_path: Path) -> None:
    for load in (load_checkpoint, load_original):
        with pytest.raises(TypeError, match="name_map must be a dict of strings"):
            load(tmp_path / "no file.pth", net(0), name_map=name_map)
    with pytest.raises(ValueError, match="no regular expression"):
        load_original(tmp_path / "no file.pth", net(0), name_map=[("(", "b")])
