"""The composition, measured: its part without `D_delta`, then the part with it, each against all that ports do to them.

Asked with `D_delta = 0` a port shows what it takes for the identity and how it reads `W`; only then what `D_delta` adds is
searched. So two mistakes in different places are found one after the other, not as a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from doconv_conformance.cases.table import LOW_PRECISION, Case
from doconv_conformance.diagnosis import moves, selections, shares
from doconv_conformance.diagnosis.agreement import same
from doconv_conformance.diagnosis.asking import Ask, Question, random_question
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.faults.composition import COMPOSITION
from doconv_conformance.faults.faulty_port import Fault, FaultyPort
from doconv_conformance.port import Tensors
from doconv_conformance.verdicts.integers import composition_products
from doconv_core.composition import compose, identity, sum_tiles
from doconv_core.geometry import ConvGeometry

Fits = list[tuple[Fault, ...]]
MOST = 24
# Float32 tells factors apart that differ by more.
NEAR_FACTOR = 2.0**-22
ROWS_AT = "the index of D: i = (o // (C_out/G)) * (C_in/G) + c"


def _rows(name: str, words: str, of: Any) -> Fault:
    """A row of `D` for each kernel, from its two channels (real and local) as `W` has them, modulo `C_in`."""

    def rows(g: ConvGeometry) -> np.ndarray:
        first, second = np.indices(g.w_shape[:2])
        return of(first, second, g) % g.in_channels

    return Fault(f"rows-{name}", words, ROWS_AT, {"rows": rows})


def _in(g: ConvGeometry) -> int:
    return g.in_channels // g.groups


def _out(g: ConvGeometry) -> int:
    return g.out_channels // g.groups


@cache
def rows() -> tuple[Fault, ...]:
    """Rules for the row of `D` beside the catalogue's."""
    return (
        _rows("of-c", "takes row c of D, the channel within the group", lambda o, c, g: c),
        _rows(
            "of-group",
            "takes the row of D by the number of the group",
            lambda o, c, g: o // (_in(g) if g.transposed else _out(g)),
        ),
        _rows(
            "first-of-group",
            "takes the first row of D of each group",
            lambda o, c, g: o // (_in(g) if g.transposed else _out(g)) * _in(g),
        ),
        _rows(
            "strided",
            "takes row c * G + group of D",
            lambda o, c, g: (o % _in(g) if g.transposed else c) * g.groups + o // (_in(g) if g.transposed else _out(g)),
        ),
        _rows(
            "output-within-group",
            "takes the row of D by the output channel within the group",
            lambda o, c, g: c if g.transposed else o % _out(g),
        ),
        _rows(
            "group-of-output-modulo",
            "takes o modulo G for the group of output channel o",
            lambda o, c, g: o if g.transposed else o % g.groups * _in(g) + c,
        ),
        _rows(
            "group-by-in",
            "divides the output channel by C_in/G where C_out/G is meant",
            lambda o, c, g: o if g.transposed else np.minimum(o // _in(g), g.groups - 1) * _in(g) + c,
        ),
        _rows(
            "offset-out",
            "steps by C_out/G from group to group of D where C_in/G is meant",
            lambda o, c, g: o // _in(g) * _out(g) + o % _in(g) if g.transposed else o // _out(g) * _out(g) + c,
        ),
        _rows(
            "output",
            "takes row o of D, the output channel, modulo C_in",
            lambda o, c, g: o // _in(g) * _out(g) + c if g.transposed else o,
        ),
        _rows(
            "output-of-transposed",
            "takes row o of D, the output channel, modulo C_in, in transposed convolutions",
            lambda o, c, g: o // _in(g) * _out(g) + c if g.transposed else g.rows,
        ),
        *(
            _rows(
                f"modulo-{width}",
                f"takes the row of D modulo {width}",
                lambda o, c, g, width=width: g.rows % width,
            )
            for width in (4, 8, 16, 32, 64, 128, 256)
        ),
        *(
            _rows(
                f"at-most-{width}",
                f"takes row {width - 1} of D for every row beyond it",
                lambda o, c, g, width=width: np.minimum(g.rows, width - 1),
            )
            for width in (8, 16, 32, 64, 128, 256)
        ),
        _rows("next", "takes the next row of D", lambda o, c, g: g.rows + 1),
        _rows("previous", "takes the row of D before the right one", lambda o, c, g: g.rows - 1),
        _rows("next-group", "takes the rows of D of the next group", lambda o, c, g: g.rows + _in(g)),
        _rows(
            "within-reversed",
            "takes the rows of D within a group in reverse order",
            lambda o, c, g: g.rows // _in(g) * _in(g) + _in(g) - 1 - g.rows % _in(g),
        ),
    )


def _identity(name: str, words: str, of: Callable[[ConvGeometry], np.ndarray]) -> Fault:
    return Fault(
        f"identity-{name}", words, "the identity: E[k, s] = 1 where s < K * (S // K) and s % K == k", {"identity": of}
    )


@cache
def computed_rows() -> tuple[Fault, ...]:
    """Rows of `D` by every short formula of the channels: an offset of the group, and a channel within it."""
    offsets: dict[str, Callable[..., np.ndarray]] = {
        "": lambda o, i, g: 0 * o,
        "floor(o / (C_out/G)) * (C_in/G)": lambda o, i, g: o // _out(g) * _in(g),
        "floor(o / (C_out/G)) * (C_out/G)": lambda o, i, g: o // _out(g) * _out(g),
        "floor(o / (C_in/G)) * (C_out/G)": lambda o, i, g: o // _in(g) * _out(g),
        "floor(o / (C_in/G)) * (C_in/G)": lambda o, i, g: o // _in(g) * _in(g),
        "floor(o / (C_out/G))": lambda o, i, g: o // _out(g),
        "floor(o / (C_in/G))": lambda o, i, g: o // _in(g),
        "floor(o / G) * (C_in/G)": lambda o, i, g: o // g.groups * _in(g),
        "(o mod G) * (C_in/G)": lambda o, i, g: o % g.groups * _in(g),
        "(G - 1 - floor(o / (C_out/G))) * (C_in/G)": lambda o, i, g: (g.groups - 1 - o // _out(g)) * _in(g),
    }
    channels: dict[str, Callable[..., np.ndarray]] = {
        "": lambda o, i, g: 0 * o,
        "c": lambda o, i, g: i % _in(g),
        "c * G": lambda o, i, g: i % _in(g) * g.groups,
        "C_in/G - 1 - c": lambda o, i, g: _in(g) - 1 - i % _in(g),
        "o mod (C_out/G)": lambda o, i, g: o % _out(g),
        "o mod (C_in/G)": lambda o, i, g: o % _in(g),
        "1": lambda o, i, g: 0 * o + 1,
        "c + 1": lambda o, i, g: i % _in(g) + 1,
    }

    def rows_of(offset: Callable[..., np.ndarray], channel: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def rows(g: ConvGeometry) -> np.ndarray:
            first, second = np.indices(g.w_shape[:2])
            group = first // (g.w_shape[0] // g.groups)
            o = group * _out(g) + second if g.transposed else first
            i = first if g.transposed else group * _in(g) + second
            return (offset(o, i, g) + channel(o, i, g)) % g.in_channels

        return rows

    found = []
    for (one, offset), (other, channel) in product(offsets.items(), channels.items()):
        formula = " + ".join(filter(None, (one, other))) or "0"
        words = f"takes row {formula} of D, modulo C_in, for the kernel of output channel o and channel c of its group"
        found.append(Fault(f"rows-{formula}", words, ROWS_AT, {"rows": rows_of(offset, channel)}))
    return tuple(found)


@cache
def computed_identities() -> tuple[Fault, ...]:
    """The identity with its ones by every short formula of column and tap, in every range of columns."""
    taps: dict[str, Callable[..., np.ndarray]] = {
        "s mod K": lambda s, g: s % g.taps,
        "floor(s / floor(S/K))": lambda s, g: s // (g.d_mul // g.taps),
        "K - 1 - s mod K": lambda s, g: g.taps - 1 - s % g.taps,
        "(s - S mod K) mod K": lambda s, g: (s - g.d_mul % g.taps) % g.taps,
        "(s + 1) mod K": lambda s, g: (s + 1) % g.taps,
        "(s - 1) mod K": lambda s, g: (s - 1) % g.taps,
        "floor(s * K / S)": lambda s, g: s * g.taps // g.d_mul,
        "floor(s / ceil(S/K))": lambda s, g: s // -(-g.d_mul // g.taps),
        "min(s, K - 1)": lambda s, g: np.minimum(s, g.taps - 1),
    }
    ranges: dict[str, Callable[..., np.ndarray]] = {
        "for s < K floor(S/K)": lambda s, g: s < g.taps * (g.d_mul // g.taps),
        "for every s": lambda s, g: s >= 0,
        "for s < K": lambda s, g: s < g.taps,
        "for s >= S - K": lambda s, g: s >= g.d_mul - g.taps,
        "for s in the last whole tile": lambda s, g: s // g.taps == g.d_mul // g.taps - 1,
        "for s >= S mod K": lambda s, g: s >= g.d_mul % g.taps,
        "for s >= K": lambda s, g: s >= g.taps,
        "for s < S - 1": lambda s, g: s < g.d_mul - 1,
        "for s > 0": lambda s, g: s > 0,
    }

    def ones_at(tap: Callable[..., np.ndarray], inside: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def identity_(g: ConvGeometry) -> np.ndarray:
            s = np.arange(g.d_mul)
            return np.where((np.arange(g.taps)[:, None] == tap(s, g)) & inside(s, g), 1.0, 0.0)

        return identity_

    return tuple(
        _identity(f"{one}-{other}", f"has a one of the identity at k = {one} {other}", ones_at(tap, inside))
        for (one, tap), (other, inside) in product(taps.items(), ranges.items())
    )


@cache
def identities() -> tuple[Fault, ...]:
    """Things that stand for the identity beside the catalogue's."""
    return (
        _identity("halved", "halves the identity", lambda g: identity(g) / 2),
        _identity("ones", "has ones everywhere for the identity", lambda g: np.ones((g.taps, g.d_mul))),
        _identity("over-K", "divides the identity by K", lambda g: identity(g) / g.taps),
        _identity(
            "times-tiles",
            "multiplies the identity by the number of its tiles",
            lambda g: identity(g) * (g.d_mul // g.taps),
        ),
        _identity("shifted", "has the identity one column late", lambda g: np.roll(identity(g), 1, 1)),
        _identity("shifted-back", "has the identity one column early", lambda g: np.roll(identity(g), -1, 1)),
        _identity(
            "first-only",
            "has a single one at the first tap for the identity",
            lambda g: identity(g) * (np.arange(g.taps) == 0)[:, None],
        ),
        _identity(
            "last-missing",
            "leaves out the last tap of the identity",
            lambda g: identity(g) * (np.arange(g.taps) < g.taps - 1)[:, None],
        ),
        _identity(
            "centre",
            "has a one at the middle tap only, for every column",
            lambda g: np.repeat((np.arange(g.taps) == g.taps // 2)[:, None] * 1.0, g.d_mul, 1),
        ),
    )


@cache
def left_faults() -> tuple[Fault, ...]:
    """What can happen to the part without `D_delta`."""
    listed = [fault for fault in COMPOSITION if fault.hooks.keys() <= {"W", "identity", "kernel"}]
    return (
        *listed,
        *identities(),
        *computed_identities(),
        *moves.of_w("W"),
        *moves.of_w("identity_W"),
        *moves.of_kernel("kernel"),
    )


@cache
def _right() -> tuple[Fault, ...]:
    listed = [fault for fault in COMPOSITION if fault.hooks.keys() <= {"D_delta", "rows", "delta"}]
    return (*listed, *rows(), *computed_rows(), twice(), in_place(), *moves.of_d("D_delta"), *moves.of_w("delta_W"))


def in_place() -> Fault:
    """`W` overwritten while it is read."""

    def composed(port: FaultyPort, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        if "D_delta" not in inputs:
            return compose(inputs["W"], None, g)
        W, D = inputs["W"].astype(np.float64), inputs["D_delta"].astype(np.float64)[g.rows]
        kernel = sum_tiles(W, g).reshape(*g.w_shape[:2], g.taps)
        for k in range(g.taps):
            kernel[..., k] += (D[..., k, :] * W).sum(-1)
            W[..., k] = kernel[..., k]
        return kernel.reshape(g.kernel_shape).astype(inputs["W"].dtype)

    words = "composes in place: where W'[..., k] is summed up, W[..., s] of s < k is W'[..., s] already"
    return Fault(
        "in-place", words, "the buffer of the composed kernel, which must not be that of W", {"compose": composed}
    )


def fits(ask: Ask, case: Case, known: Sequence[Fault], operation: str = "compose") -> Fits:
    """Sets of faults with which the reference answers as the port does, at the case's geometry; the smallest sets.

    Args:
        ask: the port.
        case: a case that fails.
        known: what is found already.
        operation: that is asked; "compose", or another one where only that shows the composition.
    """
    whole = random_question(case, 1)
    without = whole.with_(D_delta=np.zeros(case.geometry.d_shape)) if case.geometry.has_d else whole
    got, got_without = ask(operation, whole), ask(operation, without)
    if got is None or got_without is None:
        return []
    search = _Search(known, operation)
    lefts: Fits = (
        [()] if search.gives((), without, got_without) else search.singles(left_faults(), without, got_without)
    )
    if not lefts and operation == "compose":
        lefts = search.pairs(left_faults(), without, got_without)
    if not case.geometry.has_d:
        lefts = lefts or scaled_parts(search, case, whole, got)
        return lefts or (shares.fits(ask, case, known) if operation == "compose" else [])
    found: Fits = []
    for left in lefts[:MOST]:
        if search.gives(left, whole, got):
            found.append(left)
    if found:
        return found
    if not lefts or operation == "compose":
        found += scaled_parts(search, case, whole, got)
    for left in lefts[:MOST]:
        found += [(*left, *right) for right in search.singles(_right(), whole, got, left)]
    if not found and operation == "compose":
        for left in lefts[: MOST // 8]:
            found += [(*left, *right) for right in search.pairs(_right(), whole, got, left)]
    return found or (shares.fits(ask, case, known) if operation == "compose" else [])


def scaled_parts(search: _Search, case: Case, question: Question, got: Tensors) -> Fits:
    """`e W E^T + d (D_delta o W)` with other factors than 1, solved from the answer."""
    parts = []
    for e, d in ((1, 0), (0, 1)) if case.geometry.has_d else ((1, 0),):
        outputs = search.planted((factors(e, d),), question)
        if (
            outputs is None
            or "weight" not in outputs
            or outputs["weight"].shape != got.get("weight", np.zeros(0)).shape
        ):
            return []
        parts.append(outputs["weight"].astype(np.float64).ravel())
    solved, *_ = np.linalg.lstsq(np.stack(parts, -1), got["weight"].astype(np.float64).ravel(), rcond=None)
    if not np.isfinite(solved).all():
        return []
    solved = np.append(solved, [1.0] * (2 - len(solved)))  # without D_delta its part may be as it is
    one, other = (_plain(float(number)) for number in solved)
    if (one, other) == (1, 1):
        return []
    found = [factors(one, other), *_by_formulas(float(solved[0]), float(solved[1]), case.geometry)]
    return [(fault,) for fault in found if search.gives((fault,), question, got)]


FORMULAS: dict[str, Callable[[ConvGeometry], float]] = {
    "K/S": lambda g: g.taps / g.d_mul,
    "S/K": lambda g: g.d_mul / g.taps,
    "1/K": lambda g: 1 / g.taps,
    "1/S": lambda g: 1 / g.d_mul,
    "sqrt(K/S)": lambda g: (g.taps / g.d_mul) ** 0.5,
    "sqrt(S/K)": lambda g: (g.d_mul / g.taps) ** 0.5,
    "1/sqrt(C_in/G)": lambda g: (g.groups / g.in_channels) ** 0.5,
    "1/C_in": lambda g: 1 / g.in_channels,
    "1/C_out": lambda g: 1 / g.out_channels,
    "1/sqrt(K)": lambda g: g.taps**-0.5,
    "1/sqrt(S)": lambda g: g.d_mul**-0.5,
    "1/G": lambda g: 1 / g.groups,
    "1/(C_in/G)": lambda g: g.groups / g.in_channels,
    "1/(C_out/G)": lambda g: g.groups / g.out_channels,
    "K": lambda g: g.taps,
    "S": lambda g: g.d_mul,
    "G": lambda g: g.groups,
}


def _by_formulas(e: float, d: float, g: ConvGeometry) -> list[Fault]:
    """The same factors as a formula of the sizes, where one of them is 1."""
    found = []
    for words, of in FORMULAS.items():
        if abs(of(g) - 1) < NEAR_FACTOR:
            continue  # says nothing here
        for part, hook, number, other in (("the identity's part", "identity", e, d), ("D_delta", "delta", d, e)):
            if abs(number - of(g)) < NEAR_FACTOR and abs(other - 1) < NEAR_FACTOR:
                change: Any = of if hook == "delta" else lambda g, of=of: of(g) * identity(g)
                look_at = "a factor in the residual form W E^T + D_delta o W"
                found.append(Fault(f"factor-{hook}-{words}", f"counts {part} {words} times", look_at, {hook: change}))
    return found


def _plain(number: float) -> Fraction:
    """A fraction where it is one, else as many decimal places as float32 tells apart."""
    fraction = Fraction(number).limit_denominator(64)
    return fraction if abs(float(fraction) - number) < NEAR_FACTOR else Fraction(f"{number:.6f}")


def factors(e: Fraction | int, d: Fraction | int) -> Fault:
    """A composition with factors on its two parts."""
    of_e, of_d = (f"{float(part):g}" if Fraction(part).denominator > 64 else f"{part}" for part in (e, d))
    words = f"counts the identity's part {of_e} times and D_delta {of_d} times"
    if e == 1:
        words = f"counts D_delta {of_d} times"
    elif d == 1:
        words = f"counts the identity's part {of_e} times"
    hooks = {"identity": lambda g: float(e) * identity(g), "delta": lambda g: float(d)}
    return Fault(f"factors-{of_e}-{of_d}", words, "the residual form W E^T + D_delta o W", hooks)


def lost_parts(got: np.ndarray, question: Question, known: Sequence[Fault]) -> list[Fault]:
    """One of the two parts of the composed kernel is missing in some of it: for kernels too large to ask about every entry."""
    g, search = question.geometry, _Search(known, "compose")
    both, one = search.planted((), question), search.planted((), question.with_(D_delta=np.zeros(g.d_shape)))
    if both is None or one is None or got.shape != g.kernel_shape:
        return []
    shape = (*g.w_shape[:2], g.taps)
    whole, identity_ = (tensor["weight"].astype(np.float64).reshape(shape) for tensor in (both, one))
    given = got.astype(np.float64).reshape(shape)
    wrong, found = given != whole, list[Fault]()
    first = int(np.argmax(wrong))
    if wrong.any() and not given.ravel()[first:].any():
        return [_cut(first)]
    for name, words, left in (("delta", "D_delta", identity_), ("identity", "the identity", whole - identity_)):
        if not np.array_equal(given[wrong], left[wrong]):
            continue
        for part, at in selections.parts(_kernel_axes(g), shape, wrong):
            if np.array_equal(given[at], left[at]):
                found.append(_without(name, f"leaves {words} out of the composed kernel{selections.words(part)}", part))
                break
    return found


def _cut(first: int) -> Fault:
    def change(kernel: np.ndarray, g: ConvGeometry) -> np.ndarray:
        return np.where(np.arange(kernel.size).reshape(kernel.shape) < first, kernel, 0)

    words = f"has zeros for the composed kernel from about its entry number {first} on, counted in memory"
    return Fault(f"kernel-from-{first}", words, "a limit on the number of entries, or of blocks", {"kernel": change})


def _kernel_axes(g: ConvGeometry) -> list[selections.Axis]:
    taps = selections.Axis("tap", np.arange(g.taps).reshape(1, 1, -1), g.taps)
    return [axis for axis in (*selections.pairs(g, (slice(None), slice(None), None)), taps) if axis.size > 1]


def _without(name: str, words: str, part: selections.Part) -> Fault:
    def compose_(port: object, g: ConvGeometry, inputs: Tensors) -> np.ndarray:
        W, D = inputs["W"].astype(np.float64), inputs["D_delta"].astype(np.float64)
        identity_ = compose(W, np.zeros_like(D), g)
        whole = compose(W, D, g)
        left = identity_ if name == "delta" else whole - identity_
        at = selections.mask(part, _kernel_axes(g), (*g.w_shape[:2], g.taps))
        at = np.broadcast_to(at, (*g.w_shape[:2], g.taps)).reshape(g.kernel_shape)
        return np.where(at, left, whole).astype(inputs["W"].dtype)

    look_at = "the loops of the composition over large W, and what is done a block at a time"
    return Fault(f"compose-{words}", words, look_at, {"compose": compose_}, lambda g: g.has_d)


def twice() -> Fault:
    """`D_delta` applied to its own product."""

    def change(D: np.ndarray, g: ConvGeometry) -> np.ndarray:
        return D + D @ D if g.taps == g.d_mul else D

    return Fault(
        "delta-applied-twice",
        "applies D_delta a second time to its own product, where S is K",
        "the number of times that D_delta is multiplied",
        {"D_delta": change},
    )


class _Search:
    """Tries faults on a question whose answer is known."""

    def __init__(self, known: Sequence[Fault], operation: str) -> None:
        self.known, self.operation = tuple(known), operation

    def planted(self, faults: Sequence[Fault], question: Question) -> Tensors | None:
        active = [fault for fault in (*self.known, *faults) if fault.where(question.geometry)]
        return run(active, question.geometry, self.operation, question.inputs(self.operation))

    def gives(self, faults: Sequence[Fault], question: Question, got: Tensors) -> bool:
        return same(got, self.planted(faults, question))

    def singles(self, faults: Sequence[Fault], question: Question, got: Tensors, base: Sequence[Fault] = ()) -> Fits:
        return [(fault,) for fault in faults if self.gives((*base, fault), question, got)]

    def pairs(self, faults: Sequence[Fault], question: Question, got: Tensors, base: Sequence[Fault] = ()) -> Fits:
        """Pairs of different hooks; of those that do the same alone one is tried, and then the others."""
        alike: dict[tuple[str, bytes], list[Fault]] = {}
        for fault in faults:
            outputs = self.planted((*base, fault), question)
            if outputs is not None:
                key = min(fault.hooks), b"".join(outputs[name].tobytes() for name in sorted(outputs))
                alike.setdefault(key, []).append(fault)
        found: Fits = []
        for (one, first), (other, second) in product(alike.items(), alike.items()):
            if one[0] < other[0] and self.gives((*base, first[0], second[0]), question, got):
                found += product(first, second)
        return found


def facts(ask: Ask, case: Case, known: Sequence[Fault]) -> list[str]:
    """In words: what the composition makes of single ones, where nothing that is known does the same."""
    g, lines = case.geometry, []
    taps = f"{g.describe()}"
    names = {"zero": np.zeros(g.w_shape)}
    W = np.arange(1.0, np.prod(g.w_shape) + 1).reshape(g.w_shape)
    tensors: dict[str, np.ndarray] = {"W": names["zero"]}
    if g.has_d:
        tensors["D_delta"] = np.ones(g.d_shape)
    types = case.dtype, case.param_dtype
    nothing = ask("compose", Question(g, tensors, *types))
    if nothing and "weight" in nothing and nothing["weight"].any():
        lines.append("with W = 0 the composed kernel is not 0")
    tensors = {"W": W} | ({"D_delta": np.zeros(g.d_shape)} if g.has_d else {})
    answer = ask("compose", Question(g, tensors, *types))
    right = run((), g, "compose", Question(g, tensors, *types).inputs("compose"))
    planted = run(
        [fault for fault in known if fault.where(g)], g, "compose", Question(g, tensors, *types).inputs("compose")
    )
    if answer and right and planted and "weight" in answer and not same(answer, planted):
        lines += _first_difference("with D_delta = 0 and W counted up from 1", answer["weight"], right["weight"])
    if g.has_d and not lines:
        lines += _table(ask, case)
    return [*lines, f"measured at {taps}"]


def _first_difference(where: str, got: np.ndarray, right: np.ndarray) -> list[str]:
    if got.shape != right.shape:
        return [f"{where} the composed kernel has shape {got.shape}; must be {right.shape}"]
    wrong = np.argwhere(got != right)
    if not len(wrong):
        return []
    at = tuple(int(i) for i in wrong[0])
    return [
        f"{where}, W'{list(at)} is {float(got[at]):.9g}; must be {float(right[at]):.9g} ({len(wrong)} of {got.size} are wrong)"
    ]


def _table(ask: Ask, case: Case) -> list[str]:
    """The first entries of `D_delta` that meet other entries of `W`, or land in another tap, than they should."""
    g, lines = case.geometry, list[str]()
    W = np.random.default_rng(0).permutation(np.prod(g.w_shape)).reshape(g.w_shape) + 1000.0
    types = case.dtype, case.param_dtype
    if {case.dtype, case.param_dtype} & {*LOW_PRECISION}:
        return lines  # too few different numbers
    base = ask("compose", Question(g, {"W": W, "D_delta": np.zeros(g.d_shape)}, *types))
    if base is None:
        return lines
    right: dict[tuple[int, ...], dict[tuple[int, ...], tuple[int, ...]]] = {}
    for kernel, d, w, _ in composition_products(case):
        right.setdefault(d, {})[kernel] = w
    for index in np.ndindex(*g.d_shape):
        D = np.zeros(g.d_shape)
        D[index] = 1
        answer = ask("compose", Question(g, {"W": W, "D_delta": D}, *types))
        if answer is None or "weight" not in answer or answer["weight"].shape != g.kernel_shape:
            continue
        added = answer["weight"].astype(np.float64) - base["weight"]
        met = {tuple(map(int, at)): added[tuple(at)] for at in np.argwhere(added)}
        want = {at: W[w] for at, w in right.get(index, {}).items()}
        if met != want:
            lines.append(f"a one at D_delta{list(index)} adds {_shown(met, W)}; must add {_shown(want, W)}")
        if len(lines) == 3:
            break
    return lines


def _shown(met: dict[tuple[int, ...], float], W: np.ndarray) -> str:
    where = {value: index for index, value in np.ndenumerate(W)}
    items = [
        f"W[{','.join(map(str, where[value]))}] to W'[{','.join(map(str, at))}]"
        if value in where
        else f"{value:.9g} to W'[{','.join(map(str, at))}]"
        for at, value in list(met.items())[:3]
    ]
    return "nothing" if not met else ", ".join(items) + (", ..." if len(met) > 3 else "")
