"""Every function of the core that is asked for a dtype computes for floating point ones, and refuses the others."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from doconv_core import ConvGeometry, compose, compose_features, compose_vjp, convolve, convolve_vjp, start
from doconv_core.blocked import compose_blocked, compose_vjp_blocked

G = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 3), groups=2)
W, D, X = np.ones(G.w_shape, np.float32), np.ones(G.d_shape, np.float32), np.ones((2, 4, 5, 5), np.float32)
KERNEL, Y = np.ones(G.kernel_shape, np.float32), np.ones((2, 6, 3, 3), np.float32)
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "compose": lambda dtype: compose(W, D, G, dtype=dtype),
    "compose_blocked": lambda dtype: compose_blocked(W, D, G, dtype=dtype),
    "compose_vjp": lambda dtype: compose_vjp(W, D, KERNEL, G, dtype=dtype),
    "compose_vjp_blocked": lambda dtype: compose_vjp_blocked(W, D, KERNEL, G, dtype=dtype),
    "compose_features": lambda dtype: compose_features(X, W, D, G, dtype=dtype),
    "convolve": lambda dtype: convolve(X, KERNEL, None, G, dtype=dtype),
    "convolve_vjp": lambda dtype: convolve_vjp(X, KERNEL, Y, G, dtype=dtype),
    "start": lambda dtype: start(G, np.random.default_rng(0), dtype),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, "float32", np.float64])
def test_results_have_the_dtype_that_is_asked_for(function: str, dtype: Any) -> None:
    results = FUNCTIONS[function](dtype)
    for array in results if isinstance(results, tuple) else (results,):
        assert array.dtype == np.dtype(dtype)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "dtype", ["int32", bool, str, "complex64", "S3", "f33", 5, object, "datetime64[s]", "float8_e4m3fn"]
)
def test_other_dtypes_are_refused(function: str, dtype: Any) -> None:
    with pytest.raises(TypeError, match=r"dtype must be bfloat16, float16, float32 or float64. Received: dtype="):
        FUNCTIONS[function](dtype)


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (KERNEL[..., ::-1], "out must be contiguous"),
        (np.asfortranarray(KERNEL), "out must be contiguous"),
        (KERNEL.astype(int), "out must be bfloat16, float16, float32 or float64"),
        (KERNEL[:3], "out must have shape"),
        (5, "out must be a NumPy array"),
    ],
)
def test_an_array_that_takes_the_result_must_be_able_to(out: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        compose_blocked(W, D, G, out=out)
