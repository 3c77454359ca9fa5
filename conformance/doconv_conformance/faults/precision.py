"""Faults of the arithmetic: types that are too short, and roundings at the wrong place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from doconv_conformance.faults.faulty_port import Fault, FaultyPort, unpadded
from doconv_conformance.port import Tensors
from doconv_core.composition import compose, compose_vjp, identity, sum_tiles
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
LOW = (BFLOAT16, np.dtype(np.float16))


def rounded_to_bits(tensor: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to nearest, ties to even, to `bits` of significand, as float64."""
    fraction, exponent = np.frexp(tensor.astype(np.float64))
    return np.ldexp(np.rint(fraction * 2.0**bits), exponent - bits)


def _is(tensors: Tensors, dtype: DTypeLike) -> bool:
    return tensors["x"].dtype == np.dtype(dtype)


def _compute_type(inputs: Tensors) -> np.dtype:
    """Of the activations where the operation has some, else of the parameters."""
    return inputs["x"].dtype if "x" in inputs else inputs["W"].dtype


def _low_inputs(rounding: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Hooks that round both factors of the convolution where the activations are float32."""

    def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        if not _is(inputs, np.float32):
            return y
        return convolve(rounding(inputs["x"]), rounding(kernel), inputs.get("bias"), g, dtype=np.float64)

    def gradients(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        if not _is(inputs, np.float32):
            return outputs
        kernel = compose(inputs["W"], inputs.get("D_delta"), g)
        x, kernel, grad_y = (rounding(tensor) for tensor in (inputs["x"], kernel, inputs["grad_y"]))
        grad_x, grad_kernel, _ = convolve_vjp(x, kernel, grad_y, g, dtype=np.float64)
        return _replaced(outputs, inputs, grad_x, grad_kernel, g)

    return {"result": result, "gradients": gradients}


def _replaced(
    outputs: Tensors, inputs: Tensors, grad_x: np.ndarray, grad_kernel: np.ndarray, g: ConvGeometry
) -> Tensors:
    """The outputs with gradients that follow from another gradient of the input and of the composed kernel."""
    grad_W, grad_D = compose_vjp(inputs["W"], inputs.get("D_delta"), grad_kernel, g)
    changed = {"grad_x": grad_x.astype(inputs["x"].dtype), "grad_W": grad_W}
    return outputs | changed | ({} if grad_D is None else {"grad_D_delta": grad_D})


def _materialised(port: FaultyPort, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
    """`(1 + delta)` rounded to the type of the computation, then composed."""
    W, compute = inputs["W"], _compute_type(inputs)
    if "D_delta" not in inputs or compute not in LOW:
        return compose(W, inputs.get("D_delta"), g)
    D = (identity(g) + inputs["D_delta"].astype(np.float64)).astype(compute).astype(np.float64) - identity(g)
    return compose(W.astype(np.float64), D, g).astype(W.dtype)


def _low_parameters(port: FaultyPort, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
    """`W` and `D_delta` rounded to the type of the computation, then composed."""
    compute = _compute_type(inputs)
    W, D = inputs["W"], inputs.get("D_delta")
    rounded = [None if tensor is None else tensor.astype(compute).astype(np.float64) for tensor in (W, D)]
    return compose(rounded[0], rounded[1], g).astype(W.dtype)  # type: ignore[arg-type]


def _low_sums(port: FaultyPort, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
    """Composed column by column, each partial sum rounded to the type of the computation."""
    W, compute = inputs["W"], _compute_type(inputs)
    if "D_delta" not in inputs or compute not in LOW:
        return compose(W, inputs.get("D_delta"), g)
    wide, D = W.astype(compute).astype(np.float64), inputs["D_delta"].astype(compute).astype(np.float64)[g.rows]
    total = sum_tiles(wide, g).astype(compute)
    for s in range(g.d_mul):
        total = (total.astype(np.float64) + D[..., s] * wide[..., s, None]).astype(compute)
    return total.reshape(g.kernel_shape).astype(W.dtype)


def _adding_up_in(dtype: Callable[[np.dtype], np.dtype]) -> Callable[..., np.ndarray]:
    """A convolution whose partial sums, tap by tap and channel by channel, are rounded to a type."""

    def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        x = inputs["x"]
        short = dtype(x.dtype)
        if short == np.float64:
            return y
        total = np.zeros(y.shape, short)
        for c in range(kernel.shape[1]):
            for tap in np.ndindex(*g.kernel_size):
                one = np.zeros(kernel.shape)
                one[(slice(None), c, *tap)] = kernel[(slice(None), c, *tap)].astype(np.float64)
                total = (total.astype(np.float64) + convolve(x, one, None, g, dtype=np.float64)).astype(short)
        bias = inputs.get("bias")
        wide = total.astype(np.float64)
        return wide if bias is None else wide + bias.astype(np.float64).reshape(-1, *[1] * g.spatial_rank)

    return result


def _weight_gradient_in_type(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    """The kernel's gradient adds up the images' in the type of the activations."""
    if inputs["x"].dtype not in LOW or g.transposed:
        return outputs
    x, kernel = inputs["x"], compose(inputs["W"], inputs.get("D_delta"), g).astype(inputs["x"].dtype)
    padded, plain = pad(x.astype(np.float64), g.padding, g.padding_mode), unpadded(g)
    total = np.zeros(g.kernel_shape, x.dtype)
    for n in range(len(x)):
        for position in np.ndindex(*inputs["grad_y"].shape[2:]):
            one = np.zeros((1, *inputs["grad_y"].shape[1:]))
            one[(0, slice(None), *position)] = inputs["grad_y"][(n, slice(None), *position)].astype(np.float64)
            part = convolve_vjp(padded[n : n + 1], kernel.astype(np.float64), one, plain)[1]
            total = (total.astype(np.float64) + part).astype(x.dtype)
    return _replaced(outputs, inputs, outputs["grad_x"], total.astype(np.float64), g)


def _bias_gradient_in_type(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    """The gradient of the bias adds up `grad_y`, one position after the other, in the type of the activations."""
    grad_y = inputs["grad_y"]
    if grad_y.dtype not in LOW or "grad_bias" not in outputs:
        return outputs
    total = np.zeros(g.out_channels, grad_y.dtype)
    for values in grad_y.reshape(*grad_y.shape[:2], -1).swapaxes(1, 2).reshape(-1, g.out_channels):
        total = (total.astype(np.float64) + values).astype(grad_y.dtype)
    return outputs | {"grad_bias": total.astype(outputs["grad_bias"].dtype)}


def _through(dtype: DTypeLike, when: Callable[[Tensors], bool]) -> dict[str, Any]:
    """Hooks that round the finished outputs through a shorter type."""

    def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        return y.astype(dtype).astype(np.float64) if when(inputs) else y

    def gradients(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        if not when(inputs):
            return outputs
        return {name: value.astype(dtype).astype(value.dtype) for name, value in outputs.items()}

    return {"result": result, "gradients": gradients}


def _truncated(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
    """Rounded towards zero to the type of the activations."""
    if inputs["x"].dtype not in LOW:
        return y
    fraction, exponent = np.frexp(y)
    bits = 8 if inputs["x"].dtype == BFLOAT16 else 11
    return np.ldexp(np.trunc(fraction * 2.0**bits), exponent - bits)


def _parameter_gradients_in_type(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    """The gradients of wider parameters are rounded to the type of the activations."""
    return {
        name: value.astype(inputs["x"].dtype).astype(value.dtype) if inputs["x"].dtype in LOW else value
        for name, value in outputs.items()
    }


def _kernel_through(dtype: DTypeLike, when: Callable[[Tensors], bool]) -> dict[str, Any]:
    def used(kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        return kernel.astype(dtype).astype(kernel.dtype) if when(inputs) else kernel

    return {"used": used}


def _low_if_low(dtype: np.dtype) -> np.dtype:
    return dtype if dtype in LOW else np.dtype(np.float64)


PRECISION = (
    Fault("compose-materialised-low", "rounds 1 + delta to the low-precision type of the computation",
          "the residual form W E^T + D_delta o W, composed in the parameters' type and at least float32",
          {"compose": _materialised}),
    Fault("compose-inputs-low", "rounds W and D_delta to the low-precision type before it composes them",
          "where autocast or a dtype argument casts: after the composition, once", {"compose": _low_parameters}),
    Fault("compose-sums-low", "composes in the low-precision type", "the type of the composition's sums: at least float32",
          {"compose": _low_sums}),
    Fault("sums-in-type", "adds up the products of a convolution in the low-precision type",
          "the accumulator of the convolution", {"result": _adding_up_in(_low_if_low)}),
    Fault("float32-sums-in-float16", "adds up float32 products in float16", "the accumulator of the convolution",
          {"result": _adding_up_in(lambda dtype: np.dtype(np.float16 if dtype == np.float32 else np.float64))}),
    Fault("float32-inputs-tf32", "rounds the inputs of float32 convolutions to TF32", "whether TF32 is on, and declared",
          _low_inputs(lambda tensor: rounded_to_bits(tensor, 11))),
    Fault("float32-inputs-bfloat16", "rounds the inputs of float32 convolutions to bfloat16",
          "the precision setting of convolutions", _low_inputs(lambda tensor: rounded_to_bits(tensor, 8))),
    Fault("float32-through-float16", "rounds float32 results to float16", "the type of the results",
          _through(np.float16, lambda inputs: _is(inputs, np.float32))),
    Fault("float64-through-float32", "computes float64 in float32", "a default type of float32",
          _through(np.float32, lambda inputs: _is(inputs, np.float64))),
    Fault("float64-kernel-float32", "rounds the float64 composed kernel to float32", "the type of the composition",
          _kernel_through(np.float32, lambda inputs: _is(inputs, np.float64))),
    Fault("float64-parameters-float32", "reads float64 parameters as float32", "the type in which parameters are stored",
          {"W": lambda W, g: W.astype(np.float32).astype(np.float64),
           "D_delta": lambda D, g: D.astype(np.float32).astype(np.float64)}),
    Fault("float16-through-bfloat16", "rounds float16 results to bfloat16", "which of the two 16-bit types is asked for",
          _through(BFLOAT16, lambda inputs: _is(inputs, np.float16))),
    Fault("float16-kernel-bfloat16", "rounds the composed kernel to bfloat16 for float16 activations",
          "which of the two 16-bit types is asked for", _kernel_through(BFLOAT16, lambda inputs: _is(inputs, np.float16))),
    Fault("truncated", "rounds low-precision results towards zero", "the rounding of the results: to nearest",
          {"result": _truncated}),
    Fault("weight-gradient-sums-low", "adds up the kernel's gradient in the low-precision type",
          "the accumulator of the kernel's gradient", {"gradients": _weight_gradient_in_type}),
    Fault("bias-gradient-sums-low", "adds up the gradient of the bias in the low-precision type",
          "the accumulator of the bias's gradient", {"gradients": _bias_gradient_in_type}),
    Fault("parameter-gradients-low", "rounds the gradients of float32 parameters to the low-precision type",
          "where the gradient is cast: before the composition's own gradient, once",
          {"gradients": _parameter_gradients_in_type}),
)  # fmt: skip
