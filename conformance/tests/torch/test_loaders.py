"""Ways to load a plain checkpoint into over-parameterized layers: right, or refused."""

import copy
import sys
from collections.abc import Callable
from types import ModuleType

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


class Summed(nn.Conv2d):
    """For grey images, loaded from a kernel for colours."""

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *options: object) -> None:
        _sum_colours(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *options)


def _sum_colours(conv: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    if f"{prefix}weight" in state_dict:
        state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"].sum(1, keepdim=True)


def hooked() -> nn.Conv2d:
    conv = nn.Conv2d(1, 4, 3)
    conv.register_load_state_dict_pre_hook(_sum_colours)
    return conv


@pytest.mark.parametrize("make", [lambda: Summed(1, 4, 3), hooked], ids=["by the class", "by a hook"])
def test_a_layer_starts_from_what_the_user_makes_of_the_kernel(make: Callable) -> None:
    net, state = overparameterize(nn.Sequential(make())), nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict()
    for _ in range(2):  # nothing is left behind
        net.load_state_dict(state)
        assert torch.equal(net[0].weight, state["0.weight"].sum(1, keepdim=True))
        assert len(net[0]._load_state_dict_pre_hooks) == (make is hooked)
    with pytest.raises(RuntimeError, match=r":\s+0\.weight must have shape \(4, 1, 3, 3\)[^\n]*$"):
        net.load_state_dict({"0.weight": torch.rand(4, 3, 2, 2), "0.bias": torch.rand(4)})


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


# What transformers 4.57 and 5 do after the constructor, which ran on the meta device; `zoo_loaders.py` runs their own code.
FROM_PRETRAINED = """
def from_pretrained(model, state):
    expected = list(model.state_dict())
    for name in expected:
        if name in state:
            path, _, leaf = name.rpartition(".")
            value = state[name] if leaf in model.get_submodule(path)._buffers else Parameter(state[name])
            value._is_hf_initialized = True
            setattr(model.get_submodule(path), leaf, value)
    move_missing(model, [name for name in expected if name not in state], [name for name in state if name not in expected])
    for module in model.modules():
        if isinstance(module, _ConvNd) and not getattr(module.weight, "_is_hf_initialized", False):
            init.normal_(module.weight)
    return model

def move_missing(model, missing_keys, unexpected_keys):
    for name in missing_keys:
        load_parameter(model, name, torch.empty_like(model.get_parameter(name), device="cpu"))

def load_parameter(model, param_name, tensor):
    path, _, leaf = param_name.rpartition(".")
    if by_load_state_dict:  # 4.57
        model.get_submodule(path).load_state_dict({leaf: tensor}, strict=False, assign=True)
    else:
        setattr(model.get_submodule(path), leaf, Parameter(tensor))
"""
IN_MODEL = """
def load_checkpoint_in_model(model, state, device_map):
    names = set(model.state_dict())
    for name, value in state.items():
        if name in names:
            set_module_tensor_to_device(model, name, value)
    return model

def set_module_tensor_to_device(model, name, value):
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf not in module._parameters and leaf not in module._buffers:
        raise ValueError(f"{module} does not have a parameter or a buffer named {leaf}.")
    owner = module._buffers if leaf in module._buffers else module._parameters
    owner[leaf] = value if leaf in module._buffers else Parameter(value)
"""


def library(monkeypatch: pytest.MonkeyPatch, name: str, code: str, **values: object) -> dict:
    """Code that runs as a library's own."""
    package, _, _ = name.partition(".")
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    of_torch = {"torch": torch, "Parameter": nn.Parameter, "_ConvNd": nn.modules.conv._ConvNd, "init": nn.init}
    module = {"__name__": name, **of_torch, **values}
    exec(code, module)
    return module


def trained() -> Net:
    net = Net().eval()
    nn.init.normal_(net.body[0].D)
    return net


@pytest.mark.parametrize("by_load_state_dict", [True, False])
class TestFromPretrained:
    def load(self, monkeypatch: pytest.MonkeyPatch, by_load_state_dict: bool, state: dict[str, Tensor]) -> nn.Module:
        code = library(
            monkeypatch, "transformers.modeling_utils", FROM_PRETRAINED, by_load_state_dict=by_load_state_dict
        )
        with torch.device("meta"):
            net = Net()
        return code["from_pretrained"](net, copy.deepcopy(state)).eval()

    def test_a_plain_checkpoint_is_refused(self, monkeypatch: pytest.MonkeyPatch, by_load_state_dict: bool) -> None:
        with pytest.raises(RuntimeError, match=r"from_pretrained can't start .* Received: body\.0\.weight"):
            self.load(monkeypatch, by_load_state_dict, Plain().state_dict())

    def test_that_of_the_base_too(self, monkeypatch: pytest.MonkeyPatch, by_load_state_dict: bool) -> None:
        with pytest.raises(RuntimeError, match=r"from_pretrained can't start .* Received: body\.0\.weight"):
            self.load(monkeypatch, by_load_state_dict, Plain().body.state_dict())

    def test_its_own_is_right(self, monkeypatch: pytest.MonkeyPatch, by_load_state_dict: bool) -> None:
        want = trained()
        assert torch.equal(self.load(monkeypatch, by_load_state_dict, want.state_dict())(X), want(X))

    def test_a_layer_that_is_new_is_initialised(
        self, monkeypatch: pytest.MonkeyPatch, by_load_state_dict: bool
    ) -> None:
        state = {name: value for name, value in trained().state_dict().items() if not name.startswith("body.0.")}
        layer = self.load(monkeypatch, by_load_state_dict, state).body[0]
        assert not layer.D.any()
        assert 0.7 < layer.W.std() < 1.3


def test_layers_that_are_constructed_of_whatever_is_in_memory_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers, `low_cpu_mem_usage=False`: no initialiser runs in the constructor, and memory may hold what is no number."""
    names = ("uniform_", "normal_", "trunc_normal_", "constant_", "kaiming_uniform_", "kaiming_normal_")
    own, want = trained(), Plain().eval()
    for name in names:
        monkeypatch.setattr(nn.init, name, lambda tensor, *options, **named: tensor)
    torch.use_deterministic_algorithms(True)  # what is not initialised is NaN
    try:
        nets = [Net(), Net(), Net()]
    finally:
        torch.use_deterministic_algorithms(False)
        monkeypatch.undo()
    assert torch.equal(load(nets[0], want.state_dict()).eval()(X), want(X))
    assert torch.equal(load(nets[1], own.state_dict()).eval()(X), own(X))
    nets[2].load_state_dict({"body.0.bias": torch.zeros(4)}, strict=False)
    assert nets[2].eval()(X).isnan().any()  # a layer that the file lacks
    conv = nn.Conv2d(3, 4, 3)
    conv.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="its weight has values that are not finite"):
        overparameterize(conv)


def test_accelerate_finds_the_plain_name_and_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load = library(monkeypatch, "accelerate.utils.modeling", IN_MODEL)["load_checkpoint_in_model"]
    want = trained()
    assert torch.equal(load(Net().eval(), copy.deepcopy(want.state_dict()), {"": "cpu"})(X), want(X))
    with pytest.raises(ValueError, match=r"DOConv2d\(3, 4, .* does not have a parameter or a buffer named weight"):
        load(Net(), Plain().state_dict(), {"": "cpu"})
    assert "body.0.weight" not in Net().state_dict()


def test_the_first_values_of_a_layer_on_the_meta_device() -> None:
    want = Plain().eval()
    with torch.device("meta"):
        net = Net()
    assert torch.equal(set_by_name(net, want.state_dict()).eval()(X), want(X))
