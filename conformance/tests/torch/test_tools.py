"""PyTorch's own tools on over-parameterized models: each does what it does to the plain one, or refuses clearly."""

import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

import doconv_torch
from doconv_torch import DOConv2d, DOConvMixin, fold, fold_state_dict, overparameterize


def integers(tensor: torch.Tensor) -> torch.Tensor:
    """Fill with -1, 0 and 1: all that the model below computes is then exact, in every order of summation."""
    with torch.no_grad():
        return tensor.random_(-1, 2)


X = integers(torch.empty(2, 3, 9, 9))


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, (3, 2), groups=4), nn.ConvTranspose2d(8, 4, 3, stride=2),
        nn.Conv2d(4, 2, 1),
    ).eval()  # fmt: skip
    for parameter in net.parameters():
        integers(parameter)
    return net


@pytest.fixture
def model() -> nn.Sequential:
    """Over-parameterized, with a `D` that has an effect."""
    net = overparameterize(plain(), d_mul=13)
    for parameter in net.parameters():
        integers(parameter)
    assert net(X).abs().max() < 2**22
    return net


def gradients(net: nn.Module, call: Callable) -> list[torch.Tensor]:
    net.zero_grad()
    call(X).square().mean().backward()
    return [parameter.grad.clone() for parameter in net.parameters()]


def assert_equal(got: list[torch.Tensor], want: list[torch.Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_compile_takes_the_whole_model_in_one_graph(model: nn.Module) -> None:
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(X), model(X))
    y = model(X)
    fold(model)
    assert torch.equal(compiled(X), y)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_a_compiled_plain_model_notices_overparameterize() -> None:
    net = plain()
    compiled = torch.compile(net, backend="eager")
    before = compiled(X)
    overparameterize(net)
    assert torch.equal(compiled(X), before)
    nn.init.ones_(net[0].D)
    assert not torch.equal(compiled(X), before)


def test_fx_keeps_the_composition_as_one_call_on_the_parameters(model: nn.Module) -> None:
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(X), model(X))
    assert_equal(gradients(traced, traced), gradients(model, model))
    nn.init.ones_(model[0].D)
    assert torch.equal(traced(X), model(X))  # nothing was frozen
    assert len([node for node in traced.graph.nodes if "kernel" in str(node.target)]) == 3


def test_export_keeps_the_parameters_and_leaves_no_wrapper(model: nn.Module) -> None:
    program = torch.export.export(model, (X,))
    assert {"0.W", "0.D", "3.W"} <= set(program.state_dict)
    assert not [node for node in program.graph.nodes if "autocast" in str(node.target) or "wrap" in str(node.target)]
    exported = program.module()
    assert torch.equal(exported(X), model(X))
    assert torch.equal(torch.export.export(fold(model), (X,)).module()(X), model(X))


