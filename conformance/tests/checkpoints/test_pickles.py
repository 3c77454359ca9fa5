"""PyTorch's `.pth` in the commands: what is found below which keys, and what is refused in one line."""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save, save_file
from typer.testing import CliRunner

from doconv_conformance.cli import app
from doconv_conformance.cli.pickles import load_pickle
from doconv_core.checkpoint import CheckpointError, find_state, open_checkpoint
from doconv_torch import fold, overparameterize

W, D = torch.rand(4, 2, 9), torch.rand(2, 9, 9)
STATE = {"conv.W": W, "conv.D": D}
AVERAGE = {"conv.W": 2 * W, "conv.D": D}


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout + result.stderr


def folded(value: Any, folder: Path, *options: str) -> tuple[np.ndarray, str]:
    torch.save(value, folder / "model.pth")
    status, text = run("fold", folder / "model.pth", folder / "out.safetensors", *options)
    assert status == 0, text
    return load_file(folder / "out.safetensors")["conv.weight"], text


def kernel(W: torch.Tensor) -> np.ndarray:
    E = torch.eye(9, dtype=torch.float64)
    return torch.einsum("iks,ois->oik", E + D.double(), W.double()).float().reshape(4, 2, 3, 3).numpy()


PLACES = {
    "at the top": (STATE, (), ""),
    "state_dict": ({"epoch": 3, "state_dict": STATE}, (), "the weights are those of state_dict"),
    "model": ({"model": STATE, "optimizer": {"state": {}}}, (), "those of model"),
    "deep": ({"model": {"state_dict": {"net": STATE}}}, (), "those of model.state_dict.net"),
    "wrapped": ({"state_dict": {f"module.{name}": tensor for name, tensor in STATE.items()}}, (), "prefix 'module.'"),
    "Lightning": (
        {"state_dict": {f"net.{name}": tensor for name, tensor in STATE.items()}, "callbacks": {}},
        ("--prefix", "net."),
        "names are without the prefix 'net.'",
    ),
    "a key": ({"ckpt": {"weights": STATE}, "model": {"x": W}}, ("--key", "ckpt.weights"), "those of ckpt.weights"),
    "a key that is a number": ({0: STATE, 1: AVERAGE}, ("--key", "0"), "those of 0"),
    "a key with dots": ({"a.b": STATE}, ("--key", "a.b"), "those of a.b"),
    "beside an average": (
        {"params": STATE, "params_ema": AVERAGE},
        (),
        "params is taken; params_ema stands beside it, which --ema takes",
    ),
    "beside an average without names": (
        {"model": STATE, "ema": {"decay": 0.9, "shadow_params": [W, D]}},
        (),
        "the average in ema has no names: the library that wrote it copies it into the model",
    ),
    "Lightning's live weights beside their average": (
        {"state_dict": AVERAGE, "current_model_state": STATE, "averaging_state": {"n_averaged": torch.tensor(3)}},
        ("--key", "current_model_state"),
        "those of current_model_state",
    ),
    "with counters": (
        {"state_dict": STATE | {"version": 3, "name": "x"}},
        (),
        "no tensors, and left out: version, name",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_weights_are_found_and_what_was_chosen_is_said(place: str, tmp_path: Path) -> None:
    value, options, said = PLACES[place]
    found, text = folded(value, tmp_path, *options)
    np.testing.assert_array_equal(found, kernel(W))
    assert said in text


@pytest.mark.parametrize(
    "value",
    [
        {"params": STATE, "params_ema": AVERAGE},
        {"state_dict": STATE, "state_dict_ema": AVERAGE},
        {"model": {"state_dict": STATE}, "ema": {"module": AVERAGE}},
        {"ema": AVERAGE},
        {"state_dict": AVERAGE, "current_model_state": STATE, "callbacks": {"EMA": {}}},
    ],
)
def test_the_average_is_taken_where_it_is_asked_for(value: Any, tmp_path: Path) -> None:
    found, text = folded(value, tmp_path, "--ema")
    np.testing.assert_array_equal(found, kernel(2 * W))
    assert "ema" in text or "Lightning's average of the weights" in text


def test_the_average_that_lightning_stores_in_place_of_the_weights_is_said_without_asking(tmp_path: Path) -> None:
    found, text = folded({"state_dict": AVERAGE, "current_model_state": STATE}, tmp_path)
    np.testing.assert_array_equal(found, kernel(2 * W))
    assert "state_dict is Lightning's average of the weights; the weights themselves are in current_model_state" in text


@pytest.mark.parametrize("prefix", ["ema.", "model_ema.", "ema_model."])
def test_the_average_below_a_prefix(prefix: str, tmp_path: Path) -> None:
    state = STATE | {prefix + name: tensor for name, tensor in AVERAGE.items()}
    save_file({name: tensor.numpy() for name, tensor in state.items()}, tmp_path / "in.safetensors")
    status, text = run("fold", tmp_path / "in.safetensors", tmp_path / "out.safetensors", "--ema")
    assert status == 0, text
    out = load_file(tmp_path / "out.safetensors")
    assert out.keys() == {"conv.weight"}
    np.testing.assert_array_equal(out["conv.weight"], kernel(2 * W))


STYLES = {
    "mmengine": lambda name: f"ema_{name.replace('.', '_')}",
    "LitEma": lambda name: f"model_ema.{name.replace('.', '')}",
}


@pytest.mark.parametrize("file", ["in.safetensors", "in.pth"])
@pytest.mark.parametrize("style", STYLES)
def test_the_average_whose_names_lost_their_dots(style: str, file: str, tmp_path: Path) -> None:
    model = {f"net.{name}": tensor for name, tensor in STATE.items()} | {"net.bn.running_mean": torch.ones(4)}
    state = model | {STYLES[style](f"net.{name}"): tensor for name, tensor in AVERAGE.items()}
    state |= {"model_ema.decay": torch.tensor(0.9)} if style == "LitEma" else {}
    if file == "in.pth":
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / file)
    else:
        save_file({name: tensor.numpy() for name, tensor in state.items()}, tmp_path / file)
    status, text = run("fold", tmp_path / file, tmp_path / "out.safetensors", "--ema")
    assert status == 0, text
    out = load_file(tmp_path / "out.safetensors")
    assert out.keys() == {"net.conv.weight", "net.bn.running_mean"}
    np.testing.assert_array_equal(out["net.conv.weight"], kernel(2 * W))
    assert "averages are taken, whose names lost their dots: " in text
    assert STYLES[style]("net.conv.W") in text
    assert "no average, and taken from the model: net.bn.running_mean" in text


def test_an_average_that_may_be_of_two_tensors_is_refused(tmp_path: Path) -> None:
    state = {name: np.ones(3, np.float32) for name in ("a.b_c", "a_b.c", "ema_a_b_c")}
    save_file(state, tmp_path / "in.safetensors")
    status, text = run("fold", tmp_path / "in.safetensors", tmp_path / "out.safetensors", "--ema")
    assert status == 1
    assert "names of averages say nothing certain. Received: ema_a_b_c, a" in text


def loops() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    return loop


REFUSED = {
    "nothing": ({}, "holds no state dict. Received: nothing"),
    "a list": ([W], "holds no state dict. Received: list"),
    "a tensor": (W, "holds no state dict. Received: Tensor"),
    "no tensors": ({"epoch": 3}, "holds no state dict. Received: epoch"),
    "itself": (loops(), "holds no state dict. Received: model"),
    "two models": (
        {"student": STATE, "teacher": AVERAGE, "optimizer": {"state": {}}},
        "holds no state dict under a usual name: choose one by its key, student, teacher. Received: student,",
    ),
    "a quantized layer": (STATE | {"fc._packed_params": (W, None)}, "fold before quantizing. Received: tuple"),
    "a part of DeepSpeed ZeRO-3": (
        {"module": {"conv.W": torch.empty(0), "conv.D": torch.empty(0)}, "ds_version": "0.15"},
        "conv.W and conv.D have lost their axes, as in one rank's part of a sharded run",
    ),
    "a part of FSDP": ({"conv.W": W.flatten()[:5], "conv.D": D.flatten()[:3]}, "gather the whole state dict"),
    "sparse": ({"conv.W": W.to_sparse(), "conv.D": D}, "conv.W must be a dense tensor. Received: torch.sparse_coo"),
    "meta": ({"conv.W": W.to("meta"), "conv.D": D}, "conv.W must be a dense tensor"),
    "complex128": (STATE | {"x": torch.zeros(3, dtype=torch.complex128)}, "x has a type that the format lacks"),
    "repeated": (STATE | {"x": torch.zeros(1).expand(10**9)}, "x is a few values repeated"),
    "twice the same": (STATE | {"x": torch.zeros(2**20).expand(2, 2**20)}, "x is a few values repeated"),
    "names of integers": ({1: W, 2: D}, "names must be strings. Received: 1"),
    "names of bytes": ({b"conv.W": W}, "names must be strings. Received: b'conv.W'"),
    "integers": ({"conv.W": W.int(), "conv.D": D.int()}, "must be bfloat16, float16, float32 or float64"),
    "two axes": ({"conv.W": W[0], "conv.D": D}, "conv.D has no conv.W of three axes beside it"),
    "not finite": ({"conv.W": W * float("nan"), "conv.D": D}, "conv.W has a value that is not finite"),
    "another object": ({"state_dict": STATE, "args": Path("x")}, "holds objects"),
}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # PyTorch's, about types and layouts that are not finished
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_folded_is_one_line(case: str, tmp_path: Path) -> None:
    value, error = REFUSED[case]
    torch.save(value, tmp_path / "model.pth")
    status, text = run("fold", tmp_path / "model.pth", tmp_path / "out.safetensors")
    assert status == 1
    assert text.startswith("doconv fold: ")
    assert text.count("\n") == 1
    assert error in text
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--key", "nothing"), "has no key nothing. Received: model"),
        (("--key", "model.nothing"), "has no key model.nothing. Received: conv.W, conv.D"),
        (("--ema",), "has no average of the weights beside them"),
    ],
)
def test_keys_that_are_not_there(options: tuple[str, ...], error: str, tmp_path: Path) -> None:
    torch.save({"model": STATE}, tmp_path / "model.pth")
    status, text = run("fold", tmp_path / "model.pth", tmp_path / "out.safetensors", *options)
    assert (status, text.count("\n")) == (1, 1)
    assert error in text


