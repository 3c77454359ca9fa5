"""Layouts: each axis lies where the table in `doconv_core/layouts.py` says, and what is written is read back."""

import numpy as np
import pytest

from doconv_core import ConvGeometry, Layout, compose

PLAIN = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2)
WIDE = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2, d_mul=15)
TRANSPOSED = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2, transposed=True)
WIDE_TRANSPOSED = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2), groups=2, transposed=True, d_mul=15)
DEPTHWISE = ConvGeometry(in_channels=4, out_channels=12, kernel_size=(3, 2), groups=4)
# One and three spatial axes: an axis counted from the front is another one there.
DEPTHWISE_1D = ConvGeometry(in_channels=4, out_channels=12, kernel_size=(3,), groups=4)
WIDE_3D = ConvGeometry(in_channels=4, out_channels=6, kernel_size=(3, 2, 2), groups=2, d_mul=15)
LAYOUTS = {
    "canonical": Layout("canonical", PLAIN),
    "torch-transposed": Layout("torch", TRANSPOSED),
    "keras": Layout("keras", PLAIN),
    "keras-wide": Layout("keras", WIDE),
    "keras-transposed": Layout("keras", TRANSPOSED),
    "keras-depthwise": Layout("keras", DEPTHWISE, depthwise=True),
    "keras-depthwise-1d": Layout("keras", DEPTHWISE_1D, depthwise=True),
    "flax": Layout("flax", WIDE),
    "flax-3d": Layout("flax", WIDE_3D),
    "flax-transposed": Layout("flax", TRANSPOSED),
    "flax-transposed-wide": Layout("flax", WIDE_TRANSPOSED),
    "flax-transpose-kernel": Layout("flax", WIDE_TRANSPOSED, transpose_kernel=True),
}


def numbered(*shape: int) -> np.ndarray:
    """Every element another value."""
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


@pytest.mark.parametrize(
    ("name", "kernel", "w", "d"),
    [
        ("canonical", (6, 2, 3, 2), (6, 2, 6), (4, 6, 6)),
        ("torch-transposed", (4, 3, 3, 2), (4, 3, 6), (4, 6, 6)),
        ("keras", (3, 2, 2, 6), (3, 2, 2, 6), (3, 2, 6, 4)),
        ("keras-wide", (3, 2, 2, 6), (15, 2, 6), (3, 2, 15, 4)),
        ("keras-transposed", (3, 2, 3, 4), (3, 2, 3, 4), (3, 2, 6, 4)),
        ("keras-depthwise", (3, 2, 4, 3), (3, 2, 4, 3), (3, 2, 6, 4)),
        ("keras-depthwise-1d", (3, 4, 3), (3, 4, 3), (3, 3, 4)),
        ("flax", (3, 2, 2, 6), (15, 2, 6), (3, 2, 15, 4)),
        ("flax-3d", (3, 2, 2, 2, 6), (15, 2, 6), (3, 2, 2, 15, 4)),
        ("flax-transposed", (3, 2, 4, 3), (3, 2, 4, 3), (3, 2, 6, 4)),
        ("flax-transposed-wide", (3, 2, 4, 3), (15, 4, 3), (3, 2, 15, 4)),
        ("flax-transpose-kernel", (3, 2, 3, 4), (15, 3, 4), (3, 2, 15, 4)),
    ],
)
def test_shapes_are_the_framework_s_and_values_come_back(name: str, kernel: tuple, w: tuple, d: tuple) -> None:
    layout = LAYOUTS[name]
    g = layout.geometry
    for canonical, shape, there, back in [
        (numbered(*g.kernel_shape), kernel, layout.kernel_from_canonical, layout.kernel_to_canonical),
        (numbered(*g.w_shape), w, layout.w_from_canonical, layout.w_to_canonical),
        (numbered(*g.d_shape), d, layout.d_from_canonical, layout.d_to_canonical),
    ]:
        stored = there(canonical)
        assert stored.shape == shape
        np.testing.assert_array_equal(back(stored), canonical)


@pytest.mark.parametrize("name", LAYOUTS)
def test_axes_of_an_activation(name: str) -> None:
    x, layout = numbered(2, 4, 5, 3), LAYOUTS[name]
    stored = layout.activation_from_canonical(x)
    np.testing.assert_array_equal(layout.activation_to_canonical(stored), x)
    last = name.startswith(("keras", "flax"))
    assert stored.shape == ((2, 5, 3, 4) if last else (2, 4, 5, 3))
    assert (stored[1, 4, 2, 3] if last else stored[1, 3, 4, 2]) == x[1, 3, 4, 2]


