"""Faults of the gradients, of folding and of the start from a plain kernel."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike

from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.port import Tensors
from doconv_core.composition import compose, identity, spread_tiles, sum_tiles
from doconv_core.convolution import convolve_vjp
from doconv_core.geometry import ConvGeometry

Gradients = tuple[np.ndarray, np.ndarray | None]


def _vjp(
    W: np.ndarray,
    D: np.ndarray | None,
    grad_kernel: np.ndarray,
    g: ConvGeometry,
    identity_part: float,
    delta_part: float,
) -> Gradients:
    """The composition's gradients with weights on the two parts of that of `W`."""
    grad = grad_kernel.reshape(*W.shape[:2], g.taps)
    grad_W = identity_part * spread_tiles(grad, g)
    if D is None:
        return spread_tiles(grad, g), None
    grad_W = grad_W + delta_part * np.einsum("abks,abk->abs", D[g.rows], grad)
    return grad_W, _scattered(np.einsum("abk,abs->abks", grad, W), g.rows, g)


def _weighted(identity_part: float, delta_part: float) -> dict[str, Callable[..., Gradients]]:
    return {"compose_vjp": lambda W, D, grad, g: _vjp(W, D, grad, g, identity_part, delta_part)}


def _transposed_d(W: np.ndarray, D: np.ndarray | None, grad_kernel: np.ndarray, g: ConvGeometry) -> Gradients:
    """`D g` in place of `D^T g`."""
    if D is not None:
        D = np.concatenate([D[..., : g.taps].swapaxes(1, 2), D[..., g.taps :]], -1)
    return _vjp(W, D, grad_kernel, g, 1, 1)


