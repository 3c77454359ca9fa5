"""`composed_once`: one composition, the gradients of the plain way, and never a stale kernel."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.utils.prune
from torch import nn

import doconv_torch._layers as layers
from doconv_torch import DOConv2d, DOConvTranspose2d, composed_once, fold


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one at each composition; a kernel of one tap has none."""
    counted: list[int] = []
    compose = layers.compose

    def counting(W: torch.Tensor, D: torch.Tensor | None, *args: object, **options: object) -> torch.Tensor:
        if D is not None:
            counted.append(1)
        return compose(W, D, *args, **options)

    monkeypatch.setattr(layers, "compose", counting)
    return counted


def integers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Small ones: every sum below is exact in float32, so two ways that are equal give equal numbers."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


def network() -> nn.Sequential:
    """Two DO layers, one with groups and a surplus column, and a kernel of one tap."""
    model = nn.Sequential(
        DOConv2d(2, 4, 3, padding=1), nn.ReLU(), DOConv2d(4, 4, 2, groups=2, d_mul=7), DOConv2d(4, 2, 1)
    )
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(integers(*parameter.shape, seed=seed) % 2)
    return model


def micro_batch(model: Callable[[torch.Tensor], torch.Tensor], seed: int) -> None:
    y = model(integers(1, 2, 4, 4, seed=seed))
    (y * integers(*y.shape, seed=seed + 10)).sum().backward()


def grads(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters()]


