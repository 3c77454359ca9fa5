"""Every benchmark runs: once, small. Times are not looked at."""

from collections.abc import Callable


def test_the_benchmarks_run(run_benchmarks: Callable[..., set[str]]) -> None:
    assert run_benchmarks("flax") == {
        "composition, forward and backward, jit", "training step, jit", "8 micro-batches of 8, jit",
    }  # fmt: skip
