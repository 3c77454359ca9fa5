"""What the backends share to save and load models: name maps, one error for all that does not fit, ties, other tensors."""

import logging
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from doconv_core import ConvGeometry, compose
from doconv_core.checkpoint import (
    CheckpointError,
    Hints,
    LayerInfo,
    ModelLayer,
    ModelState,
    ModelTensor,
    TensorWriter,
    convert_file,
    fold_file,
    load_model,
    open_checkpoint,
    save_model,
)

CONV = ConvGeometry(in_channels=2, out_channels=3, kernel_size=(2, 2))
SIZES = {"in_channels": 2, "out_channels": 3, "kernel_size": [2, 2], "groups": 1, "transposed": False}


class Model(dict[str, dict[str, np.ndarray]]):
    """A model of arrays: tensors by layer and role; `others` are in no layer."""

    def __init__(self, **layers: dict[str, np.ndarray]) -> None:
        super().__init__(layers)
        self.infos: dict[str, LayerInfo] = {}
        self.others: dict[str, np.ndarray] = {}
        self.aliases: dict[str, str] = {}

    def state(self) -> ModelState:
        layers = {
            path: ModelLayer(self.infos.get(path) or self.info(path), lambda path=path: self[path], self[path].update)
            for path in self
        }
        others = {
            name: ModelTensor(lambda name=name: self.others[name], lambda a, name=name: self.others.update({name: a}))
            for name in self.others
        }
        return ModelState(layers, others, self.aliases)

    def info(self, path: str) -> LayerInfo:
        if "W" in self[path]:
            return LayerInfo("conv", {}, SIZES | {"d_mul": self[path]["W"].shape[-1]})
        return LayerInfo("conv", {}, SIZES) if self[path]["weight"].ndim == 4 else LayerInfo("linear", {})


def do_layer(value: float, d_mul: int = 4) -> dict[str, np.ndarray]:
    return {"W": np.full((3, 2, d_mul), value, np.float32), "D_delta": np.full((2, 4, d_mul), value, np.float32)}


