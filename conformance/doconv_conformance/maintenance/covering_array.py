"""Rows for what the table lacks, `python -m doconv_conformance.maintenance.covering_array`: writes `cases/covering.json`.

A greedy covering array of mixed strength, made the same way every time: among some drawn assignments of levels that hold a
tuple not yet covered, take the one that covers most of them, and give it sizes. Rows that are in the file stay as they are:
after a change of the factors only what is missing is added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from doconv_conformance.cases import covering, table
from doconv_conformance.cases.covering import FACTORS, STRUCTURAL, Levels, allows, levels
from doconv_conformance.cases.draws import TINY
from doconv_conformance.cases.table import EXACT_LIMIT, LOW_PRECISION, Case
from doconv_core.composition import compose, compose_vjp
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry

FILE = Path(table.__file__).with_name("covering.json")
CANDIDATES = 40
TRIES = 4000
SEEDS = range(6)
# One element in so many is not zero, the first that keeps every sum exact.
THINNING = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
# A case stays quick in a port that counts in a scripting language.
MOST_PRODUCTS = 3e5
Tuple = tuple[tuple[str, str], ...]


def possible() -> tuple[set[Tuple], set[Tuple]]:
    """Every pair, and every structural triple, that some full assignment holds."""
    pairs = {item for item in _combinations(FACTORS, 2) if complete(dict(item), np.random.default_rng(0))}
    triples = {item for item in _combinations(STRUCTURAL, 3) if complete(dict(item), np.random.default_rng(0))}
    return pairs, triples


def _combinations(factors: dict[str, tuple[str, ...]], strength: int) -> Iterator[Tuple]:
    for names in combinations(factors, strength):
        for chosen in product(*(factors[name] for name in names)):
            yield tuple(zip(names, chosen, strict=True))


def complete(partial: dict[str, str], rng: np.random.Generator) -> dict[str, str] | None:
    """A full assignment with these levels, the others drawn; None where there is none."""
    if not allows(partial):
        return None
    open_factors = [name for name in FACTORS if name not in partial]
    if not open_factors:
        return {name: partial[name] for name in FACTORS}
    name = open_factors[0]
    for level in rng.permutation(np.array(FACTORS[name], dtype=object)):
        if found := complete(partial | {name: level}, rng):
            return found
    return None


def extend(rows: list[dict[str, Any]], wanted: set[Tuple], covered: set[Tuple], *, extended: bool) -> None:
    """Append rows until all of `wanted` is covered; `covered` grows with them.

    Raises:
        RuntimeError: a tuple that nothing forbids has no sizes: `covering.IMPOSSIBLE` lacks a rule.
    """
    rng = np.random.default_rng(len(rows))
    failures = 0
    while missing := sorted(wanted - covered):
        candidates = []
        for _ in range(CANDIDATES):
            partial: dict[str, str] = dict(missing[int(rng.integers(len(missing)))])
            further = rng.permutation(len(missing))[: int(rng.integers(80)) * (failures < 3)]
            for index in further:  # join more of them as long as they agree
                joined = partial | dict(missing[index])
                agrees = all(joined[name] == level for name, level in partial.items())
                if agrees and allows(joined):
                    partial = joined
            assignment = complete(partial, rng)
            if assignment:
                candidates.append((len(set(covering.tuples(assignment)) & wanted - covered), assignment))
        candidates.sort(key=lambda pair: -pair[0])
        for _, assignment in candidates[:5]:
            row = realise(assignment, rng, f"mix-{len(rows):03}")
            if row:
                covered |= set(covering.tuples(assignment))
                rows.append(row | {"extended": extended})
                failures = 0
                break
        else:
            failures += 1
            if failures > 20:
                raise RuntimeError(f"no sizes found for: {missing}")


def realise(assignment: Levels, rng: np.random.Generator, name: str) -> dict[str, Any] | None:
    """A row with these levels, of small sizes; None where the drawn sizes never fit."""
    dtype, param_dtype = assignment["types"].split("/")
    for _ in range(TRIES):
        drawn = _draw(assignment, rng)
        if drawn is None:
            continue
        geometry, input_size, batch = drawn
        numbers = "wide" if dtype == "float64" and assignment["delta"] == "unit" else "integers"
        kind = f"{geometry.spatial_rank}d{'-transposed' if geometry.transposed else ''}"
        values: dict[str, Any] = {
            "name": f"{name}-{kind}-exact-{dtype}" + (f"-{param_dtype}" if param_dtype != dtype else ""),
            "geometry": geometry.to_json(), "batch": batch, "input_size": list(input_size), "bias": assignment["bias"] == "yes",
            "numbers": numbers, "dtype": dtype, "param_dtype": param_dtype, "delta": assignment["delta"],
        }  # fmt: skip
        case = table._covering(values)
        if levels(case) != dict(assignment):
            continue
        for one_in in THINNING:
            if all(fits(table._covering(values | {"one_in": one_in, "seed": seed})) for seed in SEEDS):
                return values | {"one_in": one_in}
    return None


def fits(case: Case) -> bool:
    """Whether every sum is exact in every order, and nothing is zeros throughout."""
    g = case.geometry
    if not all(case.tensors[name].any() for name in ("x", "W", "grad_y")):
        return False
    size = {name: np.abs(tensor.astype(np.float64)) for name, tensor in case.tensors.items()}
    kernel = compose(size["W"], size.get("D_delta"), g)
    grad_x, grad_kernel, grad_bias = convolve_vjp(size["x"], kernel, size["grad_y"], g)
    y = convolve(size["x"], kernel, size.get("bias"), g)
    in_type = [kernel, grad_kernel, y, grad_x, grad_bias]
    composed = [part for part in compose_vjp(size["W"], size.get("D_delta"), grad_kernel, g) if part is not None]
    unit = 2.0 ** TINY[case.dtype] if case.delta == "tiny" else 1.0
    wide = EXACT_LIMIT["float32"] if case.dtype in LOW_PRECISION else EXACT_LIMIT[case.dtype]
    if case.dtype == "float32" and case.delta != "tiny" and max(kernel.max(), grad_kernel.max()) > 2**11:
        return False
    return (
        max(tensor.max() for tensor in in_type) <= EXACT_LIMIT[case.dtype] * unit
        and max(tensor.max() for tensor in composed) <= wide * unit
        and bool(y.any())
    )


def _draw(assignment: Levels, rng: np.random.Generator) -> tuple[ConvGeometry, tuple[int, ...], int] | None:
    rank = int(assignment["rank"])
    kernel = _kernel(assignment, rank, rng)
    groups, channels = _channels(assignment, math.prod(kernel), rng)
    highest = max(kernel) + 2 if assignment["reach"] == "gaps" else 3
    stride = _each(assignment["stride"], rank, 1, highest, rng)
    dilation = _each(assignment["dilation"], rank, 1, 3, rng)
    taps = math.prod(kernel)
    options: dict[str, Any] = {
        "in_channels": channels[0], "out_channels": channels[1], "kernel_size": kernel, "stride": stride, "dilation": dilation,
        "groups": groups, "transposed": assignment["transposed"] == "yes", "padding_mode": assignment["mode"],
        "padding": _padding(assignment, kernel, rng), "output_padding": _each(assignment["output padding"], rank, 0, 2, rng),
        "d_mul": {"K": taps, "tiles": taps * int(rng.integers(2, 3 if taps > 8 else 4)),
                  "surplus": taps + int(rng.integers(1, max(taps, 2))),
                  "tiles and surplus": 2 * taps + int(rng.integers(1, max(taps, 2)))}[assignment["columns"]],
    }  # fmt: skip
    low, high = ((3, 10), (3, 7), (2, 5))[rank - 1]
    if assignment["size"] == "taps" and not options["transposed"]:
        high += max(kernel)
    input_size = tuple(int(number) for number in rng.integers(low, high + 1, rank))
    if options["transposed"] and assignment["reach"] == "single":
        input_size = tuple(int(number) for number in rng.integers(1, 3, rank))
    if assignment["size"] == "positions":
        axis = int(rng.integers(rank))
        input_size = tuple(int(rng.choice([18, 33])) if at == axis else n for at, n in enumerate(input_size))
    batch = {"1": 1, "2": 2, "more": int(rng.choice([3, 5]))}[assignment["batch"]]
    extras = options["output_padding"]
    if any(extras) and any(extra >= step for extra, step in zip(extras, stride, strict=True)):
        return None
    try:
        geometry = ConvGeometry(**options)
        output = geometry.output_size(input_size)
    except ValueError:
        return None
    positions = batch * math.prod(input_size if geometry.transposed else output)
    products = positions * taps * channels[0] * channels[1] // groups
    if (
        products > MOST_PRODUCTS
        or math.prod(geometry.w_shape) * taps > MOST_PRODUCTS
        or batch * math.prod(output) > 4000
    ):
        return None
    return geometry, input_size, batch


def _each(level: str, rank: int, lowest: int, highest: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A number for each axis: all at the lowest, all at another, or some that differ."""
    if level in (str(lowest), "none"):
        return (lowest,) * rank
    if level == "equal":
        return (int(rng.integers(lowest + 1, highest + 1)),) * rank
    while len(set(values := tuple(int(number) for number in rng.integers(lowest, highest + 1, rank)))) == 1:
        pass
    return values


