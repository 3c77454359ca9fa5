"""What a port says, made fit for a terminal, an XML file and UTF-8: escaped (`escaping`), and cut where it does not end."""

from __future__ import annotations

import math
from typing import Any

from doconv_conformance.escaping import printable

LONGEST = 2000


def said(text: str) -> str:
    """`text` printable, cut after 2000 characters."""
    if len(text) <= LONGEST:
        return printable(text)
    return f"{printable(text[:LONGEST])}... and {len(text) - LONGEST} more characters"


def said_json(value: Any) -> Any:
    """The same for every text in decoded JSON, names of fields included; numbers that JSON cannot hold become text."""
    if isinstance(value, str):
        return said(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [said_json(item) for item in value]
    if isinstance(value, dict):
        return {said(key): said_json(item) for key, item in value.items()}
    return value
