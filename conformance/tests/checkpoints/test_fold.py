"""`doconv fold` on its functions: values against the definition in loops, what is passed on, and every broken input by name."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import generator
from doconv_core import ConvGeometry, compose
from doconv_core.checkpoint import (
    Arrays,
    Checkpoint,
    CheckpointError,
    Hints,
    _tools,
    fold_file,
    fold_tensors,
    open_checkpoint,
)

GEOMETRIES = {
    "conv": ConvGeometry(in_channels=3, out_channels=8, kernel_size=(3, 3)),
    "stem.grouped": ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2, d_mul=8),
    "depthwise": ConvGeometry(in_channels=5, out_channels=10, kernel_size=(2, 2), groups=5),
    "up": ConvGeometry(in_channels=6, out_channels=4, kernel_size=(2, 3), groups=2, transposed=True, d_mul=13),
    "volume": ConvGeometry(in_channels=2, out_channels=4, kernel_size=(2, 1, 3)),
    "line": ConvGeometry(in_channels=2, out_channels=4, kernel_size=(5,)),
}
HINTS = Hints({path: g.kernel_size for path, g in GEOMETRIES.items()}, transposed=("up",))


def integers(path: str, geometry: ConvGeometry) -> dict[str, np.ndarray]:
    shapes = {"W": geometry.w_shape, "D": geometry.d_shape, "bias": (geometry.out_channels,)}
    return {
        f"{path}.{name}": generator.integers(f"fold/{path}/{name}", shape, -3, 3).astype(np.float32)
        for name, shape in shapes.items()
    }


def definition(W: np.ndarray, D: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """`W'[o, c, k] = sum_s (E + D)[i, k, s] W[o, c, s]` in loops, sharing nothing with the core."""
    taps, multiplier = D.shape[1:]
    shared, local = geometry.out_channels // geometry.groups, geometry.in_channels // geometry.groups
    kernel = np.zeros((*W.shape[:2], taps))
    for a, b, k, s in product(*map(range, kernel.shape), range(multiplier)):
        row = a if geometry.transposed else (a // shared) * local + b
        identity = s < taps * (multiplier // taps) and s % taps == k
        kernel[a, b, k] += (float(identity) + float(D[row, k, s])) * float(W[a, b, s])
    return kernel.reshape(geometry.kernel_shape)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {name: array for path, g in GEOMETRIES.items() for name, array in integers(path, g).items()}
    tensors |= {
        "one.W": generator.floats("fold/one", (4, 3, 1)).astype(np.float32),
        "bn.weight": np.array([np.nan, 1], np.float32),
        "bn.running_mean": np.ones(2, np.float32),
        "bn.num_batches_tracked": np.array(7),
        "head.weight": generator.floats("fold/head", (2, 3)).astype(ml_dtypes.bfloat16),
        "mask": np.array([True, False, True]),
    }
    save_file(tensors, tmp_path / "in", metadata={"format": "pt", "epoch": "3"})
    return tmp_path / "in"


def test_kernels_are_those_of_the_definition_and_the_rest_is_passed_on(source: Path, tmp_path: Path) -> None:
    with open_checkpoint(source, hints=HINTS) as checkpoint:
        done = fold_file(checkpoint, tmp_path / "out")
        assert checkpoint.source.metadata == {"format": "pt", "epoch": "3"}
    given, folded = load_file(source), load_file(tmp_path / "out")
    assert set(done.folded) == {*GEOMETRIES, "one"}
    for path, geometry in GEOMETRIES.items():
        want = definition(given.pop(f"{path}.W"), given.pop(f"{path}.D"), geometry)
        np.testing.assert_array_equal(folded.pop(f"{path}.weight"), want)
    np.testing.assert_array_equal(folded.pop("one.weight"), given.pop("one.W").reshape(4, 3, 1, 1))
    assert folded.keys() == given.keys()
    assert all(folded[name].tobytes() == array.tobytes() for name, array in given.items())
    with open_checkpoint(tmp_path / "out") as plain:
        assert plain.source.metadata == {"format": "pt", "epoch": "3"}


def test_folding_twice_changes_nothing(source: Path, tmp_path: Path) -> None:
    for name, target in ((source, "once"), (tmp_path / "once", "twice")):
        with open_checkpoint(name, hints=HINTS) as checkpoint:
            fold_file(checkpoint, tmp_path / target)
    assert (tmp_path / "once").read_bytes() == (tmp_path / "twice").read_bytes()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_type_is_composed_in_float64_and_rounded_once(dtype: type, tmp_path: Path) -> None:
    geometry = GEOMETRIES["stem.grouped"]
    W = generator.floats("types/W", geometry.w_shape).astype(dtype)
    D = generator.floats("types/D", geometry.d_shape).astype(dtype)
    save_file({"a.W": W, "a.D": D}, tmp_path / "in")
    with open_checkpoint(tmp_path / "in", hints=Hints({"a": (3, 2)})) as checkpoint:
        fold_file(checkpoint, tmp_path / "out")
    weight = load_file(tmp_path / "out")["a.weight"]
    assert weight.dtype == dtype
    np.testing.assert_array_equal(weight, definition(W, D, geometry).astype(dtype))


@pytest.mark.parametrize(
    "geometry",
    [
        ConvGeometry(in_channels=7, out_channels=1500, kernel_size=(3, 3)),
        ConvGeometry(in_channels=40, out_channels=60, kernel_size=(3, 3), groups=20),
        ConvGeometry(in_channels=50, out_channels=12, kernel_size=(3, 3), transposed=True, d_mul=20),
    ],
)
def test_a_layer_in_pieces_is_the_layer_at_once(
    geometry: ConvGeometry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    W = generator.floats("pieces/W", geometry.w_shape).astype(np.float32)
    D = generator.floats("pieces/D", geometry.d_shape).astype(np.float32)
    save_file({"a.W": W, "a.D": D}, tmp_path / "in")
    monkeypatch.setattr(_tools, "PIECE", 1000)
    sizes: list[int] = []
    with open_checkpoint(tmp_path / "in", hints=Hints(transposed=("a",) * geometry.transposed)) as checkpoint:
        fold_file(checkpoint, tmp_path / "out", progress=lambda done, total: sizes.append(done))
    assert len(sizes) > 1
    assert sizes == sorted(sizes)
    np.testing.assert_array_equal(load_file(tmp_path / "out")["a.weight"], compose(W, D, geometry))


def test_a_fault_in_one_of_many_parts_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are made and written by several threads; `PIECE` is below the file's size, as for any large file."""
    tensors = {}
    for index in range(30):
        tensors[f"l{index:02d}.W"] = np.ones((4, 2, 9), np.float32)
        tensors[f"l{index:02d}.D"] = np.ones((2, 9, 9), np.float32)
    tensors["l17.W"][3, 1, 8] = np.nan
    save_file(tensors, tmp_path / "in")
    (tmp_path / "out").write_bytes(b"old")
    monkeypatch.setattr(_tools, "PIECE", 1)
    with open_checkpoint(tmp_path / "in") as checkpoint, pytest.raises(CheckpointError, match=r"l17\.W has a value"):
        fold_file(checkpoint, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"in", "out"}


