"""A model trained in one framework goes on training in another and comes back, over all ordered pairs.

At every station the output must be that of a float64 reference computed from the file alone, within a bound that is derived
(`doconv_conformance.verdicts.bounds`); what is loaded and saved without training must be the same file, value for value.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from doconv_conformance.cases import generator
from doconv_conformance.protocol.process import PortProcess
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, gamma
from doconv_core import ConvGeometry, compose, convolve
from doconv_core.checkpoint import LayerInfo, ModelLayer, ModelState, fold_file, open_checkpoint, save_model

STATION = Path(__file__).with_name("station.py")
FRAMEWORKS = ("torch", "keras", "linen")
U = UNIT_ROUNDOFF["float32"]
EPSILON = 1e-3
GEOMETRIES = {
    "conv": ConvGeometry(in_channels=3, out_channels=8, kernel_size=(3, 3), padding=1),
    "grouped": ConvGeometry(in_channels=8, out_channels=12, kernel_size=(3, 2), groups=2, d_mul=8),
    "depthwise": ConvGeometry(in_channels=12, out_channels=24, kernel_size=(3, 3), groups=12),
    "up": ConvGeometry(in_channels=24, out_channels=6, kernel_size=(2, 2), stride=2, transposed=True),
    "one": ConvGeometry(in_channels=6, out_channels=5, kernel_size=(1, 1)),
}


def random(label: str, shape: tuple[int, ...], size: float, around: float = 0.0) -> np.ndarray:
    return (around + size * generator.floats(f"travel/{label}", shape)).astype(np.float32)


def start(path: Path) -> None:
    """The first file, written by no framework: random in every tensor, `D_delta` too."""
    layers: dict[str, tuple[LayerInfo, dict[str, np.ndarray]]] = {}
    for name, g in GEOMETRIES.items():
        scale = (3 / (g.taps * g.w_shape[1])) ** 0.5
        if g.has_d:
            tensors = {"W": random(f"{name}/W", g.w_shape, scale), "D_delta": random(f"{name}/D", g.d_shape, 0.2)}
        else:
            tensors = {"weight": random(f"{name}/W", g.kernel_shape, scale)}
        options = ("in_channels", "out_channels", "kernel_size", "stride", "groups", "transposed", *["d_mul"] * g.has_d)
        info = LayerInfo("conv", {}, {option: g.to_json()[option] for option in options})
        layers[name] = info, tensors | {"bias": random(f"{name}/bias", (g.out_channels,), 0.1)}
    layers["bn"] = LayerInfo("batch_norm", {}, epsilon=EPSILON), {
        "weight": random("bn/weight", (8,), 0.5, 1), "bias": random("bn/bias", (8,), 0.5),
        "running_mean": random("bn/mean", (8,), 0.5), "running_var": random("bn/var", (8,), 0.5, 1),
    }  # fmt: skip
    layers["fc"] = LayerInfo("linear", {}), {"weight": random("fc/W", (4, 5), 1), "bias": random("fc/b", (4,), 1)}

    def layer(info: LayerInfo, tensors: dict[str, np.ndarray]) -> ModelLayer:
        return ModelLayer(info, lambda: tensors, lambda _: None)

    save_model(path, ModelState({name: layer(*found) for name, found in layers.items()}))


def expected(path: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The model's output in float64 from a file, and how far a float32 one may be from it, carried through the layers."""
    with open_checkpoint(path) as checkpoint:
        tensors = {
            name: {role: array.astype(np.float64) for role, array in checkpoint.read(name).items()}
            for name in checkpoint.layers
        }
    y, error = x.astype(np.float64), np.zeros(x.shape)
    for name, g in GEOMETRIES.items():
        t = tensors[name]
        W, D = t.get("W", t.get("weight")).reshape(g.w_shape), t.get("D_delta")
        kernel, size = compose(W, D, g), compose(np.abs(W), None if D is None else np.abs(D), g)
        chain = g.taps * g.in_channels // g.groups + g.d_mul + 2
        scale = convolve(np.abs(y) + error, size, np.abs(t["bias"]), g)
        error = convolve(error, np.abs(kernel), None, g) + gamma(chain, U) * scale
        y = convolve(y, kernel, t["bias"], g)
        if name == "conv":
            b = {role: array.reshape(-1, 1, 1) for role, array in tensors["bn"].items()}
            factor = np.abs(b["weight"]) / np.sqrt(b["running_var"] + EPSILON)
            scale = factor * (np.abs(y) + error + np.abs(b["running_mean"])) + np.abs(b["bias"])
            # At most ten roundings: the root and the quotient (2 each, and 2 where the root is of a reciprocal), the sum
            # under it, the product with the weight, the one with `y` or the mean, and the two sums.
            error = factor * error + gamma(10, U) * scale
            y = factor * np.sign(b["weight"]) * (y - b["running_mean"]) + b["bias"]
        if name != "one":
            y = np.maximum(y, 0)
    positions = y.shape[2] * y.shape[3]
    error = error.mean((2, 3)) + gamma(positions + 1, U) * (np.abs(y) + error).mean((2, 3))
    y, weight = y.mean((2, 3)), tensors["fc"]["weight"]
    scale = (np.abs(y) + error) @ np.abs(weight).T + np.abs(tensors["fc"]["bias"])
    error = error @ np.abs(weight).T + gamma(weight.shape[1] + 1, U) * scale
    return y @ weight.T + tensors["fc"]["bias"], error


