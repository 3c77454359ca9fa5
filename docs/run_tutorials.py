"""Runs the pages in `docs/tutorials` and writes what they print, and the pictures that they make, into them.

    python docs/run_tutorials.py            # rewrites the pages
    python docs/run_tutorials.py --check    # exit status 1 and a diff where a page is out of date

The blocks of a page run from top to bottom in one new folder: `python` in one process, `sh` by bash, and a `python` block
with `title="FILE"` is written to that file. What a block prints is the `text` block that follows it. Words, verdicts and whole
numbers must be equal in two runs. Decimal fractions may differ: they are times, and what training arrives at on another
processor; what a page claims about them is an assertion in its code.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TUTORIALS = Path(__file__).parent / "tutorials"
BLOCK = re.compile(
    r'^```(python|sh)(?: title="([^"]+)")?\n(.*?)^```\n(\n```text\n.*?^```\n)?', re.DOTALL | re.MULTILINE
)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, help="default: all")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before a framework is imported: sums in one order
    changed = [page for page in options.pages or sorted(TUTORIALS.glob("*.md")) if not refresh(page, options.check)]
    if changed and options.check:
        sys.exit(f"out of date, run python docs/run_tutorials.py: {', '.join(page.name for page in changed)}")


def refresh(page: Path, check: bool) -> bool:
    """Run a page; with `check` only compare. Returns whether it is up to date."""
    page = page.resolve()
    old = page.read_text("utf-8")
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        new = run(old)
        pictures = PICTURE.findall(old)
        missing = [picture for picture in pictures if not Path(picture).exists()]
        if missing:
            raise FileNotFoundError(f"{page.name} shows {missing[0]}, and none of its blocks has written that file")
        if not check:
            page.write_text(new, "utf-8")
            for picture in pictures:
                shutil.copy(picture, page.parent)
            return True
        difference = " ".join(
            difflib.unified_diff(comparable(old), comparable(new), f"{page}\n", "this run\n", lineterm="")
        )
        different = [picture for picture in pictures if not alike(Path(picture), page.parent / picture)]
    if difference:
        print(difference)
    for picture in different:
        print(f"{page.name}: {picture} is another picture in this run")
    return not difference and not different


def run(text: str) -> str:
    """The page with what its blocks print in this run, in the current folder."""
    names: dict[str, object] = {"__name__": "page"}

    def block(match: re.Match[str]) -> str:
        language, title, code, _ = match.groups()
        if title:
            Path(title).write_text(code, "utf-8")
            printed = ""
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                try:
                    exec(compile(code, "page", "exec"), names)
                except Exception as error:
                    error.add_note(f"in the block\n{code}\nwhich has printed\n{stream.getvalue()}")
                    raise
            printed = stream.getvalue()
        else:
            printed = shell(code)
        source = match.group().removesuffix(match.group(4) or "")
        return source + (f"\n```text\n{printed.rstrip()}\n```\n" if printed.strip() else "")

    return BLOCK.sub(block, text)


def shell(code: str) -> str:
    """What bash prints on stdout; a status other than 0 is an error, unless the block ends by printing it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        ["bash", "-ec", code], capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
    )
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode} of:\n{code}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def comparable(text: str) -> list[str]:
    """The words of a page without the value of decimal fractions, and without lines and tables, which depend on their width."""
    return re.sub("[ ─━┃│┏┓┡┩└┘┴┬╇┳┻]+", " ", re.sub(r"\d+\.\d+(e[+-]\d+)?", "0.0", text)).split()


def alike(first: Path, second: Path) -> bool:
    """Pictures of one size whose pixels differ by less than 4% of the scale on average: curves may lie elsewhere, axes not."""
    import numpy as np
    from PIL import Image

    if not second.exists():
        return False
    with Image.open(first) as one, Image.open(second) as other:
        pixels = [np.asarray(image.convert("RGB"), float) for image in (one, other)]
    return pixels[0].shape == pixels[1].shape and float(np.abs(pixels[0] - pixels[1]).mean()) < 0.04 * 255


if __name__ == "__main__":
    main()
