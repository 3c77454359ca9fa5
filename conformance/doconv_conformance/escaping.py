"""Text from files and programs that we did not write, made safe for a terminal."""

from __future__ import annotations

import unicodedata

# Control characters, invisible marks (which turn the order of a line around), surrogates, what Unicode does not name, and
# separators that end a line. Spaces and letters of every language stay.
ESCAPED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""`text` on one line, with `\x1b` and the like in place of characters that a terminal would obey or hide."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(letter) if unicodedata.category(letter) in ESCAPED else letter for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
