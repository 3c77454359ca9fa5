"""The options of `pytest --pyargs doconv_conformance`: an entry point, for pytest reads no conftest early enough.

It is imported in every run of pytest beside this package, so it imports nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("doconv", "conformance of a DO-Conv port (pytest --pyargs doconv_conformance)")
    group.addoption(
        "--doconv-port", help='the port: a program and its arguments, as in --doconv-port "python my_port.py"'
    )
    group.addoption("--doconv-timeout", type=float, default=60.0, help="seconds for one answer (60)")
    group.addoption("--doconv-keep", type=Path, help="keep every case's files in this folder")
