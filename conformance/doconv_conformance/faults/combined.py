"""Faults that show only where several options meet, beyond a size, in one type, or in the case after another.

The same kind stands in several places: a port that has a mistake once has it wherever its author did the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from doconv_conformance.faults.convolution import (
    _groups_reversed,
    _is_padded,
    _mode,
    _output_padding_zeros,
    _shuffled,
    changed,
)
from doconv_conformance.faults.faulty_port import Fault, FaultyPort
from doconv_conformance.faults.gradients import _padding_copies_lost
from doconv_conformance.faults.precision import (
    BFLOAT16,
    LOW,
    _adding_up_in,
    _low_if_low,
    _low_inputs,
    _low_parameters,
    _replaced,
    _truncated,
    rounded_to_bits,
)
from doconv_conformance.port import Tensors
from doconv_core.composition import compose, sum_tiles
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad

Where = Callable[[ConvGeometry], bool]
FLOAT16 = np.dtype(np.float16)
MODES = ("reflect", "replicate", "circular")


def _rank(rank: int) -> Where:
    return lambda g: g.spatial_rank == rank


def _both(*conditions: Where) -> Where:
    return lambda g: all(condition(g) for condition in conditions)


def _transposed(g: ConvGeometry) -> bool:
    return g.transposed


def _plain(g: ConvGeometry) -> bool:
    return not g.transposed


def _grouped(g: ConvGeometry) -> bool:
    return g.groups > 1


def _depthwise(g: ConvGeometry) -> bool:
    return g.groups == g.in_channels > 1


def _dilated(g: ConvGeometry) -> bool:
    return max(g.dilation) > 1


def _more(size: str, limit: int) -> Where:
    """Whether a size of the geometry exceeds a limit."""
    return lambda g: bool(getattr(g, size) > limit)


def _strided(g: ConvGeometry) -> bool:
    return max(g.stride) > 1


def _without_small(limit: float) -> Callable[..., np.ndarray]:
    """`W` alone where nothing of `D_delta` exceeds a limit."""

    def folded(kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        if "D_delta" not in inputs or np.abs(inputs["D_delta"].astype(np.float64)).max() > limit:
            return kernel
        return sum_tiles(inputs["W"].astype(np.float64), g).reshape(g.kernel_shape).astype(kernel.dtype)

    return folded


def _skipping(name: str, words: str, where: Where, limit: float = 1e-6) -> Fault:
    return Fault(f"fold-skips-small-{name}", f"folds W alone where D_delta is small, {words}",
                 "a threshold below which D_delta counts as zero", {"folded": _without_small(limit)}, where)  # fmt: skip


SMALL = (
    _skipping("1d", "in 1-D", _rank(1)),
    _skipping("3d", "in 3-D", _rank(3)),
    _skipping("transposed", "in transposed convolutions", _transposed),
    _skipping("grouped", "in grouped convolutions", _grouped),
    _skipping("double", "below 1e-12", lambda g: True, 1e-12),
    Fault("compose-prunes-small", "takes entries of D_delta below 1e-5 for zero",
          "a threshold below which D_delta counts as zero",
          {"D_delta": lambda D, g: np.where(np.abs(D) < 1e-5, 0.0, D)}),
    Fault("delta-clipped", "clips D_delta to 4", "a limit on D_delta", {"D_delta": lambda D, g: np.clip(D, -4, 4)}),
)  # fmt: skip


def _zeros_in(dtype: DTypeLike) -> dict[str, Callable[..., np.ndarray]]:
    """Zeros in place of the mode where the activations are of a type."""

    def padded(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
        return pad(x, g.padding, "zeros" if x.dtype == np.dtype(dtype) else g.padding_mode)

    return {"padded": padded}


def _zeros_where(name: str, words: str, where: Where) -> Fault:
    return Fault(f"mode-zeros-{name}", f"pads with zeros whatever the mode {words}",
                 "whether the padding mode reaches this path", _mode("zeros", *MODES), _both(_is_padded, where))  # fmt: skip


PADDING = (
    *(_zeros_where(f"{rank}d", f"in {rank}-D", _rank(rank)) for rank in (1, 2, 3)),
    _zeros_where("depthwise", "in depthwise convolutions", _depthwise),
    _zeros_where("3d-grouped", "in grouped 3-D convolutions", _both(_rank(3), _grouped)),
    _zeros_where("dilated", "with dilation", _dilated),
    _zeros_where("strided-dilated", "with strides and dilation", _both(_strided, _dilated)),
    _zeros_where("one-tap", "where the kernel has one tap", lambda g: g.taps == 1),
    _zeros_where("surplus", "with surplus columns", lambda g: g.d_mul % g.taps > 0),
    *(Fault(f"mode-{mode}-{rank}d-as-{other}", f"pads by {other} where {mode} is asked for, in {rank}-D", "the padding mode",
            _mode(other, mode), _both(_is_padded, _rank(rank)))
      for rank in (1, 3) for mode, other in (("reflect", "replicate"), ("circular", "reflect"), ("replicate", "circular"))),
    *(Fault(f"mode-zeros-{np.dtype(dtype)}", f"pads {np.dtype(dtype)} with zeros whatever the mode",
            "whether the padding mode reaches this path", _zeros_in(dtype), _is_padded)
      for dtype in (BFLOAT16, FLOAT16, np.float64)),
    *(Fault(f"grad-x-padding-lost-{name}", f"drops what the padding's copies give to the gradient of the input {words}",
            "the gradient of the padding mode", {"gradients": _padding_copies_lost}, _both(_is_padded, where))
      for name, words, where in (("1d", "in 1-D", _rank(1)), ("3d", "in 3-D", _rank(3)),
                                 ("grouped", "in grouped convolutions", _grouped))),
)  # fmt: skip


PATHS = (
    *(Fault(f"transposed-groups-reversed-{rank}d", f"writes the groups of transposed {rank}-D convolutions in reverse order",
            "which channels a group writes", {"y": _groups_reversed}, _both(_transposed, _grouped, _rank(rank)))
      for rank in (1, 2, 3)),
    Fault("transposed-outputs-interleaved", "interleaves the outputs of transposed depthwise convolutions",
          "the order of the output channels: o = i * multiplier + m", {"y": _shuffled}, _both(_transposed, _depthwise)),
    Fault("transposed-rows-local", "takes the row of D by the channel within the group in transposed convolutions",
          "the index of D: i is the input channel", {"rows": lambda g: g.rows % (g.in_channels // g.groups)},
          _both(_transposed, _grouped)),
    Fault("transposed-dilation-ignored-grouped", "ignores the dilation of grouped transposed convolutions",
          "the dilation on the grouped transposed path", changed(dilation=lambda g: 1), _both(_transposed, _grouped)),
    *(Fault(f"output-padding-zeros-{name}", f"fills the output padding with zeros {words}",
            "output padding keeps rows of the full output", {"y": _output_padding_zeros}, _both(_transposed, where))
      for name, words, where in (("grouped", "in grouped convolutions", _grouped), ("3d", "in 3-D", _rank(3)),
                                 ("dilated", "with dilation", _dilated))),
    Fault("crop-sides-exchanged-3d", "crops a transposed 3-D convolution at the wrong ends", "the order of the crop's ends",
          changed(padding=lambda g: [(high, low) for low, high in g.padding]), _both(_transposed, _rank(3))),
    Fault("strides-exchanged-3d-grouped", "exchanges the first and last stride of grouped 3-D convolutions",
          "the order of the strides", changed(stride=lambda g: g.stride[::-1]), _both(_plain, _grouped, _rank(3))),
    Fault("dilation-ignored-3d-depthwise", "ignores the dilation of depthwise 3-D convolutions",
          "the dilation on the depthwise path", changed(dilation=lambda g: 1), _both(_plain, _depthwise, _rank(3))),
    Fault("outputs-interleaved-3d", "interleaves the output channels of the groups in 3-D",
          "the order of the output channels: o = i * multiplier + m", {"y": _shuffled}, _both(_plain, _grouped, _rank(3))),
    Fault("one-tap-padding-ignored", "ignores the padding where the kernel has one tap", "the path of pointwise convolutions",
          changed(padding=lambda g: 0), _both(_plain, lambda g: g.taps == 1)),
    Fault("one-tap-stride-ignored-3d", "ignores the stride of pointwise 3-D convolutions", "the path of pointwise convolutions",
          changed(stride=lambda g: 1), _both(_rank(3), lambda g: g.taps == 1)),
    Fault("kernel-axes-exchanged-3d", "exchanges the last axes of cubic kernels", "the order of the kernel's axes",
          {"kernel": lambda kernel, g: kernel.swapaxes(-1, -2)},
          _both(_rank(3), lambda g: len(set(g.kernel_size)) == 1 and g.taps > 1)),
)  # fmt: skip


def _first(count: Callable[[int], int], axis: int) -> Callable[[np.ndarray, ConvGeometry], np.ndarray]:
    """Only so many elements of an axis, as a function of its length; zeros in place of the others."""

    def move(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
        at = axis % tensor.ndim
        keep = np.arange(tensor.shape[at]) < count(tensor.shape[at])
        return np.where(keep.reshape(-1, *[1] * (tensor.ndim - at - 1)), tensor, 0.0)

    return move


def _up_to(limit: int) -> Callable[[int], int]:
    return lambda size: limit


def _whole(block: int) -> Callable[[int], int]:
    """Whole blocks only, where there is one."""
    return lambda size: size // block * block or size


def _taps_up_to(limit: int) -> Callable[[np.ndarray, ConvGeometry], np.ndarray]:
    return lambda kernel, g: np.where(np.arange(g.taps).reshape(g.kernel_size) < limit, kernel, 0.0)


def _kernels_up_to(limit: int) -> dict[str, Callable[[np.ndarray, ConvGeometry], np.ndarray]]:
    """The composed kernel as far as so many numbers go."""
    return {"kernel": lambda kernel, g: np.where(np.arange(kernel.size).reshape(kernel.shape) < limit, kernel, 0.0)}


def _images(y: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """The second image again in place of every later one."""
    return np.concatenate([y[:2], *[y[1:2]] * max(len(y) - 2, 0)])


def _bias_of_two_images(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    if "grad_bias" not in outputs:
        return outputs
    two = inputs["grad_y"][:2].astype(np.float64).sum(axis=(0, *range(2, g.spatial_rank + 2)))
    return outputs | {"grad_bias": two.astype(outputs["grad_bias"].dtype)}


SIZES = (
    *(Fault(f"input-channels-beyond-{n}", f"ignores the input channels beyond {n}", "loops over channels in blocks",
            {"x": _first(_up_to(n), 1)}, _more("in_channels", n)) for n in (8, 16, 32, 64, 128)),
    *(Fault(f"output-channels-beyond-{n}", f"leaves the output channels beyond {n} at zero", "loops over channels in blocks",
            {"y": _first(_up_to(n), 1)}, _more("out_channels", n)) for n in (8, 16, 32, 64, 128)),
    *(Fault(f"input-channels-remainder-{n}", f"drops what is left of the input channels after blocks of {n}",
            "loops over channels in blocks", {"x": _first(_whole(n), 1)}, _more("in_channels", n)) for n in (16, 64)),
    *(Fault(f"depthwise-channels-beyond-{n}", f"leaves the channels of depthwise convolutions beyond {n} at zero",
            "loops over channels in blocks", {"y": _first(_up_to(n), 1)}, _both(_depthwise, _more("out_channels", n)))
      for n in (16, 64)),
    *(Fault(f"positions-beyond-{n}", f"leaves the outputs beyond {n} positions of the last axis at zero",
            "loops over positions in blocks", {"y": _first(_up_to(n), -1)}) for n in (8, 16, 32)),
    *(Fault(f"positions-remainder-{n}", f"drops what is left of the last axis after blocks of {n}",
            "loops over positions in blocks", {"y": _first(_whole(n), -1)}) for n in (8, 16, 32)),
    *(Fault(f"taps-beyond-{n}", f"ignores the taps beyond {n}", "loops over taps in blocks", {"kernel": _taps_up_to(n)},
            _more("taps", n)) for n in (8, 16, 24, 32, 48)),
    *(Fault(f"columns-beyond-{n}", f"ignores the columns of W beyond {n}", "loops over columns in blocks",
            {"W": _first(_up_to(n), -1)}, _more("d_mul", n)) for n in (16, 32, 64)),
    Fault("kernels-beyond-a-million", "composes the first 2**20 numbers of the kernel", "blocks of W",
          _kernels_up_to(2**20), lambda g: math.prod(g.kernel_shape) > 2**20),
    Fault("kernels-beyond-8-million", "composes the first 2**23 numbers of the kernel", "blocks of W",
          _kernels_up_to(2**23), lambda g: math.prod(g.kernel_shape) > 2**23),
    Fault("third-image-repeats-second", "computes the second image for all later ones", "the batch", {"y": _images}),
    Fault("images-beyond-4", "leaves images beyond the fourth at zero", "blocks of the batch", {"y": _first(_up_to(4), 0)}),
    Fault("grad-bias-of-two-images", "sums the gradient of the bias over two images", "a sum over the batch",
          {"gradients": _bias_of_two_images}),
)  # fmt: skip


def _products_rounded(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
    """Each product rounded to the type, and the rounded ones added up in float64."""
    x, bias = inputs["x"], inputs.get("bias")
    if x.dtype not in LOW:
        return y
    total = np.zeros(y.shape)
    for c in range(g.in_channels // g.groups):
        for tap in np.ndindex(*g.kernel_size):
            one = np.zeros(kernel.shape)
            chosen = _kernels_reading(c, tap, g)
            one[chosen] = kernel[chosen].astype(np.float64)
            total += convolve(x, one, None, g, dtype=np.float64).astype(x.dtype).astype(np.float64)
    return total if bias is None else total + bias.astype(np.float64).reshape(-1, *[1] * g.spatial_rank)


def _kernels_reading(c: int, tap: tuple[int, ...], g: ConvGeometry) -> tuple[Any, ...]:
    """Of a tap, the kernels that read the channel `c` of each group."""
    channels = slice(c, None, g.in_channels // g.groups) if g.transposed else slice(None)
    return (channels, slice(None) if g.transposed else c, *tap)


def _saturated(dtype: DTypeLike, largest: float) -> dict[str, Callable[..., np.ndarray]]:
    def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        return np.clip(y, -largest, largest) if inputs["x"].dtype == np.dtype(dtype) else y

    return {"result": result}


def _flushed(tensor: np.ndarray) -> np.ndarray:
    """What float16 holds below its smallest normal number is zero."""
    return np.where(np.abs(tensor.astype(np.float64)) < 2.0**-14, 0, tensor).astype(tensor.dtype)


def _results_flushed(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
    return _flushed(y) if inputs["x"].dtype == FLOAT16 else y


def _composed_exactly(inputs: Tensors, g: ConvGeometry) -> np.ndarray:
    D = inputs.get("D_delta")
    return compose(inputs["W"].astype(np.float64), None if D is None else D.astype(np.float64), g)


def _kernel_rounded(rounding: Callable[[np.ndarray, int], np.ndarray]) -> dict[str, Callable[..., np.ndarray]]:
    """The kernel of low-precision activations, rounded in another way."""

    def used(kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        if kernel.dtype not in LOW:
            return kernel
        return rounding(_composed_exactly(inputs, g), 8 if kernel.dtype == BFLOAT16 else 11).astype(kernel.dtype)

    return {"used": used}


def _towards_zero(tensor: np.ndarray, bits: int) -> np.ndarray:
    fraction, exponent = np.frexp(tensor.astype(np.float64))
    return np.ldexp(np.trunc(fraction * 2.0**bits), exponent - bits)


def _halves_away(tensor: np.ndarray, bits: int) -> np.ndarray:
    fraction, exponent = np.frexp(tensor.astype(np.float64))
    scaled = fraction * 2.0**bits
    return np.ldexp(np.sign(scaled) * np.floor(np.abs(scaled) + 0.5), exponent - bits)


def _results_halves_away(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
    dtype = inputs["x"].dtype
    return _halves_away(y, 8 if dtype == BFLOAT16 else 11) if dtype in LOW else y


def _parameter_gradients_truncated(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    if inputs["W"].dtype not in LOW:
        return outputs
    wide = {name: tensor.astype(np.float64) for name, tensor in inputs.items()}
    grad_kernel = convolve_vjp(wide["x"], _composed_exactly(inputs, g), wide["grad_y"], g)[1]
    exact = _replaced(outputs, wide, wide["x"], grad_kernel.astype(inputs["x"].dtype).astype(np.float64), g)
    bits = 8 if inputs["W"].dtype == BFLOAT16 else 11
    names = [name for name in ("grad_W", "grad_D_delta") if name in outputs]
    return outputs | {name: _towards_zero(exact[name], bits).astype(inputs["W"].dtype) for name in names}


ARITHMETIC = (
    *(Fault(f"products-rounded-{name}", f"rounds each product to the low-precision type {words}",
            "products are as exact as the accumulator", {"result": _products_rounded}, where)
      for name, words, where in (("plain", "in convolutions", _plain), ("3d", "in 3-D", _rank(3)),
                                 ("transposed", "in transposed convolutions", _transposed),
                                 ("grouped", "in grouped convolutions", _grouped))),
    *(Fault(f"sums-in-type-{name}", f"adds up products in the low-precision type {words}", "the accumulator of the convolution",
            {"result": _adding_up_in(_low_if_low)}, where)
      for name, words, where in (("1d", "in 1-D", _rank(1)), ("3d", "in 3-D", _rank(3)),
                                 ("transposed", "in transposed convolutions", _transposed),
                                 ("many-channels", "of more than 16 channels", lambda g: g.in_channels > 16))),
    *(Fault(f"truncated-{name}", f"rounds low-precision results towards zero {words}", "the rounding of the results",
            {"result": _truncated}, where)
      for name, words, where in (("3d", "in 3-D", _rank(3)), ("transposed", "in transposed convolutions", _transposed),
                                 ("grouped", "in grouped convolutions", _grouped))),
    Fault("results-halves-away", "rounds halves of low-precision results away from zero", "ties go to even",
          {"result": _results_halves_away}),
    Fault("kernel-truncated", "rounds the kernel towards zero to the low-precision type", "the rounding of the kernel",
          _kernel_rounded(_towards_zero)),
    Fault("kernel-halves-away", "rounds halves of the kernel away from zero", "ties go to even", _kernel_rounded(_halves_away)),
    Fault("parameter-gradients-truncated", "rounds low-precision gradients of the parameters towards zero",
          "the rounding of the gradients", {"gradients": _parameter_gradients_truncated}),
    Fault("float16-saturates", "gives the largest float16 in place of infinity", "float16 overflows to infinity",
          _saturated(np.float16, 65504.0)),
    Fault("bfloat16-saturates", "gives the largest bfloat16 in place of infinity", "bfloat16 overflows to infinity",
          _saturated(BFLOAT16, 3.3895313892515355e38)),
    Fault("float16-results-flushed", "flushes subnormal float16 results to zero", "float16 has subnormal numbers",
          {"result": _results_flushed}),
    Fault("float16-inputs-flushed", "reads subnormal float16 numbers as zero", "float16 has subnormal numbers",
          {"x": lambda x, g: _flushed(x) if x.dtype == FLOAT16 else x}),
    Fault("float16-kernel-flushed", "flushes subnormal numbers of a float16 kernel to zero", "float16 has subnormal numbers",
          {"used": lambda kernel, inputs, g: _flushed(kernel) if kernel.dtype == FLOAT16 else kernel}),
    Fault("compose-inputs-low-3d", "rounds W and D_delta to the low-precision type before it composes them, in 3-D",
          "where autocast or a dtype argument casts", {"compose": _low_parameters}, _rank(3)),
    Fault("float32-inputs-tf32-many-channels", "rounds the inputs of float32 convolutions of 64 channels or more to TF32",
          "whether TF32 is on, and declared", _low_inputs(lambda tensor: rounded_to_bits(tensor, 11)),
          lambda g: g.in_channels >= 64),
)  # fmt: skip


def _remembering(key: Callable[[Tensors], Any]) -> dict[str, Callable[..., np.ndarray]]:
    """The kernel that was composed for the same key before."""

    def composed(port: FaultyPort, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        W, D = inputs["W"], inputs.get("D_delta")
        whole = g.kernel_shape, W.dtype.str, key(inputs)
        kernel: np.ndarray = port.memory.setdefault(whole, compose(W, D, g))
        return kernel

    return {"compose": composed}


def _keeping(name: str) -> dict[str, Callable[..., Tensors]]:
    """The last tensor of the same shape where a case has none, or zeros."""

    def given(port: FaultyPort, inputs: Tensors, g: ConvGeometry) -> Tensors:
        tensor = inputs.get(name)
        shape = (g.out_channels,) if name == "bias" else g.d_shape
        key = name, shape, inputs["W"].dtype.str if "W" in inputs else ""
        if tensor is not None and tensor.any():
            port.memory[key] = tensor
            return inputs
        kept = port.memory.get(key)
        return inputs if kept is None or "x" not in inputs or "grad_y" in inputs else inputs | {name: kept}

    return {"inputs": given}


STATE = (
    Fault("state-kernel-by-shape", "composes once for kernels of the same shape", "what is kept between two calls",
          _remembering(lambda inputs: 0)),
    Fault("state-kernel-by-W", "composes again only where W has changed", "what is kept between two calls",
          _remembering(lambda inputs: inputs["W"].astype(np.float64).tobytes())),
    Fault("state-kernel-by-D", "composes again only where D_delta has changed", "what is kept between two calls",
          _remembering(lambda inputs: inputs["D_delta"].astype(np.float64).tobytes() if "D_delta" in inputs else 0)),
    Fault("state-bias", "adds the last bias where a case has none", "what is kept between two calls", _keeping("bias")),
    Fault("state-delta", "keeps the last D_delta where it is zero", "what is kept between two calls", _keeping("D_delta")),
)  # fmt: skip

COMBINED = (*SMALL, *PADDING, *PATHS, *SIZES, *ARITHMETIC, *STATE)
