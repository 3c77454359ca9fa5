"""The runs of a task: resumed after a kill, on many seeds at once, and reported."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gpu
import pytest
import recipe as recipes
import report
import rows
import train
from frameworks import Trainer
from progress import Progress

TRAIN = Path(train.__file__)
SHORT = ("digits", "--variants", "plain", "do", "--rates", "0.05", "0.1", "--final-seeds", "2", "--cost", "1.25")
TIMES = {"cpu_seconds", "wall_seconds"}


def numbers(out: Path) -> list[dict[str, str]]:
    with open(out, newline="") as stream:
        return [{name: text for name, text in row.items() if name not in TIMES} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole.csv"
    train.main([*SHORT, "--out", str(out)])
    return out


def test_a_run_that_was_killed_goes_on(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed.csv"
    command = [sys.executable, str(TRAIN), *SHORT, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
    while not (out.exists() and len(rows.read_rows(out)) >= 3):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(rows.read_rows(out)) < len(rows.read_rows(whole))
    train.main([*SHORT, "--out", str(out)])
    assert numbers(out) == numbers(whole)


def test_a_run_that_was_killed_goes_on_inside(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is kept after every step; killed in the second half of its first run, the command goes on from one."""
    out = tmp_path / "inside.csv"
    command = [sys.executable, str(TRAIN), *SHORT, "--out", str(out), "--keep-every", "0"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
    states = tmp_path / "inside.running"
    while not list(states.glob("*/[23]?")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    seen, resume = [], Progress.resume

    def resume_and_note(self: Progress, made: Trainer) -> None:
        resume(self, made)
        seen.append(len(self.losses))

    monkeypatch.setattr(Progress, "resume", resume_and_note)
    train.main([*SHORT, "--out", str(out)])
    assert max(seen) >= 20
    assert numbers(out) == numbers(whole)
    assert not any(states.iterdir())


def test_two_jobs_write_the_same_rows(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "jobs.csv"
    command = [sys.executable, str(TRAIN), *SHORT, "--jobs", "2", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "8/8 do, rate" in done.stderr
    assert numbers(out) == numbers(whole)


def test_a_row_that_was_cut_off_is_run_again(whole: Path, tmp_path: Path) -> None:
    out, text = tmp_path / "cut.csv", whole.read_text("utf-8")
    out.write_text(text[:-20], "utf-8")
    assert rows.read_rows(out) == rows.read_rows(whole)[:-1]
    train.main([*SHORT, "--out", str(out)])
    assert numbers(out) == numbers(whole)


def test_many_seeds_at_once_give_the_same_rows(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "many.csv"
    recipe = replace(recipes.load("digits"), variants=("plain", "do"))
    monkeypatch.setattr(recipes, "load", lambda _: recipe)
    gpu.main(["digits", "--device", "cpu", "--seeds", "2", "--out", str(out)])
    many = {row.key: row for row in rows.read_rows(out)}
    shared = [row for row in rows.read_rows(whole) if row.key in many]
    assert len(shared) == len(rows.read_rows(whole))
    assert [many[row.key].metric for row in shared] == [row.metric for row in shared]


def test_the_rate_is_chosen_on_the_grid_and_a_divergence_is_the_worst(whole: Path) -> None:
    done = rows.read_rows(whole)
    recipe = recipes.load("digits")
    best = train.best_rate(done, recipe, "torch", "do")
    scores = {row.rate: row.metric for row in done if row.variant == "do" and row.stage == "grid"}
    assert best == max(scores, key=lambda rate: scores[rate])
    worse = [replace(row, diverged=row.diverged or row.rate == best) for row in done]
    assert train.best_rate(worse, recipe, "torch", "do") != best


def test_a_divergence_is_a_row() -> None:
    recipe = recipes.load("digits")
    data = train.load(**recipe.data)
    row = train.train(recipe, data, "torch", "plain", 1e6, 0, "grid", 1.0, "cpu")
    assert row.diverged
    assert row.steps < 40


def test_a_run_that_learnt_nothing_has_failed_and_is_in_no_pair(whole: Path) -> None:
    done = rows.read_rows(whole)
    assert not any(row.failed for row in done)
    dead = replace(done[0], curve="2.37;2.3081;2.3027;2.3026")
    assert dead.failed
    # Classes whose loss jumped first; a denoiser that left the noise where it was.
    assert replace(done[0], curve="3.32;2.3119;2.3091;2.3019").failed
    assert replace(done[0], curve="0.033985;0.0096126;0.0095912;0.0095759").failed
    assert replace(done[0], diverged=True).failed
    final = next(row for row in done if row.stage == "final")
    assert final.seed in report._finals([final], final.variant, final.rate)
    assert not report._finals([replace(final, curve=dead.curve)], final.variant, final.rate)


def test_bfloat16_trains_and_is_a_group_of_its_own(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.csv"
    half = ("digits", "--variants", "do", "--rates", "0.1", "--grid-seeds", "1", "--final-seeds", "1", "--cost", "1")
    train.main([*half, "--precision", "bfloat16", "--out", str(out)])
    done = rows.read_rows(out)
    assert [row.precision for row in done] == ["bfloat16"] * 2
    same = {row.key: row for row in rows.read_rows(whole)}
    row, full = done[0], same[done[0].key]
    assert row.curve != full.curve  # it has rounded
    losses = [[float(text) for text in each.curve.split(";")] for each in (row, full)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)  # bfloat16 has 8 bits, 0.4%, and rounds in each of 40 steps
    assert len(report._groups([*same.values(), *done])) == 2


def test_differences_are_paired() -> None:
    left, right = {1: 3.0, 2: 5.0, 3: 4.5, 9: 100.0}, {1: 2.0, 2: 4.5, 3: 4.0, 8: 0.0}
    difference = report.paired(left, right)
    assert difference.pairs == 3
    assert difference.mean == pytest.approx((1 + 0.5 + 0.5) / 3)
    # The sample deviation is sqrt(1/12); Student's quantile of 97.5% with two degrees of freedom is 4.3026527.
    assert difference.half == pytest.approx(4.3026527 * (1 / 12) ** 0.5 / 3**0.5, rel=1e-7)
    with pytest.raises(ValueError, match=r"needs two pairs or more\. Received: 1"):
        report.paired({1: 1.0}, {1: 2.0, 3: 1.0})


def test_the_page_is_rewritten_between_its_markers(whole: Path, tmp_path: Path) -> None:
    page = tmp_path / "evidence.md"
    page.write_text(f"before\n{report.BEGIN}\nwhat stood here\n{report.END}\nafter\n", "utf-8")
    for _ in range(2):
        report.main([str(whole), "--page", str(page)])
        text = page.read_text("utf-8")
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert "what stood here" not in text
        assert "| digits | torch, " in text
        assert "| DO - plain |" in text
        assert "8 runs, 0 of which failed" in text
        assert "Folding changed the metric of the others by at most 0.0000." in text
    assert (tmp_path / "evidence.svg").read_text("utf-8").count("<svg") == 1
    page.write_text("no markers", "utf-8")
    with pytest.raises(ValueError, match="has no <!-- results"):
        report.main([str(whole), "--page", str(page)])


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_whole(name: str) -> None:
    recipe = recipes.load(name)
    assert len(set(recipe.rates)) == len(recipe.rates)
    assert {"plain", "do"} <= set(recipe.variants)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nabout = 'x'\nepoch = 1", "a: missing fields .*'epochs'.*, unknown fields \\['epoch'\\]"),
        ("", "the task must be one of . Received: 'a'"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "recipes.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        recipes.load("a", file)
