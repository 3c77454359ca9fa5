"""Every benchmark runs: once, small. Times are not looked at."""

from collections.abc import Callable


def test_the_benchmarks_run(run_benchmarks: Callable[..., set[str]]) -> None:
    assert run_benchmarks("keras-tensorflow") == {
        "composition, forward and backward, compiled", "training step, compiled", "inference, compiled",
    }  # fmt: skip
