"""The over-parameterized layers of a checkpoint as cases: their own parameters and geometry, on inputs of a modest size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from doconv_conformance.cases import generator
from doconv_conformance.cases.table import DTYPES, Case, family
from doconv_conformance.counting import counted
from doconv_conformance.running.recordings import Recordings, over_parameterized
from doconv_core.checkpoint import Checkpoint, CheckpointError
from doconv_core.geometry import ConvGeometry

TYPES = ("float32", "bfloat16", "float16")
OPERATIONS = ("forward", "backward", "fold")
SPATIAL = ("stride", "padding", "dilation")
# Positions of a random layer's output, for each number of spatial axes; images; products of one pass, which take less than a
# second; numbers of an input or an output, which only a file that lies has more of.
POSITIONS = {1: (12,), 2: (3, 4), 3: (2, 3, 2)}
BATCH = 2
BUDGET = 2**27
LARGEST = 2**26


@dataclass(frozen=True, eq=False)
class LayerCase(Case):
    """A layer in one type: a case whose numbers are given. Its id is the layer's path and the type.

    Attributes:
        given: its tensors.
    """

    given: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def id(self) -> str:
        return f"{self.name} {self.dtype}"

    @property
    def large(self) -> bool:
        return False

    @cached_property
    def tensors(self) -> Mapping[str, np.ndarray]:
        return self.given


@dataclass(frozen=True)
class LayerPlan:
    """What a layer is computed on.

    Attributes:
        path: of the layer.
        geometry: as the file has it; what it does not say at its default.
        unknown: those of `SPATIAL` that it does not say.
        stored: the type of `W` in the file.
        bias: whether there is one.
        batch: `N`.
        size: the spatial size of the input.
        recorded: the shape of the layer's recording, of whose first images the middle is taken; None where there is none.
    """

    path: str
    geometry: ConvGeometry
    unknown: tuple[str, ...]
    stored: str
    bias: bool
    batch: int
    size: tuple[int, ...]
    recorded: tuple[int, ...] | None = None

    @property
    def label(self) -> str:
        """What the layer is called."""
        return self.path or "(the layer)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input."""
        return (self.batch, self.geometry.in_channels, *self.size)

    def case(self, dtype: str, numbers: Mapping[str, np.ndarray] | None = None) -> LayerCase:
        """The layer with activations of `dtype`; parameters are float32 as a rule, and of `dtype` where the file has them so.

        Args:
            dtype: of the activations.
            numbers: of `read_layer`; without them the case only says what would be asked.
        """
        params = dtype if dtype in ("float64", self.stored) else "float32"
        with np.errstate(over="ignore"):
            given = {
                name: value.astype(DTYPES[dtype if name in ("x", "grad_y") else params])
                for name, value in (numbers or {}).items()
            }
        return LayerCase(self.label, family(self.geometry), self.geometry, self.batch, self.size, self.bias, "floats",
                         dtype, params, given=given)  # fmt: skip


def plan_layers(checkpoint: Checkpoint, recordings: Recordings | None = None) -> list[LayerPlan]:
    """What every over-parameterized layer of a checkpoint is computed on, in the order of the file.

    Raises:
        CheckpointError: no such layer, parameters that are not finite, or a geometry whose inputs no memory holds.
    """
    paths = over_parameterized(checkpoint)
    if not paths:
        raise CheckpointError(
            f"{checkpoint.label} has no over-parameterized layer, there is nothing to compare. "
            f"Received: {counted(len(checkpoint.layers), 'layer')} without D"
        )
    return [_plan(checkpoint, path, recordings) for path in paths]


