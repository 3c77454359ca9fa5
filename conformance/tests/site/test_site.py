"""The site in a real browser, page by page: on a phone and on a desk, light and dark."""

import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlparse

import pytest
from browsing import Browser

ROOT = Path(__file__).parents[3]
SMALLEST = 12  # pixels of text
CONTRAST = 4.5  # WCAG 2.1, level AA, for text of ordinary size
# In the browser: what is wider than its box, what is too small or too pale to read.
LOOK = """
(() => {
  const problems = [], seen = new Set()
  const say = (what, element) => {
    const text = `${what}: ${element.tagName} "${element.textContent.trim().slice(0, 40)}"`
    if (!seen.has(text) && seen.size < 8) { seen.add(text); problems.push(text) }
  }
  const channels = colour => colour.match(/[\\d.]+/g).map(Number)
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0)
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)))
  const ground = element => {
    if (!element) return [255, 255, 255]
    const own = channels(getComputedStyle(element).backgroundColor)
    return (own[3] ?? 1) === 1 ? own : over(own, ground(element.parentElement))
  }
  if (document.documentElement.scrollWidth > innerWidth) say('the page is wider than the screen', document.body)
  const content = document.querySelector('.md-content')
  for (const pre of content.querySelectorAll(':not(.language-text) > pre > code'))  // output may be moved sideways
    if (pre.scrollWidth > pre.clientWidth + 1) say('cut off', pre)
  const walker = document.createTreeWalker(content, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element)
    if (!walker.currentNode.data.trim() || !element.checkVisibility({opacityProperty: true})) continue
    if (element.closest('.headerlink, .md-source-file, .md-clipboard, script, style')) continue
    if (parseFloat(style.fontSize) < SMALLEST) say(`${style.fontSize}`, element)
    const below = ground(element), text = over(channels(style.color), below)
    const [a, b] = [luminance(text), luminance(below)].sort((x, y) => y - x)
    const contrast = (a + .05) / (b + .05)
    if (contrast < CONTRAST) say(`contrast ${contrast.toFixed(1)}`, element)
  }
  return problems
})()
""".replace("SMALLEST", str(SMALLEST)).replace("CONTRAST", str(CONTRAST))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def pages(site: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(site)) for path in site.rglob("index.html"))


def test_every_page_can_be_read(site: Path, address: str, browser: Browser) -> None:
    """No formula cut off, no text below 12 pixels, enough contrast, nothing wider than the screen, nothing on the console."""
    problems = list[str]()
    # The theme remembers the scheme of the page before.
    browser.call("Page.addScriptToEvaluateOnNewDocument", source="localStorage.clear()")
    for page in pages(site):
        for width in (390, 1280):
            for dark in (False, True):
                browser.open(urljoin(address, "" if page == "." else f"{page}/"), width=width, dark=dark)
                how = f"{page}, {width} pixels, {'dark' if dark else 'light'}"
                problems += [f"{how}: {problem}" for problem in browser.evaluate(LOOK)]  # type: ignore[attr-defined]
                said = [
                    event
                    for event in browser.events
                    if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
                ]
                problems += [f"{how}: {event['params']}" for event in said]
    assert not problems, "\n".join(problems)


def test_no_link_is_dead(site: Path) -> None:
    """Links within the site, with their anchors; pictures and styles."""
    texts = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    anchors = {path: set(re.findall(r'\bid="([^"]*)"', text)) for path, text in texts.items()}
    dead = list[str]()
    for path, text in texts.items():
        base = "http://site/" + path.relative_to(site).as_posix()
        for target in set(re.findall(r'\b(?:href|src)="([^"]*)"', text)):
            absolute, anchor = urldefrag(urljoin(base, target))
            if urlparse(absolute).netloc != "site" or path.name == "404.html":
                continue
            found = site / urlparse(absolute).path.lstrip("/")
            found = found / "index.html" if found.is_dir() else found
            if not found.exists() or (anchor and anchor not in anchors.get(found, ())):
                dead.append(f"{path.relative_to(site)}: {target}")
    assert not dead, "\n".join(dead)


def test_the_public_names_are_on_the_reference_pages(site: Path) -> None:
    import doconv_core

    text = (site / "api" / "core" / "index.html").read_text("utf-8")
    missing = [name for name in doconv_core.__all__ if f'id="doconv_core.{name}"' not in text]
    assert not missing


def test_the_look_finds_what_is_hard_to_read(tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<body><div class='md-content' style='background: white'><p style='font-size: 9px'>small</p>"
        "<p style='color: #aaa'>pale</p><pre style='width: 90px'><code style='display: block; overflow: auto'>"
        "a formula that is too long for its box</code></pre><div style='width: 3000px'>wide</div></div></body>"
    )
    browser.open(page.as_uri(), width=1280, dark=False)
    problems = "\n".join(browser.evaluate(LOOK))  # type: ignore[call-overload]
    for what in ("9px", "contrast 2.3", "cut off", "the page is wider than the screen"):
        assert what in problems
