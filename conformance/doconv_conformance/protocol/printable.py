"""What a port says, made fit for a terminal, an XML file and UTF-8: control characters and their like are written out."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

# Control characters, formats (they turn the direction of text), lone surrogates, private and unassigned ones.
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
LONGEST = 2000


def printable(text: str) -> str:
    r"""`text` with what a terminal would obey written as an escape (`\x1b`, `\n`, `\ud800`), cut after 2000 characters."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}... and {len(text) - LONGEST} more characters"
    return "".join(_escaped(char) if unicodedata.category(char) in HIDDEN else char for char in shown)


def printable_json(value: Any) -> Any:
    """The same for every text in decoded JSON, names of fields included; numbers that JSON cannot hold become text."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [printable_json(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable_json(item) for key, item in value.items()}
    return value


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
