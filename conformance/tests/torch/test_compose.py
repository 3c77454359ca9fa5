"""Every way the composition is computed gives the same numbers, values and gradients of any order."""

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

import doconv_torch._compose as composition
import doconv_torch._products as rule
from doconv_core import ConvGeometry, compose, compose_vjp
from doconv_torch import DOConv2d, _operators, overparameterize, store_by_channel

# C_out, C_in, groups, taps of one axis, d_mul, transposed: few and many taps and kernels, tiles with and without a surplus.
SIZES = {
    "many kernels": (36, 4, 1, 3, 3, False),
    "many kernels, surplus": (36, 4, 1, 3, 7, False),
    "few kernels": (6, 4, 1, 3, 6, False),
    "as many channels as taps": (3, 3, 1, 3, 7, False),
    "as many channels as columns": (20, 7, 1, 3, 7, False),
    "one channel": (20, 1, 1, 3, 4, False),
    "many taps": (20, 4, 1, 17, 17, False),
    "groups of many": (40, 6, 2, 3, 3, False),
    "groups of few": (12, 6, 3, 3, 4, False),
    "groups of many, many taps": (40, 6, 2, 17, 17, False),
    "groups of few, many taps": (12, 6, 3, 17, 18, False),
    "depthwise": (6, 6, 6, 3, 3, False),
    "depthwise, multiplier": (12, 6, 6, 3, 3, False),
    "transposed": (24, 6, 1, 3, 5, True),
    "transposed, groups": (6, 4, 2, 3, 3, True),
}


def tensors(size: tuple, dtype: torch.dtype = torch.float64) -> tuple[ConvGeometry, torch.Tensor, torch.Tensor]:
    """Small integers: every product and sum is exact."""
    out, channels, groups, taps, d_mul, transposed = size
    geometry = ConvGeometry(in_channels=channels, out_channels=out, kernel_size=(taps,), groups=groups, d_mul=d_mul,
                            transposed=transposed)  # fmt: skip
    rng = np.random.default_rng(0)
    W, D = (torch.tensor(rng.integers(-4, 5, s), dtype=dtype) for s in (geometry.w_shape, geometry.d_shape))
    return geometry, W.requires_grad_(), D.requires_grad_()


