"""The commands for files: a fault is one line and status 1 or 2, nothing that was read is lost, stdout takes files alone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save_file
from typer.testing import CliRunner

from doconv_conformance.cases import generator
from doconv_conformance.cli import app
from doconv_conformance.escaping import printable
from doconv_core import ConvGeometry, compose
from doconv_core.checkpoint import CheckpointError, open_checkpoint

CONV = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3))
COMMANDS = (("fold",), ("convert", "--to", "keras"), ("inspect", "--json"))
DOCONV = [sys.executable, "-c", "from doconv_conformance.cli import main; main()"]


def layer(path: str = "conv") -> dict[str, np.ndarray]:
    shapes = {"W": CONV.w_shape, "D": CONV.d_shape}
    return {f"{path}.{n}": generator.floats(f"commands/{n}", s).astype(np.float32) for n, s in shapes.items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_file(layer(), tmp_path / "in.safetensors")
    return tmp_path / "in.safetensors"


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def arguments(command: tuple[str, ...], source: Path, target: Path | str) -> list[str]:
    """`inspect` names its output by an option, the others by position."""
    name, *options = command
    return (
        [name, str(source), *options, str(target)] if name == "inspect" else [name, str(source), str(target), *options]
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("way", ["itself", "a link", "another way there", "the plain model"])
def test_no_output_takes_the_place_of_an_input(
    command: tuple[str, ...], way: str, source: Path, tmp_path: Path
) -> None:
    save_file({"conv.weight": np.zeros(CONV.kernel_shape, np.float32)}, tmp_path / "plain.safetensors")
    (tmp_path / "link").symlink_to(source)
    target = {
        "itself": source,
        "a link": tmp_path / "link",
        "another way there": tmp_path / ".." / tmp_path.name / source.name,
        "the plain model": tmp_path / "plain.safetensors",
    }[way]
    before = source.read_bytes(), (tmp_path / "plain.safetensors").read_bytes()
    status, _, error = run(*arguments(command, source, target), "--like", tmp_path / "plain.safetensors")
    assert (status, error.count("\n")) == (2, 1), error
    assert (source.read_bytes(), (tmp_path / "plain.safetensors").read_bytes()) == before


def test_no_shard_takes_the_place_of_one_that_is_read(tmp_path: Path) -> None:
    tensors = layer()
    files = ("m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors")
    for name, file in zip(tensors, files, strict=True):
        save_file({name: tensors[name]}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(tensors, files, strict=True))}))
    status, _, error = run("fold", index, tmp_path / "m.safetensors.index.json")
    assert status == 2
    assert "would replace a file that is read" in error
    assert load_file(tmp_path / files[0]).keys() == {"conv.W"}


@pytest.mark.parametrize("suffix", [".pth", ".PTH", ".h5", ".npz", ".onnx", ".json", ".keras"])
@pytest.mark.parametrize("command", COMMANDS[:2], ids=lambda command: command[0])
def test_a_name_that_says_another_format_is_refused(command: tuple[str, ...], suffix: str, source: Path) -> None:
    status, _, error = run(*arguments(command, source, source.with_name(f"out{suffix}")))
    assert (status, error.count("\n")) == (2, 1)
    assert (
        f"OUT is written as safetensors, so its name must not end in another format's suffix. Received: out{suffix}"
        in error
    )


def test_an_index_of_one_file_is_refused(source: Path, tmp_path: Path) -> None:
    status, _, error = run("fold", source, tmp_path / "out.safetensors.index.json")
    assert status == 2
    assert "OUT must be one file, not an index, where IN is one file" in error


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        (("--kernel-size", "stem=3x3"), 1, "the pattern 'stem' (kernel size) matches no convolution"),
        (("--transposed", "no*"), 1, "the pattern 'no*' (transposed) matches no convolution"),
        (("--exclude", "attn"), 1, "the pattern 'attn' (exclude) matches no layer"),
        (("--prefix", "model."), 1, "no name begins with the prefix 'model.'"),
        (("--key", "model"), 2, "--key is for a .pth"),
        (("--ema",), 1, "has no average of the weights"),
        (("--names", "V"), 2, "--names must be plain or W. Received: V"),
    ],
)
def test_options_that_match_nothing(options: tuple[str, ...], status: int, error: str, source: Path) -> None:
    found = run("fold", source, source.with_name("out"), *options)
    assert (found[0], found[2].count("\n")) == (status, 1), found[2]
    assert error in found[2]
    assert not source.with_name("out").exists()


def test_names_of_folded_kernels(source: Path, tmp_path: Path) -> None:
    assert run("fold", source, tmp_path / "out", "--names", "W")[0] == 0
    assert {name: array.shape for name, array in load_file(tmp_path / "out").items()} == {"conv.W": (6, 4, 3, 3)}
    assert run("convert", source, tmp_path / "portable", "--to", "canonical")[0] == 0
    status, _, error = run("fold", tmp_path / "portable", tmp_path / "out", "--names", "W")
    assert (status, error.count("\n")) == (1, 1)


def test_a_layer_that_is_excluded_is_passed_on(tmp_path: Path) -> None:
    save_file(layer() | {"attn.W": np.ones((2, 3, 4), np.float32)}, tmp_path / "in")
    status, _, error = run("fold", tmp_path / "in", tmp_path / "out")
    assert status == 1
    assert "--exclude 'attn'" in error
    assert run("fold", tmp_path / "in", tmp_path / "out", "--exclude", "attn")[0] == 0
    assert load_file(tmp_path / "out").keys() == {"conv.weight", "attn.W"}


HOSTILE = {
    "ANSI": ("\x1b[2J\x1b[31mred\x1b[0m", r"\x1b[2J\x1b[31mred\x1b[0m"),
    "a new line": ("a\nAll agree.", r"a\nAll agree."),
    "bidi": ("a\u202egpj.exe", r"a\u202egpj.exe"),
    "OSC 52": ("\x1b]52;c;cm0gLXJmIC8=\x07", r"\x1b]52;c;cm0gLXJmIC8=\x07"),
    "rich": ("[bold]x[/bold]", "[bold]x[/bold]"),
    "other letters": ("größe_漢字", "größe_漢字"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_files_do_not_reach_the_terminal_as_they_are(name: str, tmp_path: Path) -> None:
    raw, shown = HOSTILE[name]
    save_file(layer(raw), tmp_path / "in")
    status, out, _ = run("inspect", tmp_path / "in")
    assert status == 0
    assert shown in out
    assert run("fold", tmp_path / "in", tmp_path / "out")[0] == 0
    save_file({f"{raw}.W": np.ones((2, 2, 9), np.float32)}, tmp_path / "in")
    status, out, error = run("inspect", tmp_path / "in")
    assert (status, error.count("\n")) == (1, 1)
    assert shown in error
    assert raw == shown or raw not in out + error


def test_what_is_escaped() -> None:
    assert printable("\ud800 \x00 \u2028") == r"\ud800 \x00 \u2028"
    assert printable("plain text, ü") == "plain text, ü"


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="the system has no /dev/stdout")
@pytest.mark.parametrize("name", ["/dev/stdout", "-"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_stdout_takes_the_file_alone(command: tuple[str, ...], name: str, source: Path) -> None:
    done = subprocess.run([*DOCONV, *arguments(command, source, name)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    if command[0] == "inspect":
        assert json.loads(done.stdout)["layers"][0]["path"] == "conv"
    else:
        assert load(done.stdout)
    assert b"conv" in done.stderr


def test_a_fold_through_stdout_has_the_values(source: Path) -> None:
    done = subprocess.run([*DOCONV, "fold", str(source), "/dev/stdout"], capture_output=True, check=True)
    tensors = layer()
    np.testing.assert_array_equal(load(done.stdout)["conv.weight"], compose(tensors["conv.W"], tensors["conv.D"], CONV))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_full_terminal_loses_words_and_no_file(command: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*DOCONV, *arguments(command, source, tmp_path / "out")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == f"doconv {command[0]}: [Errno 28] No space left on device\n"
    assert (tmp_path / "out").stat().st_size


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_reader_that_has_seen_enough(command: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(
            [*DOCONV, *arguments(command, source, tmp_path / "out")],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 1
    assert (tmp_path / "out").stat().st_size


@pytest.mark.skipif(sys.platform == "win32", reason="the system does not remove a folder that is in use")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_folder_that_is_gone(command: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    remove = "import os, sys; os.rmdir(os.getcwd()); sys.path = [p for p in sys.path if p]; "
    done = subprocess.run(
        [sys.executable, "-c", remove + DOCONV[2], *arguments(command, source, "out")],
        capture_output=True,
        text=True,
        cwd=gone,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(f"doconv {command[0]}: ")
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("kind", ["too long", "no folder", "a folder", "below a file"])
def test_places_that_cannot_be_written_to(command: tuple[str, ...], kind: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = {
        "too long": tmp_path / ("x" * 256),
        "no folder": tmp_path / "nowhere" / "out",
        "a folder": tmp_path / "folder",
        "below a file": source / "out",
    }[kind]
    status, _, error = run(*arguments(command, source, target))
    assert status in (1, 2)
    assert error.startswith(f"doconv {command[0]}: ")
    assert error.count("\n") == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {"in.safetensors", "folder"}


@pytest.mark.parametrize(
    ("suffix", "error"),
    [
        (".pdparams", "of NumPy arrays, which Paddle reads: safetensors.numpy.save_file(paddle.load(...))"),
        (".params", "MXNet's own format: numpy.savez("),
        (".pkl", "is a pickle, which may run code when it is loaded, so it is not"),
    ],
)
def test_pickles_that_are_not_read_say_how_they_can_be(suffix: str, error: str, tmp_path: Path) -> None:
    (tmp_path / f"m{suffix}").write_bytes(b"x")
    status, _, found = run("fold", tmp_path / f"m{suffix}", tmp_path / "out")
    assert (status, found.count("\n")) == (1, 1)
    assert error in found


@pytest.mark.parametrize("names", ["{}", "{}:0"])
def test_a_dict_of_numpy_arrays(names: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", **{names.format(name): array for name, array in layer().items()})
    status, _, error = run("fold", tmp_path / "m.npz", tmp_path / "out")
    assert status == 0, error
    tensors = layer()
    want = compose(tensors["conv.W"], tensors["conv.D"], CONV)
    np.testing.assert_array_equal(load_file(tmp_path / "out")["conv.weight"], want)


OTHERS = {
    "model.keras": (b"PK\x03\x04", "is Keras's own: .*doconv_keras.save_checkpoint"),
    "model.msgpack": (b"\x82", "is Flax's own: .*flatten_dict"),
    "pytorch_model.bin.index.json": (b"{}", "is not an index of bin files: KeyError: 'weight_map'"),
    "model.weights.h5": (b"\x89HDF", "any other of Keras: .*doconv_keras.save_checkpoint"),
    "model": (b"PK\x03\x04 and more", "it is a zip archive: PyTorch's need a name that ends in .pth"),
    "old.safetensors": (b"\x80\x02}q\x00(X", "it is a pickle"),
    "lfs.safetensors": (
        b"version https://git-lfs.github.com/spec/v1",
        "a pointer of Git LFS and not the file: `git lfs pull`",
    ),
    "page.safetensors": (b"<!DOCTYPE html>", "a web page, as a download leaves that went wrong"),
    "model.gguf": (b"GGUF\x03\x00\x00\x00", "it is a GGUF file"),
    "one.npy": (b"\x93NUMPY\x01\x00", "it is one array of NumPy: numpy.savez"),
    "cut.safetensors": (b"\x80\x02\x00\x00\x00\x00\x00\x00{", "is truncated: its header should have 640 bytes"),
}
FOLDERS = {
    "model.safetensors.index.json": "its checkpoint is model.safetensors.index.json",
    "model.safetensors": "its checkpoint is model.safetensors",
    "pytorch_model.bin.index.json": "its checkpoint is pytorch_model.bin.index.json",
    ".metadata": "dcp_to_torch_save",
    "zero_to_fp32.py": "its zero_to_fp32.py makes one file of it",
    "_METADATA": "Orbax's: restore it",
    "saved_model.pb": "doconv_keras.save_checkpoint",
    "readme": "one file is read at a time",
}


@pytest.mark.parametrize("command", ["fold", "inspect"])
@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_formats_say_what_to_do(name: str, command: str, tmp_path: Path) -> None:
    content, error = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    status, _, found = run(command, tmp_path / name, *([tmp_path / "out"] if command == "fold" else []))
    assert status in (1, 2)
    assert re.search(error, found), found
    assert found.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_checkpoints_say_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(b"")
    status, _, found = run("fold", tmp_path / "folder", tmp_path / "out")
    assert (status, found.count("\n")) == (2, 1)
    assert FOLDERS[name] in found
    with pytest.raises(CheckpointError, match=re.escape(FOLDERS[name])):
        open_checkpoint(tmp_path / "folder")
