"""`doconv compare --checkpoint`: every layer of a model on the backends, what a type loses, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from doconv_conformance.cases import generator
from doconv_conformance.cases.table import cases
from doconv_conformance.cli import app
from doconv_conformance.cli.compare_checkpoint import too_short
from doconv_conformance.protocol.process import PortProcess
from doconv_conformance.protocol.schemas import problem
from doconv_conformance.protocol.session import Backend
from doconv_conformance.reports.losses_figure import write_losses_figure
from doconv_conformance.running.layer_cases import BUDGET, OPERATIONS, TYPES, LayerPlan, plan_layers, read_layer
from doconv_conformance.running.layers import LayerOutcome, exact_values, run_layers
from doconv_conformance.running.recordings import open_recordings
from doconv_conformance.running.ways import TIMEOUT, WayPort, select_ways
from doconv_core import ConvGeometry, compose, convolve
from doconv_core.checkpoint import Arrays, Checkpoint, CheckpointError, Hints, LayerInfo, open_checkpoint

STATION = Path(__file__).with_name("station.py")
# Of the station's layers those that have a D: their strides and groups.
OVER = {"conv": (1, 1), "grouped": (1, 2), "depthwise": (1, 12), "up": (2, 1)}
PORT = """
import os, sys
sys.path.insert(0, os.environ.get("HERE", ""))
from doconv_conformance.adapters.core import *
class Bad(CorePort):
    name = "bad"
    {}
