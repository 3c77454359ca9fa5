"""Every benchmark runs: once, small. Times are not looked at."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_benchmarks_run(run_benchmarks: Callable[..., set[str]]) -> None:
    assert run_benchmarks("torch", "core", "growth") == {
        "composition, forward and backward", "composition, which products",
        "composition, the chosen against the better products", "training step", "inference", "8 micro-batches of 8",
        "kept for the backward pass, beyond plain", "training step, torch.compile", "reference convolution, forward",
        "reference convolution, forward and backward", "start of the command line",
        "constants of the machine", "growth of a composition", "growth of a step beyond plain", "growth of a fold",
        "suite on the reference",
    }  # fmt: skip


def test_the_script_for_gpus_runs_on_a_processor(tmp_path: Path) -> None:
    out, sections = tmp_path / "gpu.json", ["correctness", "small network", "compositions", "processor"]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--quick", "--minutes", "10", "--out", str(out)]
    done = subprocess.run([*command, "--sections", ",".join(sections)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert list(report["sections"]) == sections
    assert report["sections"].pop("correctness")["result"] == {"exact": 31, "wrong": []}
    assert [section["result"] for section in report["sections"].values()] == ["done"] * 3
    assert "failed" not in report