def test_an_average_without_names_is_named_where_it_is_asked_for(tmp_path: Path) -> None:
    torch.save({"model": STATE, "ema": {"shadow_params": [W, D]}}, tmp_path / "model.pth")
    status, text = run("fold", tmp_path / "model.pth", tmp_path / "out.safetensors", "--ema")
    assert (status, text.count("\n")) == (1, 1)
    assert "the average in ema has no names" in text


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04" + bytes(100)])
def test_a_broken_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    status, text = run("inspect", tmp_path / "model.pth")
    assert (status, text.count("\n")) == (1, 1)
    assert "it is broken, or holds objects that are not loaded" in text


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (torch.bfloat16, ml_dtypes.bfloat16),
        (torch.float8_e4m3fn, ml_dtypes.float8_e4m3fn),
        (torch.float8_e5m2, ml_dtypes.float8_e5m2),
        (torch.float16, np.float16),
        (torch.uint16, np.uint16),
        (torch.bool, np.bool_),
        (torch.int64, np.int64),
    ],
)
def test_types_pass_value_for_value(dtype: torch.dtype, wanted: type, tmp_path: Path) -> None:
    tensor = torch.tensor([0, 1, 1, 0, 1]).to(dtype)
    torch.save(STATE | {"x": tensor, "view": tensor[::2], "scalar": tensor[1]}, tmp_path / "model.pth")
    arrays, _ = load_pickle(tmp_path / "model.pth")
    assert arrays.array("x").dtype == wanted
    assert arrays.array("x").astype(np.float32).tolist() == [0, 1, 1, 0, 1]
    assert arrays.array("view").astype(np.float32).tolist() == [0, 1, 1]
    assert arrays.array("scalar").shape == ()


