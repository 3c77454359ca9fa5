"""The ways of every backend, each declared once: what it is, what it supports, and the cases it runs unless all are asked for.

No framework is imported here, so that the command can list the ways of a backend that is not installed. How a way runs the
layer stands under its name in the module of its framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from doconv_conformance.cases.table import Case
from doconv_conformance.port import EVERYTHING, OPERATIONS

Pairs = Sequence[tuple[Case, str]]
Selects = Callable[[Case, str], bool]
DEFAULT = "eager"
DTYPES: dict[str, list[str]] = EVERYTHING["dtypes"]
FULL_FLOATS = {name: DTYPES[name] for name in ("float64", "float32")}
FLOAT32 = {"float32": ["float32"]}
MIXED = {name: ["float32"] for name in ("float16", "bfloat16")}
NOT_LOW = FULL_FLOATS | MIXED
NOT_MIXED = {name: [name] for name in DTYPES}
# One geometry of each class, for ways that compile for seconds.
CLASSES = (
    "plain-3x3",
    "padding-sides",
    "d-mul-13",
    "groups-2",
    "depthwise-times-2",
    "conv1d",
    "conv3d",
    "transposed-strides",
)
# Of more than a million parameters: what a size decides is decided otherwise.
LARGE = "large-groups-exact-float32"
PASSES = ("forward", "backward", "fold")
DEVICES = 8  # of JAX's sharded ways


def every(case: Case, operation: str) -> bool:
    """All that the way supports."""
    return True


def of_each_class(case: Case, operation: str) -> bool:
    """One geometry of each class and a large one, on integers in float32; the first in mixed bfloat16 and on floats, too."""
    name, _, numbers = case.name.partition("-exact-")
    if name == CLASSES[0] and numbers == "bfloat16-float32":
        return True
    return case.name in (f"{CLASSES[0]}-float-float32", LARGE) or (name in CLASSES and numbers == "float32")


def few(case: Case, operation: str) -> bool:
    """A dense, a grouped and a large layer on integers in float32."""
    return case.name in ("plain-3x3-exact-float32", "groups-2-exact-float32", LARGE)


def one(case: Case, operation: str) -> bool:
    """The output of a grouped layer."""
    return case.name == "groups-2-exact-float32" and operation == "forward"


def small(case: Case, operation: str) -> bool:
    """At most two thousand numbers in the parameters and the input, for a pass for each of them."""
    g = case.geometry
    shapes = (g.w_shape, g.d_shape if g.has_d else (), (case.batch, g.in_channels, *case.input_size))
    return sum(map(math.prod, shapes)) <= 2000


def each_geometry(case: Case, operation: str) -> bool:
    """Every geometry once, on integers of which each type has a share, for ways that compile for long."""
    return (case.exact and (case.covering or case.dtype == "float32")) or of_each_class(case, operation)


def each_up_to_2d(case: Case, operation: str) -> bool:
    """Of sizes that are not known PyTorch 2.13 fails to compile plain 3-D layers, of many shapes."""
    return each_geometry(case, operation) and case.geometry.spatial_rank < 3


def kernels_cut(case: Case, operation: str) -> bool:
    """What XLA computes of a kernel that is cut for many devices: no plain convolution of one tap inside its groups.

    Of some shapes it makes an invalid program, with Flax's `Conv` and Keras's `Conv2D`, too; a layer of one tap is one of them.
    """
    g = case.geometry
    return not (g.groups > 1 and math.prod(g.kernel_size) == 1)


def all_cut(case: Case, operation: str) -> bool:
    """What XLA computes where the input is cut, too: not an axis that is cut and padded with itself, of Flax's `Conv` either.

    The input is cut along its last axis that the devices divide, and they divide the output channels.
    """
    devices = max(count for count in range(1, DEVICES + 1) if case.geometry.out_channels % count == 0)
    inside = case.geometry.in_channels % devices != 0 and any(size % devices == 0 for size in case.input_size)
    return kernels_cut(case, operation) and not (inside and case.geometry.padding_mode == "circular")


def integers(case: Case, operation: str) -> bool:
    """Every geometry on integers in float32."""
    return case.exact and case.dtype == "float32"


@dataclass(frozen=True)
class Way:
    """One way of running a backend.

    Attributes:
        backend: "torch", "keras" or "flax".
        name: of the way, by which it is asked for.
        summary: by what it is run, for a cell of a table.
        operations: that depend on the way.
        dtypes: in which it is run, as a port declares them.
        limits: pairs of `when` and `reason`, as a port declares under `unsupported`.
        numerics: what differs from the backend's own.
        possible: the cases it can be asked at all: not what would take hours, or fails with plain layers, too.
        cases: those of them that it runs by default.
        on_gpu: the cases it runs by default on a GPU, None where it does not run there.
        engines: Keras's backends, or Flax's interfaces, that have it; empty for all.
        env: variables that its process needs.
    """

    backend: str
    name: str
    summary: str
    operations: tuple[str, ...] = PASSES
    dtypes: Mapping[str, list[str]] = field(default_factory=lambda: DTYPES)
    limits: tuple[tuple[Mapping[str, Any], str], ...] = ()
    numerics: Mapping[str, Any] = field(default_factory=dict)
    possible: Selects = every
    cases: Selects = every
    on_gpu: Selects | None = None
    engines: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def supports(self, limits: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """What the port declares in this way, with the limits of the backend itself."""
        own = [{"when": dict(when), "reason": reason} for when, reason in self.limits]
        declared = EVERYTHING | {"operations": list(self.operations), "dtypes": dict(self.dtypes)}
        return declared | ({"unsupported": [*limits, *own]} if limits or own else {})

    def choose(self, pairs: Pairs, *, full: bool = False, device: str = "cpu") -> Pairs:
        """What of `pairs` is asked in this way: of its operations and types, unless `full` its own cases."""
        selects = every if full else self.on_gpu if device != "cpu" and self.on_gpu else self.cases
        return [
            (case, operation)
            for case, operation in pairs
            if operation in self.operations
            and case.param_dtype in self.dtypes.get(case.dtype, [])
            and self.possible(case, operation)
            and selects(case, operation)
        ]


def without_fold(case: Case, operation: str) -> bool:
    """XLA takes a second for each function on a GPU: float32, and low precision of one geometry of each class."""
    name = case.name.partition("-exact-")[0].partition("-float-")[0]
    if operation in ("compose", "initialise", "fold"):
        return of_each_class(case, operation)
    return case.dtype == "float32" or (name in CLASSES and case.dtype != "float64")


FORWARD = ("forward", "fold")
REPLICATE = (
    {"operation": "backward", "spatial_rank": 2, "padding_mode": "replicate", "padded": True},
    "PyTorch's compiler fails on the gradient of a plain Conv2d with this padding, too (2.13)",
)
TORCH = (
    Way("torch", "eager", "called", OPERATIONS, on_gpu=every),
    Way("torch", "compiled", "`torch.compile(fullgraph=True)`", limits=(REPLICATE,), cases=of_each_class,
        on_gpu=of_each_class),
    Way("torch", "compiled-dynamic", "`torch.compile(dynamic=True)`", limits=(REPLICATE,), possible=each_up_to_2d,
        cases=few, on_gpu=few),
    Way("torch", "autocast", "`torch.autocast`, float32 input", dtypes=MIXED, on_gpu=every),
    Way("torch", "channels-last", "kernel, input and gradient",
        limits=(({"spatial_rank": 1}, "PyTorch has no channels_last for 1-D"),), on_gpu=every),
    Way("torch", "func", "`functional_call`, `torch.func.vjp`", on_gpu=every),
    Way("torch", "vmap", "`torch.func.vmap`",
        dtypes=FULL_FLOATS, on_gpu=every),  # under autocast a plain convolution can't either
    Way("torch", "jvp", "`torch.func.jacfwd`", dtypes=FULL_FLOATS, possible=small, on_gpu=every),
    Way("torch", "exported", "`torch.export`", FORWARD, NOT_MIXED, cases=integers),
    Way("torch", "onnx", "`torch.onnx.export`, onnxruntime", FORWARD, FLOAT32, cases=few),
    Way("torch", "onnx-torchscript", "the same, `dynamo=False`", FORWARD, FLOAT32,
        cases=of_each_class),
    Way("torch", "aot", "AOTInductor", FORWARD, FLOAT32, possible=each_geometry, cases=one),
    Way("torch", "checkpointed", "`torch.utils.checkpoint`", on_gpu=every),
    Way("torch", "composed-once", "`composed_once`", dtypes=NOT_LOW, on_gpu=every),
    Way("torch", "composed-together", "`compose_together`", on_gpu=every),
    Way("torch", "recompute-kernels", "`recompute_kernels`", on_gpu=every),
    Way("torch", "by-channel", "`store_by_channel`", on_gpu=every),
    Way("torch", "replicated", "`DistributedDataParallel`, 2 processes", dtypes=NOT_LOW,
        cases=integers),
    Way("torch", "sharded", "`fully_shard` (FSDP2), 2 processes", dtypes=NOT_LOW,
        cases=integers),
)  # fmt: skip
IN_PARTS = {"float16": "float16", "bfloat16": "bfloat16"}
EIGHT_DEVICES = {"JAX_NUM_CPU_DEVICES": str(DEVICES)}
FLAX = (
    Way("flax", "compiled", "`jax.jit`", OPERATIONS, on_gpu=without_fold),
    Way("flax", "eager", "called, `jax.vjp`", cases=few),
    Way("flax", "vmap", "`nn.vmap`, `nnx.vmap`", cases=few),
    Way("flax", "scan", "`nn.scan`, `nnx.scan`", cases=few),
    Way("flax", "remat", "`nn.remat`, `nnx.remat`", cases=few),
    Way("flax", "sharded", "`NamedSharding`, 8 devices", possible=all_cut, cases=few, env=EIGHT_DEVICES,
        numerics={"accumulator": IN_PARTS}),  # every device rounds the sums over its part of the channels
    Way("flax", "shard-map", "`jax.shard_map`, 8 devices", cases=few, env=EIGHT_DEVICES,
        numerics={"kernel_gradient": IN_PARTS}),  # every device rounds the gradient of its part of the batch
    Way("flax", "exported", "`jax.export`", FORWARD, cases=few),
)  # fmt: skip
KERAS = (
    Way("keras", "eager", "called", OPERATIONS,
        engines=("tensorflow", "torch", "numpy")),
    Way("keras", "compiled", "`jax.jit`", OPERATIONS, engines=("jax",)),
    Way("keras", "eager", "called, `jax.vjp`", cases=few, engines=("jax",)),
    Way("keras", "compiled", "`tf.function`", cases=few, engines=("tensorflow",)),
    Way("keras", "compiled-xla", "`tf.function(jit_compile=True)`", cases=few, engines=("tensorflow",)),
    Way("keras", "compiled", "`torch.compile`", possible=each_geometry, cases=few, engines=("torch",)),
    Way("keras", "exported", "`model.export`, SavedModel", FORWARD, FLOAT32, cases=few,
        engines=("tensorflow", "jax")),
    Way("keras", "exported", "`model.export`, `torch.export`", FORWARD, FLOAT32, cases=few, engines=("torch",)),
    Way("keras", "onnx", "`model.export`, onnxruntime", FORWARD, FLOAT32, cases=few,
        engines=("torch",)),  # of TensorFlow and JAX Keras exports with tf2onnx, which knows neither Keras 3 nor NumPy 2
    Way("keras", "replicated", "`MirroredStrategy`, 2 CPUs", dtypes=NOT_LOW, cases=few,
        engines=("tensorflow",)),
    Way("keras", "sharded", "`ModelParallel`, 8 devices", possible=kernels_cut, cases=few,
        engines=("jax",), env=EIGHT_DEVICES, numerics={"accumulator": IN_PARTS}),
)  # fmt: skip
WAYS = (*TORCH, *KERAS, *FLAX)


def ways_of(backend: str, engine: str | None = "", device: str = "cpu") -> list[Way]:
    """The ways of a backend on a device, the default first; `engine` as in `Way.engines`, None for all."""
    return [
        way
        for way in WAYS
        if way.backend == backend
        and (engine is None or not way.engines or engine in way.engines)
        and (device == "cpu" or way.on_gpu is not None)
    ]


def way_of(backend: str, name: str, engine: str = "") -> Way:
    """One of them.

    Raises:
        ValueError: the backend has no way of that name.
    """
    ways = {way.name: way for way in ways_of(backend, engine)}
    if name not in ways:
        raise ValueError(f"the way must be one of {', '.join(ways)}. Received: {name}")
    return ways[name]
