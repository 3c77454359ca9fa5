"""The pairs that a framework's `padding` means, written out; `test_padding.py` of each backend compares with the framework.

Every value follows from the output that the framework documents, with the kernel's reach `dilation * (kernel - 1)`.
"""

import pytest

from doconv_core import ConvGeometry


def resolved(framework: str, padding: object, size: int, kernel: int, **options: object) -> ConvGeometry:
    return ConvGeometry.from_layer(
        framework,
        in_channels=2,
        out_channels=3,
        padding=padding,
        input_size=(size,),
        kernel_size=(kernel,),
        **options,
    )


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize(
    ("padding", "dilation", "pair"),
    [("same", 1, (1, 2)), ("same", 2, (3, 3)), ("same", 3, (4, 5)), ("valid", 1, (0, 0)), ("valid", 2, (0, 0))],
)
def test_names_without_a_stride(framework: str, padding: str, dilation: int, pair: tuple[int, int]) -> None:
    assert resolved(framework, padding, 9, 4, dilation=dilation).padding == (pair,)
    assert resolved("flax", padding, 9, 4, dilation=dilation).padding == (pair,)
    assert resolved("flax", padding.upper(), 9, 4, dilation=dilation).padding == (pair,)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "same", "lower"),
    [
        (6, 3, 2, (0, 1), (1, 0)),  # three outputs read 7 elements
        (7, 3, 2, (1, 1), (1, 1)),  # four read 9
        (7, 4, 3, (1, 2), (2, 1)),  # three read 10
        (6, 3, 4, (0, 1), (1, 0)),  # two read 7
        (6, 2, 3, (0, 0), (0, 0)),  # two read 5: the last element is seen by none
        (9, 1, 4, (0, 0), (0, 0)),
    ],
)
def test_same_with_a_stride(size: int, kernel: int, stride: int, same: tuple, lower: tuple) -> None:
    assert resolved("keras", "same", size, kernel, stride=stride).padding == (same,)
    assert resolved("flax", "SAME", size, kernel, stride=stride).padding == (same,)
    assert resolved("flax", "SAME_LOWER", size, kernel, stride=stride).padding == (lower,)
    for name in ("SAME", "SAME_LOWER"):
        assert resolved("flax", name, size, kernel, stride=stride).output_size((size,)) == (-(-size // stride),)


@pytest.mark.parametrize(("dilation", "pair"), [(1, (3, 0)), (2, (6, 0))])
def test_causal_pads_the_past(dilation: int, pair: tuple[int, int]) -> None:
    assert resolved("keras", "causal", 9, 4, dilation=dilation).padding == (pair,)
    assert resolved("flax", "CAUSAL", 9, 4, dilation=dilation, stride=2).padding == (pair,)


@pytest.mark.parametrize("mode", ["circular", "reflect"])
@pytest.mark.parametrize(("dilation", "pair"), [(1, (1, 2)), (2, (3, 3))])
def test_flax_has_modes_among_its_names(mode: str, dilation: int, pair: tuple[int, int]) -> None:
    geometry = resolved("flax", mode.upper(), 9, 4, dilation=dilation, stride=2)
    assert (geometry.padding, geometry.padding_mode) == ((pair,), mode)


@pytest.mark.parametrize("framework", ["torch", "flax"])
@pytest.mark.parametrize(("padding", "pair"), [(2, (2, 2)), ((1,), (1, 1)), (((3, 1),), (3, 1))])
def test_numbers_of_plain_layers_are_canonical(framework: str, padding: object, pair: tuple[int, int]) -> None:
    assert resolved(framework, padding, 9, 4, stride=2).padding == (pair,)


@pytest.mark.parametrize("output_padding", [None, 1])
def test_pytorch_s_transposed_layers_crop_as_the_core_does(output_padding: int | None) -> None:
    geometry = resolved("torch", 2, 5, 4, stride=3, transposed=True, output_padding=output_padding)
    assert (geometry.padding, geometry.output_padding) == (((2, 2),), (output_padding or 0,))


@pytest.mark.parametrize(
    ("name", "kernel", "stride", "dilation", "crop", "extra"),
    [
        ("SAME", 3, 1, 1, (1, 1), 0),  # padding (1, 1)
        ("SAME", 4, 2, 1, (1, 1), 0),  # padding (2, 2)
        ("SAME", 3, 2, 1, (0, 1), 0),  # padding (2, 1): the odd one goes to the low end
        ("SAME", 4, 3, 1, (0, 1), 0),  # padding (3, 2): the stride is as large as the reach
        ("SAME", 4, 5, 1, (0, 0), 1),  # padding (3, 4): the stride is larger
        ("SAME", 3, 2, 2, (1, 2), 0),  # padding (3, 2), reach 4
        ("VALID", 3, 1, 1, (0, 0), 0),
        ("VALID", 3, 2, 2, (0, 0), 0),
        ("VALID", 3, 5, 1, (0, 0), 2),  # stride beyond the kernel: its zeros are part of the output
    ],
)
def test_flax_s_transposed_layers(
    name: str, kernel: int, stride: int, dilation: int, crop: tuple[int, int], extra: int
) -> None:
    geometry = resolved("flax", name, 6, kernel, stride=stride, dilation=dilation, transposed=True)
    assert (geometry.padding, geometry.output_padding) == ((crop,), (extra,))
    span = dilation * (kernel - 1) + 1
    length = 6 * stride + (max(span - stride, 0) if name == "VALID" else 0)
    assert geometry.output_size((6,)) == (length,)


@pytest.mark.parametrize(
    ("padding", "crop", "extra"), [(1, (1, 1), 0), ((2,), (0, 0), 0), (((1, 4),), (1, 0), 2), (((5, 0),), (-3, 2), 0)]
)
def test_flax_s_transposed_numbers_pad_the_spread_input(padding: object, crop: tuple[int, int], extra: int) -> None:
    geometry = resolved("flax", padding, 6, 3, stride=2, transposed=True)
    assert (geometry.padding, geometry.output_padding) == ((crop,), (extra,))
    low, high = 2 - crop[0], 2 - crop[1] + extra
    assert geometry.output_size((6,)) == (
        5 * 2 + 1 + low + high - 2,
    )  # a plain convolution of the spread, padded input


@pytest.mark.parametrize(
    ("name", "kernel", "stride", "output_padding", "crop", "extra"),
    [
        ("same", 3, 1, None, (1, 1), 0),
        ("same", 4, 2, None, (1, 1), 0),
        ("same", 3, 2, None, (0, 1), 0),
        ("same", 3, 5, None, (0, 0), 2),  # the low end has no more than the reach
        ("same", 3, 2, 0, (1, 1), 0),
        ("same", 3, 2, 1, (0, 1), 0),
        ("same", 4, 3, 1, (1, 2), 0),
        ("valid", 3, 1, None, (0, 0), 0),
        ("valid", 3, 5, None, (0, 0), 2),
        ("valid", 3, 2, 0, (0, 0), 0),
        ("valid", 3, 3, 2, (0, 0), 2),
        ("valid", 4, 3, 1, (0, 0), 1),
    ],
)
def test_keras_s_transposed_layers(
    name: str, kernel: int, stride: int, output_padding: int | None, crop: tuple[int, int], extra: int
) -> None:
    geometry = resolved("keras", name, 6, kernel, stride=stride, transposed=True, output_padding=output_padding)
    assert (geometry.padding, geometry.output_padding) == ((crop,), (extra,))
    if output_padding is None:
        length = 6 * stride + (max(kernel - stride, 0) if name == "valid" else 0)
        assert geometry.output_size((6,)) == (length,)


@pytest.mark.parametrize(
    ("framework", "options", "text"),
    [
        ("mxnet", {"padding": "same"}, "framework must be torch, keras or flax. Received: framework='mxnet'"),
        ("torch", {"padding": "SAME"}, r"padding must be one of same, valid .* padding='SAME', stride=\(1,\)"),
        ("torch", {"padding": "same", "stride": 2}, r"PyTorch's padding='same' has no strides. .* stride=\(2,\)"),
        (
            "torch",
            {"padding": "valid", "transposed": True},
            "PyTorch's transposed layers take their padding in numbers",
        ),
        ("keras", {"padding": 1}, "Keras names its paddings: same, valid, causal. Received: .* padding=1"),
        ("keras", {"padding": 1, "transposed": True}, "Keras names its paddings: same, valid. Received"),
        (
            "keras",
            {"padding": "causal", "transposed": True},
            r"padding must be one of same, valid \(.* transposed=True",
        ),
        ("flax", {"padding": "FULL"}, "one of SAME, SAME_LOWER, VALID, CAUSAL, CIRCULAR, REFLECT .*padding='FULL'"),
        ("flax", {"padding": "REFLECT", "transposed": True}, r"padding must be one of SAME, VALID \("),
        ("flax", {"padding": (1, 2), "transposed": True}, r"or 1 integers or \(low, high\) pairs. .* padding=\(1, 2\)"),
    ],
)
def test_paddings_that_a_framework_does_not_have_are_named(framework: str, options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        resolved(framework, size=9, kernel=3, **options)


def test_causal_has_one_axis() -> None:
    with pytest.raises(ValueError, match="causal: one axis only"):
        ConvGeometry.from_layer(
            "keras", in_channels=2, out_channels=3, padding="causal", input_size=(8, 8), kernel_size=(3, 3)
        )