def test_dicts_without_an_end_are_left(tmp_path: Path) -> None:
    deep: Any = STATE
    for _ in range(100):
        deep = {"model": deep}
    with pytest.raises(CheckpointError, match="holds no state dict"):
        find_state(deep, "x", lambda value: isinstance(value, torch.Tensor))


def test_a_plain_model_of_pytorch_gives_the_kernel_sizes(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv.weight": torch.zeros(4, 2, 1, 9)}}, tmp_path / "plain.pth")
    torch.save(STATE, tmp_path / "model.pth")
    status, text = run("fold", tmp_path / "model.pth", tmp_path / "out", "--like", tmp_path / "plain.pth")
    assert status == 0, text
    assert load_file(tmp_path / "out")["conv.weight"].shape == (4, 2, 1, 9)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_options_of_a_training_script_beside_the_weights(zipped: bool, tmp_path: Path) -> None:
    options = argparse.Namespace(lr=0.1, data="/data", milestones=[30, 60])
    saved = {"epoch": 3, "state_dict": STATE, "args": options}
    torch.save(saved, tmp_path / "last.pth.tar", _use_new_zipfile_serialization=zipped)
    status, text = run("fold", tmp_path / "last.pth.tar", tmp_path / "out.safetensors")
    assert status == 0, text
    np.testing.assert_array_equal(load_file(tmp_path / "out.safetensors")["conv.weight"], kernel(W))
    with pytest.raises(Exception, match=r"argparse\.Namespace"):  # PyTorch's own setting is as it was
        torch.load(tmp_path / "last.pth.tar", weights_only=True)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"<!doctype html>", "a web page"),
        (gzip.compress(b"x" * 99), "compressed by gzip"),
        (save({"a": np.ones(3)}), "a safetensors file, which needs a name that ends in .safetensors"),
    ],
)
def test_what_a_download_left_is_named(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    status, text = run("inspect", tmp_path / "model.pth")
    assert (status, text.count("\n")) == (1, 1)
    assert f"it is {kind}" in text


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Hugging Face's files of PyTorch: a layer's `W` in one, its `D` in the other."""
    files = {
        "pytorch_model-00001-of-00002.bin": {"conv.W": W},
        "pytorch_model-00002-of-00002.bin": {"conv.D": D, "n": W[0]},
    }
    for name, state in files.items():
        torch.save(state, tmp_path / name)
    index = {"metadata": {"total_size": 1}, "weight_map": {key: name for name, state in files.items() for key in state}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return tmp_path / "pytorch_model.bin.index.json"


@pytest.mark.parametrize("target", ["out.safetensors", "out.safetensors.index.json"])
def test_an_index_of_pickles_folds_to_one_file_or_to_an_index(target: str, sharded: Path, tmp_path: Path) -> None:
    status, text = run("fold", sharded, tmp_path / target, "--kernel-size", "conv=3x3")
    assert (status, text.splitlines()[0]) == (0, "1 layer folded, 1 tensor passed on"), text
    written = [load_file(path) for path in tmp_path.glob("out*.safetensors")]
    assert len(written) == (1 if target == "out.safetensors" else 2)
    np.testing.assert_array_equal(next(file["conv.weight"] for file in written if "conv.weight" in file), kernel(W))
    assert run("inspect", sharded, "--like", tmp_path / target)[0] == 0


def test_a_part_or_a_wrong_index_of_pickles_is_one_line(sharded: Path, tmp_path: Path) -> None:
    part = tmp_path / "pytorch_model-00001-of-00002.bin"
    for arguments, error in (
        ((part, "out"), "it is one of several files: open their index (*.bin.index.json)"),
        ((sharded, part), "must not end in another format's suffix"),
        ((sharded, "out", "--key", "model"), "--key is for a .pth"),
        ((sharded, "out", "--ema"), "has no average of the weights beside them"),
    ):
        status, text = run("fold", *arguments)
        assert error in text
        assert status != 0
        assert text.count("\n") == 1
    with pytest.raises(CheckpointError, match="lists pickles, which only PyTorch reads"):
        open_checkpoint(sharded)
    sharded.write_text(json.dumps({"weight_map": {"conv.W": "../pytorch_model.bin"}}))
    assert "must be in a file beside the index. Received: '../pytorch_model.bin'" in run("inspect", sharded)[1]


def test_endings_in_capitals_are_the_same(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "MODEL.PTH")
    np.savez(tmp_path / "model.npz", **{name: tensor.numpy() for name, tensor in STATE.items()})
    (tmp_path / "model.npz").rename(tmp_path / "MODEL.NPZ")
    for name in ("MODEL.PTH", "MODEL.NPZ"):
        status, text = run("fold", tmp_path / name, tmp_path / "out", "--kernel-size", "conv=3x3")
        assert text.startswith("1 layer folded, 0 tensors passed on\n"), text
        assert status == 0


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    status, text = run("inspect", tmp_path / "program.pt")
    assert (status, text.count("\n")) == (1, 1)
    assert "it is a TorchScript program" in text


def test_a_saved_model_says_its_kernels(tmp_path: Path) -> None:
    """Lightning's file, a transposed layer that its shapes do not show and a kernel that is no square."""
    model = overparameterize(
        torch.nn.ModuleDict({"up": torch.nn.ConvTranspose2d(4, 4, 2), "row": torch.nn.Conv1d(4, 4, 9)})
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    torch.save({"state_dict": torch.nn.ModuleDict({"net": model}).state_dict()}, tmp_path / "last.ckpt")
    status, text = run("fold", tmp_path / "last.ckpt", tmp_path / "out.safetensors", "--prefix", "net.")
    assert status == 0, text
    assert "assumed" not in text
    assert "taken not to be" not in text
    folded = load_file(tmp_path / "out.safetensors")
    for name, tensor in fold(model).state_dict().items():
        np.testing.assert_array_equal(folded[name], tensor.numpy())
    status, text = run("fold", tmp_path / "last.ckpt", tmp_path / "out.safetensors", "--dialect", "original-torch")
    assert (status, "the layers of this project wrote it" in text) == (1, True)


def test_the_layers_of_an_average_say_no_more_than_those_of_the_weights_beside_it(tmp_path: Path) -> None:
    model = overparameterize(torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 4, 2)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(
        {"state_dict": dict(model.state_dict()), "current_model_state": model.state_dict()}, tmp_path / "last.ckpt"
    )
    status, text = run("fold", tmp_path / "last.ckpt", tmp_path / "out.safetensors")
    assert (status, "taken not to be" in text) == (0, False)
    want = fold(model).state_dict()["0.weight"].numpy()
    np.testing.assert_array_equal(load_file(tmp_path / "out.safetensors")["0.weight"], want)
