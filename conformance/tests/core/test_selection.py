"""What `where` selects, and what it refuses."""

from types import SimpleNamespace

import pytest

from doconv_core.selection import depth_multipliers, describe_convolution, select

FOUND = {"stem": 7, "layer1.0": 3, "layer1.1": 5, "layer2.0": 3}


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        (None, ["stem", "layer1.0", "layer1.1", "layer2.0"]),
        ("*", ["stem", "layer1.0", "layer1.1", "layer2.0"]),
        ("layer1.*", ["layer1.0", "layer1.1"]),
        (["layer2.0", "*.0", "stem"], ["stem", "layer1.0", "layer2.0"]),
        ("layer[!1].?", ["layer2.0"]),
        ("head", ["stem"]),  # an alias
        (lambda path, layer: layer == 3 and path != "layer2.0", ["layer1.0"]),
    ],
)
def test_selected(where: object, paths: list[str]) -> None:
    assert select(FOUND, where, aliases={"head": "stem"}) == {path: FOUND[path] for path in paths}


def test_a_name_with_brackets_is_a_pattern_of_itself() -> None:
    assert select({"['stem']": 7, "head": 3}, "['stem']") == {"['stem']": 7}


@pytest.mark.parametrize(
    ("where", "error", "text"),
    [
        (
            "layer3.*",
            ValueError,
            r"`where` selects no convolution. Received: 'layer3.\*'; the paths are stem, layer1.0",
        ),
        (["stem", "Layer1.*"], ValueError, r"`where` selects no convolution. Received: 'Layer1.\*'"),
        (["stem", "one", "two"], ValueError, "Received: 'one'; the paths are"),
        ([], ValueError, r"Received: \[\]"),
        (lambda path, layer: False, ValueError, "Received: <function"),
        (3, TypeError, "`where` must be a predicate, a glob pattern or several. Received: 3"),
        ([3], TypeError, r"Received: \[3\]"),
    ],
)
def test_refused(where: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        select(FOUND, where)


def test_a_model_without_a_convolution_is_named() -> None:
    with pytest.raises(ValueError, match=r"the model has no convolution\. Received: Linear"):
        select({}, None, model="Linear")


LAYERS = {"": SimpleNamespace(kernel_size=(3, 2)), "point": SimpleNamespace(kernel_size=(1, 1))}


def multipliers(layers: dict[str, SimpleNamespace], d_mul: int | None, **options: object) -> dict[str, int]:
    return depth_multipliers(
        layers,
        d_mul,
        is_plain=lambda path, layer: path != "point",
        describe=lambda path, layer: f"one of {len(layer.kernel_size)} axes",
        **options,
    )


def test_depth_multipliers_of_the_layers_that_are_plain() -> None:
    assert multipliers(LAYERS, None) == {"": 6}
    assert multipliers(LAYERS, 8) == {"": 8}
    with pytest.raises(ValueError, match=r"at least 6, .* Received: the layer: kernel_size=\(3, 2\), d_mul=5"):
        multipliers(LAYERS, 5)
    with pytest.raises(ValueError, match=r"at least 6, .* Received: the layer: mine, d_mul=5"):
        multipliers(LAYERS, 5, show=lambda layer: "mine")
    with pytest.raises(ValueError, match=r"nothing is left to over-parameterize\. Received: point: one of 2 axes$"):
        multipliers({"point": LAYERS["point"]}, None)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("DOConv", (3, 2), 7), {}, "DOConv 3x2, d_mul=7"),
        (("DOConv", (3,), 3), {"stacked": (2, 5), "reason": "no matter"}, "DOConv 3, d_mul=3, 10 layers stacked"),
        (("Conv", (3, 2), None), {}, "plain Conv 3x2"),
        (("Conv", (1, 1), None), {}, "plain Conv 1x1: a kernel of one tap has no D"),
        (("Conv", (1, 1), None), {"reason": "lazy", "stacked": (4,)}, "plain Conv 1x1, 4 layers stacked: lazy"),
    ],
)
def test_a_convolution_in_words(arguments: tuple, options: dict, words: str) -> None:
    assert describe_convolution(*arguments, **options) == words
