"""`pytest --pyargs doconv_conformance --doconv-port ...`, from an empty folder outside this repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

CORE = f"{sys.executable} -m doconv_conformance.adapters.core"
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel holds, as pip lays it out, with the entry point among it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run_pytest(site: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "pytest", "--pyargs", "doconv_conformance", "-p", "no:cacheprovider", *options)
    env = os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_a_port_that_is_right_passes(site: Path, tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    done = run_pytest(
        site, tmp_path, "--doconv-port", CORE, "-k", "smoke or (groups and forward)", f"--junit-xml={report}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = [test.get("name") for test in ElementTree.parse(report).iter("testcase")]
    assert "test_smoke" in names
    assert any(name.startswith("test_case[groups-forward-groups-2-exact-float32-") for name in names)
    properties = {item.get("name") for item in ElementTree.parse(report).iter("property")}
    assert properties == {"verdict", "bound_fraction", "r"}


def test_a_port_that_is_wrong_fails_in_words(site: Path, tmp_path: Path) -> None:
    (tmp_path / "my_port.py").write_text(
        "from doconv_conformance.adapters.core import *\n"
        "class Bad(CorePort):\n"
        "    supports = CorePort.supports | {'transposed': False}\n"
        "    def forward(self, geometry, inputs):\n"
        "        if geometry.transposed:\n"
        "            raise Unsupported('no transposed convolutions yet')\n"
        "        return {'y': super().forward(geometry, inputs)['y'] + 1}\n"
        "from doconv_conformance.port import Unsupported\n"
        "serve(Bad())\n"
    )
    chosen = "forward and (conv1d-exact or transposed-1d-exact) and float32"
    keep = tmp_path / "kept"
    done = run_pytest(
        site, tmp_path, "--doconv-port", f"{sys.executable} my_port.py", "-k", chosen, "-rs", f"--doconv-keep={keep}"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for text in (
        "mismatch: y[0, 0, 0] is ",
        "made to catch: 1-D weights taken for 2-D",
        "again, with its files: doconv check --case conv1d-exact-float32-",
        "no transposed convolutions yet",
        "look at: ",
    ):
        assert text in done.stdout
    assert "Traceback" not in done.stdout
    assert len(list(keep.glob("conv1d-exact-float32-*/forward.expected.safetensors"))) == 1


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ((), 1, 'these are tests of a port: give --doconv-port "PROGRAM ARGUMENTS"'),
        (("--doconv-port", "no-such-program"), 1, "the port cannot start 'no-such-program'"),
    ],
)
def test_no_port(options: tuple[str, ...], status: int, text: str, site: Path, tmp_path: Path) -> None:
    done = run_pytest(site, tmp_path, *options, "-k", "smoke or conv1d-exact")
    assert done.returncode == status, done.stdout + done.stderr
    assert text in done.stdout + done.stderr


def test_all_skipped_is_no_success(site: Path, tmp_path: Path) -> None:
    (tmp_path / "my_port.py").write_text(
        "from doconv_conformance.adapters.core import *\nfrom doconv_conformance.port import Port\n"
        "class Nothing(Port):\n    supports = CorePort.supports | {'operations': ['compose']}\n"
        "serve(Nothing())\n"
    )
    done = run_pytest(site, tmp_path, "--doconv-port", f"{sys.executable} my_port.py", "-k", "forward and conv1d")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "doconv: no case ran" in done.stdout
