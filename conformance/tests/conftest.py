"""Two profiles for Hypothesis: the default draws the same examples in every run, `HYPOTHESIS_PROFILE=thorough` new ones.

And a run of the benchmarks, for the tests of each framework; and a browser, for the tests of pages.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # for what tests of several folders share
from browsing import CHROMIUM, Browser

# The first call of a framework is slow and the machine may be busy: neither says anything about the code.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=300, derandomize=True, database=None, **COMMON)
settings.register_profile("thorough", max_examples=5000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def run_benchmarks(tmp_path: Path) -> Callable[..., set[str]]:
    """Runs the named parts of `benchmarks/run.py`, each benchmark once and small, and gives the names of the benchmarks."""

    def run(*parts: str) -> set[str]:
        out, script = tmp_path / "results.json", Path(__file__).parents[2] / "benchmarks" / "run.py"
        command = [sys.executable, str(script), "--quick", "--out", str(out), "--only", *parts]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads(out.read_text())
        assert report["versions"]
        return {row["benchmark"] for row in report["rows"]}

    return run


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()
