"""The example of gradient accumulation runs."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "flax_accumulate.py"


def test_the_example_of_gradient_accumulation(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("largest relative difference of a gradient: ")
    assert second.startswith("loss after a step: ")
