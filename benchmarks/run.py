"""Every benchmark, each framework in a process of its own on one core; the results as JSON.

    python benchmarks/run.py --out benchmarks/results/NAME.json        about 20 minutes
    python benchmarks/table.py benchmarks/results/*.json               writes the tables and the plot of docs/benchmarks.md

A file is one machine's; `benchmarks/gpu.py` makes those of GPUs.

A figure is the median over rounds of a ratio of processor times, with its quartiles; the variants of a row take turns. A row
whose A/A control, the baseline against itself, is off by more than 5% says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

from measure import machine

from doconv_conformance.files import check_writable, write_json

HERE = Path(__file__).parent
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
# glibc keeps what it frees, as tcmalloc and jemalloc do. By itself it gives blocks above 32 MB back and takes them afresh.
MEMORY_KEPT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**29),
}
SCRIPTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "torch": (["torch_bench.py"], {}),
    "keras-tensorflow": (["keras_bench.py"], {"KERAS_BACKEND": "tensorflow"}),
    "keras-jax": (["keras_bench.py"], {"KERAS_BACKEND": "jax"}),
    "flax": (["flax_bench.py"], {}),
    "flax-memory-kept": (["flax_bench.py", "--only", "steps"], MEMORY_KEPT),
    "core": (["core_bench.py"], {}),
    "growth": (["growth_bench.py"], {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="some of the benchmarks")
    parser.add_argument("--quick", action="store_true", help="each benchmark once, small, to see that it runs")
    parser.add_argument("--seconds", type=float, default=6.0, help="for one row, about")
    options = parser.parse_args()
    try:
        check_writable(options.out)
    except ValueError as error:
        parser.error(str(error))
    report = {
        "date": datetime.date.today().isoformat(),
        "quick": options.quick,
        "machine": machine(),
        "versions": {},
        "rows": [],
    }
    if hasattr(os, "sched_setaffinity"):  # a number of threads is not enough: XLA has its own
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in options.only:
        (script, *arguments), environment = SCRIPTS[name]
        command = [
            sys.executable,
            str(HERE / script),
            *arguments,
            "--seconds",
            str(options.seconds),
            *["--quick"] * options.quick,
        ]
        done = subprocess.run(
            command, env=os.environ | ONE_THREAD | environment, stdout=subprocess.PIPE, text=True, check=True
        )
        part = json.loads(done.stdout)
        report["rows"] += part["rows"]
        report["versions"] |= part["versions"]
    write_json(options.out, report)


if __name__ == "__main__":
    main()
