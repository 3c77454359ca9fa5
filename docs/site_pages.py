"""Pages of the site that are files of the repository: made when the site is built, so that nothing is written twice."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "conformance/README.md": "protocol.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
# A link or a picture with a relative target; code between backticks stays as it is.
LINK = re.compile(r"(!?)\[((?:`[^`]*`|[^\]])*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=page_of(source)))
    return files


def page_of(source: str) -> str:
    """A file of the repository with its links as the site has them."""
    text = (ROOT / source).read_text("utf-8")
    blocks = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        block if block.startswith("```") else LINK.sub(lambda m: _link(m, source), block) for block in blocks
    )


def _link(match: re.Match[str], source: str) -> str:
    """`[text](target)` where the site has the target, else the text and the name of the file in the repository."""
    picture, text, target, anchor = match.groups()
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in PAGES:
        page = PAGES[path]
    elif path.startswith("docs/") and (ROOT / path).exists():
        page = path.removeprefix("docs/")
    elif picture:
        return match.group()
    else:
        return text if text.strip("`") == path else f"{text} (`{path}`)"
    return f"{picture}[{text}]({page}{anchor or ''})"