def test_folds_onto_one_output_at_the_same_time_leave_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tools, "PIECE", 1)
    names, shapes = ("a", "b", "c", "d"), {"W": (64, 32, 9), "D": (32, 9, 9)}
    for name in names:
        tensors = {f"{i}.{leaf}": generator.floats(f"{name}/{i}/{leaf}", shape).astype(np.float32)
                   for i in range(4) for leaf, shape in shapes.items()}  # fmt: skip
        save_file(tensors, tmp_path / name)

    def fold_to(name: str, target: Path) -> None:
        with open_checkpoint(tmp_path / name) as checkpoint:
            fold_file(checkpoint, target)

    for name in names:
        fold_to(name, tmp_path / f"{name}.folded")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fold_to, names * 6, [tmp_path / "one"] * 24))
    folded = {(tmp_path / f"{name}.folded").read_bytes() for name in names}
    assert len(folded) == len(names)
    assert (tmp_path / "one").read_bytes() in folded
    assert len(list(tmp_path.iterdir())) == 2 * len(names) + 1


@pytest.mark.parametrize("path", GEOMETRIES)
def test_tensors_in_memory_fold_to_the_same(path: str) -> None:
    geometry, tensors = GEOMETRIES[path], integers(path, GEOMETRIES[path])
    W, D = tensors[f"{path}.W"], tensors[f"{path}.D"]
    folded = fold_tensors(W, D, geometry.kernel_size, transposed=geometry.transposed)
    np.testing.assert_array_equal(folded, definition(W, D, geometry))


