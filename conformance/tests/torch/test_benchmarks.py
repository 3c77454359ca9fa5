"""Every benchmark runs: once, small. Times are not looked at."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_benchmarks_run(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "run.py"),
        "--quick",
        "--out",
        str(out),
        "--only",
        "torch",
        "core",
        "gpu-torch",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["versions"]
    assert {row["benchmark"] for row in report["rows"]} == {
        "composition, forward and backward", "training step", "inference", "8 micro-batches of 8",
        "kept for the backward pass, beyond plain", "training step, torch.compile", "reference convolution, forward",
        "reference convolution, forward and backward", "start of the command line",
    }  # fmt: skip