def linear(value: float, dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {"weight": np.full((5, 4), value, dtype), "bias": np.full(5, value, dtype)}


MAPS = {
    "a dict": {"block.conv": "stem", "fc": "head"},
    "a function": {"block.conv": "stem", "fc": "head"}.__getitem__,
    "pairs": [(r"block\.(conv)", "stem"), (r"f(c)", "head")],
}


def test_a_type_that_numpy_lacks_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model, path = Model(fc=linear(1)), tmp_path / "file"
    model.others["scale"] = np.zeros(4, np.float32)
    sizes = {"fc.weight": ("F32", (5, 4)), "fc.bias": ("F32", (5,)), "scale": ("F4", (4,))}
    with TensorWriter(path, sizes, {}) as writer:
        for name, content in (("fc.weight", bytes(80)), ("fc.bias", bytes(20)), ("scale", bytes(2))):
            writer.write(name, memoryview(content))
    with pytest.raises(CheckpointError, match=r"scale has a type that NumPy lacks. Received: F4"):
        load_model(path, model.state())
    np.testing.assert_array_equal(model["fc"]["weight"], 1)


@pytest.mark.parametrize("kind", MAPS)
def test_name_maps(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_model(path, Model(**{"block.conv": do_layer(1), "fc": linear(2)}).state(), name_map=MAPS[kind])  # type: ignore[arg-type]
    assert load_file(path).keys() == {"stem.W", "stem.D_delta", "head.weight", "head.bias"}
    there = Model(**{"block.conv": do_layer(0), "fc": linear(0)})
    assert load_model(path, there.state(), name_map=MAPS[kind]) == []  # type: ignore[arg-type]
    assert (there["block.conv"]["W"] == 1).all()
    assert (there["fc"]["bias"] == 2).all()
    with pytest.raises(
        CheckpointError, match=r"missing in the file: block\.conv, fc\n  left over in the file: stem, head"
    ):
        load_model(path, there.state())


def test_name_maps_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    model = Model(a=linear(1), b=linear(2))
    with pytest.raises(ValueError, match=r"layers that the model lacks, whose paths are a, b. Received: 'c'"):
        save_model(tmp_path / "file", model.state(), name_map={"c": "a"})
    with pytest.raises(ValueError, match=r"two layers have the same name in the file. Received: b"):
        save_model(tmp_path / "file", model.state(), name_map={"a": "b"})
    assert not list(tmp_path.iterdir())


BAD_MAPS = {
    "a value that is no name": ({"a": 5}, TypeError, r"must be a dict of strings, .* Received: \('a', 5\)"),
    "a key that is no name": ({0: "a"}, TypeError, r"Received: \(0, 'a'\)"),
    "strings for pairs": (["ab"], TypeError, "Received: 'ab'"),
    "triples": ([("a", "b", "c")], TypeError, "Received: \\('a', 'b', 'c'\\)"),
    "a pair of no strings": ([("a", 1)], TypeError, "Received: \\('a', 1\\)"),
    "a string": ("ab", TypeError, "Received: 'ab'"),
    "a number": (3, TypeError, "Received: 3"),
    "a function of no name": (lambda path: None, TypeError, "name_map must return a string. Received: None for 'a'"),
    "a pattern": ([("x", "y"), ("(", "b")], ValueError, r"no regular expression: missing \).* Received: '\(', 'b'"),
    "a replacement": ([("b", r"\1")], ValueError, r"no regular expression: invalid group reference 1"),
    "a name of a group": ([("b", r"\g<x>")], ValueError, r"no regular expression: unknown group name 'x'"),
}


@pytest.mark.parametrize("case", BAD_MAPS)
def test_name_maps_of_another_form_are_refused_before_any_work(case: str, tmp_path: Path) -> None:
    name_map, kind, error = BAD_MAPS[case]
    with pytest.raises(kind, match=error):
        save_model(tmp_path / "file", Model(a=linear(1)).state(), name_map=name_map)  # type: ignore[arg-type]
    with pytest.raises(kind, match=error):
        load_model(tmp_path / "no file", Model(a=linear(1)).state(), name_map=name_map)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


PREFIXES = {
    "module.": {"block.conv": "module.block.conv", "fc": "module.fc"},
    "net.": {"block.conv": "net.block.conv", "fc": "net.fc"},
    "two": {"block.conv": "module.model.block.conv", "fc": "module.model.fc"},
    "torch.compile": {"block.conv": "_orig_mod.block.conv", "fc": "_orig_mod.fc"},
    "a part compiled": {"block.conv": "block._orig_mod.conv"},
}


@pytest.mark.parametrize("name_map", [None, {"fc": "head"}])
@pytest.mark.parametrize("wrapped", PREFIXES)
def test_what_stands_before_the_names_is_found(wrapped: str, name_map: dict[str, str] | None, tmp_path: Path) -> None:
    names = PREFIXES[wrapped]
    if name_map:
        names = {path: name.removesuffix("fc") + "head" if path == "fc" else name for path, name in names.items()}
        names.setdefault("fc", "head")
    model = Model(**{"block.conv": do_layer(1), "fc": linear(2)})
    save_model(tmp_path / "file", model.state(), name_map=names)
    there = Model(**{"block.conv": do_layer(0), "fc": linear(0)})
    load_model(tmp_path / "file", there.state(), name_map=name_map)
    assert (there["block.conv"]["W"] == 1).all()
    assert (there["fc"]["bias"] == 2).all()


def test_tensors_of_no_layer_have_the_prefix_too(tmp_path: Path) -> None:
    model, there = Model(a=linear(1)), Model(a=linear(0))
    model.others, there.others = {"a.scale": np.ones(2, np.float32)}, {"a.scale": np.zeros(2, np.float32)}
    save_model(tmp_path / "file", model.state(), strict=False, name_map={"a": "net.a"})
    load_model(tmp_path / "file", there.state())
    assert there.others["a.scale"].all()


def test_a_model_below_two_prefixes_is_a_choice(tmp_path: Path) -> None:
    both = Model(**{"student.a": linear(1), "teacher.a": linear(2)})
    save_model(tmp_path / "file", both.state())
    there = Model(a=linear(0))
    with pytest.raises(CheckpointError, match=r"choose one by `name_map`. Received: student\., teacher\."):
        load_model(tmp_path / "file", there.state(), strict=False)
    left = load_model(tmp_path / "file", there.state(), strict=False, name_map=lambda path: f"teacher.{path}")
    assert left == ["left over in the file: student.a"]
    assert (there["a"]["bias"] == 2).all()


def test_one_error_lists_everything_and_changes_nothing(tmp_path: Path) -> None:
    file = Model(
        a=do_layer(1), b=do_layer(1), c=do_layer(1), d=linear(1), e=linear(1), f=linear(1), g=linear(1), old=linear(1)
    )
    file["h"] = {"weight": np.ones((3, 2, 2, 2), np.float32)}
    file.infos["h"] = LayerInfo("conv", {}, SIZES | {"stride": [2, 2]})
    file.infos["f"] = LayerInfo("norm", {}, {"norm": "group", "groups": 2}, epsilon=1e-3)
    save_model(tmp_path / "file", file.state())
    model = Model(a=do_layer(0, 8), c=linear(0), d={"weight": np.zeros((5, 4), np.float32)}, e=linear(0, np.float16))
    model["b"] = {"weight": np.zeros((3, 2, 2, 2), np.float32)}
    model["f"], model["g"], model["new"] = linear(0), do_layer(0), linear(0)
    model.infos["f"] = LayerInfo("norm", {}, {"norm": "group", "groups": 4}, epsilon=1e-5)
    model["h"] = {"weight": np.zeros((3, 2, 2, 2), np.float32)}
    model.infos["h"] = LayerInfo("conv", {}, SIZES | {"stride": (1, 1)})
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "file", model.state())
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'file'} does not fit the model:",
        "  missing in the file: new",
        "  left over in the file: old",
        "  a has W (3, 2, 4) in the file, (3, 2, 8) in the model",
        "  a has D_delta (2, 4, 4) in the file, (2, 4, 8) in the model",
        "  c is a conv layer in the file, a linear layer in the model",
        "  d has no bias in the model",
        "  e has weight float32 in the file, float16 in the model",
        "  e has bias float32 in the file, float16 in the model",
        "  b is over-parameterized in the file, plain in the model: `doconv fold` the file first",
        "  f has groups 2 in the file, 4 in the model",
        "  f has epsilon 0.001 in the file, 1e-05 in the model",
        "  g is a linear layer in the file, a conv layer in the model",
        "  h has stride [2, 2] in the file, (1, 1) in the model",
        "Received: name_map=None",
    ]
    assert not any(array.any() for layer in model.values() for array in layer.values())


