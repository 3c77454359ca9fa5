"""No false alarm: random draws over random geometries, none of which an honest backend may miss.

`python -m doconv_conformance.maintenance.no_false_alarm --backend torch` asks a backend, over the protocol and in its own
process, for the output and the gradients of every draw: a whole set of random tensors, judged by the bound of its own
numbers. A few draws share a geometry, so that frameworks that compile do so once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

import numpy as np
import typer

from doconv_conformance.cases.table import LOW_PRECISION, Case
from doconv_conformance.protocol.session import Backend, PortSession
from doconv_conformance.running.runner import declared_unsupported, numerics_of, python_backend
from doconv_conformance.verdicts.bounds import Numerics, expected
from doconv_conformance.verdicts.judge import judge
from doconv_core.geometry import PADDING_MODES, ConvGeometry

OPERATIONS = ("forward", "backward")
LOW_TYPES = tuple((dtype, params) for dtype in LOW_PRECISION for params in ("float32", dtype))


@dataclass
class Tally:
    """What came of the draws of one type: how many, the worst share of a bound, the worst `r`, and the rows that are wrong."""

    draws: int = 0
    share: float = 0.0
    r: float = 0.0
    wrong: list[str] = field(default_factory=list)


def random_case(rng: np.random.Generator) -> Case | None:
    """A small convolution with every option drawn; None where the drawn options do not go together."""
    rank = int(rng.choice([1, 2, 3], p=[0.3, 0.55, 0.15]))
    groups, transposed = int(rng.choice([1, 1, 1, 2, 3])), bool(rng.random() < 0.25)

    def each(low: int, high: int) -> list[int]:
        return [int(number) for number in rng.integers(low, high + 1, rank)]

    kernel_size, strides = each(1, 3 if rank == 3 else 4), each(1, 2)
    options: dict[str, object] = {
        "in_channels": groups * int(rng.integers(1, 4)), "out_channels": groups * int(rng.integers(1, 4)), "groups": groups,
        "kernel_size": kernel_size, "stride": strides, "dilation": each(1, 2), "transposed": transposed,
        "padding": [[low, high] for low, high in zip(each(0, 2), each(0, 2), strict=True)],
    }  # fmt: skip
    taps = math.prod(kernel_size)
    options["d_mul"] = taps + int(rng.choice([0, 0, 1, taps]))
    if transposed:  # below the stride, as every framework wants it
        options["output_padding"] = [int(rng.integers(0, stride)) for stride in strides]
    else:
        options["padding_mode"] = str(rng.choice(PADDING_MODES, p=[0.7, 0.1, 0.1, 0.1]))
    size = tuple(each(3, 4 if rank == 3 else 7))
    try:
        geometry = ConvGeometry.from_json(options)
        geometry.output_size(size)
    except ValueError:
        return None
    bias = bool(rng.random() < 0.7)
    return Case("random", "forward", geometry, int(rng.integers(1, 4)), size, bias, "floats", "float32", "float32")


def random_cases(seed: int) -> Iterator[Case]:
    """Different geometries without end."""
    rng, seen = np.random.default_rng(seed), set[ConvGeometry]()
    while True:
        case = random_case(rng)
        if case and case.geometry not in seen:
            seen.add(case.geometry)
            yield case


def framework_is_wrong(name: str, case: Case) -> bool:
    """What a framework's own convolution computes wrongly, so that no layer over it can be right.

    TensorFlow 2.21 on the CPU returns whatever is in memory for `tf.nn.conv2d` of one input channel with strides `(1, s > 1)`
    whose output is one column wide.
    """
    g = case.geometry
    if name != "keras-tensorflow" or g.transposed or g.in_channels > 1 or g.spatial_rank != 2:
        return False
    return g.stride[0] == 1 < g.stride[1] and g.output_size(case.input_size)[1] == 1


def with_numbers(case: Case, dtype: str, param_dtype: str, seed: int) -> Case:
    """The same convolution on other numbers."""
    return Case(f"random-{dtype}-{param_dtype}", case.family, case.geometry, case.batch, case.input_size, case.bias, "floats",
                dtype, param_dtype, seed=seed)  # fmt: skip


def alarms(backend: Backend, *, geometries: int, draws: int, low_draws: int = 1, seed: int = 0) -> dict[str, Tally]:
    """Draws on one backend: a `Tally` for each type of activations and parameters.

    Args:
        backend: the port.
        geometries: how many that the backend declares to support.
        draws: float32 draws of each.
        low_draws: draws of each in every low precision, with parameters in float32 and in the type.
        seed: of the geometries; those of the numbers are counted.
    """
    tallies: dict[str, Tally] = {}
    session = PortSession(backend)
    try:
        numerics = numerics_of(session.hello)
        usable = (
            case for case in random_cases(seed)
            if not any(declared_unsupported(session.hello, case, operation) for operation in OPERATIONS)
            and not framework_is_wrong(session.hello["name"], case)
        )  # fmt: skip
        types = [("float32", "float32", draws), *((*types, low_draws) for types in LOW_TYPES)]
        for case in islice(usable, geometries):
            for dtype, param_dtype, number in types:
                for item in (with_numbers(case, dtype, param_dtype, n) for n in range(number)):
                    if not declared_unsupported(session.hello, item, "backward"):
                        _draw(session, item, numerics, tallies.setdefault(f"{dtype}/{param_dtype}", Tally()))
    finally:
        session.close()
    return tallies


def _draw(session: PortSession, item: Case, numerics: Numerics, tally: Tally) -> None:
    """Ask for one draw, forward and backward, and count what comes of it."""
    tally.draws += 1
    types = item.dtype, item.param_dtype
    for operation in OPERATIONS:
        request = f"{item.id}-{item.seed}", operation, item.geometry, *types, item.inputs(operation)
        status, reason, outputs = session.run(*request)
        verdict = judge(expected(item, operation, numerics), outputs, exact=False)
        if status != "ok" or verdict["verdict"] == "mismatch":
            where = f"{item.geometry.describe()}, input {item.input_size}, batch {item.batch}, seed {item.seed}"
            tally.wrong.append(f"{operation} {'/'.join(types)}: {reason or verdict['reason']} at {where}")
        else:
            tally.share = max(tally.share, verdict["bound_fraction"])
            tally.r = max(tally.r, verdict["r"])


def main(
    backend: Annotated[str, typer.Option(help="torch, keras or flax.")],
    geometries: Annotated[int, typer.Option(help="How many geometries.")] = 1000,
    draws: Annotated[int, typer.Option(help="Float32 draws of each.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the geometries.")] = 0,
) -> None:
    """Exit status 1 where an honest answer is outside its bound."""
    port = python_backend(backend, f"doconv_conformance.adapters.{backend}")
    tallies = alarms(port, geometries=geometries, draws=draws, seed=seed)
    for types, tally in tallies.items():
        typer.echo(
            f"{backend} {types}: {tally.draws} draws, forward and backward, {len(tally.wrong)} outside; worst share of the "
            f"bound {tally.share:.3f}, worst r {tally.r:.2f}"
        )
        for line in tally.wrong[:5]:
            typer.echo(f"  {line}")
    raise typer.Exit(1 if not tallies or any(tally.wrong for tally in tallies.values()) else 0)


if __name__ == "__main__":
    typer.run(main)
