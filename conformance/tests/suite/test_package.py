"""What `pip install doconv-core` brings, and what it says where a framework is missing."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("doconv_core", "doconv_torch", "doconv_keras", "doconv_flax", "doconv_conformance")


def test_the_wheel_holds_every_package_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("doconv_core-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


@pytest.mark.parametrize(("package", "framework"), [("torch", "torch"), ("keras", "keras"), ("flax", "flax")])
def test_a_backend_without_its_framework_says_how_to_install_it(package: str, framework: str) -> None:
    code = f"import sys; sys.modules['{framework}'] = None; import doconv_{package}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert f"pip install 'doconv-core[{package}]'" in done.stderr.splitlines()[-1]


def test_the_core_and_the_command_import_no_framework() -> None:
    code = (
        "import sys, doconv_core, doconv_conformance.cli, doconv_conformance.running.runner;"
        "sys.exit(', '.join({'torch', 'keras', 'tensorflow', 'jax', 'flax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.strip() == ""
