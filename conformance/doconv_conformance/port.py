"""The Python side of the protocol: what turns a class of five methods into a program that the suite can check.

A port in Python subclasses `Port` and ends with `serve(MyPort())`. A port in another language reads `conformance/README.md`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from doconv_core.geometry import PADDING_MODES, ConvGeometry

PROTOCOL = 1
OPERATIONS = ("compose", "forward", "backward", "fold", "initialise")
# What a port declares that supports all there is.
EVERYTHING: dict[str, Any] = {
    "operations": list(OPERATIONS),
    "spatial_ranks": [1, 2, 3],
    "transposed": True,
    "groups": True,
    "padding_modes": list(PADDING_MODES),
    "dtypes": {
        "float64": ["float64"],
        "float32": ["float32"],
        "float16": ["float32", "float16"],
        "bfloat16": ["float32", "bfloat16"],
    },
}

Tensors = dict[str, np.ndarray]


class Unsupported(Exception):
    """Raised by a port for a case it does not claim to support; the text is the reason."""


class Port:
    """One implementation under test. All tensors are canonical; a method returns every output that its name lists.

    `x`, `y`, `grad_y` have the case's `dtype` and `W`, `D_delta`, `bias` its `param_dtype`. `D_delta` is absent where the
    kernel has one tap, `bias` where the case has none (then so is its gradient).
    """

    name = "unnamed"
    version = "0"
    device = "cpu"
    supports: ClassVar[dict[str, Any]] = {}
    numerics: ClassVar[dict[str, Any]] = {}

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        """`W`, `D_delta` -> `weight`: the composed kernel, in the parameters' dtype."""
        raise Unsupported("compose")

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        """`x`, `W`, `D_delta`, `bias` -> `y`."""
        raise Unsupported("forward")

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        """`x`, `W`, `D_delta`, `bias`, `grad_y` -> `grad_x`, `grad_W`, `grad_D_delta`, `grad_bias`."""
        raise Unsupported("backward")

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        """`x`, `W`, `D_delta`, `bias` -> `weight`, `bias` of the plain layer, and its output `y`."""
        raise Unsupported("fold")

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        """`weight` (a plain kernel) -> `W`, `D_delta` of the layer that starts from it, and its composed `weight`."""
        raise Unsupported("initialise")


def serve(port: Port) -> None:
    """Answer the suite's requests, one JSON object per line, until stdin ends.

    Whatever the port or its framework prints goes to stderr, so that it cannot damage the protocol.
    """
    from safetensors.numpy import load_file, save_file

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if request["type"] == "hello":
            answer = {
                "type": "hello", "protocol": [PROTOCOL], "name": port.name, "version": port.version, "language": "python",
                "device": port.device, "supports": port.supports, "numerics": port.numerics, "environment": _environment(),
            }  # fmt: skip
        else:
            answer = {"type": "result", "id": request["id"], "status": "ok"}
            try:
                geometry = ConvGeometry.from_json(request["geometry"])
                outputs = getattr(port, request["operation"])(geometry, load_file(request["inputs"]))
                save_file(
                    {name: np.ascontiguousarray(value) for name, value in outputs.items()}, Path(request["outputs"])
                )
            except Unsupported as reason:
                answer |= {"status": "unsupported", "reason": str(reason) or "without a reason"}
            except Exception as error:  # a port's failure is an answer, never the end of the run
                answer |= {"status": "error", "reason": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


def _environment() -> dict[str, str]:
    """Versions of what decides the numbers, as far as this process has loaded it."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("numpy", "torch", "tensorflow", "keras", "jax", "jaxlib", "flax"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            versions[name] = str(version)
    return versions
