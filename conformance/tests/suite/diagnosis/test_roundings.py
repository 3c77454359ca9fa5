"""Roundings at one place, planted in the core by loops of their own: one line names each, and nothing is left over."""

import ml_dtypes
import numpy as np
import pytest
from diagnosing import Changed, Direct, diagnosed

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.table import select
from doconv_conformance.port import Tensors
from doconv_conformance.running.runner import numerics_of
from doconv_core.composition import compose, compose_vjp
from doconv_core.convolution import convolve_vjp
from doconv_core.geometry import ConvGeometry

LOW = ("bfloat16", "float16")


def wide(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float64)


class TapByTap(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        low, bare = inputs["x"].dtype, {name: inputs[name] for name in inputs if name != "bias"}
        if str(low) not in LOW or g.transposed:
            return y
        kernel, total = self.kernel(g, inputs), np.zeros(y.shape, low)
        for tap in np.ndindex(*g.kernel_size):
            one = np.zeros_like(kernel)
            one[(..., *tap)] = kernel[(..., *tap)]
            share = self.otherwise(g, bare, one).astype(low)
            total = (wide(total) + wide(share)).astype(low)
        bias = inputs.get("bias")
        return wide(total) if bias is None else wide(total) + wide(bias).reshape(-1, *[1] * g.spatial_rank)


class BiasGradientInType(CorePort):
    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs, grad_y = super().backward(geometry, inputs), inputs["grad_y"]
        if "bias" in inputs and str(grad_y.dtype) in LOW:
            total = np.zeros(geometry.out_channels, grad_y.dtype)
            for image in grad_y.reshape(*grad_y.shape[:2], -1):
                for values in image.T:
                    total = total + values
            outputs["grad_bias"] = total.astype(inputs["bias"].dtype)
        return outputs


class WrittenTruncated(CorePort):
    """The upper halves of float32 numbers are written for bfloat16; the kernel that is used is rounded."""

    def write(self, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
        if str(dtype) != "bfloat16":
            return tensor.astype(dtype)
        bits = np.ascontiguousarray(tensor, np.float32).view(np.uint32)
        return (bits >> np.uint32(16)).astype(np.uint16).view(ml_dtypes.bfloat16)

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        D = inputs.get("D_delta")
        weight = compose(wide(inputs["W"]), None if D is None else wide(D), geometry)
        return {"weight": self.write(weight, inputs["W"].dtype)}

    def kernel(self, geometry: ConvGeometry, inputs: Tensors) -> np.ndarray:
        return compose(inputs["W"], inputs.get("D_delta"), geometry).astype(inputs["x"].dtype)

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        given = {name: wide(tensor) for name, tensor in inputs.items()}
        y = Changed.otherwise(self, geometry, given, wide(self.kernel(geometry, inputs)))
        return {"y": self.write(y, inputs["x"].dtype)}

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        t, D = {name: wide(tensor) for name, tensor in inputs.items()}, None
        kernel = wide(self.kernel(geometry, inputs))
        grad_x, grad_kernel, grad_bias = convolve_vjp(t["x"], kernel, t["grad_y"], geometry)
        grad_W, D = compose_vjp(t["W"], t.get("D_delta"), grad_kernel, geometry)
        outputs = {"grad_x": grad_x, "grad_W": grad_W} | ({} if D is None else {"grad_D_delta": D})
        outputs |= {"grad_bias": grad_bias} if "bias" in t else {}
        types = {"grad_x": inputs["x"].dtype}
        return {name: self.write(value, types.get(name, inputs["W"].dtype)) for name, value in outputs.items()}


class ComposedInFloat32(CorePort):
    """Of float64, with the gradients through it; in whatever order NumPy adds up."""

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        W, D = inputs["W"], inputs.get("D_delta")
        if W.dtype != np.float64 or D is None:
            return super().compose(geometry, inputs)
        eye = np.tile(np.eye(geometry.taps, dtype=np.float32), geometry.d_mul // geometry.taps)
        E = np.pad(eye, [(0, 0), (0, geometry.d_mul - eye.shape[1])])
        matrix = (E + D.astype(np.float32))[geometry.rows]
        weight = (matrix @ W.astype(np.float32)[..., None])[..., 0]
        return {"weight": weight.reshape(geometry.kernel_shape).astype(np.float64)}


class BoundedOutputs(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        return np.clip(y, -65504, 65504) if inputs["x"].dtype == np.float16 else y


class ShortKernelOfGradX(CorePort):
    """Truncated to the digits of TF32 where the gradient of a transposed convolution's input is taken."""

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs = super().backward(geometry, inputs)
        if geometry.transposed and inputs["x"].dtype == np.float32:
            kernel = self.kernel(geometry, inputs)
            cut = (kernel.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
            grad_x, *_ = convolve_vjp(inputs["x"], cut, inputs["grad_y"], geometry, dtype=np.float64)
            outputs["grad_x"] = grad_x.astype(np.float32)
        return outputs


SAID = {
    TapByTap: ("adds up sums of products of float16 and bfloat16 in that type, tap by tap, and rounds each tap's share to it, "
               "except in transposed convolutions"),
    BiasGradientInType: "adds up the gradient of the bias of float16 and bfloat16 in that type, image by image and position by",
    WrittenTruncated: "rounds results of bfloat16 towards zero",
    ComposedInFloat32: "composes the kernel of float64 in 24 digits, those of float32",
    BoundedOutputs: "has float16 numbers that overflow become the largest number in y",
    ShortKernelOfGradX: ("11 digits, those of float16 or TF32, towards zero, in the gradient of x, in transposed convolutions "
                         "only"),
}  # fmt: skip
TYPES = {
    WrittenTruncated: ("bfloat16",),
    ComposedInFloat32: ("float64",),
    BoundedOutputs: ("float16",),
    ShortKernelOfGradX: ("float32",),
}
ROWS_OF_ITS_OWN = (TapByTap, BiasGradientInType, BoundedOutputs)  # in the whole table only


@pytest.mark.parametrize("kind", SAID, ids=lambda kind: kind.__name__)
def test_one_line_names_a_rounding_and_nothing_is_left(kind: type[CorePort]) -> None:
    port, types = kind(), TYPES.get(kind, LOW)
    pairs = [pair for pair in select(extended=kind in ROWS_OF_ITS_OWN) if pair[0].dtype in types and not pair[0].large]
    found = diagnosed(port, pairs, numerics_of({"numerics": port.numerics}), Direct(port))
    assert len(found) == 1, [item.consistent_with for item in found]
    assert SAID[kind] in found[0].consistent_with, found[0].consistent_with
    assert found[0].complete
