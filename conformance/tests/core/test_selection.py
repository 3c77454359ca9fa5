"""What `where` selects, and what it refuses."""

import pytest

from doconv_core.selection import select

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


@pytest.mark.parametrize(
    ("where", "error", "text"),
    [
        (
            "layer3.*",
            ValueError,
            r"`where` selects no convolution. Received: 'layer3.\*'; the paths are stem, layer1.0",
        ),
        (["stem", "Layer1.*"], ValueError, r"`where` selects no convolution. Received: 'Layer1.\*'"),
        ([], ValueError, r"Received: \[\]"),
        (lambda path, layer: False, ValueError, "Received: <function"),
        (3, TypeError, "`where` must be a predicate, a glob pattern or several. Received: 3"),
        ([3], TypeError, r"Received: \[3\]"),
    ],
)
def test_refused(where: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        select(FOUND, where)