serve(Bad())
"""
CORE = (sys.executable, "-m", "doconv_conformance.adapters.core")


def arrays(layers: dict[str, ConvGeometry], scale: float = 1.0) -> dict[str, np.ndarray]:
    tensors = {}
    for path, g in layers.items():
        tensors[f"{path}.W"] = scale * generator.floats(f"layers/{path}/W", g.w_shape)
        tensors[f"{path}.D"] = 0.2 * generator.floats(f"layers/{path}/D", g.d_shape)
        tensors[f"{path}.bias"] = 0.1 * generator.floats(f"layers/{path}/bias", (g.out_channels,))
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def opened(tensors: dict[str, np.ndarray], **hints: object) -> Checkpoint:
    return Checkpoint(Arrays("model", tensors), "model", hints=Hints(**hints))


def ask(
    checkpoint: Checkpoint, *commands: tuple[str, ...], recorded: Path | None = None, dtypes: tuple[str, ...] = TYPES
) -> list[LayerOutcome]:
    recordings = open_recordings(recorded, checkpoint) if recorded else None
    plans = plan_layers(checkpoint, recordings)
    pairs = [(plan.case(dtype), operation) for plan in plans for dtype in dtypes for operation in OPERATIONS]
    ports = [WayPort(None, Backend(f"port{i}", command), pairs) for i, command in enumerate(commands)]
    return run_layers(ports, checkpoint, plans, dtypes, recordings, timeout=TIMEOUT)[1]


def bad_port(path: Path, method: str) -> tuple[str, str]:
    path.write_text(PORT.format(method.replace("\n", "\n    ")))
    return sys.executable, str(path)


def doconv(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.stdout.split()), result.stderr


SMALL = {
    "stem": ConvGeometry(in_channels=3, out_channels=6, kernel_size=(3, 3)),
    "blocks.0": ConvGeometry(in_channels=6, out_channels=4, kernel_size=(3, 3)),
    "blocks.1": ConvGeometry(in_channels=4, out_channels=6, kernel_size=(2, 2), groups=2),
}


@pytest.mark.parametrize(
    ("station", "backend"), [("torch", "torch"), ("keras", "keras"), ("linen", "flax"), ("nnx", "flax")]
)
def test_a_trained_model_of_each_framework_agrees(station: str, backend: str, tmp_path: Path) -> None:
    """Trained and saved there; every layer with a `D`, and no other, is compared, in its own geometry."""
    x = generator.floats("layers/x", (4, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, target=generator.floats("layers/target", (4, 4)).astype(np.float32))
    path, report = tmp_path / "model.safetensors", tmp_path / "r.json"
    env = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "tensorflow"}
    process = PortProcess([sys.executable, str(STATION), station, str(tmp_path / "data.npz")], env=env)
    try:
        process.ask({"type": "train", "train": 2, "save": str(path)}, 300)
    finally:
        process.close()
    trained = load_file(path)
    assert all(trained[f"{name}.D_delta"].any() for name in OVER)

    names = {kind: tmp_path / f"r.{kind}" for kind in ("html", "junit", "png")}
    status, out, err = doconv(
        "--checkpoint", path, "--backend", backend, "--json", report, "--html", names["html"], "--junit", names["junit"],
        "--figure", names["png"],
    )  # fmt: skip
    assert status == 0, out + err
    assert "All agree." in out
    assert f"{len(OVER)} of 5 convolutions are over-parameterized" in out
    found = json.loads(report.read_text())
    assert problem(found, "report") == ""
    layers = {layer["path"]: layer for layer in found["checkpoint"]["layers"]}
    assert set(layers) == set(OVER)
    shares = [max(row["bound_fraction"] for row in layer["backends"].values()) for layer in layers.values()]
    assert shares == sorted(shares, reverse=True)
    for name, layer in layers.items():
        known = layer["geometry"]
        assert known["groups"] == OVER[name][1]
        if station != "linen":  # whose parameters do not say it
            assert known["stride"] == [OVER[name][0]] * 2
        losses = {loss["dtype"]: loss for loss in layer["losses"]}
        assert 0 < losses["float32"]["output"] < losses["float16"]["output"] < losses["bfloat16"]["output"] < 2**-6
        assert all(loss["folding"] < 2**-6 for loss in losses.values())
        assert not layer["recorded"]
    assert {row["operation"] for row in found["results"]} == set(OPERATIONS)
    if station == "linen":
        assert "the file does not say the stride, padding and dilation of all layers, taken: stride 1," in out
    if station == "torch":  # PyTorch's metadata has the padding, too
        assert layers["conv"]["geometry"]["padding"] == [[1, 1], [1, 1]]
        assert "does not say" not in out
    page = names["html"].read_text()
    assert "The layers, worst first" in page
    assert page.count("data:image/jpeg") == 1
    tree = ElementTree.fromstring(names["junit"].read_text())
    tests = [test.get("name") for test in tree.findall("testsuite/testcase")]
    assert len(set(tests)) == len(tests) == len(OVER) * len(TYPES) * len(OPERATIONS)
    assert np.asarray(Image.open(names["png"]).convert("L")).std() > 5  # something is drawn


def test_losses_are_what_they_say(tmp_path: Path) -> None:
    """Of a port that is known: the core, whose fold changes one value by a quarter of the output's norm."""
    method = (
        "def fold(self, geometry, inputs):\n"
        "    outputs = super().fold(geometry, inputs)\n"
        "    outputs['y'].flat[0] += np.linalg.norm(outputs['y'].astype(float)) / 4\n"
        "    return outputs"
    )
    checkpoint = opened(arrays({"a": SMALL["stem"]}))
    (outcome,) = ask(checkpoint, CORE, bad_port(tmp_path / "port.py", method))
    numbers, g = read_layer(checkpoint, outcome.plan), outcome.plan.geometry
    y = convolve(numbers["x"], compose(numbers["W"].astype(float), numbers["D_delta"].astype(float), g),
                 numbers["bias"].astype(float), g)  # fmt: skip
    exact = exact_values(outcome.plan, numbers)
    # Both are float64, and differ by the order of short sums: units of 2**-53, of which 1e-12 is some thousands.
    np.testing.assert_allclose(exact["y"], y, rtol=1e-12)
    losses = {(loss.backend, loss.dtype): loss for loss in outcome.losses}
    assert losses["port0", "float32"].output < 1e-6
    rounded = {dtype: outcome.plan.case(dtype, numbers).tensors for dtype in TYPES}
    for dtype in ("bfloat16", "float16"):
        kernel = compose(rounded[dtype]["W"], rounded[dtype]["D_delta"], g).astype(rounded[dtype]["x"].dtype)
        low = convolve(rounded[dtype]["x"], kernel, rounded[dtype]["bias"], g).astype(float)
        assert losses["port0", dtype].output == pytest.approx(np.linalg.norm(low - y) / np.linalg.norm(y))
        assert losses["port0", dtype].folding == 0
    assert losses["port1", "float32"].folding == pytest.approx(0.25, rel=1e-3)
    assert losses["port1", "float32"].folded == pytest.approx(0.25, rel=1e-3)
    assert outcome.loss("float32", "folding") == losses["port1", "float32"].folding
    assert not outcome.agrees
    assert {row.backend for row in outcome.rows if not row.agrees} == {"port1"}