def _last_of_group(products: np.ndarray, rows: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """Assigned in place of added: the last kernel of a row wins."""
    grad = np.zeros(g.d_shape)
    for index in np.ndindex(*rows.shape):
        grad[rows[index]] = products[index]
    return grad


def _mean_of_group(products: np.ndarray, rows: np.ndarray, g: ConvGeometry) -> np.ndarray:
    return _scattered(products, rows, g) / (g.out_channels // g.groups)


def _unflipped(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    """The input's gradient by the kernel flipped once too often."""
    kernel = compose(inputs["W"], inputs.get("D_delta"), g).astype(inputs["x"].dtype)
    kernel = np.flip(kernel, tuple(range(2, kernel.ndim)))
    return outputs | {"grad_x": convolve_vjp(inputs["x"], kernel, inputs["grad_y"], g)[0]}


def _padding_copies_lost(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    """What the copies in the padding collect does not reach the input."""
    zeros = ConvGeometry.from_json(g.to_json() | {"padding_mode": "zeros"})
    kernel = compose(inputs["W"], inputs.get("D_delta"), g).astype(inputs["x"].dtype)
    return outputs | {"grad_x": convolve_vjp(inputs["x"], kernel, inputs["grad_y"], zeros)[0]}


def _kernel_without_d(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    """The input's gradient by `W E^T` alone."""
    kernel = sum_tiles(inputs["W"].astype(np.float64), g).reshape(g.kernel_shape).astype(inputs["x"].dtype)
    return outputs | {"grad_x": convolve_vjp(inputs["x"], kernel, inputs["grad_y"], g)[0]}


def _bias_of_last_image(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    if "grad_bias" not in outputs:
        return outputs
    last = inputs["grad_y"][-1].astype(np.float64).sum(axis=tuple(range(1, g.spatial_rank + 1)))
    return outputs | {"grad_bias": last.astype(outputs["grad_bias"].dtype)}


def _per_image(outputs: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
    """Gradients of the parameters as of the mean over the batch."""
    batch = len(inputs["x"])
    return {name: value if name == "grad_x" else (value / batch).astype(value.dtype) for name, value in outputs.items()}


def _masked(D: np.ndarray, g: ConvGeometry, *, diagonal: bool) -> np.ndarray:
    return np.where((identity(g) == 1) == diagonal, D, 0.0)


def _scattered(products: np.ndarray, rows: np.ndarray, g: ConvGeometry) -> np.ndarray:
    grad = np.zeros(g.d_shape)
    np.add.at(grad, rows, products)
    return grad


GRADIENTS = (
    Fault("grad-W-without-identity", "drops the identity's part g E from the gradient of W",
          "the gradient of W: g E + D_delta^T g", _weighted(0, 1)),
    Fault("grad-W-without-delta", "drops the part D_delta^T g from the gradient of W",
          "the gradient of W: g E + D_delta^T g; a stop_gradient or detach of the composed kernel", _weighted(1, 0)),
    Fault("grad-W-identity-doubled", "counts the identity's part of the gradient of W twice",
          "the gradient of W: g E + D_delta^T g", _weighted(2, 1)),
    Fault("grad-W-of-D-transposed", "uses D where its transpose is meant in the gradient of W",
          "the gradient of W: sum over k of D[i, k, s] g[o, c, k]", {"compose_vjp": _transposed_d}),
    Fault("grad-W-first-tile-only", "gives a gradient to the first K columns of W only", "the columns s >= K",
          {"grad_W": lambda grad, g: np.where(np.arange(g.d_mul) < g.taps, grad, 0.0)}),
    Fault("grad-W-channels-exchanged", "returns the gradient of W with the channels exchanged", "the axes of W's gradient",
          {"grad_W": lambda grad, g: grad.swapaxes(0, 1).reshape(grad.shape)}),
    Fault("grad-W-missing", "gives W no gradient", "whether W is trained", {"grad_W": lambda grad, g: 0 * grad}),
    Fault("grad-D-missing", "gives D_delta no gradient", "whether D_delta is trained",
          {"grad_D_delta": lambda grad, g: 0 * grad}),
    Fault("grad-D-off-diagonal-only", "gives D_delta a gradient only where the identity has a zero",
          "a mask on the gradient of D_delta", {"grad_D_delta": lambda grad, g: _masked(grad, g, diagonal=False)}),
    Fault("grad-D-diagonal-only", "gives D_delta a gradient only where the identity has a one",
          "a mask on the gradient of D_delta", {"grad_D_delta": lambda grad, g: _masked(grad, g, diagonal=True)}),
    Fault("grad-D-not-summed", "keeps the last kernel's gradient of D_delta in place of the sum over its group",
          "the gradient of D_delta: the sum over the kernels that share a row", {"sum_group": _last_of_group}),
    Fault("grad-D-averaged", "averages the gradient of D_delta over the group's kernels",
          "the gradient of D_delta: the sum over the kernels that share a row", {"sum_group": _mean_of_group}),
    Fault("grad-D-transposed", "returns the gradient of D_delta with taps and multiplier exchanged", "the axes (C_in, K, S)",
          {"grad_D_delta": lambda grad, g: np.concatenate(
              [grad[..., : g.taps].swapaxes(1, 2), grad[..., g.taps :]], -1)}),
    Fault("grad-D-rows-local", "adds the gradient of D_delta to the row of the channel within the group",
          "the index i of the gradient of D_delta",
          {"sum_group": lambda products, rows, g: _scattered(products, rows % (g.in_channels // g.groups), g)}),
    Fault("grad-D-surplus-missing", "gives the surplus columns of D_delta no gradient", "the columns s >= K * (S // K)",
          {"grad_D_delta": lambda grad, g: np.where(np.arange(g.d_mul) < g.taps * (g.d_mul // g.taps), grad, 0.0)}),
    Fault("grad-kernel-flipped", "flips the gradient of the composed kernel", "the order of the taps in the kernel's gradient",
          {"grad_kernel": lambda grad, g: np.flip(grad, tuple(range(2, grad.ndim)))}),
    Fault("grad-x-unflipped", "convolves with the unflipped kernel for the gradient of the input",
          "the input's gradient is the transposed convolution", {"gradients": _unflipped}),
    Fault("grad-x-padding-lost", "drops what the padding's copies give to the gradient of the input",
          "the gradient of the padding mode", {"gradients": _padding_copies_lost}, lambda g: g.padding_mode != "zeros"),
    Fault("grad-x-without-delta", "uses W without D_delta for the gradient of the input",
          "which kernel the input's gradient uses", {"gradients": _kernel_without_d}),
    Fault("grad-x-missing", "gives the input no gradient", "whether the gradient reaches the input",
          {"grad_x": lambda grad, g: 0 * grad}),
    Fault("grad-bias-of-last-image", "keeps the last image's gradient of the bias",
          "the gradient of the bias: a sum over the batch",
          {"gradients": _bias_of_last_image}),
    Fault("grad-bias-missing", "gives the bias no gradient", "whether the bias is trained",
          {"grad_bias": lambda grad, g: 0 * grad}),
    Fault("grad-mean-over-batch", "divides the gradients of the parameters by the batch", "a mean in place of a sum",
          {"gradients": _per_image}),
    Fault("grad-negated", "negates the gradients of the parameters", "a sign",
          {"grad_W": lambda grad, g: -grad, "grad_D_delta": lambda grad, g: -grad, "grad_bias": lambda grad, g: -grad}),
)  # fmt: skip


def _folded_through(dtype: DTypeLike) -> dict[str, Callable[..., np.ndarray]]:
    return {"folded": lambda kernel, inputs, g: kernel.astype(dtype).astype(kernel.dtype)}


def _folded_twice(kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
    """Composed with `D` again: `W'` in the place of the first tile of `W`."""
    if not g.has_d:
        return kernel
    W = np.zeros(g.w_shape)
    W[..., : g.taps] = kernel.astype(np.float64).reshape(*W.shape[:2], g.taps)
    return compose(W, inputs["D_delta"].astype(np.float64), g).astype(kernel.dtype)


FOLDING = (
    Fault("fold-stale", "folds W without D_delta", "whether folding composes with the trained D_delta",
          {"folded": lambda kernel, inputs, g: sum_tiles(inputs["W"].astype(np.float64), g)
              .reshape(g.kernel_shape).astype(kernel.dtype)}),
    Fault("fold-through-bfloat16", "rounds the folded weight to bfloat16", "the type in which folding composes",
          _folded_through(ml_dtypes.bfloat16)),
    Fault("fold-through-float16", "rounds the folded weight to float16", "the type in which folding composes",
          _folded_through(np.float16)),
    Fault("fold-to-float64", "folds to float64 whatever the parameters' type", "the type of the folded weight",
          {"folded": lambda kernel, inputs, g: kernel.astype(np.float64)}),
    Fault("fold-twice", "composes with D a second time when it folds", "whether the folded weight is composed again",
          {"folded": _folded_twice}),
    Fault("fold-flipped", "flips the folded weight", "the order of the taps of the folded weight",
          {"folded": lambda kernel, inputs, g: np.flip(kernel, tuple(range(2, kernel.ndim)))}),
    Fault("fold-column-major", "writes the folded weight's taps in column-major order", "the order of the taps",
          {"folded": lambda kernel, inputs, g: kernel.reshape(*kernel.shape[:2], -1)[
              ..., np.arange(g.taps).reshape(g.kernel_size, order="F").ravel()].reshape(kernel.shape)}),
    Fault("fold-without-bias", "folds without the bias", "the bias of the folded layer",
          {"folded_bias": lambda bias, g: 0 * bias}),
)  # fmt: skip


def _w_started(
    place: Callable[[np.ndarray, np.ndarray, ConvGeometry], np.ndarray],
) -> dict[str, Callable[..., Tensors]]:
    """The hook that starts `W` otherwise, from the right start and the plain kernel `(..., K)`."""

    def started(outputs: Tensors, weight: np.ndarray, g: ConvGeometry) -> Tensors:
        W = place(outputs["W"].copy(), weight.reshape(*outputs["W"].shape[:2], g.taps), g)
        return outputs | {"W": W, "weight": compose(W, outputs.get("D_delta"), g)}

    return {"started": started}


def _every_tile(W: np.ndarray, w: np.ndarray, g: ConvGeometry) -> np.ndarray:
    for tile in range(g.d_mul // g.taps):
        W[..., tile * g.taps : (tile + 1) * g.taps] = w
    return W


def _at(first: Callable[[ConvGeometry], int], step: Callable[[ConvGeometry], int]) -> Callable[..., np.ndarray]:
    def place(W: np.ndarray, w: np.ndarray, g: ConvGeometry) -> np.ndarray:
        W = np.zeros_like(W)
        W[..., first(g) :: step(g)][..., : g.taps] = w
        return W

    return place


def _with_identity(outputs: Tensors, weight: np.ndarray, g: ConvGeometry) -> Tensors:
    """`D` in the place of `D_delta`; the kernel that the layer itself composes is right."""
    if not g.has_d:
        return outputs
    return outputs | {"D_delta": (identity(g) + outputs["D_delta"]).astype(weight.dtype)}


def _dead_surplus(W: np.ndarray, w: np.ndarray, g: ConvGeometry) -> np.ndarray:
    W[..., g.taps * (g.d_mul // g.taps) :] = 0
    return W


def _rounded(W: np.ndarray, w: np.ndarray, g: ConvGeometry) -> np.ndarray:
    W[..., : g.taps] = w.astype(np.float16).astype(W.dtype)
    return W


STARTS = (
    Fault("start-in-every-tile", "starts every tile of W with the plain kernel", "W[..., :K] = w, W[..., K:] = 0",
          _w_started(_every_tile)),
    Fault("start-at-the-end", "starts the last K columns of W with the plain kernel", "W[..., :K] = w, W[..., K:] = 0",
          _w_started(_at(lambda g: g.d_mul - g.taps, lambda g: 1))),
    Fault("start-interleaved", "spreads the plain kernel over the columns of W", "W[..., :K] = w, W[..., K:] = 0",
          _w_started(_at(lambda g: 0, lambda g: g.d_mul // g.taps))),
    Fault("start-dead-columns", "starts the surplus columns of W at zero, where no gradient ever reaches them",
          "the columns s >= K * (S // K) of W: random, as D_delta is zero there", _w_started(_dead_surplus)),
    Fault("start-with-identity", "starts D_delta with the identity", "D = E + D_delta: D_delta starts at zero",
          {"started": _with_identity}),
    Fault("start-through-float16", "rounds the plain kernel to float16", "the type in which the layer starts",
          _w_started(_rounded)),
)  # fmt: skip


LAYER = (*GRADIENTS, *FOLDING, *STARTS)
