"""The README's table says what the backends declare; that the declarations are true is the suite's own check."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.files import insert_between
from doconv_conformance.maintenance.support_table import (
    BACKENDS,
    BEGIN,
    END,
    WAYS_BEGIN,
    WAYS_END,
    ask,
    column,
    parse,
    render,
    ways_table,
)

README = Path(__file__).parents[4] / "README.md"


def test_the_readme_says_what_every_backend_declares() -> None:
    with ThreadPoolExecutor(2) as pool:
        declared = dict(zip(BACKENDS, map(column, pool.map(ask, BACKENDS.values())), strict=True))
    assert parse(README.read_text()) == declared, (
        f"run: python -m doconv_conformance.maintenance.support_table {README}"
    )


def test_the_readme_has_the_ways_that_are_declared() -> None:
    text = README.read_text()
    assert insert_between(text, ways_table(), WAYS_BEGIN, WAYS_END) == text, (
        f"run: python -m doconv_conformance.maintenance.support_table {README}"
    )


def test_a_table_is_read_as_it_was_written() -> None:
    limit = {"when": {"transposed": True, "grouped": True}, "reason": "a limit of the framework"}
    some = {"supports": CorePort.supports | {"unsupported": [limit], "spatial_ranks": [1, 2]}}
    columns = {"all": column({"supports": CorePort.supports}), "some": column(some)}
    assert set(columns["all"].values()) == {"yes"}
    assert columns["some"]["transposed with groups"] == "no: a limit of the framework"
    assert columns["some"]["convolution 3-D"] == "no: 3 spatial axes are not declared"
    assert columns["some"]["forward"] == "in part: 3 spatial axes are not declared"
    assert parse(f"{BEGIN}\n{render(columns)}\n{END}") == columns


def test_a_file_without_the_table_is_named() -> None:
    with pytest.raises(ValueError, match="no table between <!-- support"):
        parse("# doconv")