def test_a_planted_fault_is_found_and_its_layer_is_first(tmp_path: Path) -> None:
    """A backend whose fold drops `D` of one layer alone, run in the place of PyTorch's."""
    method = (
        "def fold(self, geometry, inputs):\n"
        "    zeros = {'D_delta': inputs['D_delta'] * 0} if geometry.out_channels == 4 else {}\n"
        "    return super().fold(geometry, inputs | zeros)"
    )
    command = bad_port(tmp_path / "port.py", method)
    python, path, report = tmp_path / "python", tmp_path / "in.safetensors", tmp_path / "r.json"
    python.write_text(f"#!/bin/sh\nexec {' '.join(command)}\n")
    python.chmod(0o755)
    save_file(arrays(SMALL), path)
    options = ("--checkpoint", path, "--backend", "torch", "--python", f"torch={python}", "--dtype", "float32,float16")
    status, out, _ = doconv(*options, "--json", report, "--figure", tmp_path / "f.png")
    assert status == 1
    assert "They do not agree." in out
    layers = json.loads(report.read_text())["checkpoint"]["layers"]
    assert [layer["agrees"] for layer in layers] == [False, True, True]
    assert layers[0]["path"] == "blocks.0"
    assert out.index("blocks.0 │ 3x3 6>4 │ mismatch") < out.index("stem │")
    assert "torch fold: 1 of 3 mismatch, first blocks.0 float32: weight[" in out
    assert "the file does not say the stride, padding and dilation of all layers, taken: stride 1, no padding" in out


def test_ports_that_die_or_answer_nothing_are_rows(tmp_path: Path) -> None:
    dies = bad_port(tmp_path / "dies.py", "def backward(self, geometry, inputs):\n    os._exit(3)")
    outcomes = ask(opened(arrays(SMALL)), dies, ("nowhere",), dtypes=("float32",))
    rows = [row for outcome in outcomes for row in outcome.rows]
    assert [row.verdict for row in rows if row.operation == "backward"] == ["crashed"] * 6
    assert {row.verdict for row in rows if row.backend == "port1"} == {"crashed"}
    assert {row.verdict for row in rows if row.operation != "backward" and row.backend == "port0"} == {"within_bound"}
    write_losses_figure(outcomes, tmp_path / "f.svg", title="$dies$")
    assert "nothing to" not in (tmp_path / "f.svg").read_text()