def read_layer(checkpoint: Checkpoint, plan: LayerPlan, recordings: Recordings | None = None) -> dict[str, np.ndarray]:
    """The tensors of a layer before they are rounded to any type: as the file has them, recorded or random."""
    numbers = dict(checkpoint.read(plan.path))
    if recordings and plan.recorded:
        array = recordings.array(plan.path)
        middle = [
            slice((have - size) // 2, (have - size) // 2 + size)
            for have, size in zip(array.shape[2:], plan.size, strict=True)
        ]
        numbers["x"] = array[(slice(plan.batch), slice(None), *middle)]
    else:
        numbers["x"] = generator.floats(f"checkpoint/{plan.path}/x", plan.shape)
    outputs = (plan.batch, plan.geometry.out_channels, *plan.geometry.output_size(plan.size))
    return numbers | {"grad_y": generator.floats(f"checkpoint/{plan.path}/grad_y", outputs)}


def notes(checkpoint: Checkpoint, plans: Sequence[LayerPlan], recordings: Recordings | None = None) -> list[str]:
    """What the layers are computed on and what was assumed, in sentences."""
    said = [*checkpoint.notes]
    if afresh := [plan.label for plan in plans if not checkpoint.is_exact(plan.path)]:
        said.append(f"folded and over-parameterized afresh, as no layer here pairs groups with D so: {_some(afresh)}")
    random = [plan for plan in plans if not plan.recorded]
    if random:
        few = f"; nothing is recorded for {_some([plan.label for plan in random])}" if len(random) < len(plans) else ""
        shapes = dict.fromkeys(plan.size for plan in sorted(random, key=lambda plan: math.prod(plan.size)))
        sizes = _some(["x".join(map(str, size)) for size in shapes])
        said.append(f"random inputs of small sizes, {sizes}, always the same{few}")
    if cut := [plan.label for plan in plans if plan.recorded and plan.recorded != plan.shape]:
        said.append(f"of large recordings a part is computed, the middle of the first images: {_some(cut)}")
    if recordings and recordings.unused:
        said.append(f"layers without D are not computed, their recordings not used: {_some(recordings.unused)}")
    for unknown in dict.fromkeys(plan.unknown for plan in plans if plan.unknown):
        which = [plan.label for plan in plans if plan.unknown == unknown]
        of = "all layers" if len(which) == len(plans) else _some(which)
        taken = ", ".join("no padding" if option == "padding" else f"{option} 1" for option in unknown)
        said.append(f"the file does not say the {_list(unknown)} of {of}, taken: {taken}")
    return said


def _plan(checkpoint: Checkpoint, path: str, recordings: Recordings | None) -> LayerPlan:
    info = checkpoint.layers[path]
    code = checkpoint.source.code(info.tensors["W"])
    if not code.startswith(("F", "BF")):
        raise CheckpointError(
            f"{checkpoint.label}: {info.tensors['W']} must be of a floating point type. Received: {code}"
        )
    for role, array in zip(("W", "D_delta"), checkpoint.parameters(path), strict=True):
        if not np.isfinite(array).all():
            name = info.tensors[role]
            raise CheckpointError(f"{checkpoint.label}: {name} has a value that is not finite. Received: layer {path}")
    checkpoint.release(path)
    stored = {"F64": "float64", "F16": "float16", "BF16": "bfloat16"}.get(code, "float32")
    geometry, recorded = info.conv, None
    if recordings and path in recordings.names:
        recorded = recordings.source.shapes[recordings.names[path]]
    batch, size = _fitting(geometry, *((recorded[0], recorded[2:]) if recorded else (BATCH, _small_input(geometry))))
    largest = max(math.prod(size) * geometry.in_channels, math.prod(geometry.output_size(size)) * geometry.out_channels)
    if batch * largest > LARGEST:
        raise CheckpointError(
            f"{checkpoint.label}: {path} cannot be computed on a small input, it takes {batch * largest} numbers. "
            f"Received: {geometry.describe()}"
        )
    unknown = tuple(option for option in SPATIAL if option not in info.geometry)
    return LayerPlan(path, geometry, unknown, stored, "bias" in info.tensors, batch, size, recorded)


def _small_input(geometry: ConvGeometry) -> tuple[int, ...]:
    """An input that all taps meet at each of `POSITIONS`, and the padding beside it."""
    wanted = POSITIONS[geometry.spatial_rank]
    if geometry.transposed:
        cut = [low + high for low, high in geometry.padding]
        return tuple(count + max(0, -(-lost // stride))
                     for count, lost, stride in zip(wanted, cut, geometry.stride, strict=True))  # fmt: skip
    axes = zip(wanted, geometry.kernel_size, geometry.stride, geometry.dilation, geometry.padding, strict=True)
    return tuple(
        max(stride * (count - 1) + dilation * (kernel - 1) + 1, *(end + 1 for end in pair))
        for count, kernel, stride, dilation, pair in axes
    )


def _fitting(geometry: ConvGeometry, batch: int, size: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """So many images, and so large a part of them, that one pass stays in `BUDGET` and in memory, if the layer allows it."""
    size = tuple(size)
    weight = math.prod(geometry.w_shape[:2]) * geometry.taps
    while True:
        outputs = geometry.output_size(size)
        positions = math.prod(size if geometry.transposed else outputs)
        numbers = max(math.prod(size) * geometry.in_channels, math.prod(outputs) * geometry.out_channels)
        if batch * weight * positions <= BUDGET and batch * numbers <= LARGEST:
            return batch, size
        if batch > 1:
            batch = (batch + 1) // 2
            continue
        smaller = _smaller(geometry, size)
        if smaller is None:
            return batch, size
        size = smaller


def _smaller(geometry: ConvGeometry, size: tuple[int, ...]) -> tuple[int, ...] | None:
    """An eighth less of the longest axis that can be shorter; None where none can."""
    for axis in sorted(range(len(size)), key=lambda axis: -size[axis]):
        smaller = (*size[:axis], size[axis] * 7 // 8, *size[axis + 1 :])
        try:
            geometry.output_size(smaller)
        except ValueError:
            continue
        return smaller
    return None


def _some(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
