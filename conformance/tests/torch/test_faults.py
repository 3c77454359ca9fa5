"""Faults planted in a copy of the PyTorch backend: `doconv check` reports each as a mismatch and exits with 1."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Each fault replaces something of the backend or its port, then serves. `plain(W)` is W E^T; `conv` is the layer under test.
FAULTS = {
    "transposed-D": "patch(lambda W, D, *a, **k: compose(W, None if D is None else square(D), *a, **k))",
    "interleaved-groups": "patch(lambda W, D, g=1, **k: compose(W, None if D is None else interleave(D, g), g, **k))",
    "missing-identity": "patch(lambda W, D, *a, **k: compose(W, D, *a, **k) - (0 if D is None else plain(W, D)))",
    "ignored-D": "patch(lambda W, D, *a, **k: W if D is None else plain(W, D))",
    "swapped-strides": "change(lambda conv: setattr(conv, 'stride', conv.stride[::-1]))",
    "swapped-padding": "pad_sides()",
    "ignored-dilation": "change(lambda conv: setattr(conv, 'dilation', tuple(1 for _ in conv.dilation)))",
    "bias-twice": "change(lambda conv: None if conv.bias is None else conv.bias.data.mul_(2))",
}
SCRIPT = """
import dataclasses, sys
import torch
import doconv_torch._layers as layers
import doconv_conformance.adapters.torch as port
from doconv_torch._compose import compose

torch.set_num_threads(1)
original_layer, original_run = port.layer, port.run

def patch(function):
    layers.compose = function

def square(D):
    k = D.shape[1]
    return torch.cat([D[..., :k].mT, D[..., k:]], -1)

def interleave(D, groups):
    return D.unflatten(0, (groups, -1)).transpose(0, 1).flatten(0, 1)

def plain(W, D):
    k = D.shape[1]
    return W[..., : W.shape[-1] // k * k].unflatten(-1, (-1, k)).sum(-2)

def change(function):
    def layer(geometry, inputs):
        conv = original_layer(geometry, inputs)
        function(conv)
        return conv
    port.layer = layer

def pad_sides():
    def run(conv, geometry, x):
        swapped = tuple((high, low) for low, high in geometry.padding)
        return original_run(conv, dataclasses.replace(geometry, padding=swapped), x)
    port.run = run

FAULT
port.serve(port.TorchPort())
"""


def check(script: Path, report: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "doconv_conformance", "check", "--json", str(report), *options, "--", sys.executable, str(script)]
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_a_mismatch(fault: str, tmp_path: Path) -> None:
    script, report = tmp_path / "port.py", tmp_path / "report.json"
    script.write_text(SCRIPT.replace("FAULT", FAULTS[fault]))
    stage = "groups" if "groups" in fault else "forward"
    done = check(script, report, "--stage", stage)
    assert done.returncode == 1, done.stdout + done.stderr
    results = json.loads(report.read_text())
    assert results["summary"]["agree"] is False
    assert results["summary"]["mismatch"] > 0
    assert results["summary"]["crashed"] == 0
    assert " must " in done.stdout


def test_the_unchanged_copy_agrees(tmp_path: Path) -> None:
    script, report = tmp_path / "port.py", tmp_path / "report.json"
    script.write_text(SCRIPT.replace("FAULT", ""))
    done = check(script, report, "--stage", "forward")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())["summary"]["agree"] is True
