"""Time and memory of `doconv fold` on a file of 2 GB, next to copying the same bytes.

    python benchmarks/checkpoint_fold.py [--gigabytes 2] [--repeats 5] [--folder DIR]

The file holds 3x3 DO-Conv layers of 512 channels, as PyTorch stores them. Copying and folding take turns, each in a process of
its own, each reading the file, writing under a temporary name, syncing to the disk and renaming. Peak memory is the process's
`VmHWM` less that of an interpreter that does nothing. Prints medians, the lowest times, and the ratios of both. Time of the
processor tells whether the machine was busy with other things: where it had both cores, it is more than the seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from doconv_core.checkpoint import TensorWriter

CHANNELS = 512
REPORT = """
import re
print(time.perf_counter() - start, time.process_time())
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
TASKS = {
    "nothing": "pass",
    "copy": """
import os, shutil, sys
partial = sys.argv[2] + ".partial"
shutil.copyfile(sys.argv[1], partial)
with open(partial, "rb+") as file:
    os.fsync(file.fileno())
os.replace(partial, sys.argv[2])
""",
    "fold": """
import sys
from doconv_core.checkpoint import fold_file, open_checkpoint
with open_checkpoint(sys.argv[1]) as checkpoint:
    fold_file(checkpoint, sys.argv[2])
""",
}


def make(path: Path, size: int) -> int:
    """Write the file and return its size; all layers have the same random numbers."""
    rng = np.random.default_rng(0)
    tensors = {
        "W": rng.standard_normal((CHANNELS, CHANNELS, 9), dtype=np.float32),
        "D": rng.standard_normal((CHANNELS, 9, 9), dtype=np.float32) * np.float32(0.1),
    }
    count = -(-size // sum(array.nbytes for array in tensors.values()))
    names = {f"layer{index:04d}.{name}": array for index in range(count) for name, array in tensors.items()}
    with TensorWriter(path, {name: ("F32", array.shape) for name, array in names.items()}, {}) as writer:
        for name in writer.order:
            writer.write(name, names[name])
    return path.stat().st_size


@dataclass(frozen=True)
class Run:
    """One process: seconds from its first line to its last, seconds of the processor, and peak bytes."""

    seconds: float
    processor: float
    peak: int


def run(task: str, source: Path, target: Path) -> Run:
    """Do the task in a process of its own."""
    code = f"import time; start = time.perf_counter()\n{TASKS[task]}\n{REPORT}"
    target.unlink(missing_ok=True)
    os.sync()
    command = [sys.executable, "-c", code, str(source), str(target)]
    seconds, used, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return Run(float(seconds), float(used), int(peak) * 1024)


def processor() -> str:
    """The processor's name and the number of its cores."""
    try:
        name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        name = None
    return f"{name[1] if name else 'unknown processor'}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="Where the files go; needs three times their size.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, target = Path(folder) / "in.safetensors", Path(folder) / "out.safetensors"
        size = make(source, int(options.gigabytes * 2**30))
        print(f"{size / 2**30:.2f} GiB; {processor()}; {time.strftime('%Y-%m-%d')}")
        idle = run("nothing", source, target).peak
        runs: dict[str, list[Run]] = {"copy": [], "fold": []}
        for _ in range(options.repeats):
            for task, results in runs.items():
                results.append(run(task, source, target))
    medians = {task: statistics.median(one.seconds for one in results) for task, results in runs.items()}
    lowest = {task: min(one.seconds for one in results) for task, results in runs.items()}
    for task, results in runs.items():
        used = statistics.median(one.processor for one in results)
        peak = (max(one.peak for one in results) - idle) / 1e6
        print(
            f"{task}: median {medians[task]:.2f} s, lowest {lowest[task]:.2f} s, processor {used:.2f} s, "
            f"peak memory {peak:.0f} MB beyond the interpreter's"
        )
    print(f"fold / copy: medians {medians['fold'] / medians['copy']:.2f}, lowest {lowest['fold'] / lowest['copy']:.2f}")


if __name__ == "__main__":
    main()
