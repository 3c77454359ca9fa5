"""A DO-Conv layer by the shapes of its tensors alone.

Shapes give the channels, the groups and the number of taps; not the height and width of the kernel, and not always whether
the layer is a transposed one. `W (8, 3, 9)` and `D (3, 9, 9)` are a convolution of 3 to 8 channels in one group,
`W (6, 2, 4)` and `D (4, 4, 4)` one of 4 to 6 in two groups. `W (6, 2, 4)` and `D (6, 4, 4)` are either 6 to 6 in three
groups, or transposed, 6 to 2 times the groups: a bias of 4 channels decides for two groups and the latter.

Each function takes the file (`reading`), the path of a layer, the names of its tensors by their last part (`leaves`), and their
shapes in canonical form (`shape`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doconv_core.checkpoint._hints import Shapes
from doconv_core.checkpoint._layers import LayerInfo, join
from doconv_core.checkpoint._reading import TAKEN_ALIKE, TAKEN_PLAIN, Reading
from doconv_core.composition import dialect_rows
from doconv_core.geometry import ConvGeometry

DIAGONALS = ("D_diag", "d_diag")  # the stored identity, before and after July 2022
DELTAS = ("D", "D_delta")
Leaves = Mapping[str, str]  # the last part of a name, and the whole name


def torch_layer(reading: Reading, path: str, leaves: Leaves, shape: Shapes) -> LayerInfo:
    """A layer with `W` `(C_out, C_in/G, S)`, transposed `(C_in, C_out/G, S)`, and `D` `(C_in, K, S)`; or `W` with `S == 1`.

    Raises:
        CheckpointError: one of the two without the other, or shapes that do not belong together.
    """
    name = reading.plain.names
    delta = next((leaf for leaf in DELTAS if len(shape.get(leaf, ())) == 3), None)
    if len(shape.get("W", ())) != 3:
        assert delta
        _refuse_computed(reading, path, "W", shape)
        reading.fail(
            f"{name[leaves[delta]]} has no {join(path, 'W')} of three axes beside it. {received(shape)}{_excluding(path)}"
        )
    if 0 in shape["W"]:
        reading.fail(f"{name[leaves['W']]} has no values. {received(shape)}{_excluding(path)}")
    if delta is None:
        if shape["W"][2] != 1:
            _refuse_computed(reading, path, "D", shape)
            reading.fail(f"{name[leaves['W']]} has no {join(path, 'D')} beside it. {received(shape)}{_excluding(path)}")
        return _one_tap(reading, path, leaves, shape)
    return over_layer(reading, path, leaves, shape, delta)


def over_layer(
    reading: Reading,
    path: str,
    leaves: Leaves,
    shape: Shapes,
    delta: str = "D",
    *,
    form: str = "",
    kernel_size: list[int] | None = None,
) -> LayerInfo:
    """A layer that has both `W` and `D`, the latter under the name `delta`.

    Of a layer in one of the authors' forms (`LayerInfo.form`), rows are paired as in their TensorFlow file. `kernel_size` is
    given where the shapes show it.

    Raises:
        CheckpointError: shapes that do not belong together, a kernel size that is not known, or the authors' file where their
            dialect matters and is not given.
    """
    name = reading.plain.names
    dialect = "original-tf" if form else reading.dialect
    (first, second, multiplier), (channels, taps, columns) = shape["W"], shape[delta]
    transposed = _is_over_transposed(reading, path, shape, delta, dialect)
    fits = first == channels if transposed else _fits_plain(first, second, channels)
    if columns != multiplier or taps < 2 or not second or not fits:
        reading.fail(f"{name[leaves['W']]} and {name[leaves[delta]]} do not belong together. {received(shape)}")
    diagonal = next((leaf for leaf in DIAGONALS if leaf in leaves), None)
    if diagonal and shape.get(diagonal) != shape[delta]:
        reading.fail(f"{name[leaves[diagonal]]} must have the shape of D. {received(shape)}")
    if diagonal and transposed:
        reading.fail(f"{name[leaves[diagonal]]} is the authors', who have no transposed convolution. {received(shape)}")
    geometry: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": outputs(second, shape) if transposed else first,
        "kernel_size": kernel_size or reading.kernel_size(path, taps, (first, second)),
        "groups": outputs(second, shape) // second if transposed else channels // second,
        "transposed": transposed,
        "d_mul": multiplier,
    }
    try:
        conv = ConvGeometry.from_json(geometry)
    except ValueError as error:
        reading.fail(f"{name[leaves['W']]}: {error}")
    if diagonal and dialect is None and (dialect_rows("original-torch", conv) != conv.rows).any():
        reading.fail(
            f"{name[leaves[diagonal]]} is the authors': how its groups pair with D depends on the file, say which dialect. "
            f"Received: dialect=None, {conv.describe()}"
        )
    if not transposed and first == channels and dialect is None and not diagonal and not reading.is_known(path):
        reading.note(TAKEN_ALIKE if second == 1 else TAKEN_PLAIN, path)
    reading.compare(path, geometry["kernel_size"], transposed)
    stored = {"diagonal": diagonal} if diagonal else {}
    tensors = _tensors(leaves, W="W", D_delta=delta, bias="bias", **stored)
    guessed = ("groups", "out_channels") if transposed and "bias" not in shape else ()
    return LayerInfo("conv", tensors, geometry, dialect=dialect or "doconv", guessed=guessed, form=form)


def flax_layer(reading: Reading, path: str, leaves: Leaves, shape: Shapes) -> LayerInfo:
    """A layer of Flax's (and Keras's) names: `D` `(*kernel_size, S, C_in)` beside `kernel`, which has the plain kernel's shape
    `(*kernel_size, C_in/G, C_out)` where `S == K`, else `(S, C_in/G, C_out)`. The bias of Keras's depthwise layers shows them.

    Raises:
        CheckpointError: shapes that do not belong together.
    """
    name = reading.plain.names
    kernel, (*size, multiplier, channels) = shape["kernel"], shape["D"]
    middle, last = kernel[-2:]
    swapped = channels != middle and not _fits_plain(last, middle, channels)  # `transpose_kernel`: (..., C_out, C_in)
    depthwise = channels == middle and shape.get("bias", (last,)) == (middle * last,) != (last,)  # Keras's
    geometry: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": middle * last if depthwise else middle if swapped else last,
        "kernel_size": size,
        "groups": channels if depthwise else 1 if swapped or not middle else channels // middle,
        "transposed": not depthwise and (swapped or is_transposed(reading, path, kernel, {})),
        "d_mul": multiplier,
    }
    try:
        conv = ConvGeometry.from_json(geometry)
    except ValueError as error:
        reading.fail(f"{name[leaves['kernel']]}: {error}")
    columns = tuple(size) if multiplier == conv.taps else (multiplier,)
    if kernel != (*columns, middle, last) or (swapped and channels != last):
        reading.fail(f"{name[leaves['kernel']]} and {name[leaves['D']]} do not belong together. {received(shape)}")
    if channels == middle and not depthwise and not geometry["transposed"]:
        reading.note(TAKEN_ALIKE, path)
    tensors = _tensors(leaves, W="kernel", D_delta="D", bias="bias")
    return LayerInfo("conv", tensors, geometry, depthwise=depthwise, transpose_kernel=swapped)


def is_transposed(
    reading: Reading, path: str, ends: tuple[int, ...], shape: Shapes, dialect: str | None = None
) -> bool:
    """Whether a kernel is said to be transposed, or has a bias that shows it.

    Raises:
        CheckpointError: it is said of a layer of the authors' code (`dialect`), which has no such layers.
    """
    said = reading.is_said_transposed(path)
    if said and dialect:
        reading.fail(f"the authors' files have no transposed DO-Conv layer. Received: {path}, {dialect}")
    return said or (not dialect and "bias" in shape and shape["bias"] != (ends[0],))


def plain_sizes(ends: tuple[int, ...], shape: Shapes, transposed: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The channels of a plain kernel as far as its shape shows them, and which of them only stand for the right shapes.

    A kernel `(C_out, C_in/G, ...)` does not show `G`; a transposed one `(C_in, C_out/G, ...)` does with its bias.
    """
    if not transposed:
        return {"in_channels": ends[1], "out_channels": ends[0]}, ("in_channels", "groups")
    outs = outputs(ends[1], shape)
    known = {"in_channels": ends[0], "out_channels": outs, "groups": outs // ends[1], "transposed": True}
    return known, () if "bias" in shape else ("out_channels", "groups")


def outputs(second: int, shape: Shapes) -> int:
    """`C_out` of a transposed convolution with kernels `(C_in, C_out/G, ...)`; without a bias one group stands for any."""
    bias = shape.get("bias", (second,))
    return bias[0] if len(bias) == 1 and bias[0] and second and bias[0] % second == 0 else second


def received(shape: Shapes) -> str:
    """The end of an error about a layer."""
    return "Received: " + ", ".join(f"{leaf} of shape {tuple(size)}" for leaf, size in shape.items())


def _one_tap(reading: Reading, path: str, leaves: Leaves, shape: Shapes) -> LayerInfo:
    """A kernel of one tap has no `D`: the layer is the plain convolution, and its groups are not in the shapes."""
    ends = shape["W"][:2]
    size = reading.kernel_size(path, 1, ends)
    geometry, guessed = plain_sizes(ends, shape, is_transposed(reading, path, ends, shape, reading.dialect))
    geometry |= {"kernel_size": size, "d_mul": 1}
    tensors = _tensors(leaves, W="W", bias="bias")
    return LayerInfo("conv", tensors, geometry, dialect=reading.dialect or "doconv", guessed=guessed)


def _tensors(leaves: Leaves, **roles: str) -> dict[str, str]:
    """The names of a layer's tensors by role, from the last parts of these names; a layer need not have all."""
    return {role: leaves[leaf] for role, leaf in roles.items() if leaf in leaves}


def _is_over_transposed(reading: Reading, path: str, shape: Shapes, delta: str, dialect: str | None) -> bool:
    """As `is_transposed`; also where `D` has a row for each kernel and no number of groups makes a plain convolution of it."""
    first, second = shape["W"][:2]
    if dialect and not reading.dialect:
        return False  # GluonCV's file has no transposed layer
    if is_transposed(reading, path, shape["W"], shape, reading.dialect):
        return True
    return dialect is None and first == shape[delta][0] and not _fits_plain(first, second, shape[delta][0])


def _fits_plain(first: int, second: int, channels: int) -> bool:
    """Whether `C_in` channels in groups of `second` divide `first` outputs."""
    return bool(second) and channels % second == 0 and bool(channels) and first % (channels // second) == 0


def _refuse_computed(reading: Reading, path: str, leaf: str, shape: Shapes) -> None:
    """Name a parameter that PyTorch's pruning, norms and parametrizations compute from what the file has in its place."""
    names = reading.plain.names.values()
    if {f"{leaf}_orig", f"{leaf}_v"} & shape.keys() or any(
        name.startswith(join(path, f"parametrizations.{leaf}.")) for name in names
    ):
        reading.fail(
            f"{join(path, leaf)} is computed from other tensors, by pruning, a norm or a parametrization: remove that from the "
            f"model (prune.remove, remove_weight_norm, remove_parametrizations) and save it again. {received(shape)}"
        )


def _excluding(path: str) -> str:
    return f"; --exclude '{path}' passes on what is another kind of layer"
