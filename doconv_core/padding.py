"""Padding: what each framework's names for it mean in `(low, high)` pairs, and padding itself with its adjoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Pair = tuple[int, int]


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> Pair:
    """`padding="SAME"` of TensorFlow, Keras, JAX and Flax on one axis: the output has `ceil(size / stride)` elements.

    Where the total is odd, the larger part is at the high end: size 6, kernel 3, stride 2 is (0, 1).
    """
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def same_padding_torch(kernel: int, dilation: int = 1) -> Pair:
    """`padding="same"` of PyTorch on one axis (stride 1 only): size 6, kernel 4 is (1, 2)."""
    total = dilation * (kernel - 1)
    return total // 2, total - total // 2


def causal_padding(kernel: int, dilation: int = 1) -> Pair:
    """`padding="causal"` of Keras and Flax on one axis: an output sees no later input."""
    return dilation * (kernel - 1), 0


def transposed_padding(low: int, high: int, kernel: int, dilation: int = 1) -> tuple[Pair, int]:
    """Explicit padding of a transposed convolution in Flax's sense, as canonical `((low, high), output_padding)`.

    JAX and Flax pad the input after spreading it by the stride; canonically a transposed convolution crops its full output.
    Padding by `span - 1 = dilation * (kernel - 1)` at both ends is the full output.
    """
    low, high = (dilation * (kernel - 1) - end for end in (low, high))
    return (low, max(high, 0)), max(-high, 0)


def transposed_padding_flax(padding: str, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[Pair, int]:
    """What "SAME" and "VALID" are to `jax.lax.conv_transpose` on one axis, as canonical `((low, high), output_padding)`.

    Raises:
        ValueError: `padding` is neither.
    """
    span = dilation * (kernel - 1) + 1
    if padding == "SAME":
        total = span + stride - 2
        before = span - 1 if stride > span - 1 else -(-total // 2)
    elif padding == "VALID":
        total = span + stride - 2 + max(span - stride, 0)
        before = span - 1
    else:
        raise ValueError(f'padding must be "SAME" or "VALID". Received: {padding!r}')
    return transposed_padding(before, total - before, kernel, dilation)


def transposed_padding_keras(
    padding: str, kernel: int, stride: int = 1, dilation: int = 1, output_padding: int | None = None
) -> tuple[Pair, int]:
    """What "same" and "valid" are to Keras's transposed convolutions on one axis, as canonical `((low, high), output_padding)`.

    Without `output_padding` the output has `size * stride` elements under "same" and `size * stride + max(span - stride, 0)`
    under "valid", where `span = dilation * (kernel - 1) + 1`. This is Keras's documented meaning, the one its TensorFlow and
    JAX backends compute; its torch backend warns where it cannot.

    Raises:
        ValueError: `padding` is neither.
    """
    span = dilation * (kernel - 1) + 1
    if padding == "same":
        total = span + stride - 2 if output_padding is None else span + span % 2 - 2 + output_padding
        before = min(-(-total // 2), span - 1)
    elif padding == "valid":
        before = span - 1
        total = 2 * before + (max(span, stride) - span if output_padding is None else output_padding)
    else:
        raise ValueError(f'padding must be "same" or "valid". Received: {padding!r}')
    return transposed_padding(before, total - before, kernel, dilation)


def pad(x: np.ndarray, padding: Sequence[Pair], mode: str) -> np.ndarray:
    """Pad the spatial axes of `(N, C, *space)` by `(low, high)` an axis, in one of `geometry.PADDING_MODES`."""
    numpy_mode = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    return np.pad(x, [(0, 0), (0, 0), *padding], mode=numpy_mode)  # type: ignore[call-overload]


def pad_vjp(grad: np.ndarray, padding: Sequence[Pair], mode: str) -> np.ndarray:
    """The gradient of `pad` for its input: every padded element adds to the element it was copied from."""
    for axis, (low, high) in enumerate(padding, start=2):
        size = grad.shape[axis] - low - high
        grad = np.moveaxis(grad, axis, 0)
        inner = grad[low : low + size].copy()
        if mode != "zeros":
            source = pad(np.arange(size).reshape(1, 1, size), [(low, high)], mode).ravel()
            outside = np.r_[:low, low + size : low + size + high]
            np.add.at(inner, source[outside], grad[outside])
        grad = np.moveaxis(inner, 0, axis)
    return grad
