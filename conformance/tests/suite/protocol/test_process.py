"""Ports that misbehave: each becomes rows that say what happened, and the run ends by itself."""

import os
import sys
from pathlib import Path

import pytest

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.table import select
from doconv_conformance.protocol import session
from doconv_conformance.protocol.schemas import schema
from doconv_conformance.protocol.session import Backend
from doconv_conformance.running.runner import PATIENCE, Run, declared_unsupported, run_cases
from doconv_conformance.verdicts.judge import summarise

# `outputs()` gives the core's honest answer to a request. The smoke case is answered honestly.
SCRIPT = """
import io, json, os, signal, subprocess, sys, time
import numpy as np
from safetensors.numpy import load_file, save_file
from doconv_conformance.adapters.core import CorePort
from doconv_core import ConvGeometry

port, honest = CorePort(), sys.stdout
HELLO = {"type": "hello", "protocol": [1], "name": "bad", "version": "0", "language": "python", "device": "cpu",
         "supports": CorePort.supports, "numerics": CorePort.numerics}

def write(text, end="\\n"):
    honest.write(text + end)
    honest.flush()

def outputs(request):
    geometry = ConvGeometry.from_json(request["geometry"])
    return getattr(port, request["operation"])(geometry, load_file(request["inputs"]))

def answer(request, **changes):
    write(json.dumps({"type": "result", "id": request["id"], "status": "ok"} | changes))

def ok(request, tensors, **changes):
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, request["outputs"])
    answer(request, **changes)

def child():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)", __file__])

for line in sys.stdin:
    request = json.loads(line)
    if request["type"] == "hello":
        write(json.dumps(HELLO))
        continue
    if request["id"].startswith("smoke"):
        ok(request, outputs(request))
        continue
    FAULT
"""
HONEST = "ok(request, outputs(request))"
FAULTS = {
    "garbage": ("write('what?')", "crashed", "answered what is not JSON: 'what?'"),
    "not text": ("os.write(1, b'\\xff\\xfe\\n')", "crashed", "answered what is not JSON"),
    "a list": ("write('[1]')", "crashed", "answered what is not a JSON object"),
    "prints": (f"write('debug'); {HONEST}", "crashed", "answered what is not JSON: 'debug'"),
    "half a line": ("write('{\"type\": \"res', end=''); os._exit(0)", "crashed", "answered half a line: '{\"type\": \"res'"),
    "half, then hangs": ("write('{\"type\"', end=''); time.sleep(60)", "timeout", "half a line came: '{\"type\"'"),
    "a long line": ("write('x' * 2**22); time.sleep(60)", "crashed", "answered a line of more than 1048576 bytes: 'xxx"),
    "another id": ("ok(request, outputs(request), id='other')", "crashed", "answered 'other' when asked for"),
    "another status": (
        "answer(request, status='fine')", "crashed",
        'the protocol does not know: status: must be one of ok, unsupported, error; received "fine"'),
    "no reason": ("answer(request, status='error')", "crashed", "the protocol does not know: lacks reason"),
    "a field too many": ("answer(request, seconds=1)", "crashed", "has unknown fields: seconds"),
    "closes": ("os.close(1); time.sleep(30)", "crashed", "closed its output"),
    "exits": ("sys.exit('no more')", "crashed", "exited with 1: no more"),
    "exits beside a child": ("child(); sys.exit('no more')", "crashed", "exited with 1: no more"),
    "signal": ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "was ended by SIGSEGV"),
    "hangs": ("time.sleep(60)", "timeout", "no answer within 1 s"),
    "eats": ("block = np.ones(2**27); time.sleep(60)", "crashed", "more than the limit of 600 MiB"),
    "its child eats": (
        "subprocess.Popen([sys.executable, '-c', 'import numpy, time; a = numpy.ones(2**27); time.sleep(60)']).wait()",
        "crashed", "more than the limit of 600 MiB"),
    "no file": ("answer(request)", "crashed", "answered ok, but wrote no file"),
    "a link": (
        "elsewhere = __file__ + '.out'; os.path.exists(elsewhere) and os.remove(elsewhere); "
        "save_file(outputs(request), elsewhere); os.symlink(elsewhere, request['outputs']); answer(request)",
        "crashed", "is a symbolic link"),
    "a pipe": ("os.mkfifo(request['outputs']); answer(request)", "crashed", "is a special file"),
    "huge": (
        "f = open(request['outputs'], 'wb'); f.truncate(2**40); f.close(); answer(request)", "crashed",
        "has 1099511627776 bytes, more than the"),
    "not safetensors": (
        "open(request['outputs'], 'w').write('zeros'); answer(request)", "crashed",
        "is not a safetensors file that can be read"),
    "nan": ("ok(request, {k: v * np.nan for k, v in outputs(request).items()})", "mismatch", "is nan; must be"),
    "shape": ("ok(request, {k: v[:1] for k, v in outputs(request).items()})", "mismatch", "must have shape"),
    "name": ("ok(request, {k + '_': v for k, v in outputs(request).items()})", "mismatch", "is missing; received"),
    "one more": ("ok(request, outputs(request) | {'z': np.ones(1)})", "mismatch", "outputs ['z'] were not asked for"),
    "dtype": (
        "ok(request, {k: v.astype(np.int64) for k, v in outputs(request).items()})", "mismatch",
        "must be float32; received int64"),
    "error": ("answer(request, status='error', reason='out of ideas')", "crashed", "out of ideas"),
    "refuses": ("answer(request, status='unsupported', reason='later')", "unsupported", "later"),
}  # fmt: skip
# Odd, but the answers are right.
ODDITIES = {
    "honest": HONEST,
    "floods stderr": f"[sys.stderr.write('w' * 2**20) for _ in range(64)]; {HONEST}",
    "ignores the end": f"{HONEST}; signal.signal(signal.SIGTERM, signal.SIG_IGN); globals().update(last=1)",
    "leaves a child": f"child(); {HONEST}",
}
PAIRS = [pair for pair in select(stage="forward") if pair[0].dtype == "float32"][:2]


