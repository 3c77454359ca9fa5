"""Ports that misbehave: each becomes rows that say what happened, and the run ends by itself."""

import sys
from pathlib import Path

import pytest

from doconv_conformance.cases import select
from doconv_conformance.judge import summarise
from doconv_conformance.runner import Backend, run_cases

# `answer()` gives the core's honest answer to a request, as the text of a line.
SCRIPT = """
import io, json, os, signal, sys, time
import numpy as np
from safetensors.numpy import load_file, save_file
from doconv_conformance.adapters.core import CorePort
from doconv_core import ConvGeometry

port, honest = CorePort(), sys.stdout
HELLO = {"type": "hello", "protocol": [1], "name": "bad", "version": "0", "language": "python", "device": "cpu",
         "supports": CorePort.supports, "numerics": CorePort.numerics}

def write(text):
    honest.write(text + "\\n")
    honest.flush()

def outputs(request):
    geometry = ConvGeometry.from_json(request["geometry"])
    return getattr(port, request["operation"])(geometry, load_file(request["inputs"]))

def ok(request, tensors, **changes):
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, request["outputs"])
    write(json.dumps({"type": "result", "id": request["id"], "status": "ok"} | changes))

for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "hello":
        write(json.dumps(HELLO))
        continue
    FAULT
"""
FAULTS = {
    "garbage": ("write('what?')", "crashed", "answered what is not JSON: 'what?'"),
    "a list": ("write('[1]')", "crashed", "answered what is not a JSON object"),
    "prints": ("write('debug'); ok(request, outputs(request))", "crashed", "answered what is not JSON: 'debug'"),
    "another id": ("ok(request, outputs(request), id='other')", "crashed", "answered 'other' when asked for"),
    "another status": ("ok(request, outputs(request), status='fine')", "crashed", "the protocol does not know"),
    "closes": ("os.close(1); time.sleep(30)", "crashed", "closed its output"),
    "exits": ("sys.exit('no more')", "crashed", "exited with 1: no more"),
    "signal": ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "was ended by SIGSEGV"),
    "hangs": ("time.sleep(60)", "timeout", "no answer within 1 s"),
    "eats": ("block = np.ones(2**27); time.sleep(60)", "crashed", "more than the limit of 600 MiB"),
    "no file": ("write(json.dumps({'type': 'result', 'id': request['id'], 'status': 'ok'}))", "mismatch", "is missing"),
    "nan": ("ok(request, {k: v * np.nan for k, v in outputs(request).items()})", "mismatch", "is nan; must be"),
    "shape": ("ok(request, {k: v[:1] for k, v in outputs(request).items()})", "mismatch", "must have shape"),
    "name": ("ok(request, {k + '_': v for k, v in outputs(request).items()})", "mismatch", "is missing; received"),
    "error": ("ok(request, {}, status='error', reason='out of ideas')", "crashed", "out of ideas"),
    "refuses": ("ok(request, {}, status='unsupported', reason='later')", "unsupported", "later"),
}
PAIRS = select(stage="forward")[:2]


def port(folder: Path, text: str) -> Backend:
    script = folder / "port.py"
    script.write_text(text)
    return Backend("bad", (sys.executable, str(script)))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_port_is_a_row_that_says_so(fault: str, tmp_path: Path) -> None:
    code, verdict, reason = FAULTS[fault]
    backend = port(tmp_path, SCRIPT.replace("FAULT", code))
    timeout = 1.0 if fault == "hangs" else 30.0
    run = run_cases(backend, PAIRS, timeout=timeout, memory_limit=600 * 2**20)
    assert [row.verdict for row in run.results] == [verdict] * len(PAIRS)
    assert all(reason in row.reason for row in run.results), run.results
    assert not summarise(run.results)["agree"]


def test_an_honest_port_agrees(tmp_path: Path) -> None:
    run = run_cases(port(tmp_path, SCRIPT.replace("FAULT", "ok(request, outputs(request))")), PAIRS)
    assert summarise(run.results)["agree"]


def test_what_is_declared_unsupported_but_works_is_told(tmp_path: Path) -> None:
    text = SCRIPT.replace("FAULT", "ok(request, outputs(request))").replace(
        "port, honest", 'HIDDEN = "forward"\nport, honest'
    )
    text = text.replace('"supports": CorePort.supports', '"supports": CorePort.supports | {"operations": ["compose"]}')
    run = run_cases(port(tmp_path, text), PAIRS)
    assert all(
        "declared unsupported (operation forward is not declared), but works" in row.contradicts for row in run.results
    )
    assert not summarise(run.results)["agree"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("no-such-program",), "cannot start 'no-such-program'"),
        ((sys.executable, "-c", "import sys; sys.exit('no framework here')"), "no framework here"),
        ((sys.executable, "-c", 'print(\'{"type": "hello", "protocol": [7]}\')'), "does not speak protocol 1"),
        ((sys.executable, "-c", "input(); print('hello')"), "answered what is not JSON: 'hello"),
    ],
)
def test_a_port_that_does_not_start_fills_every_row(command: tuple[str, ...], reason: str) -> None:
    run = run_cases(Backend("absent", command), PAIRS)
    assert [row.verdict for row in run.results] == ["crashed"] * len(PAIRS)
    assert all(reason in row.reason for row in run.results), run.results


def test_a_port_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    pairs = select(stage="forward")[:6]
    run = run_cases(port(tmp_path, SCRIPT.replace("FAULT", "sys.exit(3)")), pairs)
    assert [row.reason.startswith("not run") for row in run.results] == [False] * 3 + [True] * 3
