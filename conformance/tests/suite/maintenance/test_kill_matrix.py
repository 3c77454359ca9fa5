"""Every planted fault is found by the case table, whatever the seed, and the port they are planted in is honest."""

import re
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from doconv_conformance.faults import CATALOGUE, Fault, FaultyPort
from doconv_conformance.maintenance import kill_matrix
from doconv_conformance.verdicts.judge import judge, judged_exactly

HONEST = Fault("honest", "makes no mistake", "nothing", {})
PAGE = Path(__file__).parents[4] / "docs" / "kill-matrix.md"


@pytest.mark.parametrize("seed", kill_matrix.SEEDS)
def test_every_fault_is_killed_with_every_seed(seed: int) -> None:
    assert kill_matrix.unkilled(seed) == []


def test_the_port_without_a_fault_agrees() -> None:
    port = FaultyPort(HONEST)
    for case, operation, want in kill_matrix.rows(0):
        exact = judged_exactly(case, operation, kill_matrix.NUMERICS)
        verdict = judge(want, port.run(case, operation), exact=exact)
        assert verdict["verdict"] in ("exact", "within_bound"), (case.id, operation, verdict)


def test_names_and_words_are_unique() -> None:
    assert len(CATALOGUE) >= 60
    assert len({fault.name for fault in CATALOGUE}) == len({fault.words for fault in CATALOGUE}) == len(CATALOGUE)


def test_a_survivor_fails_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    some = (HONEST, *(fault for fault in CATALOGUE if fault.name in ("start-dead-columns", "bias-missing")))
    monkeypatch.setattr(kill_matrix, "CATALOGUE", some)
    app = Typer()
    app.command()(kill_matrix.main)
    done = CliRunner().invoke(app, ["--seeds", "1", "--output", str(tmp_path / "page.md")])
    assert done.exit_code == 1
    assert done.output == "seed 0: honest survive\n3 faults, 1 seeds: survivors\n"
    assert "| `bias-missing` | adds no bias |  | 10+ |" in (tmp_path / "page.md").read_text()


def test_the_published_page_holds_the_whole_catalogue() -> None:
    published = re.findall(r"^\| `([^`]+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    assert published == [(fault.name, fault.words) for fault in CATALOGUE], (
        "nox -s kill-matrix writes docs/kill-matrix.md"
    )