def test_a_layer_that_overflows_float16_is_named(tmp_path: Path) -> None:
    """Right in every type, as infinity is the right answer there; the input of another layer does not fit at all."""
    paths = {"fits": SMALL["stem"], "output": SMALL["stem"], "input": SMALL["stem"], "kernel": SMALL["stem"]}
    tensors = arrays(paths) | {"kernel.W": arrays({"kernel": SMALL["stem"]}, 1e5)["kernel.W"]}
    x = generator.floats("layers/x", (1, 3, 5, 5)).astype(np.float32)
    save_file({"fits": x, "output": x * 3e4, "input": x * 1e6, "kernel": x * 1e-4}, tmp_path / "x.safetensors")
    outcomes = ask(opened(tensors), CORE, recorded=tmp_path / "x.safetensors")
    found = {outcome.plan.path: outcome for outcome in outcomes}
    assert all(outcome.agrees for outcome in outcomes), [row for o in outcomes for row in o.rows if not row.agrees]
    assert [outcome.overflows for outcome in outcomes] == [True, True, True, False]
    assert found["input"].not_computed == {"float16": int((np.abs(x) * 1e6 >= 65520).sum())}
    assert {row.dtype for row in found["input"].rows} == {"float32", "bfloat16"}
    for name in ("output", "kernel"):
        (loss,) = (loss for loss in found[name].losses if loss.dtype == "float16")
        assert 0 < loss.infinite["y"][0] <= loss.infinite["y"][1] == 1 * 6 * 3 * 3
        assert loss.infinite["folded y"] == loss.infinite["y"]
        assert not any(loss.infinite for loss in found[name].losses if loss.dtype != "float16")
    numbers = read_layer(opened(tensors), found["output"].plan) | {"x": x * 3e4}
    beyond = int((np.abs(exact_values(found["output"].plan, numbers)["y"]) > 65520).sum())
    assert found["output"].losses[2].infinite["y"][0] == pytest.approx(beyond, abs=2)
    lines = "\n".join(too_short(outcomes))
    assert "output: overflows float16: " in lines
    assert "of 54 values of its output" in lines
    assert "input: " in lines
    assert "are beyond float16 (|x| up to 9.98e+05" in lines
    assert "fits" not in lines
    write_losses_figure(outcomes, tmp_path / "f.png", title="overflows")


@pytest.mark.parametrize("wrong", ["np.inf", "np.nan", "-np.inf"])
@pytest.mark.parametrize("dtype", TYPES)
def test_an_infinity_that_is_not_right_is_wrong(wrong: str, dtype: str, tmp_path: Path) -> None:
    method = (
        "def forward(self, geometry, inputs):\n"
        "    outputs = super().forward(geometry, inputs)\n"
        f"    outputs['y'].flat[7] = {wrong}\n"
        "    return outputs"
    )
    (outcome,) = ask(opened(arrays({"a": SMALL["stem"]})), bad_port(tmp_path / "port.py", method), dtypes=(dtype,))
    verdicts = {row.operation: row.verdict for row in outcome.rows}
    assert verdicts == {
        "forward": "mismatch",
        "backward": "within_bound",
        "fold": "mismatch",
    }  # the core folds by forward


def test_where_others_overflow_an_infinity_can_be_wrong(tmp_path: Path) -> None:
    method = (
        "def forward(self, geometry, inputs):\n"
        "    outputs = super().forward(geometry, inputs)\n"
        "    outputs['y'].flat[np.abs(outputs['y']).argmin()] = np.inf\n"
        "    return outputs"
    )
    save_file({"a": 3e4 * generator.floats("layers/x", (1, 3, 5, 5))}, tmp_path / "x.safetensors")
    ports = (CORE, bad_port(tmp_path / "port.py", method))
    tensors = arrays({"a": SMALL["stem"]})
    (outcome,) = ask(opened(tensors), *ports, recorded=tmp_path / "x.safetensors", dtypes=("float16",))
    right, wrong = (loss.infinite["y"][0] for loss in outcome.losses)
    assert wrong == right + 1 > 1
    assert {row.backend for row in outcome.rows if not row.agrees} == {"port1"}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_recorded_inputs_are_what_is_computed(suffix: str, tmp_path: Path) -> None:
    """Names with dots or slashes; a layer without a recording gets random numbers, which is said; large ones are cut."""
    file, path, report = tmp_path / f"x{suffix}", tmp_path / "in.safetensors", tmp_path / "r.json"
    large = ConvGeometry(in_channels=256, out_channels=256, kernel_size=(3, 3))
    one = {"one.W": np.ones((4, 4, 1), np.float32)}
    tensors = arrays(SMALL | {"large": large}) | one
    save_file(tensors, path)
    x = 7 * generator.floats("layers/x", (3, 3, 6, 9)).astype(np.float32)
    recorded = {
        "stem": x, "blocks/0" if suffix == ".npz" else "blocks.0": np.ones((1, 6, 3, 3), np.float16),
        "large": np.ones((2, 256, 40, 30), np.float32), "one": np.ones((1, 4, 2, 2), np.float32),
    }  # fmt: skip
    save_file(recorded, file) if suffix == ".safetensors" else np.savez(file, **recorded)
    options = (
        "--checkpoint",
        path,
        "--inputs",
        file,
        "--python",
        f"torch={core_in_place(tmp_path)}",
        "--backend",
        "torch",
    )
    status, out, err = doconv(*options, "--json", report, "--dtype", "float32", "--figure", tmp_path / "f.png")
    assert status == 0, out + err
    found = {layer["path"]: layer for layer in json.loads(report.read_text())["checkpoint"]["layers"]}
    assert {name: layer["recorded"] for name, layer in found.items()} == {
        "stem": True, "blocks.0": True, "blocks.1": False, "large": True,
    }  # fmt: skip
    assert found["stem"]["input"] == [3, 3, 6, 9]
    assert found["stem"]["largest"]["x"] == float(np.abs(x).max())
    assert found["large"]["input"][0] == 1
    assert found["large"]["input"][2] < 40
    assert "nothing is recorded for blocks.1" in out
    assert "of large recordings a part is computed, the middle of the first images: large" in out
    assert "layers without D are not computed, their recordings not used: one" in out


