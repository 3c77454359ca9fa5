"""What `ConvGeometry` accepts, refuses by name, and works out."""

import pytest

from doconv_core import ConvGeometry
from doconv_core.geometry import depth_multiplier

GOOD = {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2)}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1. Received: in_channels=0, out_channels=6"),
        ({"out_channels": 2.0}, TypeError, "out_channels must be an integer, not float. Received: .*out_channels=2.0"),
        ({"in_channels": True}, TypeError, "in_channels must be an integer, not bool"),
        ({"groups": 3}, ValueError, "in_channels must be divisible by groups. Received: .*groups=3"),
        ({"groups": 4}, ValueError, "out_channels must be divisible by groups. Received: .*groups=4"),
        ({"groups": 0}, ValueError, "groups must be at least 1. Received: .*groups=0"),
        ({"kernel_size": (3, 0)}, ValueError, r"kernel_size must be at least 1. Received: .*kernel_size=\(3, 0\)"),
        (
            {"kernel_size": 3},
            TypeError,
            "kernel_size must be a sequence of integers, one per axis. Received: .*kernel_size=3",
        ),
        ({"kernel_size": 3.0}, TypeError, "kernel_size must be a sequence of integers.*Received: .*kernel_size=3.0"),
        ({"kernel_size": (3, 3, 3, 3)}, ValueError, "kernel_size must have 1, 2 or 3 axes"),
        (
            {"stride": (1, 2, 3)},
            ValueError,
            r"stride must be one integer, or 2: one per axis. Received: .*stride=\(1, 2, 3\)",
        ),
        ({"stride": 0}, ValueError, "stride must be at least 1. Received: .*stride=0"),
        ({"dilation": (1, -1)}, ValueError, "dilation must be at least 1"),
        ({"padding": (1, 2, 3)}, ValueError, "padding must be one integer, or 2 integers or"),
        ({"padding": ((1, 2), (1, 2, 3))}, ValueError, "padding of an axis must be an integer or a"),
        ({"padding": -1}, ValueError, "padding must not be negative. Received: .*padding=-1"),
        ({"padding": "same"}, TypeError, "padding must be explicit here.*Received: .*padding='same'"),
        (
            {"padding_mode": "zero"},
            ValueError,
            "padding_mode must be one of zeros, reflect.*Received: .*padding_mode='zero'",
        ),
        ({"d_mul": 5}, ValueError, "d_mul must be at least 6, the number of taps.*Received: .*d_mul=5"),
        ({"d_mul": 1}, ValueError, "d_mul must be at least 6, the number of taps.*Received: .*d_mul=1"),
        ({"d_mul": 0}, ValueError, "d_mul must be positive. Received: .*d_mul=0"),
        ({"d_mul": 9.0}, TypeError, "d_mul must be an integer, not float"),
        ({"transposed": 1}, TypeError, "transposed must be True or False"),
        (
            {"transposed": True, "padding_mode": "reflect"},
            ValueError,
            "a transposed convolution has padding_mode='zeros' only",
        ),
        ({"output_padding": 1}, ValueError, "output_padding belongs to a transposed convolution"),
        ({"transposed": True, "output_padding": -1}, ValueError, "output_padding must be at least 0"),
    ],
)
def test_bad_options_are_named(change: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ConvGeometry(**GOOD | change)


def test_one_of_everything_is_a_geometry() -> None:
    geometry = ConvGeometry(in_channels=1, out_channels=1, kernel_size=(1,), d_mul=1)
    assert (geometry.w_shape, geometry.has_d, geometry.output_size((1,))) == ((1, 1, 1), False, (1,))


@pytest.mark.parametrize(
    ("transposed", "w_shape", "rows"),
    [
        (False, (6, 2, 7), [[0, 1], [0, 1], [0, 1], [2, 3], [2, 3], [2, 3]]),
        (True, (4, 3, 7), [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]),
    ],
)
def test_shapes_and_rows_of_two_groups(transposed: bool, w_shape: tuple, rows: list) -> None:
    geometry = ConvGeometry(**GOOD, groups=2, d_mul=7, transposed=transposed)
    assert (geometry.w_shape, geometry.d_shape, geometry.rows.tolist()) == (w_shape, (4, 6, 7), rows)
    assert geometry.kernel_shape == (*w_shape[:2], 3, 2)


def test_rows_of_groups_of_one_channel_and_of_one_group() -> None:
    depthwise = ConvGeometry(**GOOD | {"in_channels": 3}, groups=3)
    dense = ConvGeometry(**GOOD | {"in_channels": 3, "out_channels": 2})
    assert depthwise.rows.tolist() == [[0], [0], [1], [1], [2], [2]]
    assert dense.rows.tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("kernel_size", "d_mul", "multiplier", "has_d"),
    [((1, 1), 9, 1, False), ((2,), None, 2, True), ((2,), 2, 2, True), ((2, 1, 2), 5, 5, True)],
)
def test_a_kernel_of_one_tap_has_no_d(kernel_size: tuple, d_mul: int | None, multiplier: int, has_d: bool) -> None:
    geometry = ConvGeometry(**GOOD | {"kernel_size": kernel_size}, d_mul=d_mul)
    assert (geometry.d_mul, geometry.has_d) == (multiplier, has_d)


