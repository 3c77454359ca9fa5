"""What the `padding` argument of a framework's layer means in `(low, high)` pairs. One function for each framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from doconv_core.padding import Pair

Padding = str | int | Sequence[int] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a layer and of its input, on whose size "same" depends where there is a stride.

    `output_padding` is that of a transposed layer of PyTorch or Keras; None is the framework's default.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    output_padding: int | None

    @property
    def reach(self) -> int:
        """How far the kernel's last tap lies from its first."""
        return self.dilation * (self.kernel - 1)


def resolve(framework: str, padding: Padding, axes: Sequence[Axis], *, transposed: bool) -> dict[str, Any]:
    """A framework's `padding` argument as the canonical options `padding`, `padding_mode` and `output_padding`.

    Args:
        framework: "torch", "keras" or "flax".
        padding: what the framework's layer is given. By name: PyTorch "same", "valid"; Keras "same", "valid", "causal"; Flax
            "SAME", "SAME_LOWER", "VALID", "CAUSAL", "CIRCULAR", "REFLECT". In numbers: PyTorch's and Flax's.
        axes: of the layer.
        transposed: whether the layer is a transposed convolution.

    Returns:
        Keyword arguments of `ConvGeometry`. For example Flax's "SAME", input size 6, kernel 3, stride 2:
        `{"padding": ((0, 1),)}`.

    Raises:
        ValueError: an unknown framework, or a padding that the framework's layer does not have.
    """
    try:
        if framework not in _FRAMEWORKS:
            raise ValueError("framework must be torch, keras or flax")
        return _FRAMEWORKS[framework](padding, axes, transposed)
    except ValueError as error:
        raise ValueError(
            f"{error}. Received: framework={framework!r}, padding={padding!r}, "
            f"stride={tuple(axis.stride for axis in axes)}, transposed={transposed}"
        ) from None


def _torch(padding: Padding, axes: Sequence[Axis], transposed: bool) -> dict[str, Any]:
    """Numbers mean the same as in `ConvGeometry`; names exist for plain layers, "same" without a stride only."""
    if not isinstance(padding, str):
        given = tuple(axis.output_padding for axis in axes)
        return {"padding": padding} if None in given else {"padding": padding, "output_padding": given}
    if transposed:
        raise ValueError("PyTorch's transposed layers take their padding in numbers")
    _check_name(padding, ("same", "valid"), axes)
    if padding == "same" and any(axis.stride != 1 for axis in axes):
        raise ValueError("PyTorch's padding='same' has no strides")
    return {"padding": tuple(_named(padding, axis) for axis in axes)}


def _keras(padding: Padding, axes: Sequence[Axis], transposed: bool) -> dict[str, Any]:
    """Names only."""
    names = ("same", "valid") if transposed else ("same", "valid", "causal")
    if not isinstance(padding, str):
        raise ValueError(f"Keras names its paddings: {', '.join(names)}")
    _check_name(padding, names, axes)
    if transposed:
        return _spread([_transposed(padding, axis) for axis in axes], axes)
    return {"padding": tuple(_named(padding, axis) for axis in axes)}


def _flax(padding: Padding, axes: Sequence[Axis], transposed: bool) -> dict[str, Any]:
    """Names in capitals or not, two of which are modes; the numbers of a transposed layer pad its spread input."""
    if not isinstance(padding, str):
        return _spread(_pairs(padding, axes), axes) if transposed else {"padding": padding}
    name = padding.upper()
    if transposed:
        _check_name(name, ("SAME", "VALID"), axes)
        return _spread([_transposed(name, axis) for axis in axes], axes)
    _check_name(name, ("SAME", "SAME_LOWER", "VALID", "CAUSAL", "CIRCULAR", "REFLECT"), axes)
    resolved: dict[str, Any] = {"padding": tuple(_named(name, axis) for axis in axes)}
    if name in ("CIRCULAR", "REFLECT"):
        resolved["padding_mode"] = name.lower()
    return resolved


_FRAMEWORKS = {"torch": _torch, "keras": _keras, "flax": _flax}


def _check_name(name: str, names: Sequence[str], axes: Sequence[Axis]) -> None:
    if name not in names or (name.lower() == "causal" and len(axes) > 1):
        raise ValueError(f"padding must be one of {', '.join(names)} (causal: one axis only)")


def _named(name: str, axis: Axis) -> Pair:
    """One axis of a plain layer's named padding.

    "same" is TensorFlow's and JAX's: the output has `ceil(size / stride)` elements, and where the total is odd the larger part
    is at the high end: size 6, kernel 3, stride 2 is (0, 1), and "SAME_LOWER" (1, 0). PyTorch's, which has no stride, is the
    same.
    """
    if name in ("CIRCULAR", "REFLECT"):
        return axis.reach // 2, axis.reach - axis.reach // 2
    if name.lower() == "causal":
        return axis.reach, 0
    if name.lower() == "valid":
        return 0, 0
    outputs = -(-axis.size // axis.stride)
    total = max((outputs - 1) * axis.stride + axis.reach + 1 - axis.size, 0)
    low = -(-total // 2) if name == "SAME_LOWER" else total // 2
    return low, total - low


def _spread(pairs: Sequence[Pair], axes: Sequence[Axis]) -> dict[str, Any]:
    """Padding of the input after it was spread by the stride, in canonical terms.

    That is what JAX and Flax mean. Canonically a transposed convolution crops its full output, which is what padding the spread
    input by `reach` at both ends gives: less padding crops, more at the high end is `output_padding`, more at the low end a
    negative crop. With kernel 3 (reach 2), padding (1, 4) of the spread input is the crop (1, 0) and two further elements.
    """
    padding = tuple(
        (axis.reach - low, max(axis.reach - high, 0)) for (low, high), axis in zip(pairs, axes, strict=True)
    )
    extra = tuple(max(high - axis.reach, 0) for (_, high), axis in zip(pairs, axes, strict=True))
    return {"padding": padding, "output_padding": extra}


def _pairs(padding: int | Sequence[int] | Sequence[Sequence[int]], axes: Sequence[Axis]) -> list[Pair]:
    """One integer, one for each axis, or one `(low, high)` pair for each axis, as pairs."""
    items: Sequence[Any] = [padding] * len(axes) if isinstance(padding, int) else padding
    if len(items) != len(axes):
        raise ValueError(f"padding must be one integer, or {len(axes)} integers or (low, high) pairs")
    ends = [(item, item) if isinstance(item, int) else tuple(item) for item in items]
    return [(low, high) for low, high in ends]


def _transposed(name: str, axis: Axis) -> Pair:
    """One axis of a transposed layer's named padding, of Keras and of `jax.lax.conv_transpose`, as padding of the spread input.

    Without `output_padding` the output has `size * stride` elements under "same" and `size * stride + max(span - stride, 0)`
    under "valid", `span = dilation * (kernel - 1) + 1`. This is what Keras documents and what its TensorFlow and JAX backends
    compute; its torch backend warns where it cannot.
    """
    span, extra = axis.reach + 1, axis.output_padding
    if name.lower() == "same":
        total = span + axis.stride - 2 if extra is None else span + span % 2 - 2 + extra
        before = min(-(-total // 2), axis.reach)
    else:
        before = axis.reach
        total = 2 * before + (max(span, axis.stride) - span if extra is None else extra)
    return before, total - before
