"""The tutorials run as they stand, and print what is on their pages."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted((DOCS / "tutorials").glob("*.md"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCS / "run_tutorials.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_there_are_pages() -> None:
    assert len(PAGES) == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_is_what_its_code_prints(page: Path) -> None:
    done = run("--check", str(page))
    assert done.returncode == 0, done.stdout + done.stderr


PAGE = """# Title

```python
print("three", 1 + 2, 0.25)
```

```text
three 3 0.5
```

```sh
echo "│ a    │ 1.50 │"
```

```text
│ a │ 12.5 │
```
"""


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("", ""), ""),
        (("three 3", "three 4"), "-4 +3"),
        (('print("three"', 'print("four"'), "-three +four"),
        (("│ a │", "│ b │"), "-b +a"),
        (("1 + 2", "1 / 0"), "ZeroDivisionError"),
        (("echo", "false; echo"), "exit status 1 of:"),
        (("# Title", "# Title\n\n![A picture](missing.png)"), "shows missing.png"),
    ],
)
def test_a_page_that_is_out_of_date_is_found(change: tuple[str, str], found: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace(*change))
    before = page.read_text()
    done = run("--check", str(page))
    assert (done.returncode == 0) == (not found)
    assert found in done.stdout + done.stderr
    assert page.read_text() == before


def test_pages_are_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("three 3 0.5", "old") + "\n```python\n1\n```\n")
    assert run(str(page)).returncode == 0
    assert "```text\nthree 3 0.25\n```\n\n```sh" in page.read_text()
    assert page.read_text().endswith("```python\n1\n```\n")


def test_another_picture_is_another(tmp_path: Path) -> None:
    from PIL import Image

    alike = runpy.run_path(str(DOCS / "run_tutorials.py"))["alike"]
    grey, nearly, white, small = (tmp_path / f"{name}.png" for name in ("grey", "nearly", "white", "small"))
    for path, size, value in ((grey, 8, 100), (nearly, 8, 102), (white, 8, 255), (small, 4, 100)):
        Image.new("RGB", (size, size), (value, value, value)).save(path)
    assert alike(grey, nearly)
    assert not alike(grey, white)
    assert not alike(grey, small)
    assert not alike(grey, tmp_path / "missing.png")