def port(folder: Path, text: str) -> Backend:
    script = folder / "port.py"
    script.write_text(text)
    return Backend("bad", (sys.executable, str(script)))


def left_behind(folder: Path) -> list[str]:
    """Processes that a port started and that still live."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_text().replace("\0", " "))
        except OSError:
            continue
    return [command for command in commands if str(folder) in command]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_port_is_a_row_that_says_so(fault: str, tmp_path: Path) -> None:
    code, verdict, reason = FAULTS[fault]
    backend = port(tmp_path, SCRIPT.replace("FAULT", code))
    timeout = 1.0 if "hangs" in fault else 30.0
    run = run_cases(backend, PAIRS, timeout=timeout, memory_limit=600 * 2**20)
    assert [row.verdict for row in run.results] == [verdict] * len(PAIRS)
    assert all(reason in row.reason for row in run.results), run.results
    assert not summarise(run.results)["agree"]
    assert run.smoke == ""
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_odd_port_that_answers_right_agrees(oddity: str, tmp_path: Path) -> None:
    text = SCRIPT.replace("FAULT", ODDITIES[oddity])
    if oddity == "ignores the end":
        text += "\nwhile True:\n    time.sleep(1)\n"
    run = run_cases(port(tmp_path, text), PAIRS)
    assert summarise(run.results)["agree"], run.results
    assert not left_behind(tmp_path)


def test_a_second_answer_is_blamed_on_the_port(tmp_path: Path) -> None:
    """The first answer counts; the next request finds the line that nobody asked for, or the wrong id."""
    code = f"{HONEST}; answer(request); time.sleep(0.3)"
    pairs = [pair for pair in select(stage="forward") if pair[0].dtype == "float32"][:3]
    run = run_cases(port(tmp_path, SCRIPT.replace("FAULT", code)), pairs)
    assert run.results[0].verdict == "crashed" or run.results[1].verdict == "crashed"
    wrong = [row.reason for row in run.results if row.verdict == "crashed"]
    assert all(
        "without being asked, after its answer to" in reason or "when asked for" in reason for reason in wrong
    ), wrong
    assert not summarise(run.results)["agree"]


def test_what_is_declared_unsupported_but_works_is_told(tmp_path: Path) -> None:
    text = SCRIPT.replace("FAULT", HONEST).replace(
        "CorePort.supports,", 'CorePort.supports | {"operations": ["compose"]},'
    )
    run = run_cases(port(tmp_path, text), PAIRS)
    claim = "declared unsupported (operation forward is not declared), but works"
    assert all(claim in row.contradicts for row in run.results)
    assert not summarise(run.results)["agree"]


# Which of two cases each condition is true of: padded 3x3, and unpadded 2x2 in two groups with surplus columns.
CONDITIONS: dict[str, tuple[object, tuple[bool, bool]]] = {
    "operation": ("forward", (True, True)), "dtype": ("float32", (True, True)), "param_dtype": ("float16", (False, False)),
    "spatial_rank": (2, (True, True)), "transposed": (False, (True, True)), "grouped": (True, (False, True)),
    "padding_mode": ("zeros", (True, True)), "padded": (True, (True, False)), "dilated": (True, (False, False)),
    "strided": (False, (True, True)), "surplus_columns": (True, (False, True)),
}  # fmt: skip


def test_each_condition_that_the_schema_knows_can_be_declared() -> None:
    entry = schema("protocol")["$defs"]["supports"]["properties"]["unsupported"]["items"]
    assert set(entry["properties"]["when"]["properties"]) == set(CONDITIONS)
    padded, narrow = (select(case=f"{name}-exact-float32")[0][0] for name in ("plain-3x3", "groups-narrow"))
    for key, (value, expected) in CONDITIONS.items():
        hello = {"supports": CorePort.supports | {"unsupported": [{"when": {key: value}, "reason": "not here"}]}}
        said = tuple(declared_unsupported(hello, case, "forward") == "not here" for case in (padded, narrow))
        assert said == expected, key


HELLO = "import sys; input(); print({!r}); input()"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("no-such-program",), "cannot start 'no-such-program'"),
        ((sys.executable, "-c", "import sys; sys.exit('no framework here')"), "no framework here"),
        ((sys.executable, "-c", HELLO.format("hello")), "answered what is not JSON: 'hello"),
        ((sys.executable, "-c", HELLO.format('{"type": "hello"}')), "the protocol does not allow: lacks language, name"),
        (
            (sys.executable, "-c", HELLO.format(
                '{"type": "hello", "protocol": [7, 8], "name": "n", "version": "", "language": "l", "supports": '
                '{"operations": ["compose"], "dtypes": {"float32": ["float32"]}, "spatial_ranks": [2]}}')),
            "does not speak protocol 1, only 7, 8",
        ),
        (
            (sys.executable, "-c", HELLO.format(
                '{"type": "hello", "protocol": [1], "name": "n", "version": "", "language": "l", "supports": '
                '{"operations": ["convolve"], "dtypes": {"float32": ["float32"]}, "spatial_ranks": [2]}}')),
            'supports.operations[0]: must be one of compose, forward, backward, fold, initialise; received "convolve"',
        ),
    ],
    ids=("absent", "exits", "garbage", "fields", "version", "operation"),
)  # fmt: skip
def test_a_port_that_does_not_start_fills_every_row(command: tuple[str, ...], reason: str) -> None:
    run = run_cases(Backend("absent", command), PAIRS)
    assert [row.verdict for row in run.results] == ["crashed"] * len(PAIRS)
    assert all(reason in row.reason for row in run.results), run.results


def test_a_framework_that_is_missing_comes_with_the_line_that_installs_it() -> None:
    command = (sys.executable, "-c", "import no_such_framework")
    run = run_cases(Backend("absent", command, install="pip install 'doconv-core[torch]'"), PAIRS[:1])
    assert run.results[0].reason == (
        "exited with 1: ModuleNotFoundError: No module named 'no_such_framework'. "
        "To install it: pip install 'doconv-core[torch]'"
    )


def smoke_of(tmp_path: Path, code: str) -> Run:
    text = SCRIPT.replace("ok(request, outputs(request))\n        continue", code + "\n        continue")
    return run_cases(port(tmp_path, text.replace("FAULT", HONEST)), PAIRS[:1])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("write('what?')", "compose: answered what is not JSON: 'what?'"),
        ("answer(request)", "compose: answered ok, but wrote no file compose.outputs.safetensors"),
        ("answer(request, status='error', reason='TypeError: x')", "compose: TypeError: x"),
        ("ok(request, {'y': np.ones(1)})", "compose: output weight is missing; received ['y']"),
        (
            "ok(request, {'weight': np.ones(1)})",
            "compose: weight must be float64 of shape (1, 1, 1); received float64 of",
        ),
        (
            "ok(request, {k: v.byteswap() for k, v in outputs(request).items()})",
            "look at how bytes are read and written",
        ),
    ],
)
def test_the_smoke_case_tells_a_broken_harness(code: str, reason: str, tmp_path: Path) -> None:
    assert reason in smoke_of(tmp_path, code).smoke


def test_a_stage_that_dies_again_and_again_is_given_up_and_the_next_one_tried(tmp_path: Path) -> None:
    """A port without a backward still gets its answers on fold; one that always dies ends after two stages."""
    chosen = [
        [pair for pair in select(stage=stage) if pair[0].dtype == "float32"][:5]
        for stage in ("forward", "backward", "fold")
    ]
    pairs = [pair for stage in chosen for pair in stage]
    fault = f"sys.exit(3) if request['operation'] == 'backward' else None; {HONEST}"
    run = run_cases(port(tmp_path, SCRIPT.replace("FAULT", fault)), pairs)
    skipped = "not run: the port failed 3 times in a row"
    assert all(row.agrees for row in run.results if row.stage != "backward")
    assert [row.reason == skipped for row in run.results if row.stage == "backward"] == [False] * PATIENCE + [True] * 2
    run = run_cases(port(tmp_path, SCRIPT.replace("FAULT", "sys.exit(3)")), pairs)
    assert [row.reason.startswith("not run") for row in run.results] == ([False] * 3 + [True] * 2) * 2 + [True] * 5


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(session, "_memory_folder", lambda: str(folder))
    script = SCRIPT.replace("FAULT", f"assert str({str(folder)!r}) in request['inputs']; {HONEST}")
    assert summarise(run_cases(port(tmp_path, script), PAIRS[:1]).results)["agree"]
    assert not os.listdir(folder)
