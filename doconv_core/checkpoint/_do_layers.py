"""A DO-Conv layer by the shapes of its tensors alone.

Shapes give the channels, the groups and the number of taps; not the height and width of the kernel, and not always whether
the layer is a transposed one. `W (8, 3, 9)` and `D (3, 9, 9)` are a convolution of 3 to 8 channels in one group,
`W (6, 2, 4)` and `D (4, 4, 4)` one of 4 to 6 in two groups. `W (6, 2, 4)` and `D (6, 4, 4)` are either 6 to 6 in three
groups, or transposed, 6 to 2 times the groups: a bias of 4 channels decides for two groups and the latter.
"""

from __future__ import annotations

from typing import Any

from doconv_core.checkpoint._hints import Shapes
from doconv_core.checkpoint._layers import LayerInfo, join
from doconv_core.checkpoint._reading import TAKEN_ALIKE, TAKEN_PLAIN, Candidate
from doconv_core.composition import dialect_rows
from doconv_core.geometry import ConvGeometry

DIAGONALS = ("D_diag", "d_diag")  # the stored identity, before and after July 2022
DELTAS = ("D", "D_delta")


def torch_layer(layer: Candidate) -> LayerInfo:
    """A layer with `W` `(C_out, C_in/G, S)`, transposed `(C_in, C_out/G, S)`, and `D` `(C_in, K, S)`; or `W` with `S == 1`."""
    excluding = f"; --exclude '{layer.path}' passes on what is another kind of layer"
    delta = layer.first(DELTAS, 3)
    if layer.rank("W") != 3:
        _refuse_computed(layer, "W")
        layer.fail(f"{layer.called(delta)} has no {join(layer.path, 'W')} of three axes beside it", excluding)
    if 0 in layer.shapes["W"]:
        layer.fail(f"{layer.called('W')} has no values", excluding)
    if delta:
        return over_layer(layer, delta)
    if layer.shapes["W"][2] != 1:
        _refuse_computed(layer, "D")
        layer.fail(f"{layer.called('W')} has no {join(layer.path, 'D')} beside it", excluding)
    return _one_tap(layer)


def over_layer(
    layer: Candidate, delta: str = "D", *, form: str = "", kernel_size: list[int] | None = None
) -> LayerInfo:
    """A layer that has both `W` and `D`, the latter under the name `delta`.

    Of a layer in one of the authors' forms (`LayerInfo.form`), rows are paired as in their TensorFlow file. `kernel_size` is
    given where the shapes show it.
    """
    reading, shapes = layer.reading, layer.shapes
    dialect = "original-tf" if form else reading.dialect
    (first, second, multiplier), (channels, taps, columns) = shapes["W"], shapes[delta]
    transposed = _is_over_transposed(layer, delta, dialect)
    fits = first == channels if transposed else _fits_plain(first, second, channels)
    if columns != multiplier or taps < 2 or not second or not fits:
        layer.fail(f"{layer.called('W', delta)} do not belong together")
    diagonal = next((leaf for leaf in DIAGONALS if leaf in layer.stored), "")
    if diagonal and shapes.get(diagonal) != shapes[delta]:
        layer.fail(f"{layer.called(diagonal)} must have the shape of D")
    if diagonal and transposed:
        layer.fail(f"{layer.called(diagonal)} is the authors', who have no transposed convolution")
    geometry: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": outputs(second, shapes) if transposed else first,
        "kernel_size": kernel_size or reading.kernel_size(layer.path, taps, (first, second)),
        "groups": outputs(second, shapes) // second if transposed else channels // second,
        "transposed": transposed,
        "d_mul": multiplier,
    }
    conv = _convolution(layer, "W", geometry)
    if diagonal and dialect is None and (dialect_rows("original-torch", conv) != conv.rows).any():
        reading.fail(
            f"{layer.called(diagonal)} is the authors': how its groups pair with D depends on the file, say which dialect. "
            f"Received: dialect=None, {conv.describe()}"
        )
    if not transposed and first == channels and dialect is None and not diagonal and not reading.is_known(layer.path):
        layer.note(TAKEN_ALIKE if second == 1 else TAKEN_PLAIN)
    reading.compare(layer.path, geometry["kernel_size"], transposed)
    stored = {"diagonal": diagonal} if diagonal else {}
    tensors = layer.roles(W="W", D_delta=delta, bias="bias", **stored)
    guessed = ("groups", "out_channels") if transposed and "bias" not in shapes else ()
    return LayerInfo("conv", tensors, geometry, dialect=dialect or "doconv", guessed=guessed, form=form)