def test_a_trace_has_no_layers_to_fold_and_is_not_returned_in_silence(model: nn.Module) -> None:
    state = fold_state_dict(model.state_dict(), like=plain())
    for traced in (torch.fx.symbolic_trace(model), torch.export.export(model, (X,)).module()):
        with pytest.raises(ValueError, match=r"no layer is of doconv.*Received: 0\.W, "):
            fold(traced)
        folded = fold_state_dict(traced.state_dict(), like=plain())
        assert all(torch.equal(folded[name], state[name]) for name in state)
    assert fold(torch.fx.symbolic_trace(plain()))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_script_refuses_and_takes_the_folded_model(model: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"fold the model first. Received: DOConv2d\(3, 8"):
        torch.jit.script(model)
    y = model(X)
    assert torch.equal(torch.jit.script(fold(model))(X), y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_onnx(model: nn.Module, folded: bool, dynamo: bool, tmp_path: Path) -> None:
    reason = "exporting needs onnxscript: pip install '.[dev]'"
    pytest.importorskip("onnxscript", reason=reason)
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    y = (fold(model) if folded else model)(X).detach()
    torch.onnx.export(model, (X,), tmp_path / "model.onnx", dynamo=dynamo, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    assert torch.equal(torch.from_numpy(got), y)


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # PyTorch's own forward mode uses it
def test_functional_call_vmap_and_forward_mode(model: nn.Module) -> None:
    parameters = {name: tensor.detach() for name, tensor in model.named_parameters()}
    assert torch.equal(torch.func.functional_call(model, parameters, X), model(X))
    stacked = {name: torch.stack([tensor, 2 * tensor]) for name, tensor in parameters.items()}
    both = torch.func.vmap(lambda values: torch.func.functional_call(model, values, X))(stacked)
    assert torch.equal(both[0], model(X))

    W, D = model[0].W.clone(), model[0].D.clone()
    with pytest.raises(RuntimeError, match=r"give its W and D. Received: weight, for DOConv2d\(3, 8"):
        torch.func.functional_call(model, {"0.weight": torch.rand(8, 3, 3, 3)}, X)
    assert_equal([model[0].W, model[0].D], [W, D])

    conv = DOConv2d(2, 3, 2, dtype=torch.float64)
    nn.init.normal_(conv.D)
    x = torch.rand(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def call(W: torch.Tensor, D: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(conv, {"W": W, "D": D}, x)

    assert torch.autograd.gradgradcheck(call, (conv.W, conv.D, x))
    along = tuple(torch.rand_like(tensor) for tensor in (conv.W, conv.D, x))
    assert torch.func.jvp(call, (conv.W, conv.D, x), along)[1].shape == (1, 3, 3, 3)


def test_meta_device_then_empty_then_reset() -> None:
    with torch.device("meta"):
        net = overparameterize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), d_mul=20)
        assert type(fold(overparameterize(nn.Conv2d(3, 4, 3)))) is nn.Conv2d
    net.to_empty(device="cpu")
    torch.manual_seed(0)
    for conv in net:
        conv.reset_parameters()
        assert not conv.D.any()
        assert 0 < conv.W.abs().max() <= (conv.in_channels * 20) ** -0.5
    assert net(X).isfinite().all()
    assert torch.nn.utils.skip_init(DOConv2d, 3, 4, 3).W.shape == (4, 3, 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_composes_in_float32_and_autocast_leaves_the_kernel_alone(
    model: nn.Module, dtype: torch.dtype
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert model[0].weight.dtype == torch.float32
        assert model(X).dtype == torch.bfloat16
    want = [copy.deepcopy(conv).to(dtype).float().weight.to(dtype) for conv in model if isinstance(conv, DOConvMixin)]
    model.to(dtype)
    assert_equal([conv.weight for conv in model if isinstance(conv, DOConvMixin)], want)
    assert model(X.to(dtype)).dtype == dtype


@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_channels_last_stays(order: torch.memory_format) -> None:
    before = plain().to(memory_format=torch.channels_last)
    net = overparameterize(copy.deepcopy(before))
    y, want = (each(X.contiguous(memory_format=order)) for each in (net, before))
    assert torch.equal(y, want)
    assert y.stride() == want.stride()
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for each in (net, torch.load(file, weights_only=False)):
        assert each[0].weight.stride() == before[0].weight.stride()
    assert fold(net)[0].weight.stride() == before[0].weight.stride()


def test_frozen_stays_frozen_both_ways() -> None:
    net = overparameterize(plain().requires_grad_(False))
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not any(parameter.requires_grad for parameter in fold(net).parameters())


def test_a_vector_of_all_parameters_goes_there_and_back(model: nn.Module) -> None:
    y, vector = model(X), torch.nn.utils.parameters_to_vector(model.parameters())
    torch.nn.utils.vector_to_parameters(torch.zeros_like(vector), model.parameters())
    assert not model[0].W.any()
    torch.nn.utils.vector_to_parameters(vector, model.parameters())
    assert torch.equal(model(X), y)


def test_files_and_copies(model: nn.Module) -> None:
    y, buffer = model(X), io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    twin = overparameterize(plain(), d_mul=13)
    twin.load_state_dict(torch.load(buffer, weights_only=True))
    whole = io.BytesIO()
    torch.save(model, whole)
    whole.seek(0)
    for other in (twin, copy.deepcopy(model), torch.load(whole, weights_only=False)):
        assert torch.equal(other(X), y)


def test_a_shallow_copy_is_a_layer_of_its_own_and_stays_tied() -> None:
    """`copy.copy` of a module shares the dictionary of its parameters."""
    model = nn.ModuleDict({"a": nn.Conv2d(3, 4, 3)})
    model["b"], alone = copy.copy(model["a"]), copy.copy(model["a"])
    x = torch.rand(1, 3, 8, 8)
    y = alone(x)
    overparameterize(model)
    assert model["a"].W is model["b"].W
    assert torch.equal(alone(x), y)
    fold(copy.copy(model["a"]))
    assert torch.equal(model["a"](x), y)


def test_averages_are_of_w_and_d_and_not_of_the_kernel(model: nn.Module) -> None:
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    assert torch.equal(average(X), model(X))
    before, W = model[0].weight, model[0].W.detach().clone()
    with torch.no_grad():
        for parameter in (model[0].W, model[0].D):
            parameter.mul_(3)
    average.update_parameters(model)
    assert torch.equal(average.module[0].W, 2 * W)
    assert not torch.equal(average.module[0].weight, (before + model[0].weight) / 2)


def test_fusing_with_batch_normalisation_starts_the_layer_from_the_fused_kernel(model: nn.Module) -> None:
    norm = nn.BatchNorm2d(8).eval()
    nn.init.uniform_(norm.running_var, 0.5, 2)
    fused = torch.nn.utils.fuse_conv_bn_eval(model.eval()[0], norm)
    weight, bias = torch.nn.utils.fuse_conv_bn_weights(
        model[0].weight, model[0].bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    assert isinstance(fused, DOConv2d)
    assert torch.equal(fused.weight, weight)
    assert torch.equal(fused.bias, bias)


def test_checkpointing_recomputes_the_kernel(model: nn.Module) -> None:
    want = gradients(model, model)
    again = gradients(model, lambda x: torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False))
    assert_equal(again, want)


def test_an_initialiser_reaches_the_kernel_by_assignment() -> None:
    conv = DOConv2d(3, 4, 3)
    before = conv.weight
    conv.weight = nn.init.kaiming_normal_(torch.empty_like(conv.weight))
    assert not torch.equal(conv.weight, before)
    for weight, error, text in (
        (1.0, TypeError, "weight must be a tensor. Received: float"),
        (torch.zeros(4, 3, 3, 3).to_sparse(), TypeError, "dense tensor of real numbers. Received: torch.sparse_coo"),
        (torch.zeros(4, 3, 3, 3, dtype=torch.complex64), TypeError, "real numbers. Received: .* torch.complex64"),
        (torch.zeros(4, 3, 3, 3, device="meta"), ValueError, "weight must have values"),
        (torch.zeros(4, 3, 9), ValueError, r"weight must have shape \(4, 3, 3, 3\). Received: \(4, 3, 9\)"),
    ):
        with pytest.raises(error, match=text):
            conv.weight = weight


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_sharded_training_and_folding_what_was_gathered(model: nn.Module) -> None:
    single, sharded = model, copy.deepcopy(model)
    for layer in (*(layer for layer in sharded if list(layer.parameters())), sharded):
        fully_shard(layer)
    for net in (single, sharded):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        net(X).square().mean().backward()
        optimizer.step()
    full = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True))
    assert_equal(list(full.values()), list(single.state_dict().values()))

    with pytest.raises(ValueError, match=r"can't be folded. Received: 0: sharded"):
        fold(sharded)
    with pytest.raises(RuntimeError, match=r"0\.weight is a plain kernel, and the layer is sharded: load it before"):
        sharded.load_state_dict(plain().state_dict())
    with pytest.raises(ValueError, match=r"sharded tensors must be gathered first. Received: 0.W, 0.D"):
        fold_state_dict(sharded.state_dict())
    folded = fold_state_dict(full, like=plain())
    assert_equal(list(folded.values()), list(fold(single).state_dict().values()))
    net = plain()
    fully_shard(net)
    with pytest.raises(ValueError, match=r"can't be over-parameterized.*Received: 0: sharded"):
        overparameterize(net)


def test_every_layer_class_round_trips_through_its_parent() -> None:
    for name in doconv_torch.__all__:
        if name.startswith("DOConv") and name != "DOConvMixin":
            conv = getattr(doconv_torch, name)(2, 3, 2)
            assert type(fold(copy.deepcopy(conv))).__name__ == name.removeprefix("DO")
            assert type(overparameterize(fold(copy.deepcopy(conv)))) is type(conv)
