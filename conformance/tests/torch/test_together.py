"""`compose_together`: one operation for all layers, the numbers of the plain way in every way of running a model."""

import copy
import pickle
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import doconv_torch._layers as layers
import doconv_torch._together as together
from doconv_torch import DOConv2d, compose_together, composed_once, fold, overparameterize, recompute_kernels
from doconv_torch._kept import MADE


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one where a layer composes for itself."""
    counted: list[int] = []
    compose = layers.compose

    def counting(*args: object, **options: object) -> torch.Tensor:
        counted.append(1)
        return compose(*args, **options)

    monkeypatch.setattr(layers, "compose", counting)
    return counted


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not together._passes.stack
    assert not [made for passes in list(MADE.values()) for made in passes.values() if made.open]


def integers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Small ones: every sum below is exact in float32, so two ways that are equal give equal numbers."""
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def network() -> nn.Sequential:
    """Layers of every kind; one is used twice."""
    twice = nn.Conv2d(6, 6, 3, padding=1)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        twice,
        nn.Sequential(nn.Conv2d(6, 6, 2, groups=2), nn.ReLU(), twice),
        nn.Conv2d(6, 6, 3, groups=6, padding=1),
        nn.ConvTranspose2d(6, 4, 2),
        nn.Conv2d(4, 3, 1),
    )
    overparameterize(model, where="3.0", d_mul=7)
    overparameterize(model)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(integers(*parameter.shape, seed=seed) * (integers(*parameter.shape, seed=seed + 50) == 0))
    return model


def back(model: Callable[[torch.Tensor], torch.Tensor], seed: int = 0) -> torch.Tensor:
    y = model(integers(2, 2, 4, 4, seed=seed))
    (y * integers(*y.shape, seed=seed + 10)).sum().backward()
    return y.detach()


def assert_same(left: nn.Module, right: nn.Module) -> None:
    for (name, a), b in zip(left.named_parameters(), right.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.equal(a.grad, b.grad), name


def both() -> tuple[nn.Sequential, nn.Sequential]:
    plain = network()
    return plain, compose_together(copy.deepcopy(plain))


def test_one_operation_gives_every_layer_its_kernel_and_its_gradients(alone: list[int]) -> None:
    plain, model = both()
    for seed in range(3):
        expected = back(plain, seed)
        alone.clear()
        assert torch.equal(back(model, seed), expected)
        assert not alone
    assert_same(model, plain)
    assert model[0].weight.grad_fn is not None
    assert len(alone) == 1  # outside of the pass the layer composes for itself


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_of_parameters(dtype: torch.dtype, alone: list[int]) -> None:
    plain, model = (each.to(dtype) for each in both())
    for each in (plain, model):
        each[3][2] = nn.Identity()  # the gradient of what is used twice is rounded once or twice
    x = integers(1, 2, 4, 4).to(dtype)
    expected = plain(x)
    alone.clear()
    assert torch.equal(model(x), expected)
    assert not alone
    plain(x).sum().backward()
    model(x).sum().backward()
    assert_same(model, plain)


def test_autocast_and_channels_last() -> None:
    plain = overparameterize(
        nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 3)).to(memory_format=torch.channels_last)
    )
    model = compose_together(copy.deepcopy(plain))
    for around in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
            results = [each(integers(2, 2, 6, 6)) for each in (plain, model)]
        assert torch.equal(*results)
    for each in (plain, model):
        each(integers(2, 2, 6, 6)).sum().backward()
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_frozen_parameters_and_layers_that_are_not_used_get_no_gradient() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = DOConv2d(2, 4, 3), DOConv2d(2, 4, 3)
            self.used.D.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    plain = Half()
    model = compose_together(copy.deepcopy(plain))
    for each in (plain, model):
        back(each)
    assert_same(model, plain)
    assert model.used.W.grad is not None
    assert model.unused.W.grad is None
    assert model.used.D.grad is None


@pytest.mark.parametrize("region", [torch.no_grad, torch.inference_mode])
def test_without_gradients(region: type, alone: list[int]) -> None:
    plain, model = both()
    x = integers(1, 2, 4, 4)
    expected = plain(x)
    alone.clear()
    with region():
        assert torch.equal(model(x), expected)
    assert not alone
    back(plain)
    back(model)
    assert_same(model, plain)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, body: nn.Sequential) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.body[:2](x)
            x = checkpoint(self.body[2:4], x, use_reentrant=reentrant)
            return self.body[4:](x)

    plain, model = Checkpointed(network()), compose_together(Checkpointed(network()))
    for seed in range(2):
        assert torch.equal(back(model, seed), back(plain, seed))
    assert_same(model, plain)
    first, second = (model(integers(2, 2, 4, 4, seed=seed)) for seed in range(2))  # two passes, then their gradients
    (first.sum() + second.sum()).backward()
    for seed in range(2):
        plain(integers(2, 2, 4, 4, seed=seed)).sum().backward()
    assert_same(model, plain)


def test_a_checkpoint_around_the_whole_model() -> None:
    plain, model = both()
    for each in (plain, model):
        y = checkpoint(each, integers(2, 2, 4, 4).requires_grad_(), use_reentrant=False)
        y.sum().backward()
    assert_same(model, plain)