def test_tensors_that_do_not_belong_together_are_refused() -> None:
    W, D = np.zeros((4, 2, 9), np.float32), np.zeros((2, 9, 9), np.float32)
    with pytest.raises(ValueError, match=r"W must have three axes. Received: W of shape .4, 2, 3, 3."):
        fold_tensors(W.reshape(4, 2, 3, 3), D, (3, 3))
    with pytest.raises(ValueError, match=r"D_delta must have shape .2, 6, 9."):
        fold_tensors(W, D, (3, 2))
    np.testing.assert_array_equal(fold_tensors(W[..., :1], None, (1, 1), groups=2), W[..., :1, None])


def test_a_bias_tells_a_transposed_layer_from_a_plain_one() -> None:
    tensors = shaped(W=(6, 2, 4), D=(6, 4, 4), bias=(4,)) | {"p.weight": np.zeros((6, 2, 2, 2)), "p.bias": np.zeros(4)}
    layers = Checkpoint(Arrays("x", tensors), "x").layers
    assert [(layers[p].conv.transposed, layers[p].conv.groups, layers[p].guessed) for p in "ap"] == [(True, 2, ())] * 2
    tensors = {"odd.weight": np.zeros((6, 2, 2, 2)), "odd.bias": np.zeros((1, 6))}
    assert not Checkpoint(Arrays("x", tensors), "x").layers


def test_a_layer_of_its_own_has_no_path() -> None:
    tensors = {name.removeprefix("conv."): array for name, array in integers("conv", GEOMETRIES["conv"]).items()}
    checkpoint = Checkpoint(Arrays("layer", tensors), "layer")
    assert list(checkpoint.layers) == [""]
    np.testing.assert_array_equal(checkpoint.fold(""), definition(tensors["W"], tensors["D"], GEOMETRIES["conv"]))


def test_what_is_assumed_is_said() -> None:
    square = {"a.W": np.zeros((4, 2, 9), np.float32), "a.D": np.zeros((2, 9, 9), np.float32)}
    assert Checkpoint(Arrays("x", square), "x").notes == ["kernel size 3x3 assumed for 9 taps: a"]
    assert Checkpoint(Arrays("x", square), "x", hints=Hints({"*": (9,)})).layers["a"].conv.kernel_size == (9,)
    like = Hints(like={"a.weight": (4, 2, 1, 9)})
    assert Checkpoint(Arrays("x", square), "x", hints=like).layers["a"].conv.kernel_size == (1, 9)
    assert not Checkpoint(Arrays("x", square), "x", hints=like).notes
    both = {"a.W": np.zeros((2, 2, 9), np.float32), "a.D": np.zeros((2, 9, 9), np.float32)}
    notes = Checkpoint(Arrays("x", both), "x", hints=Hints({"a": (3, 3)})).notes
    assert notes == ["taken not to be transposed convolutions, which the shapes cannot show: a"]
    assert Checkpoint(Arrays("x", both), "x", hints=Hints({"a": (3, 3)}, transposed=("a",))).layers["a"].conv.transposed