def _kernel(assignment: Levels, rank: int, rng: np.random.Generator) -> tuple[int, ...]:
    many = assignment["size"] == "taps"
    if assignment["kernel"] == "one tap":
        return (1,) * rank
    if assignment["kernel"] == "unequal":
        few: dict[int, list[tuple[int, ...]]] = {
            2: [(3, 2), (2, 3), (1, 3), (3, 1), (4, 2), (2, 1)],
            3: [(2, 1, 3), (1, 2, 2), (3, 1, 2), (2, 3, 1), (1, 1, 3)],
        }
        lots: dict[int, list[tuple[int, ...]]] = {
            2: [(5, 7), (7, 5), (4, 7), (3, 9)],
            3: [(2, 5, 3), (3, 3, 4), (5, 1, 5), (1, 5, 5)],
        }
        choices = (lots if many else few)[rank]
        return choices[int(rng.integers(len(choices)))]
    if assignment["kernel"] == "odd":
        sizes = {1: (25, 49), 2: (5, 7), 3: (3,)}[rank] if many else {1: (3, 5), 2: (3,), 3: (3,)}[rank]
    else:
        sizes = {1: (26, 32), 2: (6,), 3: (4,)}[rank] if many else {1: (2, 4), 2: (2, 4), 3: (2,)}[rank]
    return (int(rng.choice(sizes)),) * rank


