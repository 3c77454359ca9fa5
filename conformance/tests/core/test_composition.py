"""Composition, its gradients, its twin and its start, on small integers where every value is exact."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from doconv_core import (
    ConvGeometry,
    compose,
    compose_features,
    compose_vjp,
    convolve,
    dialect_rows,
    identity,
    start,
    start_from_kernel,
)

IN_CHANNELS = 8


def integers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


GROUPED = [
    ConvGeometry(in_channels=IN_CHANNELS, out_channels=out, kernel_size=(3, 2), groups=groups, stride=(2, 1), padding=1)
    for groups, out in itertools.product((1, 2, 4, IN_CHANNELS), (IN_CHANNELS, 2 * IN_CHANNELS))
]
MULTIPLIED = [
    ConvGeometry(in_channels=4, out_channels=6, kernel_size=kernel, groups=2, d_mul=d_mul, transposed=transposed)
    for (kernel, d_mul), transposed in itertools.product(
        [((3,), 3), ((3,), 7), ((2, 2), 8), ((2, 3, 1), 13), ((1, 1), 5)], (False, True)
    )
]


def parameters(geometry: ConvGeometry) -> tuple[np.ndarray, np.ndarray | None]:
    return integers(1, *geometry.w_shape), integers(2, *geometry.d_shape) if geometry.has_d else None


def some_indices(shape: tuple[int, ...], count: int = 24) -> list[tuple[int, ...]]:
    """Drawn from all of an array's indices: a fixed step through them may meet one column only."""
    rng = np.random.default_rng(7)
    return [tuple(rng.integers(shape)) for _ in range(count)]


@pytest.mark.parametrize("geometry", GROUPED + MULTIPLIED, ids=ConvGeometry.describe)
def test_composition_equals_feature_composition(geometry: ConvGeometry) -> None:
    W, D_delta = parameters(geometry)
    x = integers(3, 2, geometry.in_channels, *[5, 6, 4][: geometry.spatial_rank])
    by_kernel = convolve(x, compose(W, D_delta, geometry), None, geometry)
    np.testing.assert_array_equal(by_kernel, compose_features(x, W, D_delta, geometry))


