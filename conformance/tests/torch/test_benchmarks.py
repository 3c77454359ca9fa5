"""Every benchmark runs: once, small. Times are not looked at."""

from collections.abc import Callable


def test_the_benchmarks_run(run_benchmarks: Callable[..., set[str]]) -> None:
    assert run_benchmarks("torch", "core", "gpu-torch") == {
        "composition, forward and backward", "training step", "inference", "8 micro-batches of 8",
        "kept for the backward pass, beyond plain", "training step, torch.compile", "reference convolution, forward",
        "reference convolution, forward and backward", "start of the command line",
    }  # fmt: skip
