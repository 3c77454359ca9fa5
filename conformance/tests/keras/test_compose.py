"""The composed kernel is the core's, for every kind of layer and on each of Keras's backends. `test_backends` runs this."""

from typing import Any

import keras
import numpy as np
import pytest
from ml_dtypes import bfloat16

from doconv_core import ConvGeometry, Layout
from doconv_core import compose as compose_by_core
from doconv_keras._arrays import to_numpy
from doconv_keras._compose import compose

# kernel_size, C_in, C_out, groups, S, and whether transposed or depthwise: tiles with and without a surplus, sizes that differ.
KINDS = {
    "plain": ((3, 2), 4, 5, 1, 6, ""),
    "tiles and surplus": ((3, 2), 4, 5, 1, 13, ""),
    "one axis": ((3,), 5, 2, 1, 6, ""),
    "three axes": ((2, 1, 2), 3, 4, 1, 5, ""),
    "groups": ((3, 2), 6, 9, 3, 7, ""),
    "one output in a group": ((3, 2), 6, 3, 3, 7, ""),
    "depthwise": ((3, 2), 4, 12, 4, 6, "depthwise"),
    "transposed": ((3, 2), 4, 5, 1, 6, "transposed"),
    "transposed, tiles and surplus": ((2, 2), 5, 3, 1, 9, "transposed"),
}


def tensors(kernel_size: Any, channels: int, out: int, groups: int, S: int, kind: str, dtype: Any) -> Any:
    """`W` and `D` as Keras has them, and the core's kernel; of small integers, whose sums are exact in any order."""
    geometry = ConvGeometry(in_channels=channels, out_channels=out, kernel_size=kernel_size, groups=groups, d_mul=S,
                            transposed=kind == "transposed")  # fmt: skip
    layout = Layout("keras", geometry, depthwise=kind == "depthwise")
    rng = np.random.default_rng(0)
    W, D = (rng.integers(-4, 5, shape).astype(dtype) for shape in (geometry.w_shape, geometry.d_shape))
    kernel = layout.kernel_from_canonical(compose_by_core(W, D, geometry))
    return layout.w_from_canonical(W), layout.d_from_canonical(D), kernel


def composed(W: np.ndarray, D: np.ndarray, kind: str, dtype: str) -> np.ndarray:
    tensors = (keras.ops.cast(keras.ops.convert_to_tensor(array.astype(np.float32)), dtype) for array in (W, D))
    # Plain by default: a wrong default is a mistake that naming the option would hide.
    kernel = compose(*tensors, **({"transposed": True} if kind == "transposed" else {}))
    assert keras.backend.standardize_dtype(kernel.dtype) == dtype
    return to_numpy(kernel)


@pytest.mark.parametrize("sizes", KINDS.values(), ids=KINDS)
def test_the_composed_kernel_is_that_of_the_core(sizes: Any) -> None:
    W, D, kernel = tensors(*sizes, np.float32)
    np.testing.assert_array_equal(composed(W, D, sizes[-1], "float32"), kernel)


@pytest.mark.parametrize("kind", ["groups", "transposed"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_composed_in_float32_and_rounded_once(kind: str, dtype: str) -> None:
    numpy_type, rng = {"bfloat16": bfloat16, "float16": np.float16}[dtype], np.random.default_rng(0)
    W, D = (rng.normal(size=array.shape).astype(numpy_type) for array in tensors(*KINDS[kind], np.float32)[:2])
    wide = composed(W, D, KINDS[kind][-1], "float32")
    np.testing.assert_array_equal(composed(W, D, KINDS[kind][-1], dtype), wide.astype(numpy_type))
