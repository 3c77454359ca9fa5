"""Runs `distributed.py` in processes whose CPU counts as several devices, and in two processes that train together."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.tests.two_processes import outputs_of_two

HERE = Path(__file__).parent
TWO_CPUS = (
    "import tensorflow as tf; cpu, = tf.config.list_physical_devices('CPU');"
    "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2);"
)


@pytest.mark.parametrize(
    ("backend", "prepare", "env"),
    [
        ("jax", "", {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}),
        ("tensorflow", TWO_CPUS, {}),
    ],
)
def test_on_devices(backend: str, prepare: str, env: dict[str, str]) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run = f"import sys, pytest; {prepare} sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "-q", "-p", "no:cacheprovider", str(HERE / "distributed.py")]
    env = os.environ | {"KERAS_BACKEND": backend} | env
    env.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_in_two_processes(tmp_path: Path) -> None:
    texts = outputs_of_two("conformance.tests.keras.distributed", tmp_path, timeout=600, env={"KERAS_BACKEND": "jax"})
    assert all("within the bound of one device" in text for text in texts)