class Journey:
    """The stations' processes, each started once, and a folder of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.x = random("x", (4, 3, 8, 8), 1)
        np.savez(folder / "data.npz", x=self.x, target=random("target", (4, 4), 1))
        start(folder / "start")
        self.processes = {
            name: PortProcess([sys.executable, str(STATION), name, str(folder / "data.npz")])
            for name in (*FRAMEWORKS, "nnx")
        }

    def close(self) -> None:
        for process in self.processes.values():
            process.close()

    def visit(self, framework: str, load: str, save: str, steps: int) -> None:
        """Load, check the output, save unchanged, train, check the output, save."""
        assert not self.ask(framework, {"load": load, "y": f"{save}-0.npy", "save": f"{save}-0"})
        self.ask(framework, {"train": steps, "y": f"{save}.npy", "save": save})
        same, given = load_file(self.folder / f"{save}-0"), load_file(self.folder / load)
        for name in given.keys() | same.keys():
            if not name.endswith("num_batches_tracked"):  # PyTorch's alone
                np.testing.assert_array_equal(same[name], given[name], err_msg=f"{framework}: {name}")
        self.check(framework, load, f"{save}-0.npy")
        self.check(framework, save, f"{save}.npy")
        trained = load_file(self.folder / save)
        for name in given:  # batch norm takes away what a bias before it adds, which so has no gradient
            if name.endswith(("W", "D_delta", "weight", "bias")) and name != "conv.bias":
                assert (trained[name] != given[name]).any(), f"{framework} did not train {name}"

    def check(self, framework: str, file: str, output: str) -> None:
        value, bound = expected(self.folder / file, self.x)
        difference = np.abs(np.load(self.folder / output) - value)
        assert (difference <= bound).all(), f"{framework}, {file}: {(difference / bound).max()} of the bound"

    def ask(self, framework: str, request: dict) -> str:
        """Returns why the file was refused, or nothing."""
        paths = {key: str(self.folder / value) if isinstance(value, str) else value for key, value in request.items()}
        return self.processes[framework].ask({"type": "visit", **paths}, timeout=300).get("refused", "")


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """Every framework has trained the first file."""
    journey = Journey(tmp_path_factory.mktemp("travel"))
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda framework: journey.visit(framework, "start", framework, 2), journey.processes))
        yield journey
    finally:
        journey.close()


@pytest.mark.parametrize(("home", "abroad"), list(permutations(FRAMEWORKS, 2)))
def test_a_model_goes_on_abroad_and_comes_back(journey: Journey, home: str, abroad: str) -> None:
    journey.visit(abroad, home, f"{home}-{abroad}", 2)
    journey.visit(home, f"{home}-{abroad}", f"{home}-{abroad}-{home}", 1)


@pytest.mark.parametrize("framework", ["torch", "keras", "linen"])
def test_nnx_is_one_of_them(journey: Journey, framework: str) -> None:
    journey.visit(framework, "nnx", f"nnx-{framework}", 1)
    journey.visit("nnx", f"nnx-{framework}", f"nnx-{framework}-nnx", 1)


@pytest.mark.parametrize("framework", ["torch", "keras", "linen", "nnx"])
def test_doconv_fold_gives_the_kernels_of_the_frameworks_own(journey: Journey, framework: str) -> None:
    journey.ask(framework, {"load": framework, "fold": f"{framework}-own"})
    with open_checkpoint(journey.folder / framework) as checkpoint:
        fold_file(checkpoint, journey.folder / f"{framework}-folded")
    own, ours = (load_file(journey.folder / f"{framework}-{which}") for which in ("own", "folded"))
    assert own.keys() == ours.keys()
    assert {f"{name}.weight" for name in GEOMETRIES} <= own.keys()
    for name, array in own.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_another_model_is_refused_with_everything_that_differs(journey: Journey) -> None:
    tensors = load_file(journey.folder / "start")
    with open_checkpoint(journey.folder / "start") as checkpoint:
        metadata = checkpoint.source.metadata
    tensors["fc.bias"] = tensors["fc.bias"].astype(np.float64)
    tensors["fc.weight"] = tensors["fc.weight"][:, :3].copy()
    metadata["doconv"] = metadata["doconv"].replace('"one"', '"other"').replace('"epsilon":0.001', '"epsilon":0.002')
    tensors |= {f"other.{role}": tensors.pop(f"one.{role}") for role in ("weight", "bias")}
    save_file(tensors, journey.folder / "wrong", metadata=metadata)
    for framework, mine in (("torch", "9"), ("keras", "layer_one"), ("linen", "net_one"), ("nnx", "one")):
        text = journey.ask(framework, {"load": "wrong"})
        for line in (
            f"missing in the file: {mine if mine == 'one' else f'{mine} (in the file one)'}",
            "left over in the file: other",
            "has weight (4, 3) in the file, (4, 5) in the model",
            "has bias float64 in the file, float32 in the model",
            *(["has epsilon 0.002 in the file, 0.001 in the model"] if framework != "linen" else []),
        ):
            assert line in text, f"{framework}: {text}"
