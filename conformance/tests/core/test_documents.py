"""The code in the documents runs as it stands: the formulas against the core, each framework's examples in its own process."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("torch", "keras", "flax")


def examples(path: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


@pytest.mark.parametrize("package", PACKAGES)
def test_readme(package: str) -> None:
    assert importlib.util.find_spec(package), f"the tests need {package}: pip install '.[dev]'"
    example = examples("README.md")[PACKAGES.index(package)]
    assert f"doconv_{package}" in example
    subprocess.run([sys.executable, "-c", example], check=True, timeout=300)


def test_mathematics() -> None:
    exec("\n".join(examples("docs/mathematics.md")), {})
