"""The layers take the arguments of those they replace, in their order and with their defaults."""

import inspect

import pytest
from flax import linen as nn
from flax import nnx

import doconv_flax

PAIRS = [
    pytest.param(getattr(plain, name), getattr(ours, f"DO{name}"), id=f"{plain.__name__}.{name}")
    for plain, ours in ((nn, doconv_flax.linen), (nnx, doconv_flax.nnx))
    for name in ("Conv", "ConvTranspose")
]


@pytest.mark.parametrize(("plain", "ours"), PAIRS)
def test_d_mul_is_the_only_addition_and_by_keyword_only(plain: type, ours: type) -> None:
    wanted, (*shared, added) = (inspect.signature(cls.__init__).parameters.values() for cls in (plain, ours))
    assert [(p.name, p.kind, p.default) for p in shared] == [(p.name, p.kind, p.default) for p in wanted]
    assert (added.name, added.kind, added.default) == ("d_mul", inspect.Parameter.KEYWORD_ONLY, None)
    wanted, given = (inspect.signature(cls.__call__).parameters.values() for cls in (plain, ours))
    assert [(p.name, p.kind, p.default) for p in given] == [(p.name, p.kind, p.default) for p in wanted]
    assert issubclass(ours, plain)


@pytest.mark.parametrize("module", [doconv_flax, doconv_flax.linen, doconv_flax.nnx])
def test_every_public_name_is_there_and_documented(module: object) -> None:
    for name in module.__all__:
        assert inspect.getdoc(getattr(module, name)), name
