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
def trained(framework: str) -> dict[str, dict[str, np.ndarray]]:
    command = [sys.executable, str(HERE / "losses.py"), framework]
    # To optimize the tiny networks costs more than to run them; TensorFlow's eager steps crash in oneDNN ("double free").
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
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


def curve(out: Path) -> list[list[float]]:
    with open(out, newline="") as stream:
        return [[float(value) for value in row["curve"].split(";")] for row in csv.DictReader(stream)]


def run(out: Path, framework: str, launcher: tuple[str, ...] = (), **environment: str) -> list[list[float]]:
    short = ("--variants", "do", "--rates", "0.1", "--grid-seeds", "1", "--final-seeds", "1", "--cost", "1.2")
    command = [sys.executable, *launcher, str(TRAIN), "digits", "--framework", framework, *short, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return curve(out)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = run(tmp_path / "two.csv", "torch", launcher)
    np.testing.assert_allclose(
        two, run(tmp_path / "one.csv", "torch"), rtol=10 * ROUNDING
    )  # 5 digits are kept of each mean


def test_five_devices_train_as_one(tmp_path: Path) -> None:
    five = run(tmp_path / "five.csv", "flax", XLA_FLAGS="--xla_force_host_platform_device_count=5")
    np.testing.assert_allclose(five, run(tmp_path / "one.csv", "flax"), rtol=10 * ROUNDING)
