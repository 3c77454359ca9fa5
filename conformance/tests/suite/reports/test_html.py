"""The page of `--html`: what it says, and how a real browser shows it, wide and narrow, light and dark."""

import os
import re
import sys
from pathlib import Path

import pytest
from browsing import Browser

from doconv_conformance.cases.table import select
from doconv_conformance.reports import html
from doconv_conformance.reports.build import build
from doconv_conformance.running.runner import Backend, Run, run_cases
from doconv_conformance.verdicts.judge import row

CORE = Backend("core", (sys.executable, "-m", "doconv_conformance.adapters.core"))
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def run() -> Run:
    return run_cases(CORE, select(stage="groups") + select(stage="compose"))


def page(run: Run, path: Path) -> str:
    """A page with everything on it: rows that agree, rows that do not, a pair of ports, hostile text."""
    case, operation = select(stage="groups")[0]
    bad = Run(Backend("bad", ("bad",)), smoke=f"forward: {EVIL}")
    bad.results = [row("bad", case, operation, verdict="mismatch", reason=f"y[0] is {EVIL} {'long' * 100}")]
    pair = row("core~bad", case, operation, verdict="within_bound", bound_fraction=0.5, r=1.5)
    path.write_text(html.render(build([run, bad], [pair], {"total": 1.0})), "utf-8")
    return path.read_text("utf-8")


def test_the_page_says_what_the_report_says(run: Run, tmp_path: Path) -> None:
    text = page(run, tmp_path / "report.html")
    assert "They do not agree" in text
    assert EVIL not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "Made to catch: " in text
    assert all(result.case in text for result in run.results)
    assert not re.search(r"""(src|href)=(?!["']?data:)""", text)


def test_a_browser_shows_the_page(run: Run, tmp_path: Path, browser: Browser) -> None:
    """No message on the console, no request but the page itself, nothing wider than the screen, two colour schemes."""
    path = tmp_path / "report.html"
    page(run, path)
    grounds = set()
    for width in (390, 1280):
        for dark in (False, True):
            browser.open(path.as_uri(), width=width, dark=dark)
            browser.evaluate("document.querySelectorAll('details').forEach(element => { element.open = true })")
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("document.querySelectorAll('h2').length") >= 5
            assert browser.evaluate("document.querySelectorAll('svg rect').length") > 0
            grounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
            picture = browser.screenshot()
            assert len(picture) > 20_000
            if folder := os.environ.get("DOCONV_SCREENSHOTS"):
                Path(folder, f"{width}-{'dark' if dark else 'light'}.png").write_bytes(picture)
            said = [
                event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled")
            ]
            assert not said
            asked = [
                e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
            ]
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert len(grounds) == 2
