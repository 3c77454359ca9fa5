"""The command `doconv`: exit status, messages, and the JSON report."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import escape
from safetensors.numpy import load_file
from typer.testing import CliRunner

from doconv_conformance.cases.table import select
from doconv_conformance.cli import app
from doconv_conformance.protocol.schemas import problem
from doconv_conformance.reports import junit
from doconv_conformance.verdicts.judge import row

CORE = ("--", sys.executable, "-m", "doconv_conformance.adapters.core")


def doconv(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "doconv_conformance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("compare", "--backend", "mxnet"), "--backend must be one of torch, keras, flax. Received: mxnet"),
        (("compare", "--backend", "core,torch"), "flax (the core is what they are compared with). Received: core"),
        (("compare", "--stage", "first"), "stage must be one of compose,"),
        (("compare", "--json", "nowhere/report.json"), "the folder of nowhere/report.json does not exist"),
        (("compare", "--image", "nowhere.jpg"), "cannot read a picture from nowhere.jpg"),
        (("compare", "--image", "x.jpg", "--figure", "x.gif"), "--figure must end in .png, .svg or .pdf"),
        (("compare", "--json", "."), "the report must be a file. Received the folder: ."),
        (("compare", "--dtype", "int8"), "--dtype must be one of float64, float32, float16, bfloat16. Received: int8"),
        (
            ("compare", "--dtype", "float16", "--stage", "groups"),
            "the stage has no case of that type. Received: float16",
        ),
        (("compare", "--backend", "torch,torch"), "--backend names a backend twice. Received: torch,torch"),
        (
            ("compare", "--python", "torch=nowhere"),
            "--python must be NAME=PATH with a program at PATH. Received: torch=nowh",
        ),
        (
            ("compare", "--way", "jitted", "--backend", "torch"),
            "--way must be all or one of aot, autocast, by-channel, ",
        ),
        (("compare", "--way", "jitted", "--backend", "torch"), "Received: jitted"),
        (("compare", "--way", "aot", "--backend", "torch", "--dtype", "float16"), "run none of the cases asked for"),
        (("compare", "--way", "aot", "--backend", "torch", "--device", "cuda"), "Received: aot"),
        (("compare", "--device", "tpu"), "--device must be one of cpu, cuda. Received: tpu"),
        (("compare", "--device", "cuda", "--backend", "keras"), "must be one of torch, flax on cuda. Received: keras"),
        (("compare", "--unknown"), "No such option"),
        (("check", "--case", "nothing", *CORE), "no case begins with that. Received: 'nothing'"),
        (("check", "--html", "nowhere/page.html", *CORE), "the folder of nowhere/page.html does not exist"),
        (("check", "--case", "groups-2-exact", "--keep", "no/where", *CORE), "the folder of no/where does not exist"),
        (("check",), "Missing argument"),
        (("vectors", "export", "conformance"), "the folder must be new or empty. Received: conformance"),
        (("vectors", "export", "no/where"), "the folder of no/where does not exist"),
        (("vectors", "check", "conformance"), "not a folder of vectors: vectors.json cannot be read"),
    ],
)
def test_unusable_arguments_exit_with_2(arguments: tuple[str, ...], text: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    assert text in done.stderr


def test_check_writes_its_reports(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"report.{name}" for name in ("json", "html", "junit")}
    done = doconv("check", "--stage", "groups", *(f"--{name}={path}" for name, path in paths.items()), *CORE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All agree." in done.stdout
    assert re.search(r"port \(0\.1\.0\): .* s = .* to start, .* its answers, .* our reference, .* judging", done.stdout)
    report = json.loads(paths["json"].read_text())
    assert problem(report, "report") == ""
    assert report["summary"]["agree"] is True
    assert report["summary"]["exact"] > 0
    assert report["ports"][0]["hello"]["environment"]["numpy"]
    assert sum(report["histograms"][0]["counts"]) > 0
    tree = ElementTree.fromstring(paths["junit"].read_text())
    assert len(tree.findall("testsuite/testcase")) == len(report["results"]) == int(tree.find("testsuite").get("tests"))
    assert "All agree" in paths["html"].read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.junit"]


def test_a_failing_port_is_diagnosed_in_every_report(tmp_path: Path) -> None:
    """The core with a `D` that is ignored: exit status 1, and the same diagnosis on the terminal, in JSON and in HTML."""
    script = tmp_path / "port.py"
    script.write_text(
        "from doconv_conformance.adapters.core import *\n"
        "class Bad(CorePort):\n"
        "    def compose(self, geometry, inputs):\n"
        "        zeros = {'D_delta': inputs['D_delta'] * 0} if 'D_delta' in inputs else {}\n"
        "        return super().compose(geometry, inputs | zeros)\n"
        "serve(Bad())\n"
    )
    paths = {name: tmp_path / f"report.{name}" for name in ("json", "html", "junit")}
    options = [f"--{name}={path}" for name, path in paths.items()]
    done = doconv("check", "--stage", "compose", *options, "--", sys.executable, str(script))
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads(paths["json"].read_text())
    assert problem(report, "report") == ""
    assert report["summary"]["mismatch"] > 0
    first = report["diagnosis"][0]
    assert first["look_at"] in " ".join(done.stdout.split())
    assert escape(first["look_at"]) in paths["html"].read_text()
    tree = ElementTree.fromstring(paths["junit"].read_text())
    assert len(tree.findall("testsuite/testcase/failure")) == report["summary"]["mismatch"]


def test_junit_survives_what_xml_cannot_write() -> None:
    case, operation = select(stage="compose")[0]
    rows = [
        row("port", case, operation, verdict="crashed", reason="said \x00\x1b[31m<&>\ud800"),
        row("port", case, operation, verdict="unsupported", reason="later"),
        row("port", case, operation, verdict="unsupported", reason="later", contradicts="declared supported"),
    ]
    tree = ElementTree.fromstring(junit.render({"results": [asdict(item) for item in rows]}))
    suite = tree.find("testsuite")
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["3", "1", "1", "1"]
    assert suite.find("testcase/error").text == "said \ufffd\ufffd[31m<&>\ufffd"


def test_one_case_leaves_its_files(tmp_path: Path) -> None:
    """Among them the messages that ask for it: a porter runs the port on them without the suite."""
    kept = tmp_path / "kept"
    done = doconv("check", "--case", "groups-2-exact-float32", "--keep", str(kept), *CORE)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (path for path in kept.iterdir() if path.name != "smoke")
    operations = [operation for _, operation in select(case="groups-2-exact-float32")]
    kinds = ("expected.safetensors", "inputs.safetensors", "outputs.safetensors", "request.jsonl")
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in operations for kind in kinds}
    (folder / "backward.outputs.safetensors").unlink()
    answer = subprocess.run(
        CORE[1:], input=(folder / "backward.request.jsonl").read_text(), capture_output=True, text=True, check=True
    )
    assert [json.loads(line)["type"] for line in answer.stdout.splitlines()] == ["hello", "result"]
    got, want = (load_file(folder / f"backward.{kind}.safetensors") for kind in ("outputs", "expected"))
    for name, value in got.items():
        np.testing.assert_array_equal(value, want[name])
        assert not want[f"{name}.bound"].any()


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from doconv_conformance.cli import app;"
        "CliRunner().invoke(app, ['--help']); sys.exit(', '.join({'numpy', 'jsonschema', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_backend_that_is_missing_is_rows_with_the_line_that_installs_it(tmp_path: Path) -> None:
    interpreter, path = tmp_path / "python", tmp_path / "report.json"
    interpreter.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2\nexit 1\n")
    interpreter.chmod(0o755)
    arguments = ("--backend", "torch", "--python", f"torch={interpreter}", "--stage", "groups", "--json", str(path))
    done = CliRunner().invoke(app, ("compare", *arguments))
    assert done.exit_code == 1, done.output
    report = json.loads(path.read_text())
    assert problem(report, "report") == ""
    assert {item["verdict"] for item in report["results"]} == {"crashed"}
    assert all("pip install 'doconv-core[torch]'" in item["reason"] for item in report["results"])
    assert "torch (did not start)" in done.output
