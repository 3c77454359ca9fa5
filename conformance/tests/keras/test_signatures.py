"""The layers take the arguments of those they replace, in their order and with their defaults."""

import inspect

import keras
import pytest

import doconv_keras

NAMES = [name.removeprefix("DO") for name in doconv_keras.__all__ if name.startswith("DO")]


def test_every_convolution_of_keras_has_its_form() -> None:
    others = ("Separable", "Depthwise")  # have no 3-D class
    assert set(NAMES) == {
        *(f"Conv{rank}D{suffix}" for rank in (1, 2, 3) for suffix in ("", "Transpose")),
        *(f"{kind}Conv{rank}D" for kind in others for rank in (1, 2)),
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_only_additions_are_by_keyword_only(name: str) -> None:
    plain, ours = (inspect.signature(cls) for cls in (getattr(keras.layers, name), getattr(doconv_keras, f"DO{name}")))
    added = [parameter for key, parameter in ours.parameters.items() if key not in plain.parameters]
    assert [(p.name, p.kind, p.default) for p in added] == [
        (key, inspect.Parameter.KEYWORD_ONLY, None) for key in ("d_mul", "d_regularizer")
    ]
    shared = [parameter for parameter in ours.parameters.values() if parameter not in added]
    assert shared == list(plain.parameters.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_an_instance_of_the_one_it_replaces_and_overrides_nothing_of_its_call(name: str) -> None:
    plain, ours = getattr(keras.layers, name), getattr(doconv_keras, f"DO{name}")
    assert issubclass(ours, plain)
    assert ours.plain_class is plain
    for method in ("call", "compute_output_shape"):
        assert getattr(ours, method) is getattr(plain, method)


def test_every_public_name_is_there_and_documented() -> None:
    for name in doconv_keras.__all__:
        assert inspect.getdoc(getattr(doconv_keras, name)), name
