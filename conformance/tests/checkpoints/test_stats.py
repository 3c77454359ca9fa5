"""What training made of a layer: every number of `inspect --stats` against its definition, and its figure."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from doconv_conformance.cases import generator
from doconv_conformance.cli import app
from doconv_conformance.reports.layers_figure import most_changed, write_layers_figure
from doconv_core import ConvGeometry, compose
from doconv_core.checkpoint import Arrays, Checkpoint, Hints, LayerStats, layer_stats

GEOMETRIES = [
    ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3)),
    ConvGeometry(in_channels=4, out_channels=6, kernel_size=(2, 3), groups=2, d_mul=13),
]


def checkpoint(geometry: ConvGeometry, W: np.ndarray, D: np.ndarray) -> Checkpoint:
    return Checkpoint(Arrays("x", {"a.W": W, "a.D": D}), "x", hints=Hints({"a": geometry.kernel_size}))


def tiled(geometry: ConvGeometry) -> np.ndarray:
    E = np.zeros((geometry.taps, geometry.d_mul))
    for s in range(geometry.taps * (geometry.d_mul // geometry.taps)):
        E[s % geometry.taps, s] = 1
    return E


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_number_is_what_it_says(geometry: ConvGeometry) -> None:
    W = generator.floats("stats/W", geometry.w_shape).astype(np.float32)
    D = generator.floats("stats/D", geometry.d_shape).astype(np.float32)
    found, E = layer_stats(checkpoint(geometry, W, D), "a"), tiled(geometry)
    for channel in range(geometry.in_channels):
        np.testing.assert_allclose(found.from_identity[channel], np.linalg.norm(D[channel]) / np.linalg.norm(E))
        gram = (E + D[channel]) @ (E + D[channel]).T
        # Squares of singular values lose half the digits of the small ones: eigenvalues are off by 2**-53 of the largest.
        np.testing.assert_allclose(
            np.sort(found.spectrum[channel] ** 2), np.linalg.eigvalsh(gram), rtol=1e-9, atol=1e-9
        )
    kernel, start = compose(W, D, geometry).astype(float), W.astype(float) @ E.T
    change = np.linalg.norm(kernel.reshape(start.shape) - start) / np.linalg.norm(start)
    assert found.kernel_change == pytest.approx(change)
    assert (found.before, found.after) == (W.size + D.size, kernel.size)
    assert (found.largest, found.smallest) == (np.abs(kernel).max(), np.abs(kernel[kernel != 0]).min())


def test_a_layer_as_it_starts_is_the_identity() -> None:
    geometry = GEOMETRIES[0]
    W = generator.floats("stats/W", geometry.w_shape).astype(np.float32)
    found = layer_stats(checkpoint(geometry, W, np.zeros(geometry.d_shape, np.float32)), "a")
    assert not found.from_identity.any()
    assert (found.spectrum == 1).all()
    assert found.kernel_change == 0


@pytest.mark.parametrize(
    ("values", "overflows", "vanishes", "subnormal"),
    [
        ([1, 2, 65504, 0], 0, 0, 0),
        ([1, 2, 70000, 0], 2, 0, 0),  # in W and in the composed kernel
        ([1, 1e-9, 2e-8, 0], 0, 2 / 3, 0),
        ([1, 1e-6, 3e-5, 7e-5], 0, 0, 2 / 4),
    ],
)
def test_what_float16_would_lose(values: list[float], overflows: int, vanishes: float, subnormal: float) -> None:
    geometry = ConvGeometry(in_channels=1, out_channels=1, kernel_size=(2, 2))
    W = np.array(values, np.float32).reshape(1, 1, 4)
    found = layer_stats(checkpoint(geometry, W, np.zeros((1, 4, 4), np.float32)), "a")
    assert found.half_overflows == overflows
    assert found.half_vanishes == pytest.approx(vanishes)
    assert found.half_subnormal == pytest.approx(subnormal)


def test_a_layer_of_zeros_has_no_numbers_that_json_lacks() -> None:
    geometry = GEOMETRIES[0]
    D = np.ones(geometry.d_shape, np.float32)
    assert layer_stats(checkpoint(geometry, np.zeros(geometry.w_shape, np.float32), D), "a").kernel_change == 0
    with pytest.raises(ValueError, match="a layer without D has nothing to compare"):
        layer_stats(Checkpoint(Arrays("x", {"one.W": np.ones((2, 2, 1), np.float32)}), "x"), "one")


def test_numbers_whose_squares_overflow_or_vanish_are_reported(tmp_path: Path) -> None:
    save_file({"a.W": np.full((2, 3, 9), 1e-200), "a.D": np.full((3, 9, 9), 1e199)}, tmp_path / "in.safetensors")
    options = ["--stats", "--kernel-size", "a=3x3", "--json", str(tmp_path / "out.json")]
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "in.safetensors"), *options], catch_exceptions=False)
    assert done.exit_code == 0
    stats = json.loads((tmp_path / "out.json").read_text("utf-8"))["layers"][0]["stats"]
    assert stats["from_identity"]["max"] == pytest.approx(1e199 * 9 / 3)
    assert stats["kernel_change"] == pytest.approx(1e199 * 9)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {"fc.weight": np.ones((2, 3), np.float32)}
    for path in ("stem", "b$_1$", "z" * 200):
        tensors[f"{path}.W"] = generator.floats(f"stats/{path}/W", (6, 4, 9)).astype(np.float32)
        tensors[f"{path}.D"] = generator.floats(f"stats/{path}/D", (4, 9, 9)).astype(np.float32)
    save_file(tensors, tmp_path / "in.safetensors")
    return tmp_path / "in.safetensors"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".svg", ".pdf"])
def test_the_command_shows_writes_and_draws(suffix: str, source: Path, tmp_path: Path) -> None:
    figure = tmp_path / f"figure{suffix}"
    options = ["--stats", "--figure", str(figure), "--json", str(tmp_path / "report.json")]
    result = CliRunner().invoke(app, ["inspect", str(source), *options])
    assert result.exit_code == 0, result.output
    assert (
        f"{3 * (6 * 4 * 9 + 4 * 81):,} parameters train in these layers, {3 * 6 * 4 * 9:,} are left folded"
        in result.stdout
    )
    rows = json.loads((tmp_path / "report.json").read_text())["layers"]
    assert ["stats" in row for row in rows] == [row["kind"] == "conv" for row in rows]
    assert all(row["parameters"] == {"before": 540, "after": 216} for row in rows if "stats" in row)
    assert figure.stat().st_size > 5000
    if suffix in (".png", ".jpg"):
        picture = np.asarray(Image.open(figure).convert("L"))
        assert picture.std() > 5  # something is drawn


def test_a_figure_of_nothing_is_refused(tmp_path: Path) -> None:
    save_file({"fc.weight": np.ones((2, 3), np.float32)}, tmp_path / "in.safetensors")
    for name, status, error in (
        ("f.png", 1, "no over-parameterized layer to draw"),
        ("f.txt", 2, "--figure must end with"),
    ):
        result = CliRunner().invoke(
            app, ["inspect", str(tmp_path / "in.safetensors"), "--figure", str(tmp_path / name)]
        )
        assert result.exit_code == status
        assert error in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.safetensors"]


def test_the_layers_that_changed_most_are_drawn_in_their_order(tmp_path: Path) -> None:
    def layer(index: int) -> LayerStats:
        return LayerStats(f"l{index}", np.ones(2), np.ones((2, 9)), index % 7, 2, 1, 1.0, 0.1, 0, 0.0, 0.0)

    stats = [layer(index) for index in range(100)]
    shown = most_changed(stats, 20)
    assert [row.path for row in shown] == sorted((row.path for row in shown), key=lambda path: int(path[1:]))
    assert {row.kernel_change for row in shown} == {5, 6}
    write_layers_figure(stats, tmp_path / "f.png", title="many")
