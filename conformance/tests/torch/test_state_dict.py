"""`fold_state_dict`: the plain model's state from the over-parameterized one's, without the model."""

import copy
import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

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


def no_squares() -> nn.Module:
    """Layers of every kind that shapes leave open: axes, sides, transposed or not."""
    layers = [nn.Conv1d(4, 4, 9), nn.Conv2d(4, 4, (1, 9)), nn.Conv3d(4, 4, (1, 3, 3)), nn.Conv1d(4, 4, 1)]
    return nn.ModuleList([*layers, nn.ConvTranspose2d(4, 4, 2), nn.ConvTranspose2d(8, 4, 4, bias=False)])


WRAPS = {
    "bare": lambda model: model,
    "DataParallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "average of a compiled one": lambda model: AveragedModel(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_state_dict_says_what_its_shapes_do_not(wrap: str, tmp_path: Path) -> None:
    model = overparameterize(no_squares())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    torch.save(WRAPS[wrap](model).state_dict(), tmp_path / "model.pth")
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    folded = fold_state_dict(state)
    assert not any("doconv" in of_module for of_module in folded._metadata.values())
    folded.pop("n_averaged", None)
    assert_same(folded, fold(model).state_dict())
    no_squares().load_state_dict(folded)


def test_a_kernel_of_other_sides_is_not_loaded() -> None:
    """Its `W` and `D` have the same shapes."""
    for other, given in (
        (nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, (1, 9))),
        (nn.ConvTranspose2d(4, 4, 3), nn.Conv2d(4, 4, 3)),
    ):
        state = overparameterize(nn.Sequential(given)).state_dict()
        with pytest.raises(RuntimeError, match=r"0\.W is of another layer.*Received: DOConv"):
            overparameterize(nn.Sequential(other)).load_state_dict(state)


def test_what_a_state_dict_says_is_believed_only_where_it_is_what_a_layer_writes() -> None:
    state = overparameterize(nn.Sequential(nn.Conv2d(4, 4, (1, 9)))).state_dict()
    assert fold_state_dict(state)["0.weight"].shape == (4, 4, 1, 9)
    assert fold_state_dict(state, kernel_size={"0": (9, 1)})["0.weight"].shape == (4, 4, 9, 1)  # the user goes first
    assert fold_state_dict(state, like=nn.Sequential(nn.Conv2d(4, 4, 3)))["0.weight"].shape == (4, 4, 3, 3)
    for nonsense in (
        {},
        {"kernel_size": [1, 9]},
        {"kernel_size": [1, -9], "transposed": False},
        {"kernel_size": "19"},
        5,
    ):
        state._metadata["0"]["doconv"] = nonsense
        assert fold_state_dict(state)["0.weight"].shape == (4, 4, 3, 3)
    state._metadata["0"]["doconv"] = {"kernel_size": [2, 9], "transposed": False}
    with pytest.raises(ValueError, match=r"0 has kernels of 9 taps\. Received: 0=2x9"):
        fold_state_dict(state)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return found


def test_what_could_be_wrong_and_would_not_show_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    plain = nn.Sequential(nn.Conv2d(4, 4, (1, 9)), nn.Conv2d(4, 4, 3, groups=4))
    state = overparameterize(copy.deepcopy(plain)).state_dict()
    for quiet, options in ((state, {}), (state, {"like": plain}), (dict(state), {"like": plain})):
        fold_state_dict(quiet, **options)
        assert not warned(caplog)
    fold_state_dict(dict(state))
    assert warned(caplog) == ["taken not to be transposed convolutions, which the shapes cannot show: 0"]  # not 1
    for against in (
        {"transposed": "0"},
        {"kernel_size": {"0": (9, 1)}},
        {"like": nn.Sequential(nn.Conv2d(4, 4, 3), plain[1])},
    ):
        fold_state_dict(state, **against)
        assert [text.rpartition(" ")[2] for text in warned(caplog) if "against what the layers say" in text] == ["0"]


