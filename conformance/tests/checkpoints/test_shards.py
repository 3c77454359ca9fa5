"""Checkpoints in several files with an index: read, folded, converted and written file by file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import generator
from doconv_core import ConvGeometry, compose
from doconv_core.checkpoint import CheckpointError, Hints, convert_file, fold_file, open_checkpoint

CONV = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3))
INDEX = "model.safetensors.index.json"
FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def tensors() -> dict[str, np.ndarray]:
    made = {"fc.weight": np.ones((3, 2), np.float32), "step": np.array(7)}
    for path in ("first", "split", "last"):
        made[f"{path}.W"] = generator.floats(f"shards/{path}/W", CONV.w_shape).astype(np.float32)
        made[f"{path}.D"] = generator.floats(f"shards/{path}/D", CONV.d_shape).astype(np.float32)
    return made


SECOND = ("last.W", "last.D", "split.D", "step")  # a layer may have its parts in two files


def write(folder: Path, changes: Mapping[str, object] | None = None, **index: object) -> Path:
    folder.mkdir(exist_ok=True)
    made = tensors()
    weight_map: dict[str, object] = {name: FILES[name in SECOND] for name in made}
    for number, file in enumerate(FILES):
        shard = {name: array for name, array in made.items() if (name in SECOND) == bool(number)}
        save_file(shard, folder / file, metadata={"format": "pt"})
    values = {
        "metadata": {"total_size": 1, "total_parameters": 1},
        "weight_map": weight_map | dict(changes or {}),
    } | index
    (folder / INDEX).write_text(json.dumps(values))
    return folder / INDEX


def read(index: Path) -> tuple[dict[str, np.ndarray], dict]:
    values = json.loads(index.read_text())
    found: dict[str, np.ndarray] = {}
    for shard in set(values["weight_map"].values()):
        there = load_file(index.parent / shard)
        assert there.keys() == {name for name, file in values["weight_map"].items() if file == shard}
        found |= there
    return found, values


def test_an_index_folds_to_an_index(tmp_path: Path) -> None:
    with open_checkpoint(write(tmp_path / "in")) as checkpoint:
        done = fold_file(checkpoint, tmp_path / f"folded{INDEX.removeprefix('model')}")
    assert done.folded == ("first", "split", "last")
    folded, values = read(tmp_path / "folded.safetensors.index.json")
    given = tensors()
    for path in done.folded:
        np.testing.assert_array_equal(
            folded.pop(f"{path}.weight"), compose(given[f"{path}.W"], given[f"{path}.D"], CONV)
        )
    assert folded.keys() == {"fc.weight", "step"}
    number = {name: file[-len("1-of-00002.safetensors")] for name, file in values["weight_map"].items()}
    assert number == {"fc.weight": "1", "first.weight": "1", "split.weight": "1", "last.weight": "2", "step": "2"}
    count = 3 * 6 * 4 * 9
    assert values["metadata"] == {"total_size": 4 * (count + 6) + 8, "total_parameters": count + 7}


def test_no_file_has_its_name_before_all_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shards, then the index: after a power cut there is the old index with old shards, or the new one with new ones."""
    synced, replaced = list[int](), list[str]()
    fsync, replace = os.fsync, os.replace

    def noting_fsync(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        fsync(file)

    def noting_replace(source: Path, target: Path) -> None:
        assert source.stat().st_ino in synced
        assert replaced or len(set(synced)) == len(FILES)
        replaced.append(target.name)
        replace(source, target)

    monkeypatch.setattr("os.fsync", noting_fsync)
    monkeypatch.setattr("os.replace", noting_replace)
    with open_checkpoint(write(tmp_path / "in")) as checkpoint:
        fold_file(checkpoint, tmp_path / f"folded{INDEX.removeprefix('model')}")
    assert replaced == [file.replace("model", "folded") for file in (*FILES, INDEX)]


def test_an_index_folds_to_one_file(tmp_path: Path) -> None:
    with open_checkpoint(write(tmp_path / "in")) as checkpoint:
        fold_file(checkpoint, tmp_path / "one.safetensors")
    given, folded = tensors(), load_file(tmp_path / "one.safetensors")
    np.testing.assert_array_equal(folded["split.weight"], compose(given["split.W"], given["split.D"], CONV))


@pytest.mark.parametrize("layout", ["canonical", "torch", "keras", "flax"])
def test_an_index_converts_there_and_back(layout: str, tmp_path: Path) -> None:
    with open_checkpoint(write(tmp_path / "in")) as checkpoint:
        convert_file(checkpoint, tmp_path / "there.safetensors.index.json", layout)
    with open_checkpoint(tmp_path / "there.safetensors.index.json") as checkpoint:
        assert checkpoint.layout == layout
        convert_file(checkpoint, tmp_path / "back.safetensors.index.json", "torch")
    back, _ = read(tmp_path / "back.safetensors.index.json")
    for name, array in tensors().items():
        np.testing.assert_array_equal(back[name], array)


def test_the_plain_models_index_gives_the_kernel_sizes(tmp_path: Path) -> None:
    with open_checkpoint(write(tmp_path / "in")) as checkpoint:
        fold_file(checkpoint, tmp_path / "plain.safetensors.index.json")
    with open_checkpoint(tmp_path / "plain.safetensors.index.json") as plain:
        like = Hints(like=plain.source.shapes)
    with open_checkpoint(write(tmp_path / "in"), hints=like) as checkpoint:
        assert not checkpoint.notes


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"first.W": "../elsewhere.safetensors"},
            r"first\.W must be in a file beside the index. Received: '\.\./elsewhere",
        ),
        ({"first.W": "/etc/passwd"}, "must be in a file beside the index"),
        ({"first.W": 5}, "must be in a file beside the index. Received: 5"),
        ({"first.W": "model-00003-of-00003.safetensors"}, "the file of first.W is missing"),
        ({"first.W": FILES[1]}, "do not agree on its tensors. Received: first.W"),
        ({"new": FILES[1]}, "do not agree on its tensors. Received: new"),
    ],
)
def test_an_index_that_lies_is_refused(changes: dict, error: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=error):
        open_checkpoint(write(tmp_path, changes))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is not an index of safetensors files: JSONDecodeError"),
        ("[]", "is not an index"),
        ("{}", "is not an index of safetensors files: KeyError: 'weight_map'"),
        ('{"weight_map": []}', "is not an index"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "a key occurs twice. Received: 'a'"),
        ("[" * 100_000, "is not an index"),
    ],
)
def test_what_is_no_index_is_refused(text: str, error: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=error):
        open_checkpoint(tmp_path / INDEX)


def test_one_of_several_files_says_where_the_rest_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"split\.W has no split\.D .*one of several files: open their index"):
        open_checkpoint(write(tmp_path).with_name(FILES[0]))


def test_one_file_folds_to_no_index(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "in")
    with (
        open_checkpoint(tmp_path / "in") as checkpoint,
        pytest.raises(CheckpointError, match="is one file, so is the output"),
    ):
        fold_file(checkpoint, tmp_path / INDEX)


def test_a_failure_publishes_no_file(tmp_path: Path) -> None:
    write(tmp_path / "in")
    broken = tensors()
    broken["last.W"][0, 0, 0] = np.nan
    save_file({name: broken[name] for name in SECOND}, tmp_path / "in" / FILES[1], metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILES[0]).write_bytes(b"old")
    with (
        open_checkpoint(tmp_path / "in" / INDEX) as checkpoint,
        pytest.raises(CheckpointError, match="has a value that is not finite"),
    ):
        fold_file(checkpoint, tmp_path / "out" / INDEX)
    assert [(entry.name, entry.read_bytes()) for entry in (tmp_path / "out").iterdir()] == [(FILES[0], b"old")]