def _channels(assignment: Levels, taps: int, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
    """`G`, `C_in` and `C_out`."""
    many = assignment["size"] == "channels"
    large = (16, 17) if taps >= 16 else (16, 17, 64, 130)
    if assignment["groups"] in ("depthwise", "multiplied"):
        channels = int(rng.choice(large)) if many else int(rng.integers(2, 5))
        multiplier = 1 if assignment["groups"] == "depthwise" else int(rng.integers(2, 4))
        return channels, (channels, channels * multiplier)
    groups = 1 if assignment["groups"] == "one" else int(rng.integers(2, 4))
    few, lot = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    if many:
        lot = int(rng.choice(large))
        if assignment["channels"] == "equal":
            few = lot
        if groups > 1 and lot > 17:
            groups = {64: 8, 130: 10}[lot]
            lot, few = lot // groups, lot // groups if few == lot else 2
    if assignment["channels"] == "equal":
        few = lot
    few, lot = sorted((few, lot))
    pair = (lot, few) if assignment["channels"] == "fewer out" else (few, lot)
    return groups, (groups * pair[0], groups * pair[1])


def _padding(assignment: Levels, kernel: Sequence[int], rng: np.random.Generator) -> list[tuple[int, int]]:
    highest = max(kernel) + 1 if assignment["reach"] == "beyond" else 3
    rank, level = len(kernel), assignment["padding"]
    low, high = (rng.integers(0, highest + 1, rank) for _ in range(2))
    if level == "none":
        low = high = np.zeros(rank, int)
    elif level == "symmetric":
        high = low
    elif level == "one end":
        keep = bool(rng.integers(2))
        low, high = low * keep, high * (not keep)
    return [(int(first), int(second)) for first, second in zip(low, high, strict=True)]


def main(output: Annotated[Path, typer.Option(help="The file to extend.")] = FILE) -> None:
    """Add the rows that the table lacks."""
    rows = json.loads(output.read_text("utf-8")) if output.exists() else []
    pairs, triples = possible()
    exact = [case for case in table.cases() if case.numbers in ("integers", "wide")]
    first = {item for case in exact if not case.extended for item in covering.tuples(levels(case))}
    extend(rows, pairs, first, extended=False)
    all_of_them = first | {item for case in exact for item in covering.tuples(levels(case))}
    extend(rows, triples, all_of_them, extended=True)
    temporary = output.with_name(f".{output.name}.tmp")
    temporary.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", "utf-8")
    temporary.replace(output)
    typer.echo(f"{len(pairs)} pairs, {len(triples)} triples, {len(rows)} rows")


if __name__ == "__main__":
    typer.run(main)