def test_what_layers_say_of_themselves_is_not_taken_for_others_after_a_renaming(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = overparameterize(nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    whole, moved = model.state_dict(), model.state_dict()
    for number in (1, 0):  # a layer was put in front
        for leaf in ("W", "D", "bias"):
            moved[f"{number + 1}.{leaf}"] = moved.pop(f"{number}.{leaf}")
    del moved["2.weight"], whole["0.W"], whole["0.D"]  # the latter is a part: what is left is true
    folded = fold_state_dict(moved, transposed="1")
    assert any(text.startswith("the metadata is of other names") for text in warned(caplog))
    assert torch.equal(fold_state_dict(whole)["1.weight"], folded["2.weight"])
    assert not warned(caplog)
    want = fold(model).state_dict()
    assert torch.equal(folded["1.weight"], want["0.weight"])
    assert torch.equal(folded["2.weight"], want["1.weight"])


def test_what_layers_say_of_themselves_is_found_below_a_wrapper_and_a_prefix() -> None:
    model = overparameterize(nn.ModuleDict({"net": no_squares(), "head": nn.ConvTranspose2d(4, 4, 3)}))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    state = nn.DataParallel(model).state_dict()
    state["module.net.counter"] = 5
    folded = fold_state_dict(state, prefix="net.")
    want = {name.removeprefix("net."): tensor for name, tensor in fold(model).state_dict().items()}
    assert folded.pop("counter") == 5
    assert_same(folded, want)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "compute",
    [
        lambda conv: prune.l1_unstructured(conv, "W", 0.5),
        lambda conv: prune.l1_unstructured(conv, "D", 0.5),
        lambda conv: nn.utils.weight_norm(conv, "W"),
        lambda conv: nn.utils.parametrizations.weight_norm(conv, "W"),
        lambda conv: nn.utils.parametrizations.spectral_norm(conv, "W"),
    ],
)
def test_a_parameter_that_is_computed_is_named(compute: object) -> None:
    model = overparameterize(nn.Sequential(nn.Conv2d(3, 4, 3)))
    compute(model[0])
    with pytest.raises(ValueError, match=r"0\.[WD] is computed from other tensors.*remove that"):
        fold_state_dict(model.state_dict())


def square() -> nn.Module:
    """A layer that a wrong reading folds in silence: square and transposed, as many outputs as inputs."""
    return nn.Sequential(nn.ConvTranspose2d(4, 4, 2, stride=2, bias=False), nn.Conv2d(4, 4, (1, 4)))


@pytest.fixture
def pair() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of an over-parameterized model, and of the folded one."""
    torch.manual_seed(0)
    model = overparameterize(square())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.state_dict(), fold(model).state_dict()


BESIDE = {"n_averaged": torch.tensor(3), "epoch": 7, "optimizer": {"lr": 0.1}, 5: "five", "loss.scale": torch.ones(2)}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module.module.", "net.", "model.", "model._orig_mod.", "model.module.net."]
)
def test_hints_and_names_fit_whatever_stands_before_them(pair: tuple, prefix: str, beside: bool) -> None:
    state, want = pair
    state = {prefix + name: tensor for name, tensor in state.items()} | (BESIDE if beside else {})
    others = BESIDE if beside else {}
    for like in (square(), square().to("meta"), nn.DataParallel(square())):
        folded = fold_state_dict(state, like=like)
        kept = (
            "module." if isinstance(like, nn.DataParallel) and prefix.endswith("module.") else ""
        )  # `like` has it, too
        wanted = {kept + name: tensor for name, tensor in want.items()}
        assert_same({name: tensor for name, tensor in folded.items() if name not in others}, wanted)
        assert all(folded[name] is value for name, value in others.items())
    for path in ("0", f"{prefix}0"):  # a pattern may have the prefix or not
        known = {"prefix": prefix} if prefix.startswith(("net", "model")) else {}
        if not (beside and prefix and not known):  # `loss.scale` has no wrapper before it: then nothing is dropped
            folded = fold_state_dict(state, kernel_size={"*1": (1, 4)}, transposed=path, **known)
            assert all(torch.equal(folded[name], tensor) for name, tensor in want.items())


def test_an_averaged_model_folds_and_loads(pair: tuple) -> None:
    state, want = pair
    model = overparameterize(square())
    model.load_state_dict(state)
    folded = fold_state_dict(AveragedModel(model).state_dict(), like=square())
    assert folded.pop("n_averaged") == 0
    assert_same(folded, want)
    assert square().load_state_dict(folded) == ([], [])


def test_a_teacher_beside_the_student(pair: tuple) -> None:
    state, want = pair
    both = {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in state.items()}
    folded = fold_state_dict(both, like=square())
    assert_same(folded, {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in want.items()})
    folded = fold_state_dict(both, like=square(), prefix="student.")
    assert {"0.weight", "teacher.0.weight"} <= set(folded)


def test_copies_whose_names_lost_their_dots_fold_as_well(pair: tuple) -> None:
    state, want = pair
    copies = {f"ema_{name.replace('.', '_')}": tensor for name, tensor in state.items() if name[-1] in "WD"}
    copies |= {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in state.items() if name[-1] in "WD"}
    folded = fold_state_dict(state | copies, like=square())
    assert_same({name: tensor for name, tensor in folded.items() if "ema" not in name}, want)
    assert torch.equal(folded["ema_0_weight"], want["0.weight"])
    assert torch.equal(folded["model_ema.0weight"], want["0.weight"])
    assert not [name for name in folded if name[-1] in "WD"]


@pytest.mark.parametrize("transposed", ["0", ["0"], ("0",), "[0]"])
def test_one_pattern_is_a_string(pair: tuple, transposed: object) -> None:
    state, want = pair
    assert_same(fold_state_dict(state, transposed=transposed, kernel_size={"1": (1, 4)}), want)


def test_a_trained_diagonal_counts(caplog: pytest.LogCaptureFixture) -> None:
    conv, grown = DOConv2d(3, 8, 3, bias=False), 0.125 * torch.randn(3, 9, 9)
    diagonal = torch.eye(9).repeat(3, 1, 1)
    state = {"W": conv.W.detach(), "D": torch.zeros(3, 9, 9), "D_diag": diagonal + grown}
    with caplog.at_level(logging.INFO, logger="doconv"):
        folded = fold_state_dict(state, dialect="original-torch")
    want = torch.einsum("ims,ois->oim", state["D_diag"].double(), state["W"].double()).reshape(8, 3, 3, 3)
    torch.testing.assert_close(folded["weight"], want.float(), rtol=0, atol=1e-6)
    assert "D_diag is not the identity, it was trained: read as D + D_diag" in caplog.text


@pytest.mark.parametrize(("make", "size"), [(nn.Conv1d, (1,)), (nn.Conv2d, (1, 1)), (nn.Conv3d, (1, 1, 1))])
def test_layers_of_one_tap_have_the_axes_of_the_plain_model(make: type, size: tuple[int, ...]) -> None:
    like = nn.Sequential(make(4, 4, 3, bias=False), make(4, 4, 1, bias=False))
    taps = 3 ** len(size)
    state = {"0.W": torch.randn(4, 4, taps), "0.D": torch.zeros(4, taps, taps), "1.W": torch.randn(4, 4, 1)}
    for dialect in (None, "original-torch"):
        assert fold_state_dict(state, like=like, dialect=dialect)["1.weight"].shape == (4, 4, *size)


class Extra(nn.Module):
    """With a state that is no tensor, and a `W` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attn = nn.Conv2d(2, 2, 3), nn.Module()
        self.attn.W = nn.Parameter(torch.rand(2, 3, 4))

    def get_extra_state(self) -> dict[str, int]:
        return {"step": 1}

    def set_extra_state(self, state: object) -> None:
        pass


def test_states_that_are_no_tensors_and_tensors_of_others_pass() -> None:
    model = overparameterize(Extra())
    folded = fold_state_dict(model.state_dict(), like=Extra(), exclude="attn")
    assert folded["_extra_state"] == {"step": 1}
    assert folded["attn.W"] is model.state_dict()["attn.W"] or torch.equal(folded["attn.W"], model.attn.W)
    assert Extra().load_state_dict(folded) == ([], [])


def test_without_values_the_names_and_shapes_are_folded(pair: tuple) -> None:
    state, want = pair
    meta = fold_state_dict({name: tensor.to("meta") for name, tensor in state.items()}, like=square())
    assert {name: tensor.shape for name, tensor in meta.items()} == {name: t.shape for name, t in want.items()}
    with FakeTensorMode():
        model = overparameterize(square())
        folded = fold_state_dict(model.state_dict(), like=square())
        assert folded["0.weight"].shape == want["0.weight"].shape
        assert fold(model)(torch.rand(1, 4, 5, 5)).shape == (1, 4, 10, 7)


W, D = torch.rand(4, 3, 9), torch.rand(3, 9, 9)


@pytest.mark.parametrize(
    ("state", "options", "error", "text"),
    [
        ([W], {}, TypeError, "state_dict must be a dict of tensors. Received: list"),
        ({"state_dict": {"a.W": W}}, {}, ValueError, "holds no tensors; the state dict may be its 'state_dict'"),
        ({}, {}, ValueError, "holds no tensors. Received: nothing"),
        ({"a.W": W.numpy(), "a.D": D.numpy(), "x": W}, {}, TypeError, r"a.W must be a dense tensor .*Received: float32 numpy"),
        ({"a.W": W.to_sparse(), "a.D": D}, {}, TypeError, "a.W must be a dense tensor .*sparse_coo"),
        ({"a.W": W.to(torch.float8_e4m3fn), "a.D": D}, {}, TypeError, "a.W must be a dense tensor .*float8_e4m3fn"),
        ({"a.W": W, "a.D": D, "b.D": D}, {}, ValueError, "b.D has no b.W"),
        ({"a.W": W, "a.D": D}, {"transposed": "no*"}, ValueError, r"the pattern 'no\*' \(transposed\) matches no convolution"),
        ({"a.W": W, "a.D": D}, {"kernel_size": {"b": (3, 3)}}, ValueError, "the pattern 'b' .* matches no convolution"),
        ({"a.W": W, "a.D": D}, {"like": {"b.weight": torch.rand(4, 3, 3, 3)}}, ValueError,
         "no layer of the plain model is in it"),
        ({"a.W": W, "a.D": D}, {"like": {}}, TypeError, "like must be a module with parameters, or .* Received: dict"),
        ({"a.W": W, "a.D": D}, {"like": {"a.weight": 5}}, TypeError, "like must be a module with parameters"),
        ({"a.W": W, "a.D": D}, {"like": nn.ReLU()}, TypeError, "like must be a module with parameters, or .* Received: ReLU"),
        ({"a.W": W, "a.D": D}, {"kernel_size": {"a": ()}}, TypeError, r"integers, one per axis. Received: 'a': \(\)"),
        ({"a.W": W, "a.D": D}, {"kernel_size": {"a": (True, 9)}}, TypeError, r"Received: 'a': \(True, 9\)"),
        ({1: W}, {}, TypeError, "names of tensors must be strings. Received: 1"),
        ({"a.W": W, "a.D": D, "b.W": W, "b.D": D}, {"like": {"b.weight": torch.rand(4, 3, 3, 3)}}, ValueError,
         "a is no layer of the plain model"),
        ({"a.W": W, "a.D": D}, {"prefix": "net."}, ValueError, r"no name begins with the prefix 'net\.'"),
        ({"a.kernel": torch.rand(3, 3, 3, 4), "a.D": torch.rand(3, 3, 9, 3)}, {}, ValueError, "another framework"),
    ],
)  # fmt: skip
def test_what_matches_nothing_or_is_no_state_dict_is_named(
    state: object, options: dict, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        fold_state_dict(state, **options)
