"""Layouts: every one to every other and back without a change, what the metadata says, and metadata that lies."""

import json
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import generator
from doconv_core import ConvGeometry, Layout
from doconv_core.checkpoint import CheckpointError, convert_file, fold_file, open_checkpoint

GEOMETRIES = {
    "conv": ConvGeometry(in_channels=3, out_channels=8, kernel_size=(3, 3)),
    "stem.grouped": ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2, d_mul=8),
    "up": ConvGeometry(in_channels=6, out_channels=4, kernel_size=(2, 3), transposed=True, d_mul=13),
}
LAYOUTS = ("canonical", "torch", "keras", "flax")


def portable(path: Path, **changes: object) -> dict[str, np.ndarray]:
    """A portable file written by hand, as another program would."""
    layers: dict[str, dict] = {}
    tensors: dict[str, np.ndarray] = {}
    for name, geometry in GEOMETRIES.items():
        options = ("in_channels", "out_channels", "kernel_size", "groups", "transposed", "d_mul")
        layers[name] = {"kind": "conv", "geometry": {key: geometry.to_json()[key] for key in options}}
        tensors[f"{name}.W"] = generator.floats(f"convert/{name}/W", geometry.w_shape).astype(np.float32)
        tensors[f"{name}.D_delta"] = generator.floats(f"convert/{name}/D", geometry.d_shape).astype(np.float32)
    layers["bn"] = {"kind": "batch_norm", "epsilon": 0.001}
    tensors |= {
        f"bn.{role}": np.arange(4, dtype=np.float32) for role in ("weight", "bias", "running_mean", "running_var")
    }
    layers["fc"] = {"kind": "linear"}
    tensors |= {
        "fc.weight": generator.floats("convert/fc", (5, 4)).astype(np.float32),
        "fc.bias": np.ones(5, np.float32),
    }
    layers["words"] = {"kind": "embedding"}
    tensors["words.weight"] = generator.floats("convert/words", (7, 3)).astype(np.float32)
    tensors["step"] = np.array(12)
    declared = {"version": 1, "layout": "canonical", "layers": layers} | changes
    save_file(tensors, path, metadata={"doconv": json.dumps(declared), "author": "someone"})
    return tensors


@pytest.mark.parametrize(("first", "second"), list(product(LAYOUTS, LAYOUTS)))
def test_there_and_back_changes_nothing(first: str, second: str, tmp_path: Path) -> None:
    tensors = portable(tmp_path / "in")
    for source, target, layout in (("in", "a", first), ("a", "b", second), ("b", "out", "canonical")):
        with open_checkpoint(tmp_path / source) as checkpoint:
            assert not convert_file(checkpoint, tmp_path / target, layout).notes
    back = load_file(tmp_path / "out")
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert checkpoint.source.metadata["author"] == "someone"
        assert checkpoint.layers["bn"].epsilon == 0.001
        assert checkpoint.layers["stem.grouped"].conv == GEOMETRIES["stem.grouped"]


@pytest.mark.parametrize("layout", ["keras", "flax"])
def test_names_and_layouts_are_the_frameworks(layout: str, tmp_path: Path) -> None:
    tensors = portable(tmp_path / "in")
    with open_checkpoint(tmp_path / "in") as checkpoint:
        convert_file(checkpoint, tmp_path / "out", layout)
    made = load_file(tmp_path / "out")
    for path, geometry in GEOMETRIES.items():
        rule = Layout(layout, geometry)
        np.testing.assert_array_equal(made[f"{path}.kernel"], rule.w_from_canonical(tensors[f"{path}.W"]))
        np.testing.assert_array_equal(made[f"{path}.D"], rule.d_from_canonical(tensors[f"{path}.D_delta"]))
    np.testing.assert_array_equal(made["fc.kernel"], tensors["fc.weight"].T)
    names = {"keras": ("gamma", "beta", "moving_mean", "moving_variance"), "flax": ("scale", "bias", "mean", "var")}
    assert {f"bn.{name}" for name in names[layout]} <= made.keys()
    assert {"keras": "words.embeddings", "flax": "words.embedding"}[layout] in made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fold_keeps_the_layout_and_gives_the_same_kernels(layout: str, tmp_path: Path) -> None:
    portable(tmp_path / "in")
    with open_checkpoint(tmp_path / "in") as checkpoint:
        kernels = {path: checkpoint.fold(path) for path in GEOMETRIES}
        convert_file(checkpoint, tmp_path / "there", layout)
    with open_checkpoint(tmp_path / "there") as checkpoint:
        fold_file(checkpoint, tmp_path / "folded")
    with open_checkpoint(tmp_path / "folded") as checkpoint:
        assert checkpoint.layout == layout
        assert not any(info.has_d for info in checkpoint.layers.values())
        for path, kernel in kernels.items():
            np.testing.assert_array_equal(checkpoint.read(path)["weight"], kernel)


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    portable(tmp_path / "in")
    with (
        open_checkpoint(tmp_path / "in") as checkpoint,
        pytest.raises(ValueError, match=r"layout must be .*Received: 'mxnet'"),
    ):
        convert_file(checkpoint, tmp_path / "out", "mxnet")


