"""The Triton kernels, interpreted on the processor: the checks of `fused_checks.py`, in a process of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("fused_checks.py")
NAMES = re.findall(r"^def check_(\w+)", CHECKS.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def output() -> str:
    pytest.importorskip("triton", reason="Triton comes with PyTorch's builds for CUDA only")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, CHECKS], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_interpreted(name: str, output: str) -> None:
    assert f"passed {name}\n" in output, output
