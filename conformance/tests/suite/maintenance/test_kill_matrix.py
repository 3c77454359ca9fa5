"""Every planted fault is found by the case table, whatever the seed, and the port they are planted in is honest."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from doconv_conformance.cases.table import select
from doconv_conformance.faults import CATALOGUE, Fault, FaultyPort
from doconv_conformance.faults.serve import PlantedPort, planted
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


def test_a_fault_that_is_served_is_made_where_it_is_planted_only() -> None:
    wrong = Fault("nothing-strided", "gives zeros where it strides", "nothing", {"used": lambda kernel, inputs, g: 0 * kernel},
                  where=lambda g: max(g.stride) > 1)  # fmt: skip
    port, core, seen = PlantedPort(wrong), PlantedPort(HONEST), set()
    for case, operation in select(stage="forward"):
        if case.dtype == "float32":
            inputs = case.inputs(operation)
            got, want = (getattr(each, operation)(case.geometry, inputs)["y"] for each in (port, core))
            assert np.array_equal(got, want) == (max(case.geometry.stride) == 1), case.id
            seen.add(max(case.geometry.stride) > 1)
    assert seen == {True, False}


def test_a_fault_that_does_not_exist_is_said() -> None:
    assert planted("bias-missing") in CATALOGUE
    with pytest.raises(ValueError, match=r"no fault of the catalogue has this name\. Received: 'bias'"):
        planted("bias")
