"""The page of `--html`: what it says, and how a real browser shows it, wide and narrow, light and dark."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doconv_conformance.cases.table import select
from doconv_conformance.reports import html
from doconv_conformance.reports.build import build
from doconv_conformance.running.runner import Backend, Run, run_cases
from doconv_conformance.verdicts.judge import row

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
CORE = Backend("core", (sys.executable, "-m", "doconv_conformance.adapters.core"))
EVIL = "<script>alert(1)</script>"


class Browser:
    """Chromium over its debugging pipe: one JSON object, ended by a zero byte, a message."""

    def __init__(self, profile: Path) -> None:
        (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                 "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank")  # fmt: skip
        # The browser reads commands from descriptor 3 and writes to 4.
        script = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$0" "$@"'
        self.process = subprocess.Popen(
            ("bash", "-c", script, CHROMIUM, *flags), pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.read, self.write = os.fdopen(ours_in, "rb", 0), os.fdopen(ours_out, "wb", 0)
        self.buffer, self.number, self.session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        self.write.write(json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def receive(self) -> dict:
        while b"\0" not in self.buffer:
            block = os.read(self.read.fileno(), 2**16)
            assert block, "the browser ended"
            self.buffer += block
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, *, width: int, dark: bool) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def evaluate(self, expression: str) -> object:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.read.close()
        self.write.close()


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


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (Debian: apt-get install chromium)")
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