def shaped(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {f"a.{name}": np.zeros(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("tensors", "hints", "text"),
    [
        (shaped(W=(4, 2, 9)), Hints(), r"a\.W has no a\.D beside it. Received: .*W of shape \(4, 2, 9\)"),
        (shaped(D=(2, 9, 9)), Hints(), r"a\.D has no a\.W of three axes beside it"),
        (
            shaped(W=(4, 2, 8), D=(2, 9, 9)),
            Hints(),
            r"a\.W and a\.D do not belong together. Received: .*W of shape \(4, 2, 8\)",
        ),
        (shaped(W=(4, 3, 9), D=(2, 9, 9)), Hints(), r"a\.W and a\.D do not belong together"),
        (shaped(W=(4, 3, 9), D=(6, 9, 9)), Hints(transposed=("a",)), r"a\.W and a\.D do not belong together"),
        (shaped(W=(4, 2, 4), D=(2, 9, 4)), Hints(), r"a\.W: d_mul must be at least 9"),
        (
            shaped(W=(4, 2, 6), D=(2, 6, 6)),
            Hints(),
            r"the kernel size of a is not in the file and 6 taps are no square",
        ),
        (shaped(W=(4, 2, 9), D=(2, 9, 9)), Hints({"a": (3, 2)}), r"a has kernels of 9 taps. Received: a=3x2"),
        (
            shaped(W=(4, 2, 9), D=(2, 9, 9)),
            Hints(like={"a.weight": (4, 2, 3, 2)}),
            r"not that of the plain model. Received: a\.weight of shape \(4, 2, 3, 2\)",
        ),
        (
            shaped(W=(4, 2, 9), D=(2, 9, 9), weight=(4, 2, 3, 3)),
            Hints(),
            r"a would be written as a\.weight, a name that is taken",
        ),
    ],
)
def test_broken_layers_are_refused_by_name(
    tensors: Mapping[str, np.ndarray], hints: Hints, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.safetensors"
    save_file(dict(tensors), path)
    (tmp_path / "out").write_bytes(b"old")

    def fold() -> None:
        with open_checkpoint(path, hints=hints) as checkpoint:
            fold_file(checkpoint, tmp_path / "out")

    with pytest.raises(CheckpointError, match=text) as caught:
        fold()
    assert str(path) in str(caught.value)
    assert (tmp_path / "out").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("W", np.nan, r"a\.W has a value that is not finite.* Received: nan"),
        ("W", np.inf, r"a\.W has a value that is not finite.* Received: inf"),
        ("D", np.nan, r"a\.D has a value that is not finite"),
        ("W", 3e38, r"a folds to values beyond its type"),
    ],
)
def test_values_that_folding_would_spread_are_refused(name: str, value: float, text: str, tmp_path: Path) -> None:
    tensors = shaped(W=(4, 2, 9), D=(2, 9, 9))
    tensors["a.D"] += 1
    tensors[f"a.{name}"][1, 1, 1] = value
    save_file(tensors, tmp_path / "in")
    with open_checkpoint(tmp_path / "in") as checkpoint, pytest.raises(CheckpointError, match=text) as caught:
        fold_file(checkpoint, tmp_path / "out")
    assert str(tmp_path / "in") in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_two_types_in_one_layer_are_refused(tmp_path: Path) -> None:
    tensors = shaped(W=(4, 2, 9)) | {"a.D": np.zeros((2, 9, 9), np.float64)}
    save_file(tensors, tmp_path / "in")
    with (
        open_checkpoint(tmp_path / "in") as checkpoint,
        pytest.raises(CheckpointError, match=r"the same dtype. Received: float32"),
    ):
        fold_file(checkpoint, tmp_path / "out")
