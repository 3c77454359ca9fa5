"""The tests of layers and of training on Keras's other backends, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# JAX compiles every operation of every shape: there two-dimensional layers stand for the others.
CHOSEN = {
    "jax": (
        "not 1D and not 3D and not conv and not depthwise and not transposed",
        "test_layers.py",
        "test_training.py",
        "test_owners.py",
        "test_compose.py",
        "test_compose_jax.py",
    ),
    "torch": ("", "test_layers.py", "test_training.py", "test_contract.py", "test_owners.py", "test_compose.py"),
    "numpy": ("", "test_layers.py", "test_contract.py", "test_owners.py", "test_compose.py"),
}


@pytest.mark.parametrize("backend", CHOSEN)
def test_on(backend: str) -> None:
    needs = "jax" if backend == "numpy" else backend  # Keras's numpy backend convolves with JAX
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"Keras's {backend} backend needs {needs}, which is not installed")
    chosen, *files = CHOSEN[backend]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        chosen,
        *(str(HERE / f) for f in files),
    ]
    env = os.environ | {"KERAS_BACKEND": backend}
    env.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout
