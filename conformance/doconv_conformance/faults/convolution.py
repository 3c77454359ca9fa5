"""Faults of the convolution around the composed kernel: geometry, padding, cropping, groups, channels, bias."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from doconv_conformance.faults.faulty_port import Fault
from doconv_core.convolution import convolve
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad

Pair = tuple[int, int]


def changed(**rules: Callable[[ConvGeometry], Any]) -> dict[str, Callable[[ConvGeometry], ConvGeometry]]:
    """The hook that gives the convolution other options."""

    @cache
    def change(g: ConvGeometry) -> ConvGeometry:
        return ConvGeometry.from_json(g.to_json() | {name: rule(g) for name, rule in rules.items()})

    return {"geometry": change}


def _each(rule: Callable[[int, int], Pair]) -> Callable[[ConvGeometry], list[Pair]]:
    """Other padding, axis by axis, from `(low, high)`."""
    return lambda g: [rule(low, high) for low, high in g.padding]


def _mode(other: str, *modes: str) -> dict[str, Any]:
    """The hook that pads by another mode where the case's mode is one of `modes`."""
    return changed(padding_mode=lambda g: other if g.padding_mode in modes else g.padding_mode)


def _is_padded(g: ConvGeometry) -> bool:
    return not g.transposed and g.padding_mode != "zeros"


def _shifted(low: int, high: int) -> Pair:
    return (low - 1, high + 1) if low else (low, high)


def _padded_as(mode: str) -> Callable[[np.ndarray, ConvGeometry], np.ndarray]:
    """Padding by one of NumPy's modes."""
    return lambda x, g: np.pad(x, [(0, 0), (0, 0), *g.padding], mode=mode)  # type: ignore[call-overload]


def _pad_last_axis(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """The mode on the last axis, zeros on the others."""
    others = [*g.padding[:-1], (0, 0)]
    last = [(0, 0)] * (g.spatial_rank - 1) + [g.padding[-1]]
    return pad(pad(x, last, g.padding_mode), others, "zeros")


OPTIONS = [
    Fault("strides-exchanged", "exchanges the strides of the axes", "the order of the strides",
          changed(stride=lambda g: g.stride[::-1])),
    Fault("stride-ignored", "ignores the stride", "whether the stride reaches the convolution", changed(stride=lambda g: 1)),
    Fault("stride-of-first-axis", "uses the first axis's stride on every axis", "the order of the strides",
          changed(stride=lambda g: g.stride[0])),
    Fault("dilations-exchanged", "exchanges the dilations of the axes", "the order of the dilations",
          changed(dilation=lambda g: g.dilation[::-1])),
    Fault("dilation-ignored", "ignores the dilation", "whether the dilation reaches the convolution",
          changed(dilation=lambda g: 1)),
    Fault("dilation-ignored-last", "ignores the dilation of the last axis", "the dilation of every axis",
          changed(dilation=lambda g: (*g.dilation[:-1], 1))),
    Fault("dilation-ignored-transposed", "ignores the dilation of transposed convolutions",
          "the dilation on the transposed path", changed(dilation=lambda g: 1), lambda g: g.transposed),
    Fault("stride-for-dilation", "exchanges stride and dilation", "the order of the arguments stride and dilation",
          changed(stride=lambda g: g.dilation, dilation=lambda g: g.stride)),
]  # fmt: skip

PADDING = [
    Fault("padding-sides-exchanged", "exchanges the low and the high end of the padding", "the order (low, high)",
          changed(padding=_each(lambda low, high: (high, low)))),
    Fault("padding-axes-exchanged", "exchanges the padding of the axes", "the order of the axes in the padding",
          changed(padding=lambda g: g.padding[::-1])),
    Fault("padding-symmetric", "halves the padding, the larger half at the high end", "SAME of another framework",
          changed(padding=_each(lambda low, high: ((low + high) // 2, (low + high + 1) // 2)))),
    Fault("padding-symmetric-low", "halves the padding, the larger half at the low end", "SAME of another framework",
          changed(padding=_each(lambda low, high: ((low + high + 1) // 2, (low + high) // 2)))),
    Fault("padding-low-only", "puts the whole padding at the low end", "causal padding, or an offset in a crop",
          changed(padding=_each(lambda low, high: (low + high, 0)))),
    Fault("padding-high-only", "puts the whole padding at the high end", "causal padding on the wrong side",
          changed(padding=_each(lambda low, high: (0, low + high)))),
    Fault("padding-low-twice", "uses the low padding at both ends", "asymmetric padding",
          changed(padding=_each(lambda low, high: (low, low)))),
    Fault("padding-ignored", "ignores the padding", "whether the padding reaches the convolution",
          changed(padding=lambda g: 0)),
    Fault("padding-off-by-one", "shifts the input by one where there is padding", "an off-by-one crop",
          changed(padding=_each(_shifted))),
    Fault("padding-not-dilated", "does not scale the padding by the dilation",
          "padding computed from the kernel's size instead of its span",
          changed(padding=lambda g: [(low // d, high // d) for (low, high), d in zip(g.padding, g.dilation, strict=True)]),
          lambda g: not g.transposed),
    Fault("padding-of-first-axis", "uses the first axis's padding on every axis", "the order of the axes in the padding",
          changed(padding=lambda g: [g.padding[0]] * g.spatial_rank)),
    Fault("mode-zeros", "pads with zeros whatever the mode", "whether the padding mode reaches the convolution",
          _mode("zeros", "reflect", "replicate", "circular"), _is_padded),
    Fault("mode-zeros-grouped", "pads grouped convolutions with zeros whatever the mode",
          "the padding mode on the grouped path",
          _mode("zeros", "reflect", "replicate", "circular"), lambda g: _is_padded(g) and g.groups > 1),
    Fault("mode-reflect-as-replicate", "repeats the edge in place of reflection", "the padding mode",
          _mode("replicate", "reflect"), _is_padded),
    Fault("mode-reflect-as-circular", "wraps around in place of reflection", "the padding mode",
          _mode("circular", "reflect"), _is_padded),
    Fault("mode-reflect-with-edge", "reflects with the edge repeated", "1234 -> 32 1234 32, not 21 1234 43",
          {"padded": _padded_as("symmetric")}, lambda g: g.padding_mode == "reflect"),
    Fault("mode-replicate-as-reflect", "reflects in place of repeating the edge", "the padding mode",
          _mode("reflect", "replicate"), _is_padded),
    Fault("mode-circular-as-reflect", "reflects in place of wrapping around", "the padding mode",
          _mode("reflect", "circular"), _is_padded),
    Fault("mode-circular-as-replicate", "repeats the edge in place of wrapping around", "the padding mode",
          _mode("replicate", "circular"), _is_padded),
    Fault("mode-last-axis-only", "pads by the mode on the last axis and with zeros on the others", "the padding of every axis",
          {"padded": _pad_last_axis}, _is_padded),
]  # fmt: skip


def _output_padding_low(y: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """What was to be kept at the high end is zeros at the low end."""
    for axis, extra in enumerate(g.output_padding, start=2):
        kept = np.take(y, range(y.shape[axis] - extra), axis)
        y = np.pad(kept, [(extra, 0) if at == axis else (0, 0) for at in range(y.ndim)])
    return y


def _output_padding_zeros(y: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """What was to be kept at the high end is zeros there."""
    for axis, extra in enumerate(g.output_padding, start=2):
        inside = np.arange(y.shape[axis]) < y.shape[axis] - extra
        y = np.where(inside.reshape(-1, *[1] * (y.ndim - axis - 1)), y, 0.0)
    return y


def _bias_before_output_padding(
    x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None, g: ConvGeometry
) -> np.ndarray:
    """The bias reaches only the rows of the full output: those that output padding appends stay zeros."""
    y = convolve(x, kernel, None, g, dtype=np.float64)
    if bias is None:
        return y
    added = np.broadcast_to(bias.astype(np.float64).reshape(-1, *[1] * g.spatial_rank), y.shape)
    axes = zip(x.shape[2:], g.stride, g.dilation, g.kernel_size, g.padding, strict=True)
    for axis, (count, stride, dilation, taps, (low, _)) in enumerate(axes, start=2):
        at = np.arange(y.shape[axis]) + low
        inside = (at >= 0) & (at < stride * (count - 1) + dilation * (taps - 1) + 1)
        added = np.where(inside.reshape(-1, *[1] * (y.ndim - axis - 1)), added, 0.0)
    return y + added


TRANSPOSED = [
    Fault("output-padding-low", "puts the output padding at the low end", "at which end output padding keeps rows",
          {"y": _output_padding_low}, lambda g: g.transposed),
    Fault("output-padding-zeros", "fills the output padding with zeros", "output padding keeps rows of the full output",
          {"y": _output_padding_zeros}, lambda g: g.transposed),
    Fault("output-padding-ignored", "ignores the output padding", "the size of the output",
          changed(output_padding=lambda g: 0), lambda g: g.transposed),
    Fault("crop-sides-exchanged", "crops a transposed convolution at the wrong ends", "the order (low, high) of the crop",
          changed(padding=_each(lambda low, high: (high, low))), lambda g: g.transposed),
    Fault("crop-low-only", "crops a transposed convolution at the low end only", "the ends of the crop",
          changed(padding=_each(lambda low, high: (low + high, 0))), lambda g: g.transposed),
    Fault("crop-off-by-one", "crops a transposed convolution one row too early", "an off-by-one crop",
          changed(padding=_each(lambda low, high: (low - 1, high + 1))), lambda g: g.transposed),
]  # fmt: skip


def _shuffled(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """Channels of the groups interleaved: 0 1 | 2 3 becomes 0 2 | 1 3."""
    split = tensor.reshape(len(tensor), g.groups, -1, *tensor.shape[2:])
    return split.swapaxes(1, 2).reshape(tensor.shape)


def _groups_reversed(tensor: np.ndarray, g: ConvGeometry) -> np.ndarray:
    return tensor.reshape(len(tensor), g.groups, -1, *tensor.shape[2:])[:, ::-1].reshape(tensor.shape)


def _first_group(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
    return np.concatenate([x[:, : g.in_channels // g.groups]] * g.groups, axis=1)


def _without_last(tensor: np.ndarray, axis: int) -> np.ndarray:
    tensor = tensor.copy()
    np.moveaxis(tensor, axis, 0)[-1] = 0
    return tensor


CHANNELS = [
    Fault("outputs-interleaved", "interleaves the output channels of the groups (multiplier-major)",
          "the order of the output channels: o = i * multiplier + m", {"y": _shuffled}),
    Fault("inputs-interleaved", "interleaves the input channels of the groups", "which channels a group reads",
          {"x": _shuffled}),
    Fault("groups-reversed", "gives the groups the input channels in reverse order", "which channels a group reads",
          {"x": _groups_reversed}),
    Fault("groups-read-first", "lets every group read the first group's channels", "which channels a group reads",
          {"x": _first_group}),
    Fault("last-output-channel-dropped", "leaves the last output channel at zero", "the range of the output channels",
          {"y": lambda y, g: _without_last(y, 1)}),
    Fault("last-input-channel-dropped", "ignores the last input channel", "the range of the input channels",
          {"x": lambda x, g: _without_last(x, 1)}),
    Fault("last-position-dropped", "leaves the last row of the output at zero", "the range of the output positions",
          {"y": lambda y, g: _without_last(y, 2)}),
    Fault("first-image-repeated", "computes the first image of the batch for all", "the batch",
          {"x": lambda x, g: np.concatenate([x[:1]] * len(x))}),
    Fault("axes-exchanged", "exchanges the spatial axes of the input and the output", "the order of the spatial axes",
          {"x": lambda x, g: x.swapaxes(-1, -2), "y": lambda y, g: y.swapaxes(-1, -2)}, lambda g: g.spatial_rank > 1),
]  # fmt: skip

BIASES = [
    Fault("bias-missing", "adds no bias", "whether the bias reaches the layer", {"bias": lambda bias, g: 0 * bias}),
    Fault("bias-doubled", "adds the bias twice", "a bias added by the layer and by the convolution",
          {"bias": lambda bias, g: 2 * bias}),
    Fault("bias-reversed", "adds the bias in reverse order", "the order of the bias", {"bias": lambda bias, g: bias[::-1]}),
    Fault("bias-per-group", "adds the first group's bias to every group", "the bias on the grouped path",
          {"bias": lambda bias, g: np.concatenate([bias[: len(bias) // g.groups]] * g.groups)}),
    Fault("bias-scaled-by-groups", "adds the bias once a group", "the bias on the grouped path",
          {"bias": lambda bias, g: g.groups * bias}),
    Fault("bias-missing-transposed", "adds no bias in transposed convolutions", "the bias on the transposed path",
          {"bias": lambda bias, g: 0 * bias}, lambda g: g.transposed),
    Fault("bias-before-output-padding", "adds the bias before it appends the rows of output padding",
          "rows beyond the full output are the bias, not zeros", {"convolve": _bias_before_output_padding},
          lambda g: g.transposed),
    Fault("bias-before-convolution", "adds the bias to the input in place of the output", "where the bias is added",
          {"convolve": lambda x, kernel, bias, g: convolve(
              x if bias is None else x + bias[0].astype(x.dtype), kernel, None, g, dtype=np.float64)}),
]  # fmt: skip

CONVOLUTION = (*OPTIONS, *PADDING, *TRANSPOSED, *CHANNELS, *BIASES)
