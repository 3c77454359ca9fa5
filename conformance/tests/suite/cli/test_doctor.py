"""`doconv doctor` and `doconv --version`: what is there, what is missing, what does not start."""

import importlib
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from doconv_conformance.cli import app

doctor = importlib.import_module("doconv_conformance.cli.doctor")  # the package has a function of that name


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes that import nothing: what the frameworks say is tested with each of them."""
    probe = "devices, switches = ['abacus'], {'beads': 7}"
    monkeypatch.setattr(doctor, "PROBES", dict.fromkeys(doctor.PROBES, probe))
    monkeypatch.setattr(doctor, "installed", lambda package: f"1.{len(package)}")


def test_versions() -> None:
    code, text = run("--version")
    assert code == 0
    assert text.startswith(f"doconv {version('doconv-core')}, numpy {version('numpy')}")
    assert len(text.splitlines()) == 1


@pytest.mark.usefixtures("quick")
def test_everything_is_there() -> None:
    code, text = run("doctor")
    assert code == 0
    assert "Everything is there." in text
    assert text.count("abacus") == text.count("beads: 7") == 3
    assert "tensorflow 1.10" in text


@pytest.mark.usefixtures("quick")
def test_what_is_missing_is_no_failure_but_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda package: "" if package in ("tensorflow", "torch") else "1.0")
    code, text = run("doctor")
    assert code == 0
    assert "torch missing: pip install 'doconv-core[torch]'" in text
    assert "tensorflow missing: pip install 'doconv-core[keras]'" in text
    assert "Everything is there." not in text


@pytest.mark.usefixtures("quick")
def test_a_framework_that_does_not_start_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.PROBES, "flax", "raise ImportError('libfoo.so not found')")
    code, text = run("doctor")
    assert code == 1
    assert "flax is installed and does not start: ImportError: libfoo.so not found" in text


@pytest.mark.parametrize("framework", [name for name in doctor.PROBES if name in sys.modules or doctor.installed(name)])
def test_every_framework_answers(framework: str) -> None:
    answer = doctor.ask(framework)
    assert answer["devices"]
    assert answer["switches"]
