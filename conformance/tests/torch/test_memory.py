"""What is kept for the backward pass, counted in bytes."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import doconv_torch._recompute as recompute
from doconv_torch import DOConv2d, overparameterize, recompute_kernels


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=2), nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 8, 1), nn.ConvTranspose2d(8, 4, 2),
    )  # fmt: skip
    return model


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, int]]:
    """Bytes of every memory that the forward pass keeps, by address."""
    bytes_of: dict[int, int] = {}
    pack = recompute._pack

    def counting(saved: torch.Tensor) -> object:
        packed = pack(saved)
        if isinstance(packed, torch.Tensor):
            storage = packed.untyped_storage()
            bytes_of[storage.data_ptr()] = storage.nbytes()
        return packed

    monkeypatch.setattr(recompute, "_pack", counting)
    with torch.autograd.graph.saved_tensors_hooks(counting, recompute._unpack):
        yield bytes_of


def bytes_kept(model: nn.Module, kept: dict[int, int]) -> tuple[int, torch.Tensor]:
    kept.clear()
    loss = model(torch.ones(2, 3, 12, 12)).square().mean()
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    return sum(size for address, size in kept.items() if address not in parameters), loss


def test_beyond_the_plain_model_only_the_composed_kernels_are_kept(kept: dict[int, int]) -> None:
    model = network()
    plain, _ = bytes_kept(model, kept)
    overparameterize(model)
    ours, _ = bytes_kept(model, kept)
    assert ours - plain == sum(layer.weight.numel() * 4 for layer in model if hasattr(layer, "W"))


def test_with_recompute_nothing_is_kept_and_the_gradients_are_the_same(kept: dict[int, int]) -> None:
    model = network()
    plain, _ = bytes_kept(model, kept)
    overparameterize(model)
    _, loss = bytes_kept(model, kept)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    with recompute_kernels():
        ours, loss = bytes_kept(model, kept)
    assert ours == plain
    assert all(
        torch.equal(a, b) for a, b in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True)
    )


@pytest.mark.parametrize("name", ["W", "D"])
def test_a_parameter_changed_before_the_backward_pass_raises(name: str) -> None:
    layer = DOConv2d(2, 4, 3)
    with recompute_kernels():
        loss = layer(torch.ones(1, 2, 4, 4, requires_grad=True)).sum()
    with torch.no_grad():
        getattr(layer, name).add_(1)
    with pytest.raises(RuntimeError, match=r"W or D was changed in place .* Received: versions \("):
        loss.backward()


def test_autocast_and_gradients_of_second_order_inside() -> None:
    layer, x = DOConv2d(2, 4, 3), torch.randn(1, 2, 5, 5, requires_grad=True)
    nn.init.normal_(layer.D)
    results = []
    for context in (recompute_kernels, torch.enable_grad):
        with context():
            loss = layer(x).pow(3).sum()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                low = layer(x).float().sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        results.append([*torch.autograd.grad(first.sum(), (layer.W, layer.D)), *torch.autograd.grad(low, (layer.W, x))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