@pytest.mark.parametrize("geometry", GROUPED + MULTIPLIED, ids=ConvGeometry.describe)
def test_composition_equals_the_formula_written_out(geometry: ConvGeometry) -> None:
    W, D_delta = parameters(geometry)
    D = np.zeros(geometry.d_shape) if D_delta is None else D_delta.copy()
    for s in range(geometry.d_mul // geometry.taps * geometry.taps):  # the identity, tiled; surplus columns stay zero
        D[:, s % geometry.taps, s] += 1
    expected = np.zeros((*W.shape[:2], geometry.taps))
    in_group, out_group = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    for first, second in np.ndindex(W.shape[:2]):
        i = first if geometry.transposed else first // out_group * in_group + second
        expected[first, second] = D[i] @ W[first, second]
    np.testing.assert_array_equal(compose(W, D_delta, geometry), expected.reshape(geometry.kernel_shape))


@pytest.mark.parametrize("geometry", GROUPED + MULTIPLIED, ids=ConvGeometry.describe)
def test_gradients_are_the_transpose_of_each_linear_map(geometry: ConvGeometry) -> None:
    W, D_delta = parameters(geometry)
    g = integers(4, *geometry.kernel_shape)
    grad_W, grad_D = compose_vjp(W, D_delta, g, geometry)
    for index in some_indices(W.shape):
        step = np.zeros(W.shape)
        step[index] = 1
        assert (compose(step, D_delta, geometry) * g).sum() == grad_W[index]
    if D_delta is None:
        assert grad_D is None
        return
    base = compose(W, D_delta, geometry)
    for index in some_indices(D_delta.shape):
        step = D_delta.copy()
        step[index] += 1
        assert ((compose(W, step, geometry) - base) * g).sum() == grad_D[index]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("geometry", MULTIPLIED, ids=ConvGeometry.describe)
def test_a_layer_that_starts_from_a_kernel_is_that_kernel(geometry: ConvGeometry, dtype: type) -> None:
    weight = np.random.default_rng(5).normal(size=geometry.kernel_shape).astype(dtype)
    W, D_delta = start_from_kernel(weight, geometry, np.random.default_rng(6))
    composed = compose(W, D_delta, geometry)
    assert composed.dtype == weight.dtype
    np.testing.assert_array_equal(composed, weight)
    surplus = geometry.d_mul % geometry.taps
    if surplus:
        assert (W[..., -surplus:] != 0).all()


def test_a_fresh_layer_is_uniform_within_the_bound_of_its_fan_in() -> None:
    geometry = ConvGeometry(in_channels=8, out_channels=64, kernel_size=(3, 3), groups=2, d_mul=12)
    W, D_delta = start(geometry, np.random.default_rng(0))
    bound = (4 * 12) ** -0.5
    assert 0.99 * bound < W.max() <= bound
    assert 0.99 * bound < -W.min() <= bound
    assert W.dtype == np.float32
    assert not D_delta.any()


@pytest.mark.parametrize("dialect", ["original-torch", "original-tf"])
@pytest.mark.parametrize("geometry", GROUPED, ids=ConvGeometry.describe)
def test_the_original_dialects_differ_exactly_where_the_contract_says(geometry: ConvGeometry, dialect: str) -> None:
    o, c = np.indices(geometry.w_shape[:2])
    groups, in_group = geometry.groups, geometry.in_channels // geometry.groups
    formula = {
        "original-torch": o % groups * in_group + c,
        "original-tf": c * groups + o // (geometry.out_channels // groups),
    }
    np.testing.assert_array_equal(dialect_rows(dialect, geometry), formula[dialect])
    W, D_delta = parameters(geometry)
    same = groups == 1 or (
        groups == geometry.in_channels and (dialect == "original-tf" or geometry.out_channels == groups)
    )
    composed = compose(W, D_delta, geometry, dialect=dialect)
    assert (composed == compose(W, D_delta, geometry)).all() == same


def test_rows_with_four_channels_as_documented() -> None:
    geometry = ConvGeometry(in_channels=4, out_channels=4, kernel_size=(3, 3), groups=2)
    assert geometry.rows.tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert dialect_rows("original-torch", geometry)[:, 0].tolist() == [0, 2, 0, 2]
    assert dialect_rows("original-tf", geometry)[:, 0].tolist() == [0, 0, 1, 1]


def test_residual_form_keeps_a_small_delta_that_bfloat16_would_lose() -> None:
    geometry = ConvGeometry(in_channels=2, out_channels=3, kernel_size=(3, 3))
    W = np.ones(geometry.w_shape, ml_dtypes.bfloat16)
    D_delta = np.broadcast_to(1e-3 * np.eye(9), geometry.d_shape).astype(ml_dtypes.bfloat16)
    exact = compose(W, D_delta, geometry, dtype=np.float64)
    assert (exact > 1).all()
    rounded_identity = (D_delta + identity(geometry).astype(ml_dtypes.bfloat16)).astype(np.float64)
    assert (rounded_identity[:, range(9), range(9)] == 1).all()


GEOMETRY = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"W": integers(1, 6, 2, 5)},
            ValueError,
            r"W must have shape \(6, 2, 6\). Received: W of shape \(6, 2, 5\), in_ch",
        ),
        ({"W": integers(1, 6, 2)}, ValueError, r"W must have shape \(6, 2, 6\). Received: W of shape \(6, 2\)"),
        ({"W": integers(1, 6, 2, 6).astype(int)}, TypeError, "W must be bfloat16, .* Received: W of dtype int64"),
        ({"W": [[1.0]]}, TypeError, "W must be a NumPy array, not list"),
        ({"D_delta": None}, ValueError, "D_delta must be given. Received: None, in_channels=4"),
        (
            {"D_delta": integers(1, 4, 6, 7)},
            ValueError,
            r"D_delta must have shape \(4, 6, 6\). Received: .*\(4, 6, 7\)",
        ),
        (
            {"D_delta": np.zeros((4, 6, 6), np.float32)},
            TypeError,
            "must have the same dtype. Received: float32, float64",
        ),
        ({"dialect": "tf"}, ValueError, "dialect must be one of doconv, original-torch, original-tf. Received: 'tf'"),
    ],
)
def test_bad_parameters_are_named(change: dict, error: type[Exception], text: str) -> None:
    W, D_delta = parameters(GEOMETRY)
    with pytest.raises(error, match=text):
        compose(**{"W": W, "D_delta": D_delta, "geometry": GEOMETRY} | change)


def test_a_kernel_of_one_tap_refuses_a_d() -> None:
    geometry = ConvGeometry(in_channels=2, out_channels=3, kernel_size=(1, 1), d_mul=4)
    with pytest.raises(
        ValueError, match=r"D_delta must be None: a kernel of one tap has no D. Received: shape \(2, 1, 1\)"
    ):
        compose(integers(1, 3, 2, 1), integers(1, 2, 1, 1), geometry)
