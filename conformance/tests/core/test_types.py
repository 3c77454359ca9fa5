"""The public types as a user's type checker sees them: `mypy --strict` on a small script for each package.

Lines marked `# error` are mistakes: the checker must find these, and nothing else.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted((ROOT / "conformance" / "tests" / "typed").glob("use_*.py"))
# Not the project's own settings: a user has none, and frameworks that have no types are not followed.
SETTINGS = """[mypy]
strict = true
[mypy-keras.*,flax.*,tensorflow.*]
ignore_missing_imports = true
follow_imports = skip
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_user_s_script_has_the_types_that_it_says(script: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy comes with the extra `dev`")
    settings = tmp_path / "mypy.ini"
    settings.write_text(SETTINGS, "utf-8")
    # From a folder without settings, with the packages found as installed ones are.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", tmp_path / "cache", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line) for line in re.findall(rf"{script.name}:(\d+): error", done.stdout)}
    lines = script.read_text("utf-8").splitlines()
    assert found == {number for number, line in enumerate(lines, 1) if "# error" in line}, done.stdout + done.stderr
    assert len(re.findall(": error:", done.stdout)) == len(found), done.stdout
