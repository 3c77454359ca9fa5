"""Everything that is measured on a GPU, in one run of a few minutes: `python benchmarks/gpu.py --out FILE.json`.

Needs this repository and, installed, PyTorch with CUDA and Triton, NumPy; for Flax's rows also flax and a jax with CUDA. First
what must be right: exact integers, and gradients compiled by the default backend. Then steps of networks and compositions by
shape, as ratios of wall times of variants that take turns, each round ended by a synchronisation; device times from CUDA
graphs. The file is written after every section, so that a run that is cut short is of use; a section that ends the process, as
an error on the device does, is noted, and the next ones run in another.

- plain: the network without DO-Conv.
- textbook: the formula written down, `D + I` and one `einsum`.
- products: a few calls for each layer, `W + bmm`; what `overparameterize` gives.
- fused: a Triton kernel for each layer.
- together: `compose_together`, fused; and with products.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from gpu_checks import compiled_gradients, correctness  # noqa: E402
from gpu_times import (  # noqa: E402
    compositions,
    convnext,
    fused_parts,
    fused_settings,
    on_the_processor,
    resnet_compiled,
    resnet_eager,
    resnet_graph,
    small_network,
)
from gpu_ways import DEVICE  # noqa: E402
from measure import Bench, machine  # noqa: E402


class Script:
    """The sections, the time they have, and the file."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out, self.quick = options.out, options.quick
        self.start, self.seconds = time.perf_counter(), options.minutes * 60
        self.bench = Bench("PyTorch on a GPU", quick=options.quick, seconds=4, clock="wall")
        gpu = torch.cuda.get_device_name() if DEVICE == "cuda" else None
        self.earlier: list[dict[str, Any]] = []
        self.report: dict[str, Any] = {"machine": machine() | {"gpu": gpu}, "quick": self.quick, "sections": {}}
        self.report["date"] = time.strftime("%Y-%m-%d")
        self.report["versions"] = {"torch": torch.__version__}
        with contextlib.suppress(ImportError):
            import triton

            self.report["versions"]["triton"] = triton.__version__
        if options.child and self.out.exists():  # what the process before this one wrote
            self.report |= json.loads(self.out.read_text())
            self.earlier = self.report["rows"]

    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.start)

    def run(self, names: list[str]) -> None:
        """Every section that the time left allows: a section says how many seconds it needs."""
        for name in names:
            needs, section = SECTIONS[name]
            begun = time.perf_counter()
            self.report["begun"] = name
            self.write()
            if self.left() < needs:
                done: Any = f"left out: {self.left():.0f} s were left"
            else:
                signal.alarm(max(1, int(self.left()) + 5))
                try:
                    done = section(self) or "done"
                except Exception as error:  # the other sections are of use
                    traceback.print_exc()
                    done = f"{type(error).__name__}: {str(error)[:300]}"
                finally:
                    signal.alarm(0)
            self.report["sections"][name] = {"seconds": round(time.perf_counter() - begun, 1), "result": done}
            print(f"-- {name}: {self.report['sections'][name]}", file=sys.stderr, flush=True)
            self.write()
            torch.compiler.reset()
            if DEVICE == "cuda":
                torch.cuda.empty_cache()  # raises after an error on the device, which nothing gets over in this process
        self.report.pop("begun")
        self.write()

    def write(self) -> None:
        self.report["rows"] = self.earlier + self.bench.rows
        write_whole(self.out, self.report)


def flax_steps(script: Script) -> Any:
    """Flax in a process of its own; its memory is its own, too."""
    command = [sys.executable, __file__, "--flax", "--out", str(script.out)] + ["--quick"] * script.quick
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    limit = max(script.left(), 20)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    if done.returncode or not lines:
        return done.stderr[-400:]
    script.bench.rows += json.loads(lines[-1])
    return None


def flax_alone(quick: bool) -> None:
    """What `flax_steps` starts: prints its rows as JSON."""
    import flax_bench
    import jax
    import jax.numpy as jnp

    bench = Bench("Flax on a GPU", quick=quick, seconds=3, clock="wall")
    width, size, batches = (8, 8, (2,)) if quick else (64, 64, (256, 32))
    on = "" if jax.default_backend() == "gpu" else f", on {jax.default_backend()}"
    flax_bench.linen_steps(bench, width, size, batches, jnp.bfloat16, f", bfloat16{on}")
    print(json.dumps(bench.rows))


# In the order of what they say; with the seconds that each needs.
SECTIONS: dict[str, tuple[float, Callable[[Script], Any]]] = {
    "correctness": (0, correctness),
    "small network": (10, small_network),
    "resnet 32 eager": (10, lambda script: resnet_eager(script, 32, 5)),
    "resnet 32 graph": (10, lambda script: resnet_graph(script, 32, 3)),
    "parts": (5, fused_parts),
    "resnet 256 eager": (20, lambda script: resnet_eager(script, 256, 9)),
    "processor": (8, on_the_processor),
    "compositions": (12, compositions),
    "resnet 256 graph": (15, lambda script: resnet_graph(script, 256, 4)),
    "resnet compiled": (40, resnet_compiled),
    "compiled gradients": (15, compiled_gradients),
    "convnext": (12, convnext),
    "settings": (15, fused_settings),
    "flax": (45, flax_steps),
}


NEED_A_GPU = ("settings", "parts", "resnet 32 graph", "resnet 256 graph")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        figures = ", ".join(
            f"{name} {result['value']:.3f}" + (f" ({result['wall_ms']:.2f} ms)" if name == "plain" else "")
            for name, result in row["results"].items()
        )
        control = f", A/A {row['control']:.3f}" if "control" in row else ""
        yield f"{row['framework']}: {row['benchmark']}; {row['case']}; {row['unit']}: {figures}{control}"


def _too_late(number: int, frame: Any) -> None:
    raise TimeoutError("the time of the run is over")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--minutes", type=float, default=4, help="sections that would end later are left out")
    parser.add_argument("--only", default="", help="sections whose names contain this")
    parser.add_argument("--quick", action="store_true", help="each section once, small, to see that it runs")
    parser.add_argument("--sections", default="", help="these, with commas between: " + ", ".join(SECTIONS))
    parser.add_argument("--flax", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flax:
        flax_alone(options.quick)
        return
    if DEVICE == "cpu" and not options.quick:
        parser.error("no CUDA device was found; --quick runs everything that a processor can")
    names = [name for name in SECTIONS if options.only in name]
    if options.sections:
        names = options.sections.split(",")
    if DEVICE == "cpu":
        names = [name for name in names if name not in NEED_A_GPU]
    if options.child:
        torch.backends.cudnn.benchmark = True
        signal.signal(signal.SIGALRM, _too_late)
        Script(options).run(names)
        return
    options.out.unlink(missing_ok=True)
    begun = time.perf_counter()
    while names:
        minutes = options.minutes - (time.perf_counter() - begun) / 60
        more = ["--quick"] * options.quick
        command = [sys.executable, __file__, "--child", "--out", str(options.out), "--minutes", str(minutes), *more]
        subprocess.run([*command, "--sections", ",".join(names)])
        report = json.loads(options.out.read_text())
        if "begun" in report and report["begun"] not in report["sections"]:
            report["sections"][report["begun"]] = {"result": "ended the process"}
            write_whole(options.out, report)
        names = [name for name in names if name not in report["sections"]]
    print("\n".join(table(report["rows"])))
    print(json.dumps({name: section["result"] for name, section in report["sections"].items()}))


def write_whole(path: Path, report: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
