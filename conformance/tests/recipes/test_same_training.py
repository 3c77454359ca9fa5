"""The same recipe in three frameworks, on two processes and on several devices, trains the same network."""

import csv
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import losses
import numpy as np
import pytest

HERE = Path(__file__).parent
TRAIN = HERE.parents[2] / "recipes" / "train.py"
# Rounding alone: the frameworks add up in other orders, and each step carries the differences on.
ROUNDING = 1e-5
# A normalised network of few channels divides by small deviations. Measured over these four steps: up to 7.3e-6.
NORMALISED = 1e-4


@cache
def trained(framework: str, *only: str, flags: str = "") -> dict[str, dict[str, np.ndarray]]:
    command = [sys.executable, str(HERE / "losses.py"), framework, *only]
    # To optimize the tiny networks costs more than to run them; TensorFlow's eager steps crash in oneDNN ("double free").
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    if flags:
        environment |= {"KERAS_BACKEND": "jax", "XLA_FLAGS": flags}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {each.pop("run"): {name: np.array(value) for name, value in each.items()} for each in said}


@pytest.mark.parametrize("variant", ["plain", "do"])
@pytest.mark.parametrize("framework", ["keras", "flax"])
def test_the_losses_of_the_first_steps_agree(framework: str, variant: str) -> None:
    want, got = trained("torch")[variant]["losses"], trained(framework)[variant]["losses"]
    assert want[-1] < 0.9 * want[0]  # it learns
    np.testing.assert_allclose(got, want, rtol=ROUNDING)


@pytest.mark.parametrize("name", losses.NETWORKS)
@pytest.mark.parametrize("framework", ["keras", "flax"])
def test_every_network_is_the_same_in_every_framework(framework: str, name: str) -> None:
    want, got = trained("torch")[name], trained(framework)[name]
    assert want["losses"][-1] < want["losses"][0]
    np.testing.assert_allclose(got["losses"], want["losses"], rtol=NORMALISED)


@pytest.mark.parametrize("framework", ["torch", "keras", "flax"])
def test_a_run_goes_on_from_its_state(framework: str) -> None:
    assert trained(framework)["resumed"]["losses"].tolist() == trained(framework)["do"]["losses"].tolist()


@pytest.mark.parametrize("framework", ["torch", "keras", "flax"])
def test_over_parameterized_training_differs_and_folds(framework: str) -> None:
    plain, do = trained(framework)["plain"], trained(framework)["do"]
    assert plain["losses"][0] == pytest.approx(do["losses"][0], rel=ROUNDING)
    assert np.abs(plain["losses"] / do["losses"] - 1).max() > 100 * ROUNDING
    for each in trained(framework).values():
        close = ROUNDING * np.abs(each["before"]).max()
        np.testing.assert_allclose(each["after"], each["before"], rtol=ROUNDING, atol=close)


def run(out: Path, launcher: tuple[str, ...] = ()) -> tuple[list[list[float]], set[str]]:
    """Two runs in PyTorch: their losses, and on what they ran."""
    short = ("--variants", "do", "--rates", "0.05", "--grid-seeds", "1", "--final-seeds", "1", "--cost", "1.2")
    command = [sys.executable, *launcher, str(TRAIN), "digits", *short, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with open(out, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(row["metric"] == row["folded_metric"] for row in rows)
    return [[float(value) for value in row["curve"].split(";")] for row in rows], {row["device"] for row in rows}


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    (two, shared), (one, alone) = run(tmp_path / "two.csv", launcher), run(tmp_path / "one.csv")
    assert shared == {f"{name}, each batch shared by 2" for name in alone}
    np.testing.assert_allclose(two, one, rtol=10 * ROUNDING)  # 5 digits are kept of each mean


@pytest.mark.parametrize("framework", ["flax", "keras"])
def test_eight_devices_train_as_one(framework: str) -> None:
    """Keras on JAX; the one device that it is compared with computes by TensorFlow."""
    eight = trained(framework, "do", flags="--xla_force_host_platform_device_count=8")["do"]
    one = trained(framework)["do"]
    assert (eight["devices"], one["devices"]) == (8, 1)
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=ROUNDING)
    np.testing.assert_allclose(
        eight["after"], eight["before"], rtol=ROUNDING, atol=ROUNDING * np.abs(eight["before"]).max()
    )
