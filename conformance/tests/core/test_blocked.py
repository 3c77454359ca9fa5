"""The blocked composition equals the formula, also where a kernel takes several blocks of each axis."""

import ml_dtypes
import numpy as np
import pytest

from doconv_core import ConvGeometry, blocked, compose, compose_vjp

GEOMETRIES = [
    ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2)),
    ConvGeometry(in_channels=6, out_channels=9, kernel_size=(3,), groups=3, d_mul=7),
    ConvGeometry(in_channels=5, out_channels=10, kernel_size=(2, 2), groups=5, d_mul=8),
    ConvGeometry(in_channels=4, out_channels=6, kernel_size=(2, 3, 1), groups=2, d_mul=13, transposed=True),
    ConvGeometry(in_channels=4, out_channels=6, kernel_size=(1, 1), groups=2),
]


def parameters(geometry: ConvGeometry, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = geometry.w_shape, geometry.d_shape, geometry.kernel_shape
    W, D_delta, g = (rng.integers(-4, 5, shape).astype(dtype) for shape in shapes)
    return W, D_delta if geometry.has_d else None, g


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many blocks":
        monkeypatch.setattr(blocked, "MAX_W_PER_BLOCK", 20)
        monkeypatch.setattr(blocked, "MAX_KERNELS_PER_BLOCK", 2)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=ConvGeometry.describe)
def test_blocks_change_no_value(geometry: ConvGeometry) -> None:
    W, D_delta, g = parameters(geometry)
    np.testing.assert_array_equal(blocked.compose_blocked(W, D_delta, geometry), compose(W, D_delta, geometry))
    for got, want in zip(
        blocked.compose_vjp_blocked(W, D_delta, g, geometry), compose_vjp(W, D_delta, g, geometry), strict=True
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dialect", ["original-torch", "original-tf"])
@pytest.mark.parametrize(
    "geometry", [geometry for geometry in GEOMETRIES if not geometry.transposed], ids=ConvGeometry.describe
)
def test_the_original_dialects(geometry: ConvGeometry, dialect: str) -> None:
    W, D_delta, _ = parameters(geometry)
    got = blocked.compose_blocked(W, D_delta, geometry, dialect=dialect)
    np.testing.assert_array_equal(got, compose(W, D_delta, geometry, dialect=dialect))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_large_kernel_is_rounded_once(dtype: type) -> None:
    geometry = ConvGeometry(
        in_channels=48, out_channels=640, kernel_size=(3, 3), groups=2
    )  # more than one block of each axis
    rng = np.random.default_rng(
        1
    )  # multiples of 1/64: their products and sums are exact in float64, not in the result's type
    W, D_delta = ((rng.integers(-255, 256, shape) / 64).astype(dtype) for shape in (geometry.w_shape, geometry.d_shape))
    out = np.empty(geometry.kernel_shape, dtype)
    assert blocked.compose_blocked(W, D_delta, geometry, out=out) is out
    exact = compose(W, D_delta, geometry, dtype=np.float64)
    assert (exact != exact.astype(dtype)).any()
    np.testing.assert_array_equal(out, exact.astype(dtype))


def test_the_shape_is_checked_as_in_compose() -> None:
    W, D_delta, _ = parameters(GEOMETRIES[0])
    with pytest.raises(ValueError, match="W must have shape"):
        blocked.compose_blocked(W[:, :, :-1], D_delta, GEOMETRIES[0])
    with pytest.raises(ValueError, match="dialect must be one of"):
        blocked.compose_blocked(W, D_delta, GEOMETRIES[0], dialect="tf")
