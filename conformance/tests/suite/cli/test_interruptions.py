"""A run that is interrupted or killed, and reports that nothing loses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from doconv_conformance.cases.table import select
from doconv_conformance.cli import app
from doconv_conformance.cli.disagreeing import disagreeing
from doconv_conformance.files import check_writable, write_json, write_text
from doconv_conformance.protocol import session
from doconv_conformance.protocol.process import PortProcess, PortTimeout
from doconv_conformance.protocol.said import said, said_json
from doconv_conformance.protocol.schemas import problem
from doconv_conformance.running.runner import Backend, run_cases
from doconv_conformance.verdicts.judge import summarise

CORE = (sys.executable, "-m", "doconv_conformance.adapters.core")
# Starts a child in a session of its own, says where it is, and answers nothing any more.
SILENT = """
import json, subprocess, sys, time
from doconv_conformance.adapters.core import CorePort
hello = {"type": "hello", "protocol": [1], "name": "n", "version": "0", "language": "python", "supports": CorePort.supports}
sys.stdin.readline()
print(json.dumps(hello), flush=True)
sys.stdin.readline()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", __file__], start_new_session=True)
open(__file__ + ".asked", "w").close()
time.sleep(300)
"""


def alive(mark: str) -> list[str]:
    """Command lines of processes that have `mark` in them, this one apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text().replace("\0", " ")
        except OSError:
            continue
        if mark in line and path.parent.name != str(os.getpid()):
            found.append(line)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_a_run_that_is_ended_leaves_no_process_and_no_folder(number: signal.Signals, tmp_path: Path) -> None:
    port, memory = tmp_path / "port.py", tmp_path / "memory"
    port.write_text(SILENT)
    memory.mkdir()
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # which a run under nohup inherits as ignored
        "from doconv_conformance.protocol import session\n"
        f"session._memory_folder = lambda: {str(memory)!r}\n"
        "from doconv_conformance.cli import main; main()"
    )
    run = subprocess.Popen(
        (sys.executable, "-c", code, "check", "--", sys.executable, str(port)),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: (tmp_path / "port.py.asked").exists() and len(alive(str(port))) >= 3)
    assert os.listdir(memory)
    run.send_signal(number)
    assert run.wait(timeout=30) != 0
    wait_for(lambda: not alive(str(port)) and not os.listdir(memory))


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_port_that_never_reads_is_a_timeout(tmp_path: Path) -> None:
    """A plain write of more than the pipe holds would never come back."""
    port = tmp_path / "port.py"
    port.write_text("import time\ntime.sleep(300)\n")
    process = PortProcess((sys.executable, str(port)))
    with pytest.raises(PortTimeout, match="did not read its input within 1 s"):
        process.ask({"type": "run", "id": "x" * 2**22}, timeout=1.0)  # no pipe holds 4 MiB
    process.close()
    assert not alive(str(port))


def test_an_end_of_output_before_the_question_is_a_crash_at_once(tmp_path: Path) -> None:
    port = tmp_path / "port.py"
    port.write_text(SILENT.split("sys.stdin.readline()\nsubprocess")[0] + "import os; os.close(1); time.sleep(300)\n")
    began = time.monotonic()
    run = run_cases(Backend("port", (sys.executable, str(port))), select(stage="forward")[:2], timeout=500.0)
    assert [row.verdict for row in run.results] == ["crashed"] * 2
    assert all("closed its output" in row.reason for row in run.results)
    assert time.monotonic() - began < 300  # of a timeout of 500


def test_a_full_memory_folder_is_left_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(session, "_memory_folder", lambda: str(folder))
    usage = session.shutil.disk_usage(folder)
    monkeypatch.setattr(session.shutil, "disk_usage", lambda path: usage._replace(free=0))
    run = run_cases(Backend("core", CORE), select(stage="groups")[:2])
    assert summarise(run.results)["agree"]
    assert not folder.exists() or not os.listdir(folder)


