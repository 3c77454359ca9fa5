"""Rules that the catalogue does not list, guessed or recovered from a port's answers, and then replayed like any fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import chain, combinations, product
from typing import Any

import numpy as np

from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.faults import Fault
from doconv_conformance.faults.convolution import CONVOLUTION
from doconv_conformance.verdicts.bounds import UNIT_ROUNDOFF, Expected, Numerics, expected
from doconv_core.composition import identity, sum_tiles
from doconv_core.convolution import convolve
from doconv_core.geometry import ConvGeometry

Kernels = list[tuple[Row, np.ndarray]]
AXES = ("first", "second", "third")
# Near enough to be tried: what is found is replayed, and judged by the derived bounds like any fault.
NEAR = 1e-6


def hypotheses(rows: Sequence[Row], catalogue: Sequence[Fault]) -> list[Fault]:
    """Faults to try on the rows, the plainest first; those that join two faults take them from `catalogue`."""
    kernels = effective_kernels(rows)
    recovered = (_coefficients(kernels), _row_tables(kernels), _channel_orders(rows), _scales(rows))
    listed = set(catalogue)
    pairs = (fault for first, second, fault in _geometries() if {first, second} <= listed)
    return [*_plain(), *chain.from_iterable(recovered), *pairs]


@cache
def _plain() -> tuple[Fault, ...]:
    return (*_signs(), *_tap_orders())


def effective_kernels(rows: Sequence[Row]) -> Kernels:
    """The kernel that a port used in each failing row: what `compose` or `fold` returned, else solved from an output.

    An output is linear in the kernel and the bias; where it has more elements than they have, and they reproduce it exactly,
    they are what the port convolved with. Nothing is returned where no kernel does: then the convolution itself is wrong.
    """
    found: Kernels = []
    for row in rows:
        if not row.failed or not row.case.geometry.has_d or not row.finite:
            continue
        weight = row.got.get("weight")
        if row.operation in ("compose", "fold") and weight is not None:
            if weight.shape == row.case.geometry.kernel_shape:
                found.append((row, weight.astype(np.float64)))
        elif row.operation == "forward" and row.exact and (solved := _solved_kernel(row)) is not None:
            found.append((row, solved))
    return found


def _solved_kernel(row: Row) -> np.ndarray | None:
    g, x, y = row.case.geometry, row.case.tensors["x"], row.got.get("y")
    if y is None or y.shape != row.want["y"].value.shape:
        return None
    # All output channels of a group meet the same products: one system a group, one right side a channel.
    taps = np.eye(g.taps).reshape(g.taps, *g.kernel_size)
    if g.transposed:
        return None
    kernel = np.zeros(g.kernel_shape)
    in_group, out_group = g.in_channels // g.groups, g.out_channels // g.groups
    single = ConvGeometry.from_json(
        g.to_json() | {"in_channels": 1, "out_channels": g.taps, "groups": 1, "d_mul": None}
    )
    bias = row.case.tensors["bias"].astype(np.float64) if row.case.bias else np.zeros(g.out_channels)
    for group in range(g.groups):
        seen = [convolve(x[:, i : i + 1].astype(np.float64), taps[:, None], None, single)
                for i in range(group * in_group, (group + 1) * in_group)]  # fmt: skip
        matrix = np.concatenate(seen, axis=1).swapaxes(0, 1).reshape(in_group * g.taps, -1).T
        outputs = slice(group * out_group, (group + 1) * out_group)
        right = (y[:, outputs].astype(np.float64) - bias[outputs].reshape(-1, *[1] * g.spatial_rank)).swapaxes(0, 1)
        right = right.reshape(out_group, -1).T
        if matrix.shape[0] <= matrix.shape[1] or np.linalg.matrix_rank(matrix) < matrix.shape[1]:
            return None
        solution = np.rint(np.linalg.lstsq(matrix, right, rcond=None)[0])
        if not np.array_equal(matrix @ solution, right):
            return None
        kernel[outputs] = solution.T.reshape(out_group, in_group, *g.kernel_size)
    return kernel


def _signs() -> Iterator[Fault]:
    tensors = {"x": "the input", "bias": "the bias", "W": "W", "D_delta": "D_delta", "y": "the output"}
    for hook, words in tensors.items():
        yield Fault(f"negated-{hook}", f"negates {words}", "a sign", {hook: lambda tensor, g: -tensor})
    gradients = {"grad_x": "the input", "grad_W": "W", "grad_D_delta": "D_delta", "grad_bias": "the bias"}
    for hook, words in gradients.items():
        yield Fault(f"negated-{hook}", f"negates the gradient of {words}", "a sign", {hook: lambda grad, g: -grad})


def _tap_orders() -> Iterator[Fault]:
    """Taps flipped along some axes and perhaps in column-major order, in the kernel, in `D`, in `W`, or in its gradient."""
    tensors = {
        "kernel": "the composed kernel",
        "D_delta": "D",
        "W": "W",
        "grad_kernel": "the gradient of the composed kernel",
    }
    flips = [axes for count in range(3) for axes in combinations(range(3), count + 1)]
    for (hook, words), axes, column_major in product(tensors.items(), ((), *flips), (False, True)):
        if not axes and not column_major:
            continue
        flipped = f"flipped along the {' and '.join(AXES[axis] for axis in axes)} axis" if axes else ""
        order = " and ".join(filter(None, (flipped, "in column-major order" if column_major else "")))

        def move(
            tensor: np.ndarray, g: ConvGeometry, hook: str = hook, axes: Any = axes, major: bool = column_major
        ) -> np.ndarray:
            return _reordered(tensor, g, {"D_delta": 1}.get(hook, 2), axes, major)

        yield Fault(f"taps-of-{hook}-{order}".replace(" ", "-"), f"has the taps of {words} {order}",
                     "the order of the kernel's axes and taps", {hook: move})  # fmt: skip


def _reordered(tensor: np.ndarray, g: ConvGeometry, axis: int, flips: Sequence[int], column_major: bool) -> np.ndarray:
    """Taps on `axis` (of `W` in its first tile, of a kernel on its last axes) in another order."""
    order = np.arange(g.taps).reshape(g.kernel_size, order="F" if column_major else "C")
    order = np.flip(order, tuple(at for at in flips if at < g.spatial_rank)).ravel()
    if tensor.shape[2:] == g.kernel_size and axis == 2 and tensor.ndim > 3:
        return tensor.reshape(*tensor.shape[:2], -1)[..., order].reshape(tensor.shape)
    if axis == 2:
        return np.concatenate([tensor[..., order], tensor[..., g.taps :]], axis=-1) if tensor.ndim == 3 else tensor
    return tensor[:, order]


def _coefficients(kernels: Kernels) -> Iterator[Fault]:
    """`W' = e * W E^T + d * D_delta o W` with other `e` and `d` than 1, the same in every case."""
    found = set()
    for row, kernel in kernels:
        g, t = row.case.geometry, row.case.tensors
        W, D = t["W"].astype(np.float64), t["D_delta"].astype(np.float64)
        parts = np.stack([sum_tiles(W, g).ravel(), np.einsum("abks,abs->abk", D[g.rows], W).ravel()], axis=-1)
        solved, *_ = np.linalg.lstsq(parts, kernel.ravel(), rcond=None)
        rounded = tuple(Fraction(float(number)).limit_denominator(64) for number in solved)
        if np.allclose(parts @ np.array([float(number) for number in rounded]), kernel.ravel(), rtol=NEAR, atol=NEAR):
            found.add(rounded)
    for e, d in sorted(found):
        yield Fault(
            f"coefficients-{e}-{d}", f"composes {e} * W E^T + {d} * (D_delta o W)", "the residual form W E^T + D_delta o W",
            {"identity": lambda g, e=e: float(e) * identity(g), "delta": lambda g, d=d: float(d)},
        )  # fmt: skip


def _row_tables(kernels: Kernels) -> Iterator[Fault]:
    """Kernels that are composed by another row of `D`: the row is searched for each."""
    tables: dict[ConvGeometry, np.ndarray] = {}
    for row, kernel in kernels:
        g, t = row.case.geometry, row.case.tensors
        if g in tables:
            continue
        W, D = t["W"].astype(np.float64), t["D_delta"].astype(np.float64)
        candidates = sum_tiles(W, g)[None] + np.einsum("iks,abs->iabk", D, W)
        right = np.isclose(candidates, kernel.reshape(1, *candidates.shape[1:]), rtol=NEAR, atol=NEAR).all(axis=-1)
        if right.any(axis=0).all():
            tables[g] = np.where(np.take_along_axis(right, g.rows[None], 0)[0], g.rows, right.argmax(axis=0))
    if tables:
        g, table = max(tables.items(), key=lambda item: -item[1].size)
        example = "; ".join(f"({o}, {c}) with row {row}" for (o, c), row in np.ndenumerate(table))
        yield Fault(
            "rows-recovered", f"composes its kernels with other rows of D: at {g.describe()}, kernel (o, c) {example}",
            "the index of D: i = (o // (C_out/G)) * (C_in/G) + c",
            {"rows": lambda g: tables[g]}, where=tables.__contains__,
        )  # fmt: skip


def _channel_orders(rows: Sequence[Row]) -> Iterator[Fault]:
    """Right output channels in another order."""
    tables: dict[ConvGeometry, np.ndarray] = {}
    for row in rows:
        g = row.case.geometry
        if row.operation != "forward" or g in tables or "y" not in row.got or not row.finite:
            continue
        got, right = row.got["y"], row.want["y"].value
        if got.shape != right.shape:
            continue
        equal = (got[:, :, None] == right[:, None]).all(axis=(0, *range(3, right.ndim + 1)))
        if (equal.sum(axis=1) == 1).all() and (equal.sum(axis=0) == 1).all():
            tables[g] = equal.argmax(axis=1)
    moved = {g: table for g, table in tables.items() if (table != np.arange(len(table))).any()}
    if moved:
        g, table = max(moved.items(), key=lambda item: -item[1].size)
        yield Fault(
            "output-channels-reordered", f"has its output channels in another order: at {g.describe()}, {table.tolist()}",
            "the order of the output channels", {"y": lambda y, g: y[:, moved[g]]}, where=moved.__contains__,
        )  # fmt: skip


def _scales(rows: Sequence[Row]) -> Iterator[Fault]:
    """An output that is a multiple of the right one."""
    tables: dict[str, dict[ConvGeometry, float]] = {}
    for row in rows:
        for name, got in row.got.items() if row.operation in ("forward", "backward") and row.failed else ():
            want = row.want.get(name)
            if want is None or got.shape != want.value.shape or not want.value.any() or not row.finite:
                continue
            at = np.abs(want.value).argmax()
            factor = float(got.ravel()[at]) / float(want.value.ravel()[at])
            if np.allclose(got, factor * want.value, rtol=NEAR, atol=NEAR) and not np.array_equal(got, want.value):
                tables.setdefault(name, {})[row.case.geometry] = factor
    for name, factors in tables.items():
        shown = ", ".join(str(Fraction(f).limit_denominator(64)) for f in sorted(set(factors.values())))

        def scale(tensor: np.ndarray, g: ConvGeometry, factors: Any = factors) -> np.ndarray:
            return factors[g] * tensor

        yield Fault(f"scaled-{name}", f"multiplies {name} by {shown}", f"a factor of {name}: a mean in place of a sum",
                     {name: scale}, where=factors.__contains__)  # fmt: skip


@cache
def _geometries() -> tuple[tuple[Fault, Fault, Fault], ...]:
    """Two mistakes of the geometry, and both at once."""
    pairs = combinations([fault for fault in CONVOLUTION if "geometry" in fault.hooks], 2)
    return tuple((first, second, _both(first, second)) for first, second in pairs)


def _both(first: Fault, second: Fault) -> Fault:
    def change(g: ConvGeometry) -> ConvGeometry:
        for fault in (first, second):
            g = fault.hooks["geometry"](g) if fault.where(g) else g
        return g

    words, look_at = f"{first.words}, and {second.words}", f"{first.look_at}; {second.look_at}"
    return Fault(f"{first.name}+{second.name}", words, look_at, {"geometry": change})


def arithmetics(numerics: Numerics) -> Iterator[tuple[Numerics, str, str]]:
    """Other arithmetic than a port declares, with its name and what it does in words, the mildest first."""
    kinds: dict[str, tuple[str, Callable[[dict[str, str]], Numerics]]] = {
        "reduction": ("plain sums (the gradient of the bias)", lambda types: changed(numerics, "reduction", types)),
        "scatter": ("scattered sums (transposed convolutions, gradients of inputs)",
                    lambda types: changed(numerics, "scatter", types)),
        "kernel_gradient": ("the gradients of the parameters",
                            lambda types: changed(numerics, "kernel_gradient", types)),
        "accumulator": ("sums of products", lambda types: changed(numerics, "accumulator", types)),
    }  # fmt: skip
    for kind, (words, change) in kinds.items():
        for dtype, short in (
            ("bfloat16", "bfloat16"),
            ("float16", "float16"),
            ("float32", "float16"),
            ("float64", "float32"),
        ):
            if numerics.forming(kind).unit_roundoff(dtype) < UNIT_ROUNDOFF[short]:
                yield change({dtype: short}), f"{kind}-{dtype}-in-{short}", f"adds up {words} of {dtype} in {short}"
    if numerics.algorithm == "direct":
        yield changed(numerics, "algorithm", "tf32"), "tf32", "rounds the inputs of float32 convolutions to TF32"


def changed(numerics: Numerics, name: str, value: Any) -> Numerics:
    """The same arithmetic with another value of one field; types are added to those that are there."""
    known = {
        key: getattr(numerics, key) for key in ("algorithm", "accumulator", "reduction", "scatter", "kernel_gradient")
    }
    return Numerics(**known | {name: {**known[name], **value} if isinstance(value, dict) else value})


def within(row: Row, numerics: Numerics) -> bool:
    """Whether a row that fails agrees under other arithmetic, by a bound that still says something."""
    want: dict[str, Expected] = expected(row.case, row.operation, numerics)
    for name, output in want.items():
        got = row.got.get(name)
        if (
            got is None
            or got.shape != output.value.shape
            or got.dtype != output.dtype
            or not np.isfinite(output.bound).all()
        ):
            return False
        if not (np.abs(got.astype(np.float64) - output.value) <= output.allowed(row.exact)).all():
            return False
    return set(row.got) == set(want)
