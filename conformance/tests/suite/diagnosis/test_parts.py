"""Mistakes that are made in a part only, under several conditions at once, or by a formula of the sizes: each made once.

What the first line must say was written beside the mistake.
"""

import numpy as np
import pytest
from diagnosing import Changed, Direct, changed, diagnosed

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.table import select
from doconv_conformance.port import Tensors
from doconv_conformance.running.runner import numerics_of
from doconv_core.composition import compose
from doconv_core.convolution import convolve_vjp
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad


def column(bias: np.ndarray, g: ConvGeometry) -> np.ndarray:
    return bias.astype(np.float64).reshape(-1, *[1] * g.spatial_rank)


class IndexInAByte(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        flat = inputs["x"].reshape(len(y), -1)
        x = flat[:, np.arange(flat.shape[1]) % 256].reshape(inputs["x"].shape)
        return self.otherwise(g, inputs | {"x": x})


class KernelOfFirstGroupBeyondFirstImage(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.groups == 1 or g.transposed:
            return y
        kernel = self.kernel(g, inputs)
        first = np.tile(kernel[: g.out_channels // g.groups], (g.groups, *[1] * (kernel.ndim - 1)))
        return np.concatenate([y[:1], self.otherwise(g, inputs, first)[1:]])


class NoBiasAtOutputPadding(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if "bias" not in inputs:
            return y
        inside = np.zeros(y.shape, bool)
        inside[(..., *(slice(size - more) for size, more in zip(y.shape[2:], g.output_padding, strict=True)))] = True
        return np.where(inside, y, y - column(inputs["bias"], g))


class PaddedWithOnes(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.transposed or g.padding_mode != "zeros":
            return y
        x = np.pad(inputs["x"], [(0, 0), (0, 0), *g.padding], constant_values=1)
        return self.otherwise(g, inputs | {"x": x}, padding=[[0, 0]] * g.spatial_rank)


class NoDilationWhereEven(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.transposed:
            return y
        dilation = [1 if taps % 2 == 0 else step for taps, step in zip(g.kernel_size, g.dilation, strict=True)]
        whole = self.otherwise(g, inputs, dilation=dilation)
        return whole[(..., *(slice(size) for size in y.shape[2:]))]


class TwoNarrowOnes(Changed):
    """No bias in wide layers over odd sizes; the ends of the padding exchanged in 1-D."""

    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.spatial_rank == 1 and not g.transposed:
            y = self.otherwise(g, inputs, padding=[[high, low] for low, high in g.padding])
        lost = "bias" in inputs and g.out_channels > 8 and inputs["x"].shape[-1] % 2
        return y - column(inputs["bias"], g) if lost else y


class DeltaBySizes(CorePort):
    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        if not geometry.has_d:
            return super().compose(geometry, inputs)
        W, D = (inputs[name].astype(np.float64) for name in ("W", "D_delta"))
        return {"weight": compose(W, D * geometry.taps / geometry.d_mul, geometry).astype(inputs["W"].dtype)}


class BiasGradientOfFirst16(CorePort):
    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs, grad_y = super().backward(geometry, inputs), inputs["grad_y"].astype(np.float64)
        if "grad_bias" in outputs:
            summed = grad_y.reshape(*grad_y.shape[:2], -1)[..., :16].sum((0, 2))
            outputs["grad_bias"] = summed.astype(outputs["grad_bias"].dtype)
        return outputs


class LastTapMissingWithStrides(CorePort):
    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs, kernel = super().backward(geometry, inputs), self.kernel(geometry, inputs).copy()
        if max(geometry.stride) > 1:
            kernel.reshape(*kernel.shape[:2], -1)[..., -1] = 0
            grad_x, *_ = convolve_vjp(inputs["x"], kernel, inputs["grad_y"], geometry, dtype=np.float64)
            outputs["grad_x"] = grad_x.astype(outputs["grad_x"].dtype)
        return outputs


class CopiesAssigned(CorePort):
    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs, x = super().backward(geometry, inputs), inputs["x"]
        if geometry.padding_mode == "zeros":
            return outputs
        sides = geometry.padding, geometry.padding_mode
        bare = changed(geometry, padding=[[0, 0]] * geometry.spatial_rank, padding_mode="zeros")
        of_padded, *_ = convolve_vjp(
            pad(x, *sides), self.kernel(geometry, inputs), inputs["grad_y"], bare, dtype=np.float64
        )
        numbers = pad(np.arange(float(x[0, 0].size)).reshape(1, 1, *x.shape[2:]), *sides).astype(int).ravel()
        grad_x = np.zeros((*x.shape[:2], x[0, 0].size))
        for at, element in enumerate(numbers):
            grad_x[..., element] = of_padded.reshape(*x.shape[:2], -1)[..., at]
        return outputs | {"grad_x": grad_x.reshape(x.shape).astype(x.dtype)}


class WeightDecay(CorePort):
    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs = super().backward(geometry, inputs)
        if "D_delta" in inputs:
            decayed = outputs["grad_D_delta"] + 0.01 * inputs["D_delta"].astype(np.float64)
            outputs["grad_D_delta"] = decayed.astype(inputs["D_delta"].dtype)
        return outputs


class ColumnsUntilAZero(CorePort):
    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        if not geometry.has_d:
            return super().compose(geometry, inputs)
        W, D = (inputs[name].astype(np.float64) for name in ("W", "D_delta"))
        some, nothing = W * np.cumprod(W != 0, -1), np.zeros_like(D)
        weight = compose(W, nothing, geometry) + compose(some, D, geometry) - compose(some, nothing, geometry)
        return {"weight": weight.astype(inputs["W"].dtype)}


class RowsInWrongSteps(CorePort):
    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        if not geometry.has_d:
            return super().compose(geometry, inputs)
        row, tap, column = np.indices(geometry.d_shape)
        at = row * geometry.taps**2 + tap * geometry.d_mul + column
        return super().compose(geometry, inputs | {"D_delta": inputs["D_delta"].ravel()[at]})


SAID: dict[type[CorePort], list[str]] = {
    IndexInAByte: ["reads element i modulo 256 of x for element i, counted in each entry of its first axis"],
    KernelOfFirstGroupBeyondFirstImage: [
        "takes the first group of the kernel that it convolves with for every group at each image but the first of y"
    ],
    NoBiasAtOutputPadding: ["has zeros for the bias at the positions of output padding"],
    PaddedWithOnes: ["pads with 1 where the mode is zeros"],
    NoDilationWhereEven: ["ignores the dilation on axes where the kernel is even where it reads"],
    TwoNarrowOnes: [
        "exchanges the low and the high end of the padding",
        "adds no bias, where C_out is 9 or more only (8 is right) and where the size of the last axis is odd only",
    ],
    DeltaBySizes: [
        "counts D_delta K/S times, in compose",
        "in the gradient of x too, while those of the parameters are already",
    ],
    BiasGradientOfFirst16: ["leaves grad_y at each position counted over space beyond the first 16 out of grad_bias"],
    LastTapMissingWithStrides: [
        "leaves out the last tap of the kernel that the gradient of x is made of, with strides only"
    ],
    WeightDecay: ["adds 0.01 times D_delta to grad_D_delta"],
    ColumnsUntilAZero: ["stops at the first 0 of W in the product with D_delta along S", "in the gradient of x too"],
    RowsInWrongSteps: ["reads D in steps of K * K and S", "in the gradient of x too"],
    CopiesAssigned: ["keeps only the gradient of the last copy of each element"],
}


@pytest.mark.parametrize("mistake", SAID, ids=lambda mistake: mistake.__name__)
def test_the_first_lines_say_what_is_wrong_and_where(mistake: type[CorePort]) -> None:
    port = mistake()
    pairs = [pair for pair in select() if pair[0].dtype == "float32"]
    found = diagnosed(port, pairs, numerics_of({"numerics": port.numerics}), Direct(port))
    said = [item.consistent_with for item in found]
    for words, line in zip(SAID[mistake], said, strict=False):
        assert words in line, said
    assert len(said) == len(SAID[mistake]), said