def test_a_report_is_on_disk_before_the_diagnosis_which_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the diagnosis is a diagnosis; an interrupt in it leaves the report."""
    from doconv_conformance.diagnosis import diagnose

    port, path = tmp_path / "port.py", tmp_path / "report.json"
    port.write_text(
        "from doconv_conformance.adapters.core import *\nimport numpy as np\n"
        "class Bad(CorePort):\n    def compose(self, g, t):\n        return {'weight': np.full(g.kernel_shape, np.nan, 'f4')}\n"
        "serve(Bad())\n"
    )
    arguments = (
        "check",
        "--stage",
        "compose",
        "--dtype",
        "float32",
        "--json",
        str(path),
        "--",
        sys.executable,
        str(port),
    )
    assert CliRunner().invoke(app, arguments).exit_code == 1
    assert json.loads(path.read_text())["diagnosis"]

    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("of the diagnosis")

    monkeypatch.setattr(diagnose, "diagnose", fail)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    report = json.loads(path.read_text())
    assert problem(report, "report") == ""
    assert "ZeroDivisionError: of the diagnosis" in report["diagnosis"][0]["detail"][0]

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    path.unlink()
    monkeypatch.setattr(diagnose, "diagnose", interrupted)
    assert CliRunner().invoke(app, arguments).exit_code != 0
    assert json.loads(path.read_text())["summary"]["mismatch"] > 0


def test_reports_go_to_what_is_no_file_and_through_links(tmp_path: Path) -> None:
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    reader = subprocess.Popen(("cat", str(pipe)), stdout=subprocess.PIPE, text=True)
    write_json(pipe, {"a": 1})
    assert json.loads(reader.communicate(timeout=60)[0]) == {"a": 1}
    assert pipe.is_fifo()
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_text(link, "new \ud800")
    assert link.is_symlink()
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new \\ud800", 0o640)
    check_writable(pipe, file, None)
    with pytest.raises(ValueError, match="two outputs have the same path"):
        check_writable(file, link)


EVIL = "\x1b[2J\x07<b>\u202e\u0000 line\nAll agree.\n \ud800"


def test_what_a_port_says_cannot_steer_a_terminal_nor_break_a_report(tmp_path: Path) -> None:
    assert said(EVIL) == "\\x1b[2J\\x07<b>\\u202e\\x00 line\\nAll agree.\\n \\ud800"
    assert said_json({"\n": [float("nan"), 1, None]}) == {"\\n": ["nan", 1, None]}
    port = tmp_path / "port.py"
    port.write_text(
        "from doconv_conformance.adapters.core import *\n"
        f"EVIL = {EVIL!r}\n"
        "class Bad(CorePort):\n    name = version = device = EVIL\n"
        "    def compose(self, geometry, inputs):\n        raise RuntimeError(EVIL)\n"
        "serve(Bad())\n"
    )
    paths = {name: tmp_path / f"report.{name}" for name in ("json", "html", "junit")}
    options = (f"--{name}={path}" for name, path in paths.items())
    done = CliRunner().invoke(
        app, ("check", "--stage", "compose", "--dtype", "float32", *options, "--", sys.executable, str(port))
    )
    assert done.exit_code == 1, done.output
    assert not any(char in done.output for char in "\x1b\x07\u202e\x00")
    assert "All agree." not in done.output.splitlines()
    ElementTree.fromstring(paths["junit"].read_text("utf-8"))
    assert json.loads(paths["json"].read_text("utf-8"))["ports"][0]["hello"]["name"] == said(EVIL)


def test_a_port_of_ffts_has_a_report_and_is_not_called_inaccurate(tmp_path: Path) -> None:
    port, path = tmp_path / "port.py", tmp_path / "report.json"
    port.write_text(
        "from doconv_conformance.adapters.core import *\nimport numpy as np\n"
        "class Fourier(CorePort):\n    numerics = {'algorithm': 'fft'}\n"
        "    def forward(self, g, t):\n        y = super().forward(g, t)['y']\n"
        "        return {'y': (y + 2.0**-23 * np.abs(y[np.isfinite(y)]).max()).astype(y.dtype)}\n"
        "serve(Fourier())\n"
    )
    done = CliRunner().invoke(
        app, ("check", "--dtype", "float32", "--stage", "groups", "--json", str(path), "--", sys.executable, str(port))
    )
    assert done.exit_code == 0, done.output
    report = json.loads(path.read_text())
    assert problem(report, "report") == ""
    assert report["summary"]["inaccurate"] == 0
    assert report["summary"]["within_bound"] > 0


def test_what_check_lists_chooses_and_stops_at(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ("check", "--list", "--stage", "groups", "--dtype", "float64"))
    assert listed.exit_code == 0
    pairs = [pair for pair in select(stage="groups", extended=True) if pair[0].dtype == "float64"]
    assert listed.stdout.splitlines() == [f"groups forward {case.id}" for case, _ in pairs]
    done = CliRunner().invoke(
        app, ("check", "--fail-fast", "--json", str(tmp_path / "r.json"), "--", "no-such-program")
    )
    assert done.exit_code == 1
    assert len(json.loads((tmp_path / "r.json").read_text())["results"]) == 1


def test_check_lists_to_a_reader_that_has_seen_enough() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        command = (sys.executable, "-m", "doconv_conformance", "check", "--list")
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_disagrees_takes_a_line_for_each_kind() -> None:
    def row(stage: str, number: int, **changes: object) -> dict:
        known = {"backend": "p", "case": f"c{number}", "operation": stage, "stage": stage, "dtype": "", "param_dtype": "",
                 "verdict": "mismatch", "reason": f"y[{number}]", "contradicts": ""}  # fmt: skip
        return known | changes

    rows = [row("forward", n) for n in range(40)] + [row("fold", 1), row("fold", 2, verdict="exact")]
    claims = [row("compose", n, verdict="exact", contradicts=f"claim {n % 3}") for n in range(60)]
    assert disagreeing(rows + claims) == [
        "p forward: 40 of 40 mismatch, first c0: y[0]",
        "p fold: 1 of 2 mismatch, first c1: y[1]",
        *(f"p compose: claim {n} (y[{n}]): 20 rows, first c{n}" for n in range(3)),
    ]
    same = [row("forward", n, reason="cannot start", verdict="crashed") for n in range(3)]
    assert disagreeing(same) == ["p, all 3 rows: crashed cannot start"]
