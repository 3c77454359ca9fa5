"""The README's code runs as it stands; each framework's in its own process."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
PACKAGES = ("torch", "keras", "flax")


@pytest.mark.parametrize("package", PACKAGES)
def test_example(package: str) -> None:
    assert importlib.util.find_spec(package), f"the tests need {package}: pip install '.[dev]'"
    example = EXAMPLES[PACKAGES.index(package)]
    assert f"doconv_{package}" in example
    subprocess.run([sys.executable, "-c", example], check=True, timeout=300)
