"""The same recipe in three frameworks, on two processes and on several devices, trains the same network."""

import csv
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
TRAIN = HERE.parents[2] / "recipes" / "train.py"
STEPS = 50
# Rounding alone: the frameworks add up in other orders, and each step carries the differences on.
ROUNDING = 1e-5


@cache
def trained(framework: str, variant: str) -> dict[str, np.ndarray]:
    command = [sys.executable, str(HERE / "losses.py"), framework, variant, str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: np.array(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.parametrize("variant", ["plain", "do"])
@pytest.mark.parametrize("framework", ["keras", "flax"])
def test_the_losses_of_the_first_steps_agree(framework: str, variant: str) -> None:
    want, got = trained("torch", variant)["losses"], trained(framework, variant)["losses"]
    assert want[-1] < 0.9 * want[0]  # it learns
    np.testing.assert_allclose(got, want, rtol=ROUNDING)


@pytest.mark.parametrize("framework", ["torch", "keras", "flax"])
def test_over_parameterized_training_differs_and_folds(framework: str) -> None:
    plain, do = trained(framework, "plain"), trained(framework, "do")
    assert plain["losses"][0] == pytest.approx(do["losses"][0], rel=ROUNDING)
    assert np.abs(plain["losses"] / do["losses"] - 1).max() > 100 * ROUNDING
    np.testing.assert_allclose(do["after"], do["before"], rtol=ROUNDING, atol=ROUNDING * np.abs(do["before"]).max())


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
