"""The layers take the arguments of those they replace, in their order and with their defaults."""

import inspect

import pytest
from torch import nn

import doconv_torch

NAMES = [f"Conv{transposed}{rank}d" for transposed in ("", "Transpose") for rank in (1, 2, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_d_mul_is_the_only_addition_and_by_keyword_only(name: str) -> None:
    plain, ours = (inspect.signature(cls).parameters for cls in (getattr(nn, name), getattr(doconv_torch, f"DO{name}")))
    assert [(p.name, p.kind, p.default) for p in ours.values()][:-1] == [
        (p.name, p.kind, p.default) for p in plain.values()
    ]
    *_, added = ours.values()
    assert (added.name, added.kind, added.default) == ("d_mul", inspect.Parameter.KEYWORD_ONLY, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_an_instance_of_the_one_it_replaces_and_overrides_nothing_of_its_call(name: str) -> None:
    plain, ours = getattr(nn, name), getattr(doconv_torch, f"DO{name}")
    assert issubclass(ours, plain)
    assert ours.plain_class is plain
    assert ours.forward is plain.forward


def test_every_public_name_is_there_and_documented() -> None:
    for name in doconv_torch.__all__:
        assert inspect.getdoc(getattr(doconv_torch, name)), name
