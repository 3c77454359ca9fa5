"""Two profiles for Hypothesis: the default draws the same examples in every run, `HYPOTHESIS_PROFILE=thorough` new ones.

And for the tests of each framework a run of the benchmarks, and one of `doconv compare` with a changed copy of the backend;
and a browser, for the tests of pages.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
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


@pytest.fixture(scope="session")
def compare_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, dict[str, set[str]]]]:
    """`doconv compare` with a copy of a backend to which code was added: the exit status, and each port's verdicts."""

    def compare(backend: str, code: str, *options: str) -> tuple[int, dict[str, set[str]]]:
        folder, package = tmp_path_factory.mktemp(backend), f"doconv_{backend}"
        found = find_spec(package)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        with (folder / package / "__init__.py").open("a") as source:
            source.write(code)
        python, report = folder / "python", folder / "report.json"
        python.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{folder}" "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        command = [sys.executable, "-m", "doconv_conformance", "compare", "--backend", backend, "--json", str(report)]
        command += ["--python", f"{backend}={python}", *options]
        env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # of this process's devices
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False, env=env)
        assert report.exists(), done.stdout + done.stderr
        verdicts: dict[str, set[str]] = {}
        for row in json.loads(report.read_text())["results"]:
            verdicts.setdefault(row["backend"], set()).add(row["verdict"])
        return done.returncode, verdicts

    return compare


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()