def test_a_depth_multiplier_says_what_it_was_asked() -> None:
    with pytest.raises(ValueError, match=r"number of taps.*Received: kernel_size=\(3, 3\), d_mul=8"):
        depth_multiplier((3, 3), 8)


@pytest.mark.parametrize(
    ("options", "size", "output"),
    [
        ({"stride": 2, "dilation": (1, 3)}, (3, 7), (1, 2)),
        ({"padding": 2, "padding_mode": "reflect"}, (3, 3), (5, 6)),
        ({"padding": 3, "padding_mode": "circular"}, (3, 3), (7, 8)),
        ({"transposed": True, "stride": (2, 1), "padding": 1, "output_padding": (1, 0)}, (3, 4), (6, 3)),
    ],
)
def test_output_sizes(options: dict, size: tuple, output: tuple) -> None:
    assert ConvGeometry(**GOOD | options).output_size(size) == output


@pytest.mark.parametrize(
    ("options", "size", "text"),
    [
        ({"transposed": True}, (0, 5), "the output of axis 0 would have size 2"),
        ({}, (5,), r"the input must have 2 spatial axes. Received: input_size=\(5,\)"),
        ({}, (2, 5), "the output of axis 0 would have size 0"),
        ({"padding": 3, "padding_mode": "reflect"}, (3, 5), "reflect padding of axis 0 can be at most 2"),
        ({"padding": 4, "padding_mode": "circular"}, (3, 5), "circular padding of axis 0 can be at most 3"),
        ({"transposed": True, "padding": 4}, (2, 5), "the output of axis 0 would have size -4"),
    ],
)
def test_inputs_that_do_not_fit_are_named(options: dict, size: tuple, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ConvGeometry(**GOOD | options).output_size(size)


def test_json_round_trip_and_unknown_options() -> None:
    geometry = ConvGeometry(**GOOD, stride=2, padding=((0, 1), (2, 3)), groups=2, d_mul=7)
    assert ConvGeometry.from_json(geometry.to_json()) == geometry
    with pytest.raises(ValueError, match=r"unknown geometry options \['pading'\]"):
        ConvGeometry.from_json(geometry.to_json() | {"pading": 1})
    with pytest.raises(ValueError, match=r"missing geometry options \['kernel_size'\]"):
        ConvGeometry.from_json({"in_channels": 1, "out_channels": 1})


def test_describe_leaves_defaults_away() -> None:
    assert ConvGeometry(**GOOD).describe() == "in_channels=4, out_channels=6, kernel_size=(3, 2), groups=1, d_mul=6"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"framework": "mxnet"}, "framework must be torch, keras or flax. Received: framework='mxnet', padding='same'"),
        ({"input_size": (6,)}, r"input_size must be one integer, or 2: one per axis. Received: .*input_size=\(6,\)"),
        ({"input_size": 0}, "input_size must be at least 1. Received: .*input_size=0"),
        ({"transposed": True, "output_padding": -1}, "output_padding must be at least 0"),
        ({"padding": "full"}, r"padding must be one of same, valid, causal .*Received: .*padding='full'"),
    ],
)
def test_layers_that_no_framework_has_are_named(options: dict, text: str) -> None:
    same = {"framework": "keras", "padding": "same", "input_size": (6, 7)}
    with pytest.raises(ValueError, match=text):
        ConvGeometry.from_layer(**GOOD | same | options)


def test_same_padding_of_a_strided_layer_is_larger_at_the_high_end() -> None:
    geometry = ConvGeometry.from_layer(
        "flax", padding="SAME", input_size=(6, 7), **GOOD | {"kernel_size": (3, 4)}, stride=2
    )
    assert geometry.padding == ((0, 1), (1, 2))
