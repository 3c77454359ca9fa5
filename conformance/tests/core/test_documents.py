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


# What the README's first example takes for granted.
MODEL = (
    "import torch\nmodel = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))\n"
)


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_readme(package: str, tmp_path: Path) -> None:
    package_needed = package or "torch"
    assert importlib.util.find_spec(package_needed), f"the tests need {package_needed}: pip install '.[dev]'"
    first, *others = examples("README.md")
    example = others[PACKAGES.index(package)] if package else MODEL + first
    assert f"doconv_{package_needed}" in example
    subprocess.run([sys.executable, "-c", example], check=True, timeout=300, cwd=tmp_path)


@pytest.mark.parametrize("page", ["mathematics", "training"])
def test_formulas(page: str) -> None:
    exec("\n".join(examples(f"docs/{page}.md")), {})
