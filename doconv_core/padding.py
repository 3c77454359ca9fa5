"""Padding: what each framework's names for it mean in `(low, high)` pairs, and padding itself with its adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Pair = tuple[int, int]
# The names that a framework's layers know, plain and transposed; PyTorch's transposed layers know none.
PADDING_NAMES = {
    ("torch", False): ("same", "valid"),
    ("torch", True): (),
    ("keras", False): ("same", "valid", "causal"),
    ("keras", True): ("same", "valid"),
    ("flax", False): ("SAME", "SAME_LOWER", "VALID", "CAUSAL", "CIRCULAR", "REFLECT"),
    ("flax", True): ("SAME", "VALID"),
}


def resolve(
    framework: str,
    padding: str | int | Sequence[int] | Sequence[Sequence[int]],
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    *,
    transposed: bool = False,
    output_padding: Sequence[int] | None = None,
) -> dict[str, Any]:
    """A framework's `padding` argument as the canonical options `padding`, `padding_mode` and `output_padding`.

    Args:
        framework: "torch", "keras" or "flax".
        padding: what the framework's layer is given. By name: PyTorch "same", "valid"; Keras "same", "valid", "causal"; Flax
            "SAME", "SAME_LOWER", "VALID", "CAUSAL", "CIRCULAR", "REFLECT". In numbers: PyTorch's and Flax's.
        input_size: spatial size of the input, on which "same" depends where there is a stride.
        kernel_size: one integer per axis, as `stride` and `dilation`.
        stride: of the layer.
        dilation: of the kernel.
        transposed: whether the layer is a transposed convolution.
        output_padding: of a transposed layer of PyTorch or Keras; None is the framework's default.

    Returns:
        Keyword arguments of `ConvGeometry`.

    Raises:
        ValueError: an unknown framework, or a padding that the framework's layer does not have.
    """
    received = (
        f"Received: framework={framework!r}, padding={padding!r}, stride={tuple(stride)}, transposed={transposed}"
    )
    names = PADDING_NAMES.get((framework, transposed))
    if names is None:
        raise ValueError(f"framework must be torch, keras or flax. {received}")
    axes = list(zip(input_size, kernel_size, stride, dilation, strict=True))
    if not isinstance(padding, str):
        if framework == "keras":
            raise ValueError(f"Keras names its paddings: {', '.join(names)}. {received}")
        if framework == "flax" and transposed:
            items = [padding] * len(axes) if isinstance(padding, int) else padding
            pairs = [(item, item) if isinstance(item, int) else item for item in items]
            both = [_spread_padding(low, high, k, d) for (low, high), (_, k, _, d) in zip(pairs, axes, strict=True)]
            return {"padding": tuple(pair for pair, _ in both), "output_padding": tuple(extra for _, extra in both)}
        return {"padding": padding} | ({"output_padding": tuple(output_padding)} if output_padding else {})
    name = padding.upper() if framework == "flax" else padding
    if name not in names or (name.lower() == "causal" and len(axes) > 1):
        raise ValueError(f"padding must be one of {', '.join(names)} (causal: one axis only). {received}")
    if framework == "torch" and name == "same" and any(step != 1 for step in stride):
        raise ValueError(f"PyTorch's padding='same' has no strides. {received}")
    if transposed:
        extras = output_padding or (None,) * len(axes)
        both = [
            _transposed_flax(name, k, s, d) if framework == "flax" else _transposed_keras(name, k, s, d, extra)
            for (_, k, s, d), extra in zip(axes, extras, strict=True)
        ]
        return {"padding": tuple(pair for pair, _ in both), "output_padding": tuple(extra for _, extra in both)}
    mode = {"CIRCULAR": "circular", "REFLECT": "reflect"}.get(name, "zeros")
    return {"padding": tuple(_named(name, *axis) for axis in axes)} | (
        {} if mode == "zeros" else {"padding_mode": mode}
    )


def _named(name: str, size: int, kernel: int, stride: int, dilation: int) -> Pair:
    """One axis of a named padding.

    "same" is TensorFlow's and JAX's: the output has `ceil(size / stride)` elements, and where the total is odd the larger part
    is at the high end (size 6, kernel 3, stride 2 is (0, 1)). PyTorch's, which has no stride, is the same.
    """
    reach = dilation * (kernel - 1)
    if name in ("CIRCULAR", "REFLECT"):
        return reach // 2, reach - reach // 2
    if name.lower() == "causal":
        return reach, 0
    if name.lower() == "valid":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
    low = -(-total // 2) if name == "SAME_LOWER" else total // 2
    return low, total - low


def _spread_padding(low: int, high: int, kernel: int, dilation: int) -> tuple[Pair, int]:
    """Padding of the input after it was spread by the stride, as canonical `((low, high), output_padding)`.

    That is what JAX and Flax mean; canonically a transposed convolution crops its full output, which padding by
    `dilation * (kernel - 1)` at both ends gives.
    """
    reach = dilation * (kernel - 1)
    return (reach - low, max(reach - high, 0)), max(high - reach, 0)


def _transposed_flax(name: str, kernel: int, stride: int, dilation: int) -> tuple[Pair, int]:
    """One axis of `jax.lax.conv_transpose` with "SAME" or "VALID"."""
    span = dilation * (kernel - 1) + 1
    if name == "SAME":
        total = span + stride - 2
        before = span - 1 if stride > span - 1 else -(-total // 2)
    else:
        total = span + stride - 2 + max(span - stride, 0)
        before = span - 1
    return _spread_padding(before, total - before, kernel, dilation)


def _transposed_keras(
    name: str, kernel: int, stride: int, dilation: int, output_padding: int | None
) -> tuple[Pair, int]:
    """One axis of Keras's transposed layers.

    Without `output_padding` the output has `size * stride` elements under "same" and `size * stride + max(span - stride, 0)`
    under "valid", `span = dilation * (kernel - 1) + 1`. This is what Keras documents and what its TensorFlow and JAX backends
    compute; its torch backend warns where it cannot.
    """
    span = dilation * (kernel - 1) + 1
    if name == "same":
        total = span + stride - 2 if output_padding is None else span + span % 2 - 2 + output_padding
        before = min(-(-total // 2), span - 1)
    else:
        before = span - 1
        total = 2 * before + (max(span, stride) - span if output_padding is None else output_padding)
    return _spread_padding(before, total - before, kernel, dilation)


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
