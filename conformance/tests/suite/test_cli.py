"""The command `doconv`: exit status, messages, and the JSON report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CORE = ("--", sys.executable, "-m", "doconv_conformance.adapters.core")


def doconv(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "doconv_conformance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("compare", "--backend", "mxnet"), "--backend must be of torch, keras, flax. Received: mxnet"),
        (("compare", "--stage", "first"), "stage must be one of compose,"),
        (("compare", "--json", "nowhere/report.json"), "the folder of nowhere/report.json does not exist"),
        (("compare", "--image", "nowhere.jpg"), "cannot read a picture from nowhere.jpg"),
        (("compare", "--image", "x.jpg", "--figure", "x.gif"), "--figure must end in .png, .svg or .pdf"),
        (("compare", "--unknown"), "No such option"),
        (("check", "--case", "nothing", *CORE), "no case begins with that. Received: 'nothing'"),
        (("check",), "Missing argument"),
    ],
)
def test_unusable_arguments_exit_with_2(arguments: tuple[str, ...], text: str) -> None:
    done = doconv(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert text in done.stderr


def test_check_writes_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = doconv("check", "--stage", "groups", "--json", str(path), *CORE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All agree." in done.stdout
    report = json.loads(path.read_text())
    assert report["summary"]["agree"] is True
    assert report["summary"]["exact"] > 0
    keys = {"backend", "case", "operation", "dtype", "verdict", "bound_fraction", "r"}
    assert all(keys <= set(row) for row in report["results"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_one_case_leaves_its_files(tmp_path: Path) -> None:
    done = doconv("check", "--case", "groups-2-float-float32", "--keep", str(tmp_path / "kept"), *CORE)
    assert done.returncode == 0, done.stdout + done.stderr
    operations = {entry.name.split("-")[-2] for entry in (tmp_path / "kept").iterdir()}
    assert operations == {"compose", "forward", "backward", "fold", "initialise"}


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from doconv_conformance.cli import app;"
        "CliRunner().invoke(app, ['--help']); sys.exit(', '.join({'numpy', 'jsonschema', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