def test_double_backward() -> None:
    plain, model = (each.double() for each in both())
    results = []
    for each in (plain, model):
        y = each(integers(1, 2, 4, 4).double()).square().sum()
        grads = torch.autograd.grad(y, list(each.parameters()), create_graph=True)
        sum(grad.square().sum() for grad in grads).backward()
        results.append([parameter.grad for parameter in each.parameters() if parameter.grad is not None])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_composed_once_and_recompute_kernels_come_first(alone: list[int]) -> None:
    plain, model = both()
    with composed_once(model):
        for seed in range(2):
            back(model, seed)
    for seed in range(2):
        back(plain, seed)
    assert_same(model, plain)
    x = integers(2, 2, 4, 4)
    alone.clear()
    with recompute_kernels():
        y = model(x)
    assert len(alone) == 6
    y.sum().backward()
    plain(x).sum().backward()
    assert_same(model, plain)


def test_a_model_inside_a_model(alone: list[int]) -> None:
    plain, model = both()
    compose_together(model[3])
    expected = back(plain)
    alone.clear()
    assert torch.equal(back(model), expected)
    assert not alone
    assert_same(model, plain)


def test_a_parameter_that_changes_in_the_pass_is_composed_again_or_refused() -> None:
    def change(module: nn.Module, args: object) -> None:
        with torch.no_grad():
            module.W.add_(1)

    plain, model = both()
    for each in (plain, model):
        each[4].register_forward_pre_hook(change)
    with torch.no_grad():
        assert torch.equal(model(integers(2, 2, 4, 4)), plain(integers(2, 2, 4, 4)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        back(model)


def test_an_error_in_the_pass_ends_it() -> None:
    _, model = both()
    with pytest.raises(RuntimeError, match="channels"):
        model(torch.ones(1, 3, 4, 4))
    assert not together._passes.stack
    back(model)


def test_threads_have_their_own_passes() -> None:
    plain, model = both()
    failed = []

    def run(seed: int) -> None:
        try:
            for _ in range(5):
                back(model, seed)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for seed in range(3):
        for _ in range(5):
            back(plain, seed)
    assert_same(model, plain)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # Dynamo's own
def test_compiled_it_composes_in_the_graph() -> None:
    plain, model = both()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(back(compiled), back(plain))
    model[3] = torch.compile(model[3], fullgraph=True, backend="aot_eager")  # a part
    assert torch.equal(back(model, 1), back(plain, 1))
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_function_transforms_and_functional_call(alone: list[int]) -> None:
    plain, model = both()
    x, values = integers(2, 2, 4, 4), {name: value.detach() for name, value in model.named_parameters()}
    double = {name: value * 2 for name, value in values.items()}
    expected = torch.func.functional_call(plain, double, (x,))
    assert torch.equal(torch.func.functional_call(model, double, (x,)), expected)
    loss = [
        torch.func.grad(lambda v, each=each: torch.func.functional_call(each, v, (x,)).sum()) for each in (plain, model)
    ]
    left, right = (function(values) for function in loss)
    assert all(torch.equal(left[name], right[name]) for name in values)
    stacked = {name: torch.stack([value, value]) for name, value in values.items()}
    results = [
        torch.vmap(lambda v, each=each: torch.func.functional_call(each, v, (x,)))(stacked) for each in (plain, model)
    ]
    assert torch.equal(*results)


def test_copies_pickles_and_state_dicts_are_ordinary() -> None:
    plain, model = both()
    expected = back(plain)
    assert list(model.state_dict()) == list(plain.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(back(twin), expected)
    assert type(fold(model)[0]) is nn.Conv2d
    assert torch.equal(model(integers(2, 2, 4, 4)), expected)


@pytest.mark.parametrize("options", [{}, {"static_graph": True}, {"find_unused_parameters": True}], ids=str)
def test_distributed_data_parallel(options: dict, tmp_path: object) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        plain, model = both()
        ddp = nn.parallel.DistributedDataParallel(model, **options)
        for seed in range(3):
            assert torch.equal(back(ddp, seed), back(plain, seed))
        assert_same(model, plain)
    finally:
        torch.distributed.destroy_process_group()


def test_sharded_layers_compose_for_themselves(tmp_path: object, alone: list[int]) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import init_device_mesh

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        plain, model = both()
        plain[3][2] = nn.Identity()  # parameters can't be shared across what is sharded
        model[3][2] = nn.Identity()
        fully_shard(model[3], mesh=init_device_mesh("cpu", (1,)))
        assert torch.equal(back(model), back(plain))
        for a, b in zip(plain.parameters(), model.parameters(), strict=True):
            assert torch.equal(a.grad, getattr(b.grad, "full_tensor", lambda b=b: b.grad)())
    finally:
        torch.distributed.destroy_process_group()


def test_it_is_taken_back_and_asked_for_twice() -> None:
    _, model = both()
    assert compose_together(model) is model
    assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 1
    compose_together(model, enabled=False)
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    assert not model._forward_hooks_always_called


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module. Received: int"):
        compose_together(3)
    with pytest.raises(ValueError, match=r"no DO-Conv layer of more than one tap. Received: Conv2d"):
        compose_together(nn.Conv2d(2, 2, 3))
