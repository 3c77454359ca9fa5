"""Classes and layers that others made of PyTorch's convolutions: each is converted as it is, or refused by name, untouched."""

import copy
import pickle
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrizations, parametrize, prune, remove_weight_norm, spectral_norm, weight_norm

from conformance.tests.torch.architectures import Conv2dSame
from doconv_torch import DOConv2d, DOConvMixin, fold, inspect_model, overparameterize


class OwnConstructor(nn.Conv2d):
    """Other arguments, and a parameter and a buffer more."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 2 * width, 3, padding=1, groups=width)
        self.gain = nn.Parameter(torch.full((2 * width, 1, 1), 1.5))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.gain


class FakeQuantised(nn.Conv2d):
    """As quantisation-aware training does it: the weight on its way to the convolution is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        quantised = torch.fake_quantize_per_tensor_affine(self.weight, 0.05, 0, -128, 127)
        return self._conv_forward(x, quantised, self.bias)


class Standardised(nn.Conv1d):
    """Weight standardisation: the weight is read several times."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2), keepdim=True)) / self.weight.std((1, 2), keepdim=True)
        return functional.conv1d(x, weight, self.bias)


LAYERS: dict[str, Callable[[], tuple[_ConvNd, Tensor]]] = {
    "own forward": lambda: (Conv2dSame(3, 4, (3, 2), stride=2), torch.rand(2, 3, 6, 7)),
    "own constructor": lambda: (OwnConstructor(3), torch.rand(2, 3, 5, 5)),
    "quantisation": lambda: (FakeQuantised(3, 4, 3), torch.rand(2, 3, 5, 5)),
    "standardisation": lambda: (Standardised(3, 4, 5), torch.rand(2, 3, 9)),
    "reflect": lambda: (nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"), torch.rand(2, 3, 5, 5)),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_class_is_converted_as_it_is(make: Callable[[], tuple[_ConvNd, Tensor]]) -> None:
    conv, x = make()
    cls, before, names = type(conv), conv(x), list(conv.state_dict())
    calls = []
    conv.register_forward_hook(lambda *_: calls.append(1))
    assert overparameterize(conv) is conv
    assert isinstance(conv, DOConvMixin)
    assert isinstance(conv, cls)
    assert type(conv).__name__ == f"DO{cls.__name__}"
    assert torch.equal(conv(x), before)
    assert type(overparameterize(make()[0])) is type(conv)  # one class for all layers of a class

    nn.init.normal_(conv.D, std=0.1)
    trained = conv(x)
    assert not torch.equal(trained, before)
    assert calls == [1, 1]
    for twin in (copy.deepcopy(conv), pickle.loads(pickle.dumps(_without_hooks(conv)))):
        assert type(twin) is type(conv)
        assert torch.equal(twin(x), trained)

    fold(conv)
    assert type(conv) is cls
    assert list(conv.state_dict()) == names
    plain = make()[0]
    plain.load_state_dict(conv.state_dict())
    assert torch.equal(plain(x), conv(x))


def _without_hooks(conv: nn.Module) -> nn.Module:
    """A test's own function can't be pickled."""
    twin = copy.deepcopy(conv)
    twin._forward_hooks.clear()
    return twin


class SameWithoutWord(DOConv2d):
    forward = Conv2dSame.forward


class Same(DOConv2d):
    plain_class = Conv2dSame
    forward = Conv2dSame.forward


class Narrow(DOConv2d):
    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3)


class Drawn(nn.Conv2d):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)
        nn.init.ones_(self.bias)


def test_a_class_draws_its_own_kernel_again_and_in_a_layer_made_by_the_new_class() -> None:
    conv = overparameterize(Drawn(3, 4, 3))
    nn.init.normal_(conv.D)
    made = []
    for make in (
        lambda: Drawn(3, 4, 3),
        lambda: type(conv)(3, 4, kernel_size=3),
        lambda: conv.reset_parameters() or conv,
    ):
        torch.manual_seed(0)
        made.append(make())
    plain, *others = made
    for layer in others:
        assert torch.equal(layer.weight, plain.weight)
        assert torch.equal(layer.bias, plain.bias)
        assert not layer.D.any()
        assert list(layer.state_dict()) == ["W", "D", "bias"]
        assert type(fold(layer)) is Drawn
    assert type(conv) is Drawn
    wide = type(overparameterize(Drawn(3, 4, 3)))(3, 4, 3, d_mul=12)
    assert wide.W.shape == (4, 3, 12)


def test_a_class_derived_from_ours_says_what_it_folds_into_where_that_matters() -> None:
    conv, x = SameWithoutWord(3, 4, 3), torch.rand(2, 3, 6, 6)
    with pytest.raises(ValueError, match="SameWithoutWord overrides forward: give it a `plain_class`"):
        fold(conv)
    assert type(conv) is SameWithoutWord

    conv = Same(3, 4, 3)
    y = pickle.loads(pickle.dumps(conv))(x)
    assert torch.equal(fold(conv)(x), y)
    assert type(conv) is Conv2dSame
    assert type(fold(Narrow(3))) is nn.Conv2d


def pruned(conv: nn.Conv2d) -> nn.Module:
    return prune.l1_unstructured(conv, "weight", 0.5)


def tagged(conv: nn.Conv2d) -> nn.Module:
    conv.D = "mine"
    return conv


def broken(conv: nn.Conv2d) -> nn.Module:
    nn.init.constant_(conv.weight[0], float("nan"))
    return conv


COMPUTED = "its weight is not its Parameter"
REFUSED = {
    "parametrized weight": (parametrizations.weight_norm, "parametrized: call .*remove_parametrizations"),
    "spectral norm": (parametrizations.spectral_norm, "parametrized"),
    "parametrized bias": (lambda conv: parametrizations.weight_norm(conv, "bias"), "parametrized"),
    "weight_norm by a hook": (weight_norm, COMPUTED),
    "spectral_norm by a hook": (spectral_norm, COMPUTED),
    "pruned": (pruned, COMPUTED),
    "complex": (lambda conv: nn.Conv2d(4, 4, 3, dtype=torch.complex64), "of torch.complex64, and not bfloat16"),
    "not finite": (broken, "its weight has values that are not finite"),
    "empty": (lambda conv: nn.utils.skip_init(nn.Conv2d, 4, 4, 0), "its weight is empty"),
    "own attribute": (tagged, "Conv2d has its own attribute D, which a DO layer needs"),
    "own method": (
        lambda conv: setattr(conv, "_compose", abs) or conv,
        "Conv2d has its own attribute _compose, which a DO",
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.(weight|spectral)_norm` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.parametrize(("change", "text"), REFUSED.values(), ids=REFUSED)
def test_a_layer_whose_weight_is_made_elsewhere_is_refused_by_name(change: Callable, text: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), change(nn.Conv2d(4, 4, 3))).eval()
    x = torch.rand(2, 3, 9, 9)
    before, classes, names = model[0](x), [type(conv) for conv in model], list(model.state_dict())
    with pytest.raises(ValueError, match=f"can't be over-parameterized.*leave them plain. Received: 1: {text}"):
        overparameterize(model)
    assert re.fullmatch(f"plain [A-Za-z]+2d [30]x[30]: {text}.*", inspect_model(model)["1"])
    assert [type(conv) for conv in model] == classes
    assert list(model.state_dict()) == names
    assert torch.equal(overparameterize(model, where="0")[0](x), before)  # the other one alone


def test_weight_norm_that_was_removed_is_no_obstacle() -> None:
    conv, x = parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), torch.rand(2, 3, 5, 5)
    parametrize.remove_parametrizations(conv, "weight")
    before = conv(x)
    assert torch.equal(overparameterize(conv)(x), before)


def test_a_lazy_convolution_is_refused_until_it_has_a_shape() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    beside = overparameterize(nn.Sequential(nn.Conv2d(3, 3, 3), nn.LazyConv2d(4, 3)), where="0")
    assert type(beside[0]) is DOConv2d
    with pytest.raises(ValueError, match="Received: 0: lazy, without a shape yet: run the model once before"):
        overparameterize(model)
    before = model(torch.ones(1, 3, 5, 5))
    assert type(model[0]) is nn.Conv2d
    assert torch.equal(overparameterize(model)(torch.ones(1, 3, 5, 5)), before)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("add", "remove", "text"),
    [
        (lambda conv: parametrizations.weight_norm(conv, "W"),
         lambda conv: parametrize.remove_parametrizations(conv, "W"), "parametrized"),
        (lambda conv: weight_norm(conv, "W"), lambda conv: remove_weight_norm(conv, "W"), "its W is not its Parameter"),
        (lambda conv: prune.l1_unstructured(conv, "W", 0.5), lambda conv: prune.remove(conv, "W"), "its W is not its Param"),
    ],
    ids=["parametrized", "weight_norm by a hook", "pruned"],
)  # fmt: skip
def test_w_can_be_parametrized_or_pruned_and_is_folded_once_that_is_removed(
    add: Callable, remove: Callable, text: str
) -> None:
    conv, x = DOConv2d(3, 4, 3), torch.rand(2, 3, 5, 5)
    nn.init.normal_(conv.D)
    add(conv)
    before = conv(x)
    with pytest.raises(ValueError, match=f"can't be folded. Received: the layer: {text}"):
        fold(conv)
    assert torch.equal(conv(x), before)
    remove(conv)
    assert torch.equal(conv(x), before)
    assert type(fold(conv)) is nn.Conv2d


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.(weight|spectral)_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "add", [parametrizations.weight_norm, parametrizations.spectral_norm, weight_norm, spectral_norm, pruned]
)
def test_the_composed_weight_itself_cannot_be_normalised_or_pruned(add: Callable) -> None:
    """PyTorch's own refusals: the composed kernel is no Parameter. Nothing has been changed."""
    conv, x = DOConv2d(3, 4, 3), torch.rand(2, 3, 5, 5)
    before = conv(x)
    with pytest.raises((ValueError, TypeError, KeyError), match="weight"):
        add(conv)
    assert torch.equal(conv(x), before)
    assert list(conv.state_dict()) == ["W", "D", "bias"]
