"""`fold_state_dict`: the plain model's state from the over-parameterized one's, without the model."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from doconv_core import identity
from doconv_torch import DOConv2d, fold, fold_state_dict, overparameterize


def plain() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, (3, 2)), norm=nn.BatchNorm2d(4), point=nn.Conv2d(4, 4, 1), up=nn.ConvTranspose2d(4, 4, 3),
            body=nn.Sequential(nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.Conv2d(4, 4, (1, 4))), fc=nn.Linear(4, 2),
        )
    )  # fmt: skip


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(0)
    model = overparameterize(plain(), where=lambda path, conv: path != "body.1")
    model.body.add_module("2", DOConv2d(4, 4, 1))  # its W has no D
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert list(got) == list(want)
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), name
        assert got[name].dtype == tensor.dtype


HINTS = {"kernel_size": {"stem": (3, 2)}, "transposed": ["up"]}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_the_result_is_the_state_of_the_folded_model_whatever_wrapped_it(trained: nn.Module, prefix: str) -> None:
    state = trained.state_dict()
    state._metadata["norm"]["version"] = 2
    wrapped = OrderedDict((prefix + name, tensor) for name, tensor in state.items())
    if not prefix:
        wrapped = state
    names = list(wrapped)
    folded = fold_state_dict(wrapped, **HINTS)
    assert list(wrapped) == names
    assert folded["norm.running_mean"] is state["norm.running_mean"]  # nothing else is touched
    assert_same(folded, fold(trained).state_dict())
    if not prefix:
        assert folded._metadata["norm"] == {"version": 2}


@pytest.mark.parametrize("kind", ["model", "meta", "converted", "wrapped"])
def test_the_plain_model_answers_what_the_state_does_not_say(trained: nn.Module, kind: str) -> None:
    like = plain().to("meta") if kind == "meta" else plain()
    like.body.add_module("2", nn.Conv2d(4, 4, 1))
    like.again = like.up  # a second path
    trained.again = trained.up
    state = trained.state_dict()
    if kind == "converted":
        overparameterize(like)
    want = fold(trained).state_dict()
    if kind == "wrapped":  # a model that has such a name of its own keeps it
        like, state, want = (
            nn.ModuleDict({"module": like}),
            {f"module.{name}": tensor for name, tensor in state.items()},
            {f"module.{name}": tensor for name, tensor in want.items()},
        )
    folded = fold_state_dict(state, like=like)
    assert_same(folded, want)
    fold(like)
    assert like.load_state_dict(folded, assign=True) == ([], [])


def test_shapes_of_a_state_dict_answer_too(trained: nn.Module) -> None:
    state, like = trained.state_dict(), fold(trained).state_dict()
    assert_same(fold_state_dict(state, like=like, transposed=["up"]), like)


def test_types_and_one_layer(trained: nn.Module) -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        conv = DOConv2d(3, 4, 3, dtype=dtype)
        nn.init.normal_(conv.D)
        folded = fold_state_dict(conv.state_dict())
        assert list(folded) == ["weight", "bias"]
        assert_same(folded, fold(conv).state_dict())


def test_a_checkpoint_of_the_authors_file_with_a_stored_identity() -> None:
    conv = DOConv2d(6, 4, 3, bias=False)
    nn.init.normal_(conv.D)
    diagonal = torch.tensor(identity(conv.geometry), dtype=torch.float32).repeat(6, 1, 1)
    state = {f"module.{name}": tensor for name, tensor in (*conv.state_dict().items(), ("D_diag", diagonal))}
    assert_same(fold_state_dict(state, dialect="original-torch"), fold(conv).state_dict())


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        ({}, {}, "the kernel size of stem is not in the file and 6 taps are no square"),
        ({}, {"kernel_size": {"*": (3, 3)}}, "stem has kernels of 6 taps. Received: .*3x3"),
        ({"stem.D": None}, HINTS, "stem.W has no stem.D beside it. Received: W of shape"),
        ({"stem.W": None}, HINTS, "stem.D has no stem.W of three axes beside it"),
        ({"stem.D": torch.zeros(3, 6, 7)}, HINTS, "stem.W and stem.D do not belong together"),
        ({"stem.W": torch.full((4, 3, 6), torch.nan)}, HINTS, r"stem.W has a value that is not finite.* Received: nan"),
        ({}, HINTS | {"dialect": "mine"}, "dialect must be one of .* Received: 'mine'"),
        ({}, {"like": {"stem.weight": torch.zeros(4, 3, 3, 3)}}, r"not that of the plain model. Received: .*\(4, 3, 3, 3\)"),
    ],
)  # fmt: skip
def test_what_can_not_be_folded_is_named(trained: nn.Module, change: dict, options: dict, text: str) -> None:
    state = {name: tensor for name, tensor in (trained.state_dict() | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=text):
        fold_state_dict(state, **options)
