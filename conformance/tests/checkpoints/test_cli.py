"""`doconv fold`, `convert` and `inspect` in an environment without any framework: messages, exit status, and what is left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import generator
from doconv_core import ConvGeometry, compose

GEOMETRY = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3), groups=2)
# An interpreter in which no framework can be imported.
BLOCKED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "keras", "tensorflow", "jax", "jaxlib", "flax"):
            raise ModuleNotFoundError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
from doconv_conformance.cli import main
main()
"""


def doconv(*arguments: object, prepare: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", prepare + BLOCKED, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def layers(count: int = 2, geometry: ConvGeometry = GEOMETRY) -> dict[str, np.ndarray]:
    tensors = {}
    for index in range(count):
        tensors[f"conv{index}.W"] = generator.floats(f"cli/{index}/W", geometry.w_shape).astype(np.float32)
        tensors[f"conv{index}.D"] = generator.floats(f"cli/{index}/D", geometry.d_shape).astype(np.float32)
    return tensors | {"fc.weight": np.ones((3, 2), np.float32)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_file(layers(), tmp_path / "in.safetensors")
    return tmp_path / "in.safetensors"


def test_fold_needs_no_framework(source: Path, tmp_path: Path) -> None:
    done = doconv("fold", source, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "2 layers folded, 1 tensor passed on",
        "note: kernel size 3x3 assumed for 9 taps: conv0, conv1",
    ]
    tensors, folded = layers(), load_file(tmp_path / "out")
    for path in ("conv0", "conv1"):
        want = compose(tensors[f"{path}.W"], tensors[f"{path}.D"], GEOMETRY)
        np.testing.assert_array_equal(folded[f"{path}.weight"], want)


def test_convert_and_inspect_need_no_framework(source: Path, tmp_path: Path) -> None:
    done = doconv("convert", source, tmp_path / "out", "--to", "keras", "--kernel-size", "conv*=3x3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 layers written as keras, 0 tensors passed on\n")
    done = doconv("inspect", tmp_path / "out", "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert "layout keras; 2 of 3 layers are over-parameterized" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["bytes_removed_by_fold"] == 2 * 4 * 81 * 4
    assert report["layers"][0]["geometry"] == {
        "in_channels": 4, "out_channels": 6, "kernel_size": [3, 3], "groups": 2, "transposed": False, "d_mul": 9,
    }  # fmt: skip
    before, after = source.stat().st_size, 0
    doconv("fold", source, tmp_path / "plain")
    after = (tmp_path / "plain").stat().st_size
    assert before - after == pytest.approx(report["bytes_removed_by_fold"], abs=400)  # and some names of the header


def test_names_that_the_terminal_has_no_letters_for(tmp_path: Path) -> None:
    save_file({name.replace("conv", "größe"): tensor for name, tensor in layers(1).items()}, tmp_path / "in")
    done = doconv("inspect", tmp_path / "in", prepare="import sys; sys.stdout.reconfigure(encoding='ascii')")
    assert done.returncode == 0, done.stderr
    assert r"gr\xf6\xdfe0" in done.stdout


def test_a_plain_file_gives_the_kernel_sizes(tmp_path: Path) -> None:
    geometry = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(1, 9))
    save_file(layers(1, geometry), tmp_path / "in")
    save_file({"conv0.weight": np.zeros(geometry.kernel_shape, np.float32)}, tmp_path / "plain")
    done = doconv("fold", tmp_path / "in", tmp_path / "out", "--like", tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    assert "note" not in done.stdout
    assert load_file(tmp_path / "out")["conv0.weight"].shape == geometry.kernel_shape


def test_layers_that_can_only_be_folded_are_named(source: Path, tmp_path: Path) -> None:
    done = doconv("inspect", source, "--dialect", "original-torch")
    assert "note: conv0: can only be folded: its groups pair with D as no layer here does" in done.stdout
    done = doconv("convert", source, tmp_path / "out", "--to", "canonical", "--dialect", "original-torch")
    assert done.returncode == 0, done.stderr
    assert "note: conv1: folded and over-parameterized afresh" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fold", "nothing", "OUT"), "doconv fold: there is no file nothing"),
        (("fold", "IN", "nowhere/out"), "doconv fold: the folder of nowhere/out does not exist"),
        (("fold", "IN", "IN"), "doconv fold: OUT is the same file as IN, which would lose W and D. Received: "),
        (("fold", "IN", "FOLDER"), "is a folder"),
        (
            ("fold", "IN", "OUT", "--dialect", "caffe"),
            "--dialect must be original-torch or original-tf. Received: caffe",
        ),
        (
            ("fold", "IN", "OUT", "--kernel-size", "3x3"),
            "--kernel-size must be PATTERN=MxN, like 'stem.*=3x2'. Received: 3x3",
        ),
        (("fold", "IN", "OUT", "--kernel-size", "a=3xb"), "--kernel-size must be PATTERN=MxN"),
        (("fold", "IN", "OUT", "--like", "nothing"), "there is no file nothing"),
        (("fold", "IN"), "Missing argument 'OUT'"),
        (
            ("convert", "IN", "OUT", "--to", "mxnet"),
            "--to must be one of canonical, torch, keras, flax. Received: mxnet",
        ),
        (("convert", "IN", "OUT"), "Missing option '--to'"),
        (("inspect", "IN", "--json", "nowhere/report.json"), "the folder of nowhere/report.json does not exist"),
    ],
)
def test_unusable_arguments_exit_with_2(arguments: tuple[str, ...], text: str, source: Path, tmp_path: Path) -> None:
    places = {"IN": str(source), "OUT": str(tmp_path / "out"), "FOLDER": str(tmp_path)}
    done = doconv(*(places.get(argument, argument) for argument in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == [source]


def test_a_bad_file_exits_with_1_and_leaves_the_old_output(tmp_path: Path) -> None:
    tensors = layers()
    tensors["conv1.W"][2, 1, 3] = np.nan
    save_file(tensors, tmp_path / "in")
    (tmp_path / "out").write_bytes(b"old")
    done = doconv("fold", tmp_path / "in", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr == (
        f"doconv fold: {tmp_path / 'in'}: conv1.W has a value that is not finite, which folding would spread. Received: nan\n"
    )
    assert (tmp_path / "out").read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in", "out"]


LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
"""


def test_a_full_disk_exits_with_1_and_leaves_the_old_output(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    done = doconv("fold", source, tmp_path / "out", prepare=LIMIT)
    assert done.returncode == 1
    assert done.stderr == f"doconv fold: [Errno 27] File too large: '{tmp_path / 'out'}'\n"
    assert (tmp_path / "out").read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.safetensors", "out"]


# A shell's background jobs inherit that they ignore SIGINT; a user's does not.
SLOW = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from doconv_core.checkpoint import _writer
put = _writer.TensorWriter._put
def slow(self, view, position):
    put(self, view, position)
    print("written", flush=True)
    time.sleep(60)
_writer.TensorWriter._put = slow
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_run_leaves_the_old_output_and_does_not_hinder_the_next(
    how: signal.Signals, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_bytes(b"old")
    command = [sys.executable, "-c", SLOW + BLOCKED, "fold", str(source), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stdout.readline() == "written\n"
        os.kill(run.pid, how)
        run.communicate(timeout=60)
    assert run.returncode != 0
    assert (tmp_path / "out").read_bytes() == b"old"
    left = {entry.name for entry in tmp_path.iterdir()} - {"in.safetensors", "out"}
    assert len(left) == (1 if how == signal.SIGKILL else 0)
    assert doconv("fold", source, tmp_path / "out").returncode == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.safetensors", "out"]
    assert load_file(tmp_path / "out").keys() == {"conv0.weight", "conv1.weight", "fc.weight"}


FAULTS = {
    "a dialect's rows": "c._rows_of = lambda D, g, dialect: D.reshape(-1, g.groups, *D.shape[1:]).swapaxes(0, 1)",
    "D transposed": "c._rows_of = lambda D, g, dialect, rows=c._rows_of: rows(D, g, dialect).mT",
    "no identity": "c.sum_tiles = lambda W, g: 0 * W",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_in_fold_shows(fault: str, source: Path, tmp_path: Path) -> None:
    done = doconv("fold", source, tmp_path / "out", prepare=f"import doconv_core.blocked as c\n{FAULTS[fault]}\n")
    assert done.returncode == 0, done.stderr
    tensors, folded = layers(), load_file(tmp_path / "out")
    assert (folded["conv0.weight"] != compose(tensors["conv0.W"], tensors["conv0.D"], GEOMETRY)).any()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="the system has no pseudo-terminals")
def test_a_bar_shows_progress_on_a_terminal_and_nothing_elsewhere(source: Path, tmp_path: Path) -> None:
    assert doconv("fold", source, tmp_path / "out").stderr == ""
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", BLOCKED, "fold", str(source), str(tmp_path / "out")]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, timeout=300, check=True)
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert b"2 layers folded" in done.stdout
    assert "fold" in shown
    assert "bytes" in shown or "kB" in shown


PEAK = """
import atexit, re
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_stays_below_the_file(tmp_path: Path) -> None:
    geometry = ConvGeometry(in_channels=256, out_channels=256, kernel_size=(3, 3))
    plain = {"words.weight": np.ones((8000, 1500), np.float32), "one.weight": np.ones((1000, 12000, 1, 1), np.float32)}
    save_file(layers(20, geometry) | plain, tmp_path / "in")
    size = (tmp_path / "in").stat().st_size
    without = doconv("inspect", tmp_path / "in", prepare=PEAK)
    for command in (("fold",), ("convert", "--to", "torch")):
        done = doconv(*command, tmp_path / "in", tmp_path / "out", prepare=PEAK)
        assert done.returncode == 0, done.stderr
        used = 1024 * (int(done.stdout.split()[-1]) - int(without.stdout.split()[-1]))
        assert size > 140e6
        assert used < 90e6, command  # a few parts of some MB each
