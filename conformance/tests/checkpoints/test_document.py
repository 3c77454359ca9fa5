"""The code of docs/checkpoints.md runs, from top to bottom in one folder, each block in a process of its own."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

DOCUMENT = Path(__file__).parents[3] / "docs" / "checkpoints.md"


def test_the_code_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```(python|sh)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert {kind for kind, _ in blocks} == {"python", "sh"}
    for kind, code in blocks:
        lines = [["-c", code]] if kind == "python" else [shlex.split(line) for line in code.splitlines()]
        for arguments in lines:
            if kind == "sh":
                assert arguments.pop(0) == "doconv"
                arguments = ["-m", "doconv_conformance", *arguments]
            done = subprocess.run(
                [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, code + done.stderr
    first, second = load_file(tmp_path / "model.safetensors"), load_file(tmp_path / "from-keras.safetensors")
    for name, array in second.items():
        np.testing.assert_array_equal(array, first[name.replace("classes", "head")])
    assert load_file(tmp_path / "for-keras.safetensors")["conv.kernel"].shape == (3, 3, 3, 8)