def assert_same_grads(left: nn.Module, right: nn.Module) -> None:
    for (name, a), b in zip(left.named_parameters(), right.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


def test_micro_batches_add_up_to_the_gradients_of_the_plain_way(compositions: list[int]) -> None:
    model, plain = network(), network()
    for each in (model, plain):
        micro_batch(each, 9)  # gradients that are there already stay in the sum
    compositions.clear()
    with composed_once(model) as same:
        assert same is model
        for seed in range(3):
            micro_batch(model, seed)
    assert len(compositions) == 2
    for seed in range(3):
        micro_batch(plain, seed)
    assert_same_grads(model, plain)
    micro_batch(model, 3)
    micro_batch(plain, 3)
    assert_same_grads(model, plain)


@pytest.mark.parametrize("region", [torch.no_grad, torch.inference_mode])
def test_inference_and_training_share_the_kernel(region: type, compositions: list[int]) -> None:
    model, plain = network(), network()
    x = integers(1, 2, 4, 4)
    expected = plain(x)
    compositions.clear()
    with composed_once(model):
        for _ in range(3):
            with region():
                assert torch.equal(model(x), expected)
        micro_batch(model, 0)
    assert len(compositions) == 2
    micro_batch(plain, 0)
    assert_same_grads(model, plain)


def change_in_place(layer: DOConv2d) -> None:
    with torch.no_grad():
        layer.D.add_(1)


CHANGES = {
    "in place": change_in_place,
    "optimizer": lambda layer: torch.optim.SGD([layer.W, layer.D, layer.bias], lr=1.0).step(),
    "load_state_dict": lambda layer: layer.load_state_dict(layer.state_dict()),
    "replaced": lambda layer: setattr(layer, "W", nn.Parameter(layer.W.detach().clone())),
    "another type": lambda layer: layer.double(),  # and back it may get its old memory again
    "assigned weight": lambda layer: setattr(layer, "weight", layer.weight.detach()),
    "folded": fold,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_parameter_raises_at_the_end_and_adds_no_gradient(change: Callable) -> None:
    layer = DOConv2d(2, 4, 3)
    W = layer.W
    W.grad, layer.D.grad = torch.zeros_like(W), torch.zeros_like(layer.D)

    def run() -> None:
        with composed_once(layer):
            micro_batch(layer, 0)
            change(layer)

    with pytest.raises(RuntimeError, match=r"DOConv2d changed inside composed_once.* Received: \(identity, version"):
        run()
    assert not W.grad.any()
    layer.float()(integers(1, 2, 4, 4))


@pytest.mark.parametrize("name", ["in place", "replaced", "another type"])
def test_a_changed_parameter_raises_at_the_next_use(name: str) -> None:
    model, x = network(), integers(1, 2, 4, 4)

    def run() -> None:
        with composed_once(model):
            model(x)
            CHANGES[name](model[2])
            with pytest.raises(RuntimeError, match=r"the parameters of 2 changed inside composed_once"):
                model(x)
            raise StopIteration

    with pytest.raises(StopIteration):
        run()
    model.float()(x)


def test_an_exception_discards_the_collected_gradients_and_leaves_nothing_behind() -> None:
    model = network()

    def run() -> None:
        with composed_once(model):
            micro_batch(model, 0)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        run()
    assert model[0].W.grad is None
    assert model[0].bias.grad is not None
    change_in_place(model[0])
    model.zero_grad()
    plain = copy.deepcopy(model)
    for each in (model, plain):
        micro_batch(each, 0)
    assert_same_grads(model, plain)


def test_a_backward_pass_after_the_end_raises_instead_of_losing_its_gradient() -> None:
    layer = DOConv2d(2, 4, 3)
    with composed_once(layer):
        loss = layer(integers(1, 2, 4, 4)).sum()
    with pytest.raises(RuntimeError, match=r"composed_once has ended.* Received: the kernel of DOConv2d"):
        loss.backward()


def test_nested_contexts_belong_to_the_outermost(compositions: list[int]) -> None:
    model, plain = network(), network()
    with composed_once(model):
        micro_batch(model, 0)
        with composed_once(model[2]):
            micro_batch(model, 1)
        assert model[2].W.grad is None
        micro_batch(model, 2)
    assert len(compositions) == 2
    for seed in range(3):
        micro_batch(plain, seed)
    assert_same_grads(model, plain)


def test_tied_layers_and_layers_used_twice_share_one_kernel(compositions: list[int]) -> None:
    def tied() -> nn.Sequential:
        first = DOConv2d(2, 2, 3, padding=1, bias=False)
        second = DOConv2d(2, 2, 3, padding=1, bias=False)
        with torch.no_grad():
            first.W.copy_(integers(2, 2, 9))
            first.D.copy_(integers(2, 9, 9))
        second.W, second.D = first.W, first.D
        return nn.Sequential(first, second, first)

    model, plain = tied(), tied()
    with composed_once(model):
        micro_batch(model, 0)
    assert len(compositions) == 1
    micro_batch(plain, 0)
    assert_same_grads(model, plain)


def test_a_transposed_layer_has_a_kernel_of_its_own_of_the_same_parameters() -> None:
    def tied() -> nn.Sequential:
        first, second = DOConv2d(2, 2, 3, padding=1), DOConvTranspose2d(2, 2, 3, padding=1)
        with torch.no_grad():
            first.W.copy_(integers(2, 2, 9))
            first.D.copy_(integers(2, 9, 9))
        second.W, second.D = first.W, first.D
        for layer in (first, second):
            nn.init.zeros_(layer.bias)
        return nn.Sequential(first, second)

    model, plain, x = tied(), tied(), integers(1, 2, 4, 4)
    with composed_once(model):
        assert torch.equal(model(x), plain(x))
        micro_batch(model, 0)
    micro_batch(plain, 0)
    assert_same_grads(model, plain)


@pytest.mark.parametrize("name", ["W", "D"])
@pytest.mark.parametrize(
    "change",
    [
        lambda layer, name: nn.utils.prune.l1_unstructured(layer, name, 0.5),
        lambda layer, name: nn.utils.parametrize.register_parametrization(layer, name, Doubled()),
    ],
    ids=["pruned", "parametrized"],
)
def test_a_layer_whose_parameter_is_computed_composes_at_every_call(
    name: str, change: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    model, plain, x = network(), network(), integers(1, 2, 4, 4)
    for net in (model, plain):
        change(net[0], name)
    with composed_once(model):
        assert torch.equal(model(x), plain(x))
        micro_batch(model, 0)
    micro_batch(plain, 0)
    assert_same_grads(model, plain)
    assert "1 layers, sharded, parametrized or pruned, compose at every call" in caplog.text


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_copies_and_state_dicts_made_inside_are_ordinary() -> None:
    model, x = network(), integers(1, 2, 4, 4)
    expected, keys = model(x), set(model.state_dict())
    with composed_once(model):
        model(x)
        twin = copy.deepcopy(model)
        assert set(model.state_dict()) == keys
        with torch.no_grad():
            twin[0].W.zero_()
        twin(x)
    assert torch.equal(model(x), expected)
    micro_batch(twin, 0)
    assert twin[0].W.grad is not None


def test_autocast_inside_casts_the_kernel_that_was_composed_in_full_precision() -> None:
    model, x = network(), integers(1, 2, 4, 4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(x)
        with composed_once(model):
            model(x)
            assert model[0].weight.dtype == torch.float32
            assert torch.equal(model(x), expected)


def test_threads_share_the_kernels(compositions: list[int]) -> None:
    model, plain = network(), network()
    with composed_once(model):
        threads = [threading.Thread(target=micro_batch, args=(model, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(compositions) == 2
    for seed in range(4):
        micro_batch(plain, seed)
    assert_same_grads(model, plain)


def test_two_threads_can_not_each_have_a_context_over_one_model() -> None:
    model, refused, x = network(), list[str](), integers(1, 2, 4, 4)

    def enter() -> None:
        try:
            with composed_once(model[2]):
                refused.append("entered")
        except RuntimeError as error:
            refused.append(str(error))

    with composed_once(model):
        model(x)
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        micro_batch(model, 0)  # goes on
    assert refused[0].endswith("enter one context around all threads. Received: DOConv2d, kept by another thread")
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert refused[1] == "entered"
    plain = network()
    micro_batch(plain, 0)
    assert_same_grads(model, plain)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_uses_the_kernel_again(reentrant: bool, compositions: list[int]) -> None:
    model, plain = network(), network()

    def recomputed(x: torch.Tensor) -> torch.Tensor:
        return torch.utils.checkpoint.checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)

    with composed_once(model):
        for seed in range(2):
            micro_batch(recomputed, seed)
    assert len(compositions) == 2
    for seed in range(2):
        micro_batch(plain, seed)
    assert_same_grads(model, plain)


def test_the_composition_is_not_moved_by_hooks_on_saved_tensors() -> None:
    model, plain, packed = network(), network(), list[torch.Size]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        packed.append(tensor.shape)
        return tensor

    with composed_once(model), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        micro_batch(model, 0)
    assert model[0].D.shape not in packed
    micro_batch(plain, 0)
    assert_same_grads(model, plain)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # Dynamo's own
def test_a_compiled_model_composes_at_every_call() -> None:
    model, plain = network(), network()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with composed_once(model):
        micro_batch(compiled, 0)
    micro_batch(plain, 0)
    assert_same_grads(model, plain)


def test_distributed_data_parallel_reduces_at_the_end(tmp_path: object) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, plain = nn.parallel.DistributedDataParallel(network()), network()
        with composed_once(model):
            with model.no_sync():
                micro_batch(model, 0)
            micro_batch(model, 1)
        for seed in range(2):
            micro_batch(plain, seed)
        assert_same_grads(model.module, plain)
        micro_batch(model, 2)  # the reducer is ready for the next step
    finally:
        torch.distributed.destroy_process_group()


def test_it_wants_a_module() -> None:
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module. Received: str"), composed_once("model"):
        pass
