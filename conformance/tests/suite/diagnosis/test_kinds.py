"""Kinds of mistakes that the diagnosis has a measurement for, each made once in the core, and what its first line must say."""

import itertools
import json
import zlib

import numpy as np
import pytest
from diagnosing import Changed, Direct, changed, diagnosed

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cases.table import select
from doconv_conformance.port import Tensors
from doconv_conformance.protocol.session import inputs_file
from doconv_conformance.running.runner import numerics_of
from doconv_core.composition import compose
from doconv_core.convolution import convolve
from doconv_core.geometry import ConvGeometry

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class FirstAxisPaddedWithZeros(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.padding_mode == "zeros":
            return y
        first, *others = g.padding
        x = np.pad(inputs["x"], [(0, 0), (0, 0), (0, 0), *others], NUMPY_MODES[g.padding_mode])
        x = np.pad(x, [(0, 0), (0, 0), first, *[(0, 0)] * len(others)])
        bare = changed(g, padding=[[0, 0]] * g.spatial_rank, padding_mode="zeros")
        return convolve(x, self.kernel(g, inputs), inputs.get("bias"), bare, dtype=np.float64)


class TailOfPositions(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        flat = np.moveaxis(y, 1, -1).copy()
        rows = flat.reshape(-1, g.out_channels)
        rows[len(rows) // 4 * 4 :] = 0
        return np.moveaxis(flat, -1, 1)


class GroupsStartByOutputs(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        of_group = g.in_channels // g.groups
        starts = np.minimum(np.arange(g.groups) * (g.out_channels // g.groups), g.in_channels - of_group)
        x = inputs["x"][:, (starts[:, None] + np.arange(of_group)).ravel()]
        return convolve(x, self.kernel(g, inputs), inputs.get("bias"), g, dtype=np.float64)


class NoBiasInGaps(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if not g.transposed:
            return y
        one = ConvGeometry.from_json(g.to_json() | {"in_channels": 1, "out_channels": 1, "groups": 1})
        size = (1, 1, *inputs["x"].shape[2:])
        reached = convolve(np.ones(size), np.ones(one.kernel_shape), None, one) > 0
        later = reached.copy()
        for axis in range(2, y.ndim):
            later = np.flip(np.maximum.accumulate(np.flip(later, axis), axis), axis)
        return np.where(later & ~reached, 0, y)


class ReluOfWideLayers(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        made = "bias" in inputs and g.out_channels // g.groups >= 4 and not g.transposed
        return np.maximum(y, 0) if made else y


class HalvedHereAndThere(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if not zlib.crc32(json.dumps(g.to_json()).encode()) % 2:
            return y
        return convolve(inputs["x"], self.kernel(g, inputs), inputs.get("bias"), g, dtype=np.float64) / 2


class ZeroDeltaIsFirstTile(CorePort):
    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        if geometry.has_d and not inputs["D_delta"].any():
            return {"weight": inputs["W"][..., : geometry.taps].reshape(geometry.kernel_shape)}
        return super().compose(geometry, inputs)


class GradientsInTypeOfX(CorePort):
    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs = super().backward(geometry, inputs)
        of_parameters = outputs.keys() & {"grad_W", "grad_D_delta"}
        return outputs | {name: outputs[name].astype(inputs["x"].dtype) for name in of_parameters}


class CompositionAddedUpLow(CorePort):
    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        W, D = inputs["W"], inputs.get("D_delta")
        if D is None or W.dtype.itemsize > 2:
            return super().compose(geometry, inputs)
        total = np.zeros((*W.shape[:2], geometry.taps), W.dtype)
        for s in range(geometry.d_mul):
            product = (D.astype(np.float64)[geometry.rows, :, s] * W[..., s, None].astype(np.float64)).astype(W.dtype)
            total = (total.astype(np.float64) + product.astype(np.float64)).astype(W.dtype)
        tiles = compose(W.astype(np.float64), np.zeros(D.shape), geometry).reshape(total.shape)
        whole = (total.astype(np.float64) + tiles).astype(W.dtype)
        return {"weight": whole.reshape(geometry.kernel_shape)}


class LastKernelSquared(CorePort):
    """Of no listed kind: what is left to say is where it is."""

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        weight = super().compose(geometry, inputs)["weight"].copy()
        if not geometry.transposed:
            weight[-1] = weight[-1] ** 2 - weight[-1] + 1
        return {"weight": weight}


class HeaderOrder(CorePort):
    """Each tensor begins where the one before it in the header ends."""

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return CorePort().compose(geometry, in_header_order(inputs))

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return CorePort().forward(geometry, in_header_order(inputs))

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return CorePort().backward(geometry, in_header_order(inputs))

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return CorePort().fold(geometry, in_header_order(inputs))


def in_header_order(inputs: Tensors) -> Tensors:
    whole = inputs_file(inputs)
    end = 8 + int.from_bytes(whole[:8], "little")
    listed = {name: inputs[name] for name in json.loads(whole[8:end])}
    starts = itertools.accumulate((tensor.nbytes for tensor in listed.values()), initial=end)
    return {
        name: np.frombuffer(whole[start : start + tensor.nbytes], tensor.dtype).reshape(tensor.shape)
        for (name, tensor), start in zip(listed.items(), starts, strict=False)
    }


class GroupsByInputs(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.transposed or g.groups == 1:
            return y
        size, kernel = g.in_channels // g.groups, self.kernel(g, inputs)
        one = ConvGeometry.from_json(g.to_json() | {"in_channels": size, "out_channels": 1, "groups": 1})
        bias = inputs.get("bias", np.zeros(g.out_channels, kernel.dtype))
        starts = [min(o // size, g.groups - 1) * size for o in range(g.out_channels)]
        shares = [
            convolve(inputs["x"][:, start : start + size], kernel[o : o + 1], bias[o : o + 1], one)
            for o, start in enumerate(starts)
        ]
        return np.concatenate(shares, 1)


class ShortFactorsInBlocks(Changed):
    """Rounded to 11 bits where the channels come in fours."""

    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.transposed or g.in_channels // g.groups % 4 or g.out_channels // g.groups % 4:
            return y
        x, kernel = (short(tensor) for tensor in (inputs["x"], self.kernel(g, inputs)))
        return convolve(x, kernel, inputs.get("bias"), g, dtype=np.float64)


def short(tensor: np.ndarray) -> np.ndarray:
    fraction, exponent = np.frexp(tensor.astype(np.float64))
    return np.ldexp(np.rint(fraction * 2.0**11), exponent - 11)


class ByProducts(Changed):
    """A plain convolution product by product, each position by itself."""

    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.transposed or g.padding_mode != "zeros" or inputs["x"].dtype.itemsize > 2:
            return y
        size, taps = (
            g.in_channels // g.groups,
            range(g.taps),
        )
        eye = np.eye(g.taps).reshape(g.taps, 1, *g.kernel_size)
        one = ConvGeometry.from_json(g.to_json() | {"in_channels": 1, "out_channels": g.taps, "groups": 1})
        kernel = self.kernel(g, inputs).astype(np.float64).reshape(g.out_channels, size, g.taps)
        seen = [convolve(inputs["x"][:, i : i + 1].astype(np.float64), eye, None, one) for i in range(g.in_channels)]
        total = np.zeros(y.shape)
        for number, (c, k) in enumerate(itertools.product(range(size), taps), 1):
            read = [seen[o // (g.out_channels // g.groups) * size + c][:, k] for o in range(g.out_channels)]
            product = np.stack(read, 1) * kernel[:, c, k].reshape(-1, *[1] * g.spatial_rank)
            total = self.added(total, product, number, inputs["x"].dtype)
        bias = inputs.get("bias")
        return total if bias is None else total + bias.astype(np.float64).reshape(-1, *[1] * g.spatial_rank)

    def added(self, total: np.ndarray, product: np.ndarray, number: int, dtype: np.dtype) -> np.ndarray:
        raise NotImplementedError


class ProductsRounded(ByProducts):
    def added(self, total: np.ndarray, product: np.ndarray, number: int, dtype: np.dtype) -> np.ndarray:
        return total + product.astype(dtype).astype(np.float64)


class SumsRoundedInBlocks(ByProducts):
    def added(self, total: np.ndarray, product: np.ndarray, number: int, dtype: np.dtype) -> np.ndarray:
        whole = total + product
        return whole if number % 16 else whole.astype(dtype).astype(np.float64)


class PaddingOfFirstImage(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.padding_mode == "zeros":
            return y
        sides = [(0, 0), (0, 0), *g.padding]
        x = np.pad(inputs["x"], sides, NUMPY_MODES[g.padding_mode])
        x = np.where(np.pad(np.ones_like(inputs["x"]), sides) > 0, x, x[:1])
        bare = changed(g, padding=[[0, 0]] * g.spatial_rank, padding_mode="zeros")
        return convolve(x, self.kernel(g, inputs), inputs.get("bias"), bare, dtype=np.float64)


class IncompleteTiles(Changed):
    def changed(self, y: np.ndarray, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if g.transposed or g.kernel_size != (3, 3) or g.groups > 1 or max(*g.stride, *g.dilation) > 1:
            return y
        bare = np.zeros(y.shape) + inputs.get("bias", np.zeros(g.out_channels)).astype(np.float64).reshape(-1, 1, 1)
        whole = tuple(slice(0, size // 2 * 2) for size in y.shape[2:])
        bare[:, :, *whole] = y[:, :, *whole]
        return bare


class ComposedInPlace(CorePort):
    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        if not geometry.has_d or geometry.d_mul != geometry.taps:
            return super().compose(geometry, inputs)
        W, D = inputs["W"].copy(), inputs["D_delta"] + np.eye(geometry.taps, dtype=inputs["W"].dtype)
        for tap in range(geometry.taps):
            W[..., tap] = (D[geometry.rows, tap] * W).sum(-1)
        return {"weight": W.reshape(geometry.kernel_shape)}


class GradXOverX(CorePort):
    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        right = super().backward(geometry, inputs)
        if geometry.transposed or any(map(any, geometry.padding)):
            return right
        return super().backward(geometry, inputs | {"x": right["grad_x"]}) | {"grad_x": right["grad_x"]}


class UnreadInputsKeepX(CorePort):
    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        right, x = super().backward(geometry, inputs), inputs["x"]
        if geometry.transposed or geometry.padding_mode != "zeros":
            return right
        sizes = geometry.output_size(x.shape[2:])
        ends = [(n - 1) * s + d * (k - 1) - low for n, s, d, k, (low, _) in zip(
            sizes, geometry.stride, geometry.dilation, geometry.kernel_size, geometry.padding, strict=True
        )]  # fmt: skip
        beyond = np.any(np.broadcast_arrays(*(
            (np.arange(x.shape[2 + axis]) > end).reshape([-1 if at == axis else 1 for at in range(len(ends))])
            for axis, end in enumerate(ends)
        )), axis=0)  # fmt: skip
        return right | {"grad_x": np.where(beyond, x, right["grad_x"])}


KINDS: dict[type[CorePort], str] = {
    FirstAxisPaddedWithZeros: "pads with zeros along the first axis, whatever the mode",
    TailOfPositions: "beyond the last multiple of 4",
    GroupsStartByOutputs: "takes the channels of x for group g from g * (C_out/G) on, not beyond the last",
    NoBiasInGaps: "zeros for y at the positions in the gaps that no tap reaches",
    ReluOfWideLayers: "takes 0 for negative entries of y, where C_out/G is 4 or more only (3 is right)",
    HalvedHereAndThere: "cases where it would show",
    ZeroDeltaIsFirstTile: "where D_delta is 0 only",
    GradientsInTypeOfX: "gives grad_W and grad_D_delta in the type of x",
    CompositionAddedUpLow: "adds up D_delta * W in the low-precision type of the parameters",
    LastKernelSquared: "the composed kernel is wrong only at the last output channel",
    GroupsByInputs: "reads the input channels of group min(floor(o / (C_in/G)), G - 1) for output channel o",
    ShortFactorsInBlocks: "rounds x and the kernel of float32 convolutions to 11 digits",
    ProductsRounded: "rounds each product of",
    SumsRoundedInBlocks: "after each 16 products",
    PaddingOfFirstImage: "takes the padding of every image from the first one",
    IncompleteTiles: "zeros for the output before the bias at the positions outside the whole blocks of 2 x 2",
    ComposedInPlace: "composes in place",
    GradXOverX: "takes grad_x for x in the gradients of W and D_delta",
    UnreadInputsKeepX: "has x itself for grad_x at the positions beyond the last that a tap reaches",
    HeaderOrder: "takes the bytes of the tensors in the order in which the header lists them",
}
TYPES = dict.fromkeys((GradientsInTypeOfX, ProductsRounded, SumsRoundedInBlocks), ("bfloat16",)) | {
    CompositionAddedUpLow: ("float32", "bfloat16")
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_first_line_says_what_is_wrong(kind: type[CorePort]) -> None:
    port = kind()
    types = TYPES.get(kind, ("float32",))
    pairs = [pair for pair in select(extended=True) if pair[0].dtype in types and not pair[0].large]
    found = diagnosed(port, pairs, numerics_of({"numerics": port.numerics}), Direct(port))
    assert KINDS[kind] in found[0].consistent_with, [item.consistent_with for item in found]
    assert (found[0].kind == "unknown") == (kind is LastKernelSquared)