def core_in_place(folder: Path) -> Path:
    """A program that runs the core, whatever it is asked to run."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\nexec {' '.join(CORE)}\n")
    python.chmod(0o755)
    return python


X = np.zeros((2, 3, 5, 5), np.float32)


@pytest.mark.parametrize(
    ("recorded", "text"),
    [
        ({"stern": X}, "no layer has the name of an array; the layers are blocks.0, blocks.1, stem. Received: stern"),
        ({"stem": X[0]}, "stem must have shape (N, 3, height, width). Received: (3, 5, 5)"),
        (
            {"stem": X.transpose(0, 2, 3, 1)},
            "its channels come last: move them to the second axis. Received: (2, 5, 5, 3)",
        ),
        ({"stem": X[:, :2]}, "stem must have shape (N, 3, height, width). Received: (2, 2, 5, 5)"),
        ({"stem": X[:0]}, "stem must have shape (N, 3, height, width). Received: (0, 3, 5, 5)"),
        ({"stem": X[..., :2]}, "stem is too small for the layer: "),
        ({"stem": X.astype(np.int32)}, "stem must be of a floating point type. Received: I32"),
        ({"stem": X + np.nan}, "stem has a value that is not finite"),
        ({"blocks.0": np.zeros((1, 6, 3, 3)), "blocks/0": np.zeros((1, 6, 3, 3))}, "two arrays are for one layer"),
    ],
)
def test_wrong_recordings_are_refused(recorded: dict[str, np.ndarray], text: str, tmp_path: Path) -> None:
    save_file(arrays(SMALL), tmp_path / "in.safetensors")
    save_file({name: np.ascontiguousarray(value) for name, value in recorded.items()}, tmp_path / "x.safetensors")
    status, out, err = doconv("--checkpoint", tmp_path / "in.safetensors", "--inputs", tmp_path / "x.safetensors")
    assert (status, out) == (2, "")
    assert text in err


def test_names_of_recordings_may_have_the_prefix_of_the_file_or_be_aliases(tmp_path: Path) -> None:
    save_file({"module.stem": X}, tmp_path / "x.safetensors")
    wrapped = opened({f"module.{name}": value for name, value in arrays({"stem": SMALL["stem"]}).items()})
    assert open_recordings(tmp_path / "x.safetensors", wrapped).names == {"stem": "module.stem"}
    wrapped.aliases = {"again": "stem"}
    save_file({"again": X}, tmp_path / "x.safetensors")
    assert open_recordings(tmp_path / "x.safetensors", wrapped).names == {"stem": "again"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("no.safetensors",), "there is no file no.safetensors"),
        (("plain.safetensors",), "plain.safetensors has no over-parameterized layer, there is nothing to compare"),
        (("broken.safetensors",), "broken.safetensors"),
        (("nan.safetensors",), "stem.D has a value that is not finite. Received: layer stem"),
        (("stacked.safetensors",), "blocks.kernel"),
        (("in.safetensors", "--inputs", "no.npz"), "there is no file no.npz"),
        (("in.safetensors", "--inputs", "broken.pth"), "recorded activations are read from .safetensors or .npz"),
        (("in.safetensors", "--kernel-size", "no=3x3"), "the pattern 'no' (kernel size) matches no convolution"),
        (("in.safetensors", "--dtype", "int8"), "--dtype must be one of float64, float32, float16, bfloat16"),
        (("in.safetensors", "--backend", "mxnet"), "--backend must be one of torch, keras, flax"),
        (("in.safetensors", "--way", "no", "--backend", "torch"), "--way must be all or one of aot, "),
        (("in.safetensors", "--json", "in.safetensors"), "in.safetensors is a file that is read"),
        (("in.safetensors", "--figure", "f.gif"), "--figure must end in .png, .svg or .pdf"),
        (("in.safetensors", "--stage", "groups", "--full"), "--stage, --full has no effect with --checkpoint"),
        ((None, "--inputs", "x.npz", "--ema"), "--inputs, --ema is for --checkpoint"),
    ],
)
def test_what_cannot_be_compared_exits_with_2(
    options: tuple[str | None, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = arrays(SMALL)
    save_file(tensors, "in.safetensors")
    save_file({"fc.weight": np.ones((2, 3), np.float32)}, "plain.safetensors")
    save_file(tensors | {"stem.D": tensors["stem.D"] * np.inf}, "nan.safetensors")
    stacked = {"blocks.kernel": np.ones((2, 3, 3, 4, 6), np.float32), "blocks.D": np.zeros((2, 3, 3, 9, 4), np.float32)}
    save_file(stacked, "stacked.safetensors")  # of a `nn.scan`, which `doconv fold` refuses alike
    for name in ("broken.safetensors", "broken.pth"):
        Path(name).write_bytes(b"nothing of the kind")
    status, out, err = doconv(*(("--checkpoint", options[0]) if options[0] else ()), *options[1:])
    assert (status, out) == (2, "")
    assert text in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("compare*"))


def test_inputs_are_small_and_meet_every_tap() -> None:
    """Of the geometries of the whole case table; each output has several positions."""
    geometries = {case.geometry.describe(): case.geometry for case in cases() if case.geometry.has_d}
    plans = {plan.path: plan for plan in plan_layers(as_checkpoint(list(geometries.values())))}
    assert len(plans) == len(geometries) > 50
    for plan in plans.values():
        g = plan.geometry
        outputs = g.output_size(plan.size)
        assert np.prod(outputs) >= 8, g.describe()
        assert np.prod(plan.shape[2:]) < 2000
        seen = np.abs(
            exact_values(plan, {**ones(plan), "grad_y": np.ones((plan.batch, g.out_channels, *outputs))})["grad_W"]
        )
        assert seen.all(), g.describe()  # inputs of ones meet every tap


def ones(plan: LayerPlan) -> dict[str, np.ndarray]:
    g = plan.geometry
    return {"x": np.ones(plan.shape), "W": np.ones(g.w_shape), "D_delta": np.ones(g.d_shape)}


def as_checkpoint(geometries: list[ConvGeometry]) -> Checkpoint:
    tensors = {}
    for number, g in enumerate(geometries):
        tensors |= {f"l{number}.W": np.ones(g.w_shape, np.float32), f"l{number}.D": np.zeros(g.d_shape, np.float32)}
    checkpoint = Checkpoint.__new__(Checkpoint)
    checkpoint.source, checkpoint.label, checkpoint.layout = Arrays("table", tensors), "table", "canonical"
    checkpoint.layers = {
        f"l{number}": LayerInfo("conv", {"W": f"l{number}.W", "D_delta": f"l{number}.D"}, g.to_json())
        for number, g in enumerate(geometries)
    }
    return checkpoint


@pytest.mark.parametrize(
    ("geometry", "largest"),
    [
        (ConvGeometry(in_channels=512, out_channels=512, kernel_size=(9, 9)), 512 * 16 * 16),
        (
            ConvGeometry(in_channels=512, out_channels=256, kernel_size=(3, 3), dilation=36, padding=36),
            512 * 2 * 75 * 76,
        ),
        (ConvGeometry(in_channels=3, out_channels=768, kernel_size=(16, 16), stride=16), 2 * 3 * 64 * 64),
    ],
)
def test_large_layers_stay_within_the_budget(geometry: ConvGeometry, largest: int) -> None:
    (plan,) = plan_layers(as_checkpoint([geometry]))
    work = (
        plan.batch
        * np.prod(geometry.output_size(plan.size))
        * geometry.w_shape[0]
        * geometry.w_shape[1]
        * geometry.taps
    )
    assert work <= BUDGET
    assert np.prod(plan.shape) <= largest


def test_a_geometry_that_no_memory_holds_is_refused() -> None:
    geometry = replace(SMALL["stem"], padding=((2**30, 0), (0, 2**30)))
    with pytest.raises(CheckpointError, match="l0 cannot be computed on a small input, it takes"):
        plan_layers(as_checkpoint([geometry]))
    (plan,) = plan_layers(as_checkpoint([replace(SMALL["stem"], stride=(2**30, 2**30))]))
    assert np.prod(plan.shape) < 2**27


def test_types_of_the_file_decide_those_of_the_parameters(tmp_path: Path) -> None:
    import ml_dtypes

    tensors = {name: value.astype(ml_dtypes.bfloat16) for name, value in arrays({"a": SMALL["stem"]}).items()}
    (outcome,) = ask(opened(tensors), CORE, dtypes=("float32", "bfloat16", "float64"))
    assert outcome.agrees
    assert {(row.dtype, row.param_dtype) for row in outcome.rows} == {
        ("float32", "float32"), ("bfloat16", "bfloat16"), ("float64", "float64"),
    }  # fmt: skip
    assert outcome.loss("float64", "output") < 1e-12


def test_backends_are_asked_in_the_ways_that_they_have() -> None:
    plans = plan_layers(opened(arrays(SMALL)))
    pairs = [(plan.case(dtype), operation) for plan in plans for dtype in TYPES for operation in OPERATIONS]
    ports = {port.port.name: port.pairs for port in select_ways(["torch"], pairs, ["eager", "onnx"], full=True)}
    assert len(ports["torch"]) == len(pairs)
    assert {(case.dtype, operation) for case, operation in ports["torch/onnx"]} == {
        ("float32", "forward"),
        ("float32", "fold"),
    }


def test_a_file_is_read_layer_by_layer(tmp_path: Path) -> None:
    """What is asked of one layer is over before the next layer is read."""
    save_file(arrays(SMALL), tmp_path / "in.safetensors")
    events = []
    with open_checkpoint(tmp_path / "in.safetensors") as checkpoint:
        read, release = checkpoint.read, checkpoint.release
        plans = plan_layers(checkpoint)
        checkpoint.read = lambda path: (events.append(f"read {path}"), read(path))[1]
        checkpoint.release = lambda path: (events.append(f"release {path}"), release(path))[1]
        pairs = [(plan.case("float32"), operation) for plan in plans for operation in OPERATIONS]
        run_layers([WayPort(None, Backend("core", CORE), pairs)], checkpoint, plans, ["float32"])
    assert events == [f"{verb} {path}" for path in sorted(SMALL) for verb in ("read", "release")]


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    save_file(arrays(SMALL), tmp_path / "in.safetensors")
    slow = "def forward(self, geometry, inputs):\n    open(__file__ + '.asked', 'w').close()\n    import time; time.sleep(300)"
    command, python = bad_port(tmp_path / "port.py", slow), tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {' '.join(command)}\n")
    python.chmod(0o755)
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from doconv_conformance.cli import main; main()"
    )
    options = ("compare", "--checkpoint", "in.safetensors", "--backend", "torch", "--python", f"torch={python}")
    run = subprocess.Popen((sys.executable, "-c", code, *options), cwd=tmp_path, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)  # fmt: skip
    wait_for(lambda: (tmp_path / "port.py.asked").exists())
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) != 0
    wait_for(lambda: not alive(str(tmp_path / "port.py")))


def alive(mark: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text()
        except OSError:
            continue
        if mark in line and path.parent.name != str(os.getpid()):
            return True
    return False


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
