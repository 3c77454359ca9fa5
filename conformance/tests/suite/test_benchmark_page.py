"""The table and the plot of the benchmarks, written from results."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def row(**options: object) -> dict:
    result = {"value": 1.25, "low": 1.2, "high": 1.3, "cpu_ms": 1.0, "wall_ms": 1.0}
    plain = {"value": 1.0, "low": 1.0, "high": 1.0}
    measured = {"rounds": 7, "control": 1.1, "control_is_off": True, "results": {"plain": plain, "ours": result}}
    return (
        {"benchmark": "training step", "framework": "PyTorch", "case": "a net", "unit": "of plain"} | measured | options
    )


def run_table(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["table.py", *arguments])
    runpy.run_path(str(ROOT / "benchmarks" / "table.py"), run_name="__main__")


def test_the_page_gets_a_table_with_controls_and_what_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = row(framework="GPU", results={"plain": {"value": None}, "ours": {"value": None}})
    del missing["control"]
    memory = {"benchmark": "memory", "framework": "PyTorch", "case": "a net", "unit": "bytes"}
    machine = {"cpu": "a CPU", "cores": 2, "system": "Linux", "python": "3.11"}
    machines = {"a": machine, "b": machine, "c": machine | {"cpu": "another CPU", "gpu": "a GPU"}}
    composition = {"benchmark": "composition", "unit": "of textbook", "case": "C=64"}
    rows = {
        "a": [row(), missing, row(**composition)],
        "b": [memory | {"results": {"ours": {"value": 43979520}}}],
        "c": [row(**composition, control=1.0, control_is_off=False), row(framework="on a GPU", case="large")],
    }
    for name in rows:
        report = {"date": "2026-01-01", "machine": machines[name], "versions": {name: "1.0"}, "rows": rows[name]}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    shutil.copy(ROOT / "docs" / "benchmarks.md", tmp_path / "page.md")
    for _ in range(2):  # writing it again changes nothing
        files = (str(tmp_path / f"{name}.json") for name in rows)
        run_table(monkeypatch, *files, "--page", str(tmp_path / "page.md"))
    page = (tmp_path / "page.md").read_text()
    assert page.count("| a net | 1 | 1.25 (1.20-1.30) | 1.100 (off) |") == 1
    assert "| a net | not measured | not measured |" in page
    assert "| a net | 43,979,520 |" in page
    assert "a CPU, 2 cores, one thread; Python 3.11, a 1.0, b 1.0." in page
    assert "a GPU (another CPU, 2 cores); Python 3.11, c 1.0." in page
    assert "### on a GPU: training step (of plain; a GPU)" in page
    assert "### PyTorch: training step (of plain; a CPU)" in page
    assert (
        "| a CPU | C=64 | 1 | 1.25 (1.20-1.30) | 1.100 (off) |\n| another CPU | C=64 | 1 | 1.25 (1.20-1.30) | 1.000 |"
        in page
    )
    assert "| a CPU | geometric mean | 1.00 | 1.25 |  |\n| another CPU | geometric mean | 1.00 | 1.25 |  |" in page
    assert "</svg>" in (tmp_path / "page.svg").read_text()


def test_a_page_without_marks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.json").write_text('{"machine": {}, "rows": []}')
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(SystemExit):
        run_table(monkeypatch, str(tmp_path / "results.json"), "--page", str(tmp_path / "page.md"))
    assert (tmp_path / "page.md").read_text() == "no marks"