def flax_layer(layer: Candidate) -> LayerInfo:
    """A layer of Flax's (and Keras's) names: `D` `(*kernel_size, S, C_in)` beside `kernel`, which has the plain kernel's shape
    `(*kernel_size, C_in/G, C_out)` where `S == K`, else `(S, C_in/G, C_out)`. The bias of Keras's depthwise layers shows them.
    """
    kernel, (*size, multiplier, channels) = layer.shapes["kernel"], layer.shapes["D"]
    middle, last = kernel[-2:]
    swapped = channels != middle and not _fits_plain(last, middle, channels)  # `transpose_kernel`: (..., C_out, C_in)
    depthwise = channels == middle and layer.shapes.get("bias", (last,)) == (middle * last,) != (last,)  # Keras's
    outs, groups = last, channels // middle if middle else 1
    if depthwise:
        outs, groups = middle * last, channels
    elif swapped:
        outs, groups = middle, 1
    geometry: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": outs,
        "kernel_size": size,
        "groups": groups,
        "transposed": not depthwise and (swapped or layer.reading.is_said_transposed(layer.path)),
        "d_mul": multiplier,
    }
    columns = tuple(size) if multiplier == _convolution(layer, "kernel", geometry).taps else (multiplier,)
    if kernel != (*columns, middle, last) or (swapped and channels != last):
        layer.fail(f"{layer.called('kernel', 'D')} do not belong together")
    if channels == middle and not depthwise and not geometry["transposed"]:
        layer.note(TAKEN_ALIKE)
    tensors = layer.roles(W="kernel", D_delta="D", bias="bias")
    return LayerInfo("conv", tensors, geometry, depthwise=depthwise, transpose_kernel=swapped)


def is_transposed(layer: Candidate, ends: tuple[int, ...], dialect: str | None = None) -> bool:
    """Whether a kernel is said to be transposed, or has a bias that shows it."""
    said, bias = layer.reading.is_said_transposed(layer.path), layer.shapes.get("bias", (ends[0],))
    if said and dialect:
        layer.reading.fail(f"the authors' files have no transposed DO-Conv layer. Received: {layer.path}, {dialect}")
    return said or (not dialect and bias != (ends[0],))


def plain_sizes(ends: tuple[int, ...], shapes: Shapes, transposed: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The channels of a plain kernel as far as its shape shows them, and which of them only stand for the right shapes.

    A kernel `(C_out, C_in/G, ...)` does not show `G`; a transposed one `(C_in, C_out/G, ...)` does with its bias.
    """
    if not transposed:
        return {"in_channels": ends[1], "out_channels": ends[0]}, ("in_channels", "groups")
    outs = outputs(ends[1], shapes)
    known = {"in_channels": ends[0], "out_channels": outs, "groups": outs // ends[1], "transposed": True}
    return known, () if "bias" in shapes else ("out_channels", "groups")


def outputs(second: int, shapes: Shapes) -> int:
    """`C_out` of a transposed convolution with kernels `(C_in, C_out/G, ...)`; without a bias one group stands for any."""
    bias = shapes.get("bias", (second,))
    return bias[0] if len(bias) == 1 and bias[0] and second and bias[0] % second == 0 else second


def _one_tap(layer: Candidate) -> LayerInfo:
    """A kernel of one tap has no `D`: the layer is the plain convolution, and its groups are not in the shapes."""
    dialect, ends = layer.reading.dialect, layer.shapes["W"][:2]
    size = layer.reading.kernel_size(layer.path, 1, ends)
    geometry, guessed = plain_sizes(ends, layer.shapes, is_transposed(layer, ends, dialect))
    geometry |= {"kernel_size": size, "d_mul": 1}
    return LayerInfo("conv", layer.roles(W="W", bias="bias"), geometry, dialect=dialect or "doconv", guessed=guessed)


def _convolution(layer: Candidate, kernel: str, geometry: dict[str, Any]) -> ConvGeometry:
    """The convolution; what is wrong with it is an error that names its kernel."""
    try:
        return ConvGeometry.from_json(geometry)
    except ValueError as error:
        layer.reading.fail(f"{layer.called(kernel)}: {error}")


def _is_over_transposed(layer: Candidate, delta: str, dialect: str | None) -> bool:
    """As `is_transposed`; also where `D` has a row for each kernel and no number of groups makes a plain convolution of it."""
    (first, second, _), channels = layer.shapes["W"], layer.shapes[delta][0]
    if dialect and not layer.reading.dialect:
        return False  # GluonCV's file has no transposed layer
    if is_transposed(layer, (first, second), layer.reading.dialect):
        return True
    return dialect is None and first == channels and not _fits_plain(first, second, channels)


def _fits_plain(first: int, second: int, channels: int) -> bool:
    """Whether `C_in` channels in groups of `second` divide `first` outputs."""
    return bool(second) and channels % second == 0 and bool(channels) and first % (channels // second) == 0


def _refuse_computed(layer: Candidate, leaf: str) -> None:
    """Name a parameter that PyTorch's pruning, norms and parametrizations compute from what the file has in its place."""
    name, names = join(layer.path, leaf), layer.reading.plain.names.values()
    parametrized = any(other.startswith(join(layer.path, f"parametrizations.{leaf}.")) for other in names)
    if {f"{leaf}_orig", f"{leaf}_v"} & layer.shapes.keys() or parametrized:
        layer.fail(
            f"{name} is computed from other tensors, by pruning, a norm or a parametrization: remove that from the "
            "model (prune.remove, remove_weight_norm, remove_parametrizations) and save it again"
        )
