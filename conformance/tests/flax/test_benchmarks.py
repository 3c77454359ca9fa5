"""Every benchmark runs: once, small. Times are not looked at."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_benchmarks_run(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, ROOT / "benchmarks" / "run.py", "--quick", "--out", out, "--only", "flax", "gpu-flax"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["versions"]
    composition = "composition, forward and backward, jit"
    assert {row["benchmark"] for row in report["rows"]} == {
        composition,
        "training step, jit",
        "8 micro-batches of 8, jit",
    }