# What the rules of `_compose` and `_kernels` decide by size is decided here by these, so that small sizes enter every branch.
WAYS: dict[str, dict[str, object]] = {
    "taps": {"_products.PRODUCTS": "taps"},
    "taps, many numbers": {"_products.PRODUCTS": "taps", "_taps.MANY_NUMBERS": 16},
    "formula": {"_products.PRODUCTS": "formula"},
    "kernels": {"_products.PRODUCTS": "kernels"},
    "kernels in blocks": {"_products.PRODUCTS": "kernels", "_kernels.NUMBERS_PER_BLOCK": 16},
    "by channel, taps": {"_products.PRODUCTS": "taps", "_taps.MANY_NUMBERS": 16},
    "by channel, kernels": {"_products.PRODUCTS": "kernels"},
    "by channel, formula": {"_products.PRODUCTS": "formula"},
    "transformed": {},
    "compiled": {},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_values_and_gradients_are_the_reference_ones(size: tuple, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(f"doconv_torch.{name}", value)
    geometry, W, D = tensors(size, torch.float32)
    if "by channel" in way:
        W = W.detach().permute(1, 2, 0).contiguous().permute(2, 0, 1).requires_grad_()

    def function(W: torch.Tensor, D: torch.Tensor) -> torch.Tensor:
        return composition.compose(W, D, geometry.groups, transposed=geometry.transposed)

    torch.compiler.reset()  # each size by itself
    if way == "transformed":
        weight = torch.vmap(function)(W[None], D[None])[0]
        with torch.no_grad():
            assert torch.equal(torch.vmap(function)(W[None], D[None])[0], weight)
    else:
        weight = (torch.compile(function, fullgraph=True, backend="aot_eager") if way == "compiled" else function)(W, D)
    assert_reference(geometry, W, D, weight)


def assert_reference(geometry: ConvGeometry, W: torch.Tensor, D: torch.Tensor, weight: torch.Tensor) -> None:
    """The composed kernel and both gradients, value for value; the upstream gradient contiguous and not."""
    w, d = W.detach().numpy(), D.detach().numpy()
    np.testing.assert_array_equal(weight.detach().flatten().numpy(), compose(w, d, geometry).ravel())
    g = torch.randint(-4, 5, weight.shape, generator=torch.Generator().manual_seed(0)).float()
    expected = compose_vjp(w, d, g.numpy(), geometry)
    for upstream in (
        g,
        g.transpose(1, 2).contiguous().transpose(1, 2),
        g.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    ):
        got = torch.autograd.grad(weight, (W, D), upstream, retain_graph=True)
        for ours, reference in zip(got, expected, strict=True):
            np.testing.assert_array_equal(ours.numpy(), reference)


# As users have them: vectors, caches and blocks of the libraries beneath filled and overfilled; the last is composed in blocks.
LARGE = {
    "16 channels": (16, 16, 1, 9, 9, False),
    "17 channels": (17, 17, 1, 9, 20, False),
    "130 channels": (130, 64, 1, 9, 9, False),
    "many taps": (64, 17, 1, 49, 49, False),
    "groups": (128, 64, 4, 9, 9, False),
    "groups, 25 taps": (66, 34, 2, 25, 27, False),
    "depthwise": (130, 130, 130, 25, 25, False),
    "transposed": (64, 130, 2, 9, 12, True),
    "more than 2^20 numbers": (530, 260, 1, 9, 9, False),
}


PROCESSORS = {"AMD": (True, False), "Intel": (False, True), "another": (False, False)}


def be_on(processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("TRANSPOSES_PAY", "ADDITIONS_COST"), PROCESSORS[processor], strict=True):
        monkeypatch.setattr(rule, name, value)


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("size", LARGE.values(), ids=LARGE)
def test_large_sizes_by_the_rule_of_each_processor(
    size: tuple, processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, "PRODUCTS", "auto")
    be_on(processor, monkeypatch)
    geometry, W, D = tensors(size, torch.float32)
    weight = composition.compose(W, D, geometry.groups, transposed=geometry.transposed)
    assert_reference(geometry, W, D, weight)


@pytest.mark.parametrize(
    ("shape", "channels", "taps", "processor", "expected"),
    [
        ((64, 64, 9), 64, 9, "AMD", "_kernels"),
        ((64, 64, 9), 64, 9, "Intel", "_taps"),
        ((64, 64, 9), 64, 9, "another", "_taps"),
        ((64, 16, 4), 16, 4, "AMD", "_kernels"),
        ((63, 16, 4), 16, 4, "AMD", "_taps"),  # too few numbers
        ((64, 64, 15), 64, 15, "AMD", "_kernels"),
        ((64, 64, 16), 64, 16, "AMD", "_taps"),  # enough taps
        ((32, 32, 16), 64, 16, "AMD", "_kernels"),  # enough taps, but groups of 16 kernels
        ((30, 32, 16), 64, 16, "AMD", "_taps"),  # groups of 15
        ((512, 1, 9), 1, 9, "AMD", "_taps"),  # nothing to transpose
        ((512, 2, 9), 2, 9, "AMD", "_kernels"),
        ((128, 64, 16), 64, 16, "Intel", "_formula"),
        ((127, 64, 16), 64, 16, "Intel", "_taps"),  # too few numbers
        ((128, 64, 16), 128, 16, "Intel", "_taps"),  # groups
        ((128, 64, 16), 64, 16, "another", "_taps"),
    ],
)
def test_the_rule_that_chooses_the_products(
    shape: tuple, channels: int, taps: int, processor: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    W, D = torch.empty(shape), torch.empty(channels, taps, shape[2])
    be_on(processor, monkeypatch)
    chosen = {}
    for products in ("auto", *rule.WAYS):
        monkeypatch.setattr(rule, "PRODUCTS", products)
        chosen[products] = rule.products_for(W, D).__name__.removeprefix("doconv_torch.")
    assert chosen == {"auto": expected, "taps": "_taps", "kernels": "_kernels", "formula": "_formula"}
    monkeypatch.setattr(rule, "PRODUCTS", "kernels")
    assert rule.products_for(W.to("meta"), D.to("meta")).__name__ == "doconv_torch._taps"


def test_forward_mode_is_a_transform_from_its_first_level_on() -> None:
    assert not composition.transformed()
    with torch.autograd.forward_ad.dual_level():
        assert composition.transformed()


@pytest.mark.parametrize(
    ("processor", "vendors"),
    [
        ("AMD64 Family 25 Model 33, AuthenticAMD", ["AuthenticAMD"]),
        ("Intel64 Family 6 Model 143, GenuineIntel", ["GenuineIntel"]),
        ("arm", []),
    ],
)
def test_the_processor_where_the_system_has_no_file_of_it(
    processor: str, vendors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_file(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(rule, "open", no_file, raising=False)
    monkeypatch.setattr("platform.processor", lambda: processor)
    assert [vendor for vendor in ("AuthenticAMD", "GenuineIntel") if rule._is_made_by(vendor)] == vendors


def test_products_by_hand_are_checked_at_import() -> None:
    run = (sys.executable, "-c", "import doconv_torch._products as c; print(c.PRODUCTS)")
    done = subprocess.run(run, env=os.environ | {"DOCONV_TORCH_PRODUCTS": "formula"}, capture_output=True, text=True)
    assert done.stdout == "formula\n", done.stderr
    done = subprocess.run(run, env=os.environ | {"DOCONV_TORCH_PRODUCTS": "fast"}, capture_output=True, text=True)
    assert "ValueError: DOCONV_TORCH_PRODUCTS must be auto, taps, kernels or formula. Received: 'fast'" in done.stderr


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # PyTorch's own, in torch.func.jvp
@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_any_order_and_function_transforms(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "PRODUCTS", "kernels")
    monkeypatch.setattr("doconv_torch._kernels.NUMBERS_PER_BLOCK", 16)
    geometry, W, D = tensors(SIZES[size])

    def function(W: torch.Tensor, D: torch.Tensor) -> torch.Tensor:
        return composition.compose(W, D, geometry.groups, transposed=geometry.transposed)

    assert torch.autograd.gradgradcheck(function, (W, D), fast_mode=True)
    W_t, D_t = torch.ones_like(W), torch.ones_like(D)
    _, tangent = torch.func.jvp(function, (W, D), (W_t, D_t))
    torch.testing.assert_close(tangent, function(W_t, D) + function(W, D + D_t) - function(W, D))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_a_compiler_calls_the_eager_products_of_a_cpu() -> None:
    """Of the formula's operations it would choose how memory lies; a transform and an export need them."""
    _, W, D = tensors(SIZES["many kernels"])
    W, D = W.detach(), D.detach()

    def targets(function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> set[str]:
        graphs: list[torch.fx.GraphModule] = []

        def keep(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable:
            graphs.append(graph)
            return graph.forward

        torch.compiler.reset()
        torch.compile(function, fullgraph=True, backend=keep)(*tensors)
        return {str(node.target) for graph in graphs for node in graph.graph.nodes}

    assert "doconv.compose.default" in targets(composition.compose, W, D)
    assert "doconv.compose.default" not in targets(torch.func.vmap(composition.compose), W[None], D[None])
    layer = overparameterize(torch.nn.Conv2d(3, 4, 3))
    exported = torch.export.export(layer, (torch.ones(1, 3, 5, 5),))
    assert not any("doconv" in str(node.target) for node in exported.graph.nodes)


def test_the_operators_are_as_pytorch_checks_such() -> None:
    _, W, D = tensors(SIZES["many kernels, surplus"])
    torch.library.opcheck(_operators.compose, (W, D, 1))
    for needs in ((True, True), (True, False), (False, True)):
        grad = torch.ones(*W.shape[:2], D.shape[1], dtype=W.dtype)
        torch.library.opcheck(_operators.compose_gradients, (W.detach(), D.detach(), grad, 1, *needs))


def test_without_a_compiler_the_composition_keeps_its_parameters_and_nothing_else() -> None:
    geometry, W, D = tensors(SIZES["many kernels"])
    kernel = composition.compose(W, D)
    expected = compose(W.detach().numpy(), D.detach().numpy(), geometry)
    np.testing.assert_array_equal(kernel.detach(), expected.reshape(kernel.shape))
    assert all(kept is given for kept, given in zip(kernel.grad_fn.saved_tensors, (W, D), strict=True))


@pytest.mark.parametrize("way", ["eager", "transformed", "compiled"])
def test_autocast_around_the_composition_changes_nothing(way: str) -> None:
    torch.manual_seed(0)
    W, D = torch.randn(36, 4, 7), torch.randn(4, 3, 7)
    function = composition.compose
    if way == "compiled":
        torch.compiler.reset()
        function = torch.compile(function, fullgraph=True, backend="aot_eager")
    if way == "transformed":
        W, D, function = W[None], D[None], torch.vmap(function)
    expected = function(W, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(function(W, D), expected)
        if way == "eager":  # of whose device autocast knows nothing
            assert composition.compose(W.to("meta"), D.to("meta")).shape == expected.shape


def test_a_kernel_takes_the_memory_format_of_its_layer() -> None:
    for rank, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        kernel = torch.ones((4, 3, 3, 3, 3)[:rank])
        assert composition.ordered(kernel, True).is_contiguous(memory_format=layout)
        assert composition.ordered(kernel, False) is kernel


def test_a_graph_of_its_own_through_a_compiled_composition() -> None:
    _, W, D = tensors(SIZES["many kernels"])
    torch.compiler.reset()
    compiled = torch.compile(composition.compose, fullgraph=True, backend="eager")
    assert torch.autograd.gradgradcheck(compiled, (W, D), fast_mode=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_a_compiled_function_transform_composes_in_operations_it_knows() -> None:
    _, W, D = tensors(SIZES["many kernels"])
    W, D = W.detach(), D.detach()
    for transform in (
        lambda W, D: torch.func.vmap(composition.compose)(W[None], D[None]),
        lambda W, D: torch.func.grad(lambda W: composition.compose(W, D).square().sum())(W),
        lambda W, D: torch.func.jvp(lambda W: composition.compose(W, D), (W,), (W,))[1],
    ):
        compiled = torch.compile(transform, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(W, D), transform(W, D))


@pytest.mark.parametrize("frozen", ["W", "D"])
def test_a_frozen_parameter_gets_no_gradient(frozen: str) -> None:
    layer = DOConv2d(2, 20, 3)
    getattr(layer, frozen).requires_grad_(False)
    layer(torch.ones(1, 2, 4, 4)).sum().backward()
    assert {name for name, p in layer.named_parameters() if p.grad is not None} == {"W", "D", "bias"} - {frozen}


@pytest.mark.parametrize("way", ["taps", "taps, many numbers", "kernels", "kernels in blocks", "compiled"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_gradient_beside_a_frozen_parameter_is_the_reference_one(
    size: tuple, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(f"doconv_torch.{name}", value)
    geometry, *pair = tensors(size, torch.float32)
    g = torch.randint(-4, 5, geometry.kernel_shape, generator=torch.Generator().manual_seed(0)).float().flatten(2)
    expected = compose_vjp(*(p.detach().numpy() for p in pair), g.numpy(), geometry)
    for frozen in (0, 1):
        W, D = (p.detach().requires_grad_(at != frozen) for at, p in enumerate(pair))
        torch.compiler.reset()
        by = torch.compile(composition.compose, backend="aot_eager") if way == "compiled" else composition.compose
        by(W, D, geometry.groups, transposed=geometry.transposed).backward(g)
        grads = [p.grad for p in (W, D)]
        assert grads[frozen] is None
        np.testing.assert_array_equal(grads[1 - frozen], expected[1 - frozen])


def test_gradients_do_not_depend_on_autocast_around_the_backward_pass() -> None:
    layer, x = DOConv2d(4, 20, 3, dtype=torch.float32), torch.randn(1, 4, 5, 5)
    torch.nn.init.normal_(layer.D)
    grads = []
    for around in (False, True):
        layer.zero_grad()
        weight = layer.weight
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=around):
            (weight * x.sum()).sum().backward()
        grads.append([p.grad.clone() for p in (layer.W, layer.D)])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_store_by_channel_changes_the_memory_only() -> None:
    torch.manual_seed(0)
    model = overparameterize(torch.nn.Sequential(torch.nn.Conv2d(3, 20, 3), torch.nn.Conv2d(20, 20, 3, groups=2)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert store_by_channel(model) is model
    assert model[0].W.permute(1, 2, 0).is_contiguous()
    assert model[1].W.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    assert model[0].W.grad.stride() == model[0].W.stride()
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module. Received: int"):
        store_by_channel(3)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_distributed_tensor_is_composed_in_operations_it_knows(groups: int, tmp_path: object) -> None:
    from torch.distributed.tensor import Replicate, distribute_module, distribute_tensor, init_device_mesh

    layer, x = DOConv2d(4, 40, 3, groups=groups, d_mul=10), torch.randint(-2, 3, (2, 4, 5, 5)).float()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape))
    y = layer(x)
    y.sum().backward()
    expected = [y.detach(), *(parameter.grad.clone() for parameter in layer.parameters())]
    layer.zero_grad()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        distribute_module(layer, mesh)
        y = layer(distribute_tensor(x, mesh, [Replicate()]))
        y.sum().backward()
        got = [y.full_tensor(), *(parameter.grad.full_tensor() for parameter in layer.parameters())]
    finally:
        torch.distributed.destroy_process_group()
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
