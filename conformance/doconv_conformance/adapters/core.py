"""The NumPy core as a port: what the suite is tried on first, and the base of the planted faults."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

import doconv_core
from doconv_conformance.port import EVERYTHING, Port, Tensors, serve
from doconv_core.composition import compose, compose_vjp, start_from_kernel
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry


class CorePort(Port):
    """The core computes in float64 and rounds the composed kernel and each result once."""

    name = "core"
    version = doconv_core.__version__
    supports: ClassVar = EVERYTHING
    numerics: ClassVar = {
        "algorithm": "direct",
        "accumulator": dict.fromkeys(("float64", "float32", "float16", "bfloat16"), "float64"),
    }

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"weight": compose(inputs["W"], inputs.get("D_delta"), geometry)}

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return {"y": convolve(inputs["x"], self.kernel(geometry, inputs), inputs.get("bias"), geometry)}

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        gradients = convolve_vjp(
            inputs["x"], self.kernel(geometry, inputs), inputs["grad_y"], geometry, dtype=np.float64
        )
        grad_x, grad_kernel, grad_bias = gradients
        grad_W, grad_D = compose_vjp(inputs["W"], inputs.get("D_delta"), grad_kernel, geometry)
        outputs = {"grad_x": grad_x.astype(inputs["x"].dtype), "grad_W": grad_W}
        if grad_D is not None:
            outputs["grad_D_delta"] = grad_D
        if "bias" in inputs:
            outputs["grad_bias"] = grad_bias.astype(inputs["bias"].dtype)
        return outputs

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs = self.compose(geometry, inputs) | self.forward(geometry, inputs)
        return outputs | ({"bias": inputs["bias"]} if "bias" in inputs else {})

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        W, D_delta = start_from_kernel(inputs["weight"], geometry, np.random.default_rng(0))
        outputs = {"W": W} | ({} if D_delta is None else {"D_delta": D_delta})
        return outputs | {"weight": compose(W, D_delta, geometry)}

    def kernel(self, geometry: ConvGeometry, inputs: Tensors) -> np.ndarray:
        """Composed in the parameters' type and rounded once to that of the activations."""
        return self.compose(geometry, inputs)["weight"].astype(inputs["x"].dtype)


if __name__ == "__main__":
    serve(CorePort())