def test_a_plain_file_says_when_it_is_to_be_loaded(tmp_path: Path) -> None:
    file = Model(a={"weight": np.ones((3, 2, 2, 2), np.float32)})
    save_model(tmp_path / "file", file.state())
    with pytest.raises(
        CheckpointError, match=r"over-parameterized in the model: load the file before `overparameterize`"
    ):
        load_model(tmp_path / "file", Model(a=do_layer(0)).state())


def test_what_fits_is_loaded_where_that_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_model(tmp_path / "file", Model(a=do_layer(1), old=linear(1)).state())
    model = Model(a=do_layer(0), new=linear(0))
    with caplog.at_level(logging.WARNING, "doconv"):
        problems = load_model(tmp_path / "file", model.state(), strict=False)
    assert problems == ["missing in the file: new", "left over in the file: old"]
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / 'file'}: {text}" for text in problems]
    assert model["a"]["W"].all()
    assert not model["new"]["weight"].any()


def test_a_wider_type_takes_a_narrow_one_exactly(tmp_path: Path) -> None:
    save_model(tmp_path / "file", Model(a=linear(1.5, ml_dtypes.bfloat16)).state())
    model = Model(a=linear(0))
    load_model(tmp_path / "file", model.state())
    assert (model["a"]["weight"].astype(np.float32) == 1.5).all()


def test_shared_layers_are_stored_once_and_found_under_every_name(tmp_path: Path) -> None:
    shared = Model(a=linear(1))
    shared.aliases = {"b": "a"}
    save_model(tmp_path / "file", shared.state())
    assert load_file(tmp_path / "file").keys() == {"a.weight", "a.bias"}
    apart = Model(a=linear(0), b=linear(0))
    load_model(tmp_path / "file", apart.state())
    assert apart["a"]["weight"].all()
    assert apart["b"]["weight"].all()
    load_model(tmp_path / "file", shared.state())


