"""The rule that finds the plain model's names: wrappers, trainers, a second model beside, and what can't be decided."""

import pytest

from doconv_core.checkpoint import CheckpointError
from doconv_core.checkpoint._prefixes import copies_without_dots, plain_names

KERNEL, DELTA = (4, 3, 9), (3, 9, 9)
LIKE = ("stem.weight", "stem.bias", "body.0.weight", "head.weight")
LAYERS = {
    "stem.W": KERNEL,
    "stem.D": DELTA,
    "stem.bias": (4,),
    "body.0.W": KERNEL,
    "body.0.D": DELTA,
    "head.weight": (2, 4),
}
BESIDE = {"n_averaged": (), "loss.weight": (5,), "metric.total": ()}


def below(prefix: str, beside: dict[str, tuple[int, ...]] | None = None) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for name, shape in LAYERS.items()} | (beside or {})


@pytest.mark.parametrize("beside", [{}, {"n_averaged": ()}], ids=["alone", "beside n_averaged"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module.module.", "_orig_mod.module."])
@pytest.mark.parametrize("like", [(), LIKE], ids=["alone", "like"])
def test_wrappers_leave_no_trace(prefix: str, beside: dict, like: tuple[str, ...]) -> None:
    state = below(prefix, beside)
    found = plain_names(state, like=like)
    assert list(found.names) == list(state)
    assert list(found.names.values()) == [*LAYERS, *beside]
    assert found.in_like("body.0") == ("body.0.weight" if like else None)


@pytest.mark.parametrize("prefix", ["net.", "model.", "model.module.", "model._orig_mod.", "a.b.c."])
def test_other_prefixes_are_names_of_the_model_until_the_plain_model_says_otherwise(prefix: str) -> None:
    state = below(prefix, BESIDE)
    assert list(plain_names(state).names.values()) == [name.replace("_orig_mod.", "") for name in state]
    found = plain_names(state, like=LIKE)
    assert list(found.names.values()) == [*LAYERS, *BESIDE]
    assert not found.rivals
    assert list(plain_names(state, prefix=prefix).names.values()) == [*LAYERS, *BESIDE]


@pytest.mark.parametrize("outer", ["module.", "module._orig_mod.", "module.module."])
@pytest.mark.parametrize("like", [(), ("conv.weight",)])
def test_a_prefix_is_given_as_the_model_has_it_whatever_wrapped_it(outer: str, like: tuple[str, ...]) -> None:
    state = {f"{outer}net.conv.W": (1, 1, 9), f"{outer}head.weight": (2, 2), "n_averaged": ()}
    found = plain_names(state, like=like, prefix="net.")
    assert list(found.names.values()) == ["conv.W", "head.weight", "n_averaged"]
    assert found.outer == outer.replace("_orig_mod.", "")
    with pytest.raises(CheckpointError, match=r"no name begins with the prefix 'nets\.'"):
        plain_names(state, like=like, prefix="nets.")


@pytest.mark.parametrize("inner", ["_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module."])
def test_a_wrapper_around_a_part_of_the_model(inner: str) -> None:
    state = {name.replace("body.", f"body.{inner}"): shape for name, shape in LAYERS.items()}
    for like in ((), LIKE):
        assert list(plain_names(state, like=like).names.values()) == list(LAYERS)
    wrapped = tuple(name.replace("body.", f"body.{inner}") for name in LIKE)  # as the model to be loaded has it
    assert list(plain_names(state, like=wrapped).names.values()) == list(state)
    assert plain_names(LAYERS, like=wrapped).in_like("body.0") == wrapped[2]


def test_a_plain_model_that_is_wrapped_itself() -> None:
    wrapped = tuple(f"module.{name}" for name in LIKE)
    assert list(plain_names(below("module."), like=wrapped).names.values()) == list(below("module."))
    assert plain_names(LAYERS, like=wrapped).in_like("stem") == "module.stem.weight"
    assert plain_names(below("net."), like=wrapped).in_like("stem") == "module.stem.weight"


def test_a_single_layer() -> None:
    found = plain_names({"n_averaged": (), "module.W": KERNEL, "module.D": DELTA}, like=["weight"])
    assert found.names == {"n_averaged": "n_averaged", "module.W": "W", "module.D": "D"}
    assert found.in_like("") == "weight"


def test_a_parameter_of_the_model_itself_is_no_wrappers_scalar() -> None:
    state = below("module.", {"cls_token": (1, 1, 8)})
    assert list(plain_names(state).names.values()) == list(state)


def test_teacher_and_student_stay_apart_and_are_both_known() -> None:
    state = below("student.") | below("teacher.")
    found = plain_names(state, like=LIKE)
    assert found.rivals == ("student.", "teacher.")
    assert list(found.names.values()) == list(state)
    assert found.in_like("teacher.stem") == found.in_like("student.stem") == "stem.weight"
    chosen = plain_names(state, like=LIKE, prefix="student.")
    assert list(chosen.names.values()) == [*LAYERS, *below("teacher.")]
    assert not chosen.rivals
    assert chosen.in_like("teacher.stem") == chosen.in_like("stem") == "stem.weight"


def test_the_model_without_prefix_comes_before_its_average() -> None:
    state = LAYERS | below("ema.")
    found = plain_names(state, like=LIKE)
    assert (found.prefix, found.rivals, list(found.names.values())) == ("", (), list(state))
    assert found.in_like("ema.body.0") == "body.0.weight"
    assert found.in_like("other.body.0") is None


@pytest.mark.parametrize(
    ("state", "options", "text"),
    [
        (below("net."), {"like": ("other.weight",)}, r"no layer of the plain model is in it.* Received: net\.stem\.W"),
        (below("net."), {"prefix": "model."}, r"no name begins with the prefix 'model\.'. Received: net\.stem\.W"),
        (
            LAYERS | below("net."),
            {"prefix": "net."},
            r"two tensors have the same name.* Received: stem\.W, net\.stem\.W",
        ),
    ],
)
def test_what_can_not_be_matched_is_said(state: dict, options: dict, text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        plain_names(state, **options)


def test_copies_whose_names_lost_their_dots() -> None:
    copies = {"ema_stem_W": KERNEL, "ema_stem_D": DELTA, "model_ema.body0W": KERNEL, "model_ema.body0D": DELTA}
    others = {"ema.stem.W": KERNEL, "ema_stem_bias": (4,), "emastemW": (1, 2, 3), "stem_W": KERNEL}
    kernels = [name for name in LAYERS if name[-1] in "WD"]
    found = copies_without_dots(LAYERS | copies | others, kernels)
    assert found == dict(zip(copies, ["stem.W", "stem.D", "body.0.W", "body.0.D"], strict=True))
