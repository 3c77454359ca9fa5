"""How the cost of composition, step, fold and suite grows: measured, and by a formula of constants of the machine.

    seconds of one layer, forward and backward = call + 36 (K + S) N / bandwidth + 6 K S N / rate
    seconds of its fold = 4 call + 16 (K + S) N / fresh + 4 K S N / rate                N = C_in C_out / G

`K` taps, `S` columns (`d_mul`). The composition passes over `W`, the kernel and their gradients 9 times each in float32 (the
transposes included), and makes three products; a fold is computed in float64, in new memory. The constants are this machine's,
measured here by other means. `call`: a layer of four channels. `bandwidth`: what a copy of 1 MB reads and writes, for `W` up to
2 MB by itself; else, and in a step, which leaves nothing in the cache, a copy of 32 MB. `fresh`: the same into memory that the
system has to give. `rate`: one product of 9x9 matrices for each of 256 channels.
"""

from __future__ import annotations

import copy
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from measure import Bench, Run, command_line
from torch import nn

from doconv_torch import compose, fold, overparameterize

CHANNELS, COLUMNS = (16, 32, 64, 128, 256, 512), (9, 18, 27, 36)
SIZES, LAYERS, BATCHES = (2, 3, 4, 5, 6, 7), (1, 2, 4, 8, 16), (1, 4, 16, 64)
CACHED = 2**21
STAGES = ("compose", "fold", "forward", "backward")
PORT = [sys.executable, "-m", "doconv_conformance.adapters.core"]


class Machine(NamedTuple):
    """Seconds of a call; bytes per second in the cache, in memory, and in new memory; operations per second."""

    call: float
    cache: float
    memory: float
    fresh: float
    rate: float

    def composition(self, channels: int, taps: int, columns: int, *, in_step: bool = False) -> float:
        """Seconds of a layer of one group, forward and backward."""
        numbers = channels**2
        fits = 4 * columns * numbers <= CACHED and not in_step
        moves = 36 * (taps + columns) * numbers / (self.cache if fits else self.memory)
        return self.call + moves + 6 * taps * columns * numbers / self.rate

    def fold(self, channels: int, taps: int, columns: int) -> float:
        numbers = channels**2
        moves = 16 * (taps + columns) * numbers / self.fresh
        return 4 * self.call + moves + 4 * taps * columns * numbers / self.rate


def seconds(run: Run, quick: bool) -> float:
    """The least of several runs, of the process's time: what disturbs a run only adds to it."""
    run()
    best, start = float("inf"), time.perf_counter()
    for _ in range(1 if quick else 100):
        before = time.process_time()
        run()
        best = min(best, time.process_time() - before)
        if time.perf_counter() - start > 1:
            break
    return best


def calibrated(quick: bool) -> Machine:
    small, large = (torch.zeros(2, numbers) for numbers in (2**18, 2**23))
    D, w = torch.randn(256, 9, 9), torch.randn(256, 9, 256)
    out = torch.empty(256, 9, 256)
    return Machine(
        call=seconds(composition(4, 3, 9), quick),
        cache=small.nbytes / seconds(lambda: small[0].copy_(small[1]), quick),
        memory=large.nbytes / seconds(lambda: large[0].copy_(large[1]), quick),
        fresh=2 * large.nbytes / seconds(large.clone, quick),
        rate=2 * 81 * 256**2 / seconds(lambda: torch.bmm(D, w, out=out), quick),
    )


def composition(channels: int, size: int, columns: int) -> Run:
    taps = size**2
    W = torch.randn(channels, channels, columns, requires_grad=True)
    D = torch.zeros(channels, taps, columns, requires_grad=True)
    g = torch.randn(channels, channels, taps)

    def run() -> None:
        W.grad = D.grad = None
        compose(W, D).backward(g)

    return run