def test_every_kernel_lies_where_the_table_says() -> None:
    kernel = numbered(*PLAIN.kernel_shape)
    assert LAYOUTS["keras"].kernel_from_canonical(kernel)[2, 1, 0, 5] == kernel[5, 0, 2, 1]
    kernel = numbered(*TRANSPOSED.kernel_shape)
    assert LAYOUTS["keras-transposed"].kernel_from_canonical(kernel)[2, 1, 0, 3] == kernel[3, 0, 2, 1]
    assert LAYOUTS["flax-transposed"].kernel_from_canonical(kernel)[2, 1, 3, 0] == kernel[3, 0, 0, 0]  # taps reversed
    kernel = numbered(*WIDE_TRANSPOSED.kernel_shape)
    assert LAYOUTS["flax-transpose-kernel"].kernel_from_canonical(kernel)[2, 1, 0, 3] == kernel[3, 0, 2, 1]
    kernel = numbered(*DEPTHWISE.kernel_shape)
    assert LAYOUTS["keras-depthwise"].kernel_from_canonical(kernel)[2, 1, 3, 0] == kernel[3 * 3 + 0, 0, 2, 1]


def test_every_parameter_lies_where_the_table_says() -> None:
    W, D = numbered(*PLAIN.w_shape), numbered(*PLAIN.d_shape)
    assert LAYOUTS["keras"].w_from_canonical(W)[2, 0, 1, 5] == W[5, 1, 2 * 2 + 0]
    assert LAYOUTS["keras"].d_from_canonical(D)[2, 0, 5, 3] == D[3, 2 * 2 + 0, 5]
    W, D = numbered(*WIDE.w_shape), numbered(*WIDE.d_shape)
    assert LAYOUTS["keras-wide"].w_from_canonical(W)[14, 1, 5] == W[5, 1, 14]
    assert LAYOUTS["keras-wide"].d_from_canonical(D)[2, 0, 14, 3] == D[3, 2 * 2 + 0, 14]
    # Flax's transposed taps are reversed, and with them the columns of each tile of E; the surplus columns 12 to 14 stay.
    W, D = numbered(*WIDE_TRANSPOSED.w_shape), numbered(*WIDE_TRANSPOSED.d_shape)
    stored_W, stored_D = (
        LAYOUTS["flax-transposed-wide"].w_from_canonical(W),
        LAYOUTS["flax-transposed-wide"].d_from_canonical(D),
    )
    for column, mirrored in [(0, 5), (5, 0), (6, 11), (8, 9), (12, 12), (14, 14)]:
        assert stored_W[column, 3, 2] == W[3, 2, mirrored]
        assert stored_D[2, 0, column, 3] == D[3, 5 - (2 * 2 + 0), mirrored]


def test_reversed_columns_leave_the_identity_the_identity() -> None:
    """What a framework composes of its own `W` and `D` is the canonical kernel in its layout."""
    layout = LAYOUTS["flax-transposed-wide"]
    g = layout.geometry
    rng = np.random.default_rng(0)
    W = rng.integers(-4, 5, g.w_shape).astype(np.float64)
    D = rng.integers(-4, 5, g.d_shape).astype(np.float64)
    w, d = layout.w_from_canonical(W), layout.d_from_canonical(D).reshape(g.taps, g.d_mul, g.in_channels)
    tiles = w[: g.d_mul // g.taps * g.taps].reshape(-1, g.taps, *w.shape[1:]).sum(axis=0)
    composed = tiles + np.einsum("ksi,sio->kio", d, w)
    np.testing.assert_array_equal(
        composed.reshape(*g.kernel_size, *w.shape[1:]), layout.kernel_from_canonical(compose(W, D, g))
    )


@pytest.mark.parametrize(
    ("framework", "geometry", "options", "text"),
    [
        ("mxnet", PLAIN, {}, "framework must be one of canonical, torch, keras, flax. Received: 'mxnet'"),
        ("keras", PLAIN, {"depthwise": True}, "a depthwise kernel has groups == in_channels. Received: in_channels=4"),
        (
            "keras",
            ConvGeometry(in_channels=4, out_channels=4, kernel_size=(3,), groups=4, transposed=True),
            {"depthwise": True},
            "a depthwise kernel has groups == in_channels",
        ),
    ],
)
def test_layouts_that_do_not_exist_are_named(framework: str, geometry: ConvGeometry, options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Layout(framework, geometry, **options)