def test_tensors_of_no_layer_are_refused_or_stay_with_their_framework(tmp_path: Path) -> None:
    model = Model(a=linear(1))
    model.others = {"attention.in_proj": np.ones(3, np.float32)}
    with pytest.raises(
        ValueError, match=r"strict=False stores them for this framework alone. Received: attention\.in_proj"
    ):
        save_model(tmp_path / "file", model.state())
    save_model(tmp_path / "file", model.state(), strict=False)
    again = Model(a=linear(0))
    again.others = {"attention.in_proj": np.zeros(3, np.float32)}
    load_model(tmp_path / "file", again.state())
    assert again.others["attention.in_proj"].all()
    with pytest.raises(CheckpointError, match=r"left over in the file: attention\.in_proj"):
        load_model(tmp_path / "file", Model(a=linear(0)).state())
    again.others = {"attention.in_proj": np.zeros(4, np.float32)}
    with pytest.raises(CheckpointError, match=r"attention\.in_proj has shape \(3,\) in the file, \(4,\) in the model"):
        load_model(tmp_path / "file", again.state())


def test_the_authors_layers_fold_into_plain_ones(tmp_path: Path) -> None:
    W, D = do_layer(0.5)["W"], do_layer(0.5)["D_delta"]
    save_file({"a.W": W, "a.D": D, "b.W": W, "b.D": D}, tmp_path / "file")
    model = Model(a=do_layer(0), b={"weight": np.zeros((3, 2, 2, 2), np.float32)})
    hints = Hints({"*": (2, 2)})
    load_model(tmp_path / "file", model.state(), dialect="original-torch", hints=hints, fold=True)
    np.testing.assert_array_equal(model["a"]["W"], W)
    np.testing.assert_array_equal(model["b"]["weight"], compose(W, D, CONV))


def test_further_metadata_is_kept(tmp_path: Path) -> None:
    save_model(tmp_path / "file", Model(a=linear(1)).state(), metadata={"epoch": "3"})
    from doconv_core.checkpoint import open_checkpoint

    with open_checkpoint(tmp_path / "file") as checkpoint:
        assert checkpoint.source.metadata["epoch"] == "3"


@pytest.mark.parametrize(
    ("metadata", "error"),
    [({"epoch": 5}, r"must be strings. Received: 'epoch': 5"), ({"doconv": "x"}, r"keeps a key .* Received: 'doconv'")],
)
def test_metadata_that_would_spoil_the_file_are_refused(metadata: dict, error: str, tmp_path: Path) -> None:
    save_model(tmp_path / "best", Model(a=linear(1)).state())
    with pytest.raises((TypeError, ValueError), match=error):
        save_model(tmp_path / "best", Model(a=linear(2)).state(), metadata=metadata)
    assert (load_file(tmp_path / "best")["a.weight"] == 1).all()


def test_a_name_of_another_format_is_refused_and_what_has_it_stays(tmp_path: Path) -> None:
    (tmp_path / "model.PTH").write_bytes(b"PyTorch's")
    with pytest.raises(ValueError, match=r"must not end in another format's suffix. Received: model\.PTH"):
        save_model(tmp_path / "model.PTH", Model(a=linear(1)).state())
    save_model(tmp_path / "a", Model(a=linear(1)).state())
    with open_checkpoint(tmp_path / "a") as checkpoint:
        for write in (fold_file, partial(convert_file, layout="torch")):
            with pytest.raises(ValueError, match="must not end in another format's suffix"):
                write(checkpoint, tmp_path / "model.PTH")
    assert (tmp_path / "model.PTH").read_bytes() == b"PyTorch's"


@pytest.mark.parametrize("name_map", [{"b": "a"}, [("b", "a")], lambda path: "a"])
def test_a_tensor_of_no_layer_takes_no_name_of_a_layer(name_map: object, tmp_path: Path) -> None:
    model = Model(a=linear(1))
    model.others = {"b.weight": np.ones(3, np.float32)}
    with pytest.raises(
        ValueError, match=r"two tensors have the same name in the file. Received: b\.weight as a\.weight"
    ):
        save_model(tmp_path / "file", model.state(), strict=False, name_map=name_map)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_alias_takes_no_name_of_a_layer(tmp_path: Path) -> None:
    model = Model(a=linear(1), b=linear(2))
    model.aliases = {"c": "a"}
    with pytest.raises(ValueError, match=r"two layers have the same name in the file. Received: b"):
        save_model(tmp_path / "file", model.state(), name_map=[("c", "b")])