def growth(bench: Bench, what: str, against: str, points: Iterable[tuple[int, Callable[[], float], float]]) -> None:
    """A row for each point: its place, what measures it, and what the formula says."""
    for place, measure, model in points:
        bench.note(
            f"growth of {what}",
            f"{against} {place}",
            "microseconds",
            {"measured": measure() * 1e6, "formula": model * 1e6},
        )
        if bench.quick:
            return


def compositions(bench: Bench, machine: Machine) -> None:
    def point(place: int, channels: int, size: int, columns: int) -> tuple[int, Callable[[], float], float]:
        model = machine.composition(channels, size**2, columns)
        return place, lambda: seconds(composition(channels, size, columns), bench.quick), model

    growth(bench, "a composition", "channels", [point(C, C, 3, 9) for C in CHANNELS])
    growth(bench, "a composition", "taps", [point(size**2, 64, size, size**2) for size in SIZES])
    growth(bench, "a composition", "d_mul", [point(S, 128, 3, S) for S in COLUMNS])


def stack(layers: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(layers)))


def step(model: nn.Module, batch: int) -> Run:
    x = torch.randn(batch, 64, 6, 6)

    def run() -> None:
        model.zero_grad()
        model(x).sum().backward()

    return run


def steps(bench: Bench, machine: Machine) -> None:
    """What is added to a plain step, by layers and by batch: the second does not grow."""
    layer = machine.composition(64, 9, 9, in_step=True)

    def added(layers: int, batch: int) -> float:
        plain = stack(layers)
        ours = overparameterize(copy.deepcopy(plain))
        least, runs = [float("inf")] * 2, (step(plain, batch), step(ours, batch))
        for _ in range(1 if bench.quick else 5):  # by turns
            least = [min(known, seconds(run, bench.quick)) for known, run in zip(least, runs, strict=True)]
        return max(0.0, least[1] - least[0])

    growth(bench, "a step beyond plain", "layers", [(n, lambda n=n: added(n, 4), n * layer) for n in LAYERS])  # type: ignore[misc]
    growth(bench, "a step beyond plain", "batch", [(b, lambda b=b: added(4, b), 4 * layer) for b in BATCHES])  # type: ignore[misc]


def folds(bench: Bench, machine: Machine) -> None:
    def once(channels: int) -> float:
        model = overparameterize(nn.Sequential(nn.Conv2d(channels, channels, 3)))

        def timed() -> float:
            twin = copy.deepcopy(model)
            before = time.process_time()
            fold(twin)
            return time.process_time() - before

        return min(timed() for _ in range(1 if bench.quick else 7))

    points = [(C, lambda C=C: once(C), machine.fold(C, 9, 9)) for C in CHANNELS]
    growth(bench, "a fold", "channels", points)


def suite(bench: Bench, _: Machine) -> None:
    """The suite on the reference itself: rows asked, and processor time of the command and the port."""
    bench.framework = "core"
    for stage in STAGES:
        listed = [sys.executable, "-m", "doconv_conformance", "check", "--stage", stage]
        rows = subprocess.run([*listed, "--list", "--", *PORT], capture_output=True, text=True, check=True).stdout
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*listed, "--", *PORT], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        bench.note(
            "suite on the reference", f"stage {stage}", "seconds", {"rows": rows.count("\n"), "processor": spent}
        )
        if bench.quick:
            return


def main() -> None:
    options = command_line(__doc__).parse_args()
    torch.set_num_threads(1)
    bench = Bench("PyTorch", quick=options.quick, seconds=options.seconds)
    machine = calibrated(options.quick)
    names = ("call, microseconds", "cache, GB/s", "memory, GB/s", "new memory, GB/s", "rate, Gflop/s")
    units = (1e6, 1e-9, 1e-9, 1e-9, 1e-9)
    constants = {name: value * unit for name, value, unit in zip(names, machine, units, strict=True)}
    bench.note("constants of the machine", "measured", "as named", {**constants})
    bench.run((compositions, steps, folds, suite), options.only, machine)
    bench.write(["torch", "doconv-core"])


if __name__ == "__main__":
    main()