DIGITS = [
    b"0",
    b"9",
    b"-1",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"null",
    b"true",
    b"1e400",
    b"99999999999999999999",
]
GEOMETRY = {"in_channels": 3, "out_channels": 8, "kernel_size": [3, 3], "d_mul": 9}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 2}, r"has format version 2, later than 1: a newer doconv reads it"),
        ({"version": "1"}, r"unreadable metadata 'doconv': TypeError"),
        ({"layout": "mxnet"}, r"unreadable metadata 'doconv': .*Received: 'mxnet'"),
        ({"layers": {"x": {"kind": "lstm"}}}, r"x is of an unknown kind. Received: 'lstm'"),
        ({"layers": {"x": {"kind": "conv", "geometry": GEOMETRY}}}, r"x\.W is missing"),
        (
            {"layers": {"conv": {"kind": "conv", "geometry": GEOMETRY | {"d_mul": 8}}}},
            r"conv: d_mul must be at least 9",
        ),
        (
            {"layers": {"conv": {"kind": "conv", "geometry": GEOMETRY | {"out_channels": 9}}}},
            r"conv\.W must have shape \(9, 3, 9\). Received: \(8, 3, 9\)",
        ),
        (
            {"layers": {"conv": {"kind": "conv", "geometry": {"strides": 2}}}},
            r"conv: unknown geometry options \['strides'\]",
        ),
        ({"layers": {"bn": {"kind": "linear"}, "fcc": {"kind": "linear"}}}, r"fcc\.weight is missing"),
        ({"layers": [1]}, r"unreadable metadata 'doconv': AttributeError"),
    ],
)
def test_metadata_that_lies_is_refused(changes: dict, text: str, tmp_path: Path) -> None:
    portable(tmp_path / "in", **changes)
    with pytest.raises(CheckpointError, match=text) as caught:
        open_checkpoint(tmp_path / "in")
    assert str(tmp_path / "in") in str(caught.value)


@given(data=st.data())
def test_any_header_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bytes of the header exchanged, put in or left out: either it is a checkpoint or a `CheckpointError`, and nothing else."""
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    portable(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = bytearray(content[8 : 8 + length])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, length - 1))
        header[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from(DIGITS)
        )
    path.write_bytes(len(header).to_bytes(8, "little") + bytes(header) + content[8 + length :])
    with suppress(CheckpointError), open_checkpoint(path) as checkpoint:
        for name in checkpoint.layers:
            checkpoint.read(name)


def test_one_tap_is_plain_whatever_d_mul_says(tmp_path: Path) -> None:
    layers = {"a": {"kind": "conv", "geometry": GEOMETRY | {"kernel_size": [1, 1], "d_mul": 1}}}
    declared = json.dumps({"version": 1, "layout": "canonical", "layers": layers})
    save_file({"a.weight": np.ones((8, 3, 1, 1), np.float32)}, tmp_path / "in", metadata={"doconv": declared})
    with open_checkpoint(tmp_path / "in") as checkpoint:
        assert checkpoint.read("a").keys() == {"weight"}
        assert fold_file(checkpoint, tmp_path / "out").folded == ()


def test_a_missing_d_is_named(tmp_path: Path) -> None:
    tensors = portable(tmp_path / "in")
    with open_checkpoint(tmp_path / "in") as checkpoint:
        metadata = checkpoint.source.metadata
    del tensors["up.D_delta"]
    save_file(tensors, tmp_path / "in", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"in: up\.D_delta is missing. Received: of up only up\.W"):
        open_checkpoint(tmp_path / "in")
