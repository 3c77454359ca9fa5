"""What can be wrong with the arithmetic: sites, types and modes crossed, and the orders of sums that are rounded on the way.

The mildest and simplest come first: results, then what is read, the kernel, the parts of the composition, then sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

from doconv_conformance.cases.draws import DIGITS
from doconv_conformance.cases.table import LOW_PRECISION
from doconv_conformance.diagnosis.rounded_port import Order, Plan, Target
from doconv_conformance.faults import Fault

# Types of the activations and of the parameters, of one kind of rows.
Types = tuple[str | None, str]
CASTS = frozenset({"weight", "kernel", "used", "y", "grad_x", "grad_W", "grad_D_delta", "grad_bias", "bias", "start"})
WRITTEN = CASTS - {"kernel", "used"}
GRADIENTS = frozenset({"grad_x", "grad_W", "grad_D_delta", "grad_bias"})
RESULTS: dict[str, frozenset[str]] = {
    "results": WRITTEN,
    "y": frozenset({"y"}),
    "the results of compose and fold": frozenset({"weight"}),
    "gradients": GRADIENTS,
    "the gradients of the parameters": GRADIENTS - {"grad_x"},
    "grad_W and grad_D_delta": frozenset({"grad_W", "grad_D_delta"}),
    **{name: frozenset({name}) for name in ("grad_x", "grad_W", "grad_D_delta", "grad_bias")},
}
PARTS = {
    ("y", "grad_x", "grad_kernel"): "",
    ("y", "grad_x"): ", in y and in the gradient of x",
    ("y", "grad_kernel"): ", in y and in the gradients of the parameters",
    ("grad_x", "grad_kernel"): ", in the gradients",
    ("y",): ", in y",
    ("grad_x",): ", in the gradient of x",
    ("grad_kernel",): ", in the gradients of the parameters",
}
FACTORS = {"y": ("x", "kernel"), "grad_x": ("kernel", "grad_y"), "grad_kernel": ("x", "grad_y")}
COMPOSED = frozenset({"W.compose", "D.compose"})
READ: dict[str, tuple[frozenset[str], str]] = {
    "W": (frozenset({"W.compose", "W.grad_D"}), ""),
    "D_delta": (frozenset({"D.compose", "D.grad_W"}), ""),
    "W and D_delta": (COMPOSED | {"W.grad_D", "D.grad_W"}, " before it composes them, in the gradients, too"),
    "W and D_delta ": (COMPOSED, " before it composes them"),
    "W ": (frozenset({"W.compose"}), " before it composes"),
    "D_delta ": (frozenset({"D.compose"}), " before it composes"),
    "the bias": (frozenset({"bias.y"}), " before it is added"),
    "grad_y": (frozenset({"grad_y.grad_x", "grad_y.grad_kernel", "grad_y.grad_bias"}), ""),
    "grad_y ": (frozenset({"grad_y.grad_bias"}), ", in the gradient of the bias"),
    "W  ": (frozenset({"W.grad_D"}), ", in the gradient of D_delta"),
    "D_delta  ": (frozenset({"D.grad_W"}), ", in the gradient of W"),
}
INSIDE: dict[str, tuple[frozenset[str], str]] = {
    "the composed kernel": (frozenset({"kernel"}), "the type of the composition"),
    "1 + D_delta": (frozenset({"1+D.compose", "1+D.grad_W"}), "the residual form W E^T + D_delta o W"),
    "1 + D_delta before it composes": (frozenset({"1+D.compose"}), "the residual form W E^T + D_delta o W"),
    "1 + D_delta in the gradient of W": (frozenset({"1+D.grad_W"}), "the gradient of the residual form"),
    "D_delta o W before the identity's part is added": (frozenset({"delta"}), "the type of the composition's sums"),
    "the identity's part W E^T": (frozenset({"identity"}), "the type of the composition's sums"),
    "both parts of the composition": (frozenset({"identity", "delta"}), "the type of the composition's sums"),
    "the part of the gradient of W that comes through D_delta": (
        frozenset({"delta.grad_W"}),
        "the sum in the gradient of W",
    ),
    "the identity's part of the gradient of W": (frozenset({"identity.grad_W"}), "the sum in the gradient of W"),
    "the gradient of the composed kernel": (frozenset({"grad_kernel"}), "where the gradient is cast"),
    "y before the bias is added": (frozenset({"bare"}), "the type of the sums"),
}
LOOPS = {
    "y": (("tap",), ("channel",), ("channel", "tap"), ("tap", "channel")),
    "grad_x": (("tap",), ("channel",), ("channel", "tap"), ("tap", "channel")),
    "grad_kernel": (("image",), ("position",), ("image", "position"), ("position", "image")),
    "grad_bias": (("image",), ("position",), ("image", "position"), ("position", "image")),
    "weight": (("column",),),
    "grad_D_delta": (("channel",),),
    "grad_W": (("tap",),),
}
SUMS = {
    "y": "sums of products of {of}",
    "grad_x": "the gradient of x of {of}",
    "grad_kernel": "the gradient of the composed kernel of {of}",
    "grad_bias": "the gradient of the bias of {of}",
    "weight": "D_delta * W of {of}",
    "grad_D_delta": "the gradient of D_delta of {of}",
    "grad_W": "the gradient of W of {of}",
}
ROUNDING = "the type and the rounding of the results"
PRECISION = "the precision settings of convolutions, or a cast"
MODES = {
    "cut": "rounds {what} of {of} towards zero",
    "towards zero": "rounds {what} of {of} towards zero, and what overflows to the largest number",
    "halves away": "rounds {what} of {of} to nearest, halves away from zero",
    "flushed": "takes {of} numbers below the smallest normal one for zero in {what}",
    "saturating": "has {of} numbers that overflow become the largest number in {what}",
}
HOW = {"nearest": "", "cut": ", towards zero", "halves away": ", halves away from zero"}
FLUSHING = "a mode of the processor or the library: flush to zero, denormals are zero"


@dataclass(frozen=True)
class Kind:
    """A mistake before it is known of which types.

    Attributes:
        fault: to be planted.
        words: with `{of}` and `{to}` for the types.
    """

    fault: Fault
    words: str

    @property
    def plan(self) -> Plan:
        """What is planted."""
        plan: Plan = self.fault.hooks["arithmetic"]
        return plan

    def shows(self, operation: str) -> frozenset[str]:
        """The outputs of an operation that may be others; "" for all of `initialise`, which are judged together."""
        shown = self.plan.shows
        return frozenset({""}) if operation == "initialise" and shown & {"weight", "W"} else shown

    def said(self, types: Iterable[Types]) -> str:
        """In words, of the types of the rows that it explains."""
        pairs = dict[str, str]()
        for of, param in types:
            to = self.plan.target(of, param)
            pairs.setdefault(of or param, to or "")
        if len(set(pairs.values())) > 1:
            return self.words.format(of=" and ".join(pairs), to="that type")
        return self.words.format(of=" and ".join(pairs), to=type_in_words(*next(iter(pairs.items()))))


def type_in_words(of: str, to: str) -> str:
    """A type that is rounded to: by its digits where it is not a low-precision type's own."""
    if to == "TF32":
        return "11 digits, those of float16 or TF32"
    return f"{DIGITS[to]} digits, those of {to}" if to in DIGITS and of != to and to != "float16" else to


def _own(of: str | None, param: str) -> str | None:
    """The low-precision type of the computation."""
    return next(filter(LOW_PRECISION.__contains__, (of or param,)), None)


def _of_parameters(of: str | None, param: str) -> str | None:
    return param if param in LOW_PRECISION else None


def _any_low(of: str | None, param: str) -> str | None:
    return _own(of, param) or _of_parameters(of, param)


@cache
def _to(source: str, to: str) -> Target:
    return lambda of, param: to if (of or param) == source else None


SHORTER = (
    ("float64", "float32"), ("float32", "TF32"), ("float32", "bfloat16"), ("float32", "float16"), ("float16", "bfloat16"),
)  # fmt: skip


def kinds(
    digits: Mapping[str, set[int]] | None = None, blocks: Iterable[int] = (), mode: str = "nearest"
) -> list[Kind]:
    """All of them.

    Args:
        digits: further numbers of digits that were measured, by type.
        blocks: after how many terms sums were measured to be rounded.
        mode: in which results were measured to be rounded.
    """
    shorter = [_to(source, to) for source, to in SHORTER]
    shorter += [_to(source, f"{n} digits") for source, several in (digits or {}).items() for n in sorted(several)]
    modes = (
        "nearest",
        *{"towards zero": ("cut",), "to nearest, halves away from zero": ("halves away",)}.get(mode, ()),
    )
    found = [*_casts(), *_results(shorter)]
    for how in ("nearest", "cut"):
        found += [*_factors(shorter, how), *_read(shorter, how)]
    found += [*_inside(shorter), *_composition(_to("float64", "float32"))]
    for how in modes:
        for target in (
            _own,
            _of_parameters,
            *map(_to, ("float64", "float32", "float32"), ("float32", "float16", "bfloat16")),
        ):
            found += _sums(target, how, blocks)
    return found


def _kind(words: str, look_at: str, plan: Plan) -> Kind:
    return Kind(Fault(words, words, look_at, {"arithmetic": plan}), words)


def _casts() -> Iterator[Kind]:
    """Another rounding to a tensor's own type."""
    where = {
        **RESULTS,
        "results and the used kernel": CASTS,
        "the used kernel": frozenset({"used"}),
        "the composed kernel": frozenset({"kernel", "used"}),
    }
    for mode, (what, sites) in product(MODES, where.items()):
        look_at = FLUSHING if mode == "flushed" else ROUNDING
        words = MODES[mode].replace("{what}", what)
        yield _kind(words, look_at, Plan(_any_low, sites, mode, casts=True))
    read = frozenset({"x.y", "x.grad_kernel", "grad_y.grad_x", "grad_y.grad_kernel", "grad_y.grad_bias", "bias.y",
                      "W.compose", "D.compose", "W.grad_D", "D.grad_W", "kernel.y", "kernel.grad_x"})  # fmt: skip
    words = "takes {of} numbers below the smallest normal one for zero where it reads them"
    yield _kind(words, FLUSHING, Plan(_own, read, "flushed"))
    yield _kind(f"{words}, and where it writes them", FLUSHING, Plan(_own, read | WRITTEN, "flushed"))


def _results(shorter: Iterable[Target]) -> Iterator[Kind]:
    for target, (what, sites) in product(shorter, RESULTS.items()):
        words = "rounds {of} results to {to}" if what == "results" else f"rounds {what} of {{of}} to {{to}}"
        yield _kind(words, ROUNDING, Plan(target, sites))
    for what in ("grad_W and grad_D_delta", "the gradients of the parameters", "grad_W", "grad_D_delta"):
        words = f"gives {what} in the type of x, {{of}}"
        yield _kind(words, "where the gradients are cast", Plan(_own, RESULTS[what]))


def _factors(shorter: Iterable[Target], mode: str) -> Iterator[Kind]:
    names = (
        ("x", "kernel"),
        ("x",),
        ("kernel",),
        ("grad_y",),
        ("x", "grad_y"),
        ("kernel", "grad_y"),
        ("x", "kernel", "grad_y"),
    )
    for target, (parts, where), some in product(shorter, PARTS.items(), names):
        sites = {f"{name}.{part}" for part in parts for name in some if name in FACTORS[part]}
        missing = any(not set(FACTORS[part]) & set(some) for part in parts)
        if missing or any(all(name not in FACTORS[part] for part in parts) for name in some):
            continue
        *before, last = ({"kernel": "the kernel"}.get(name, name) for name in some)
        said = " and ".join(filter(None, (", ".join(before), last)))
        yield _kind(
            f"rounds {said} of {{of}} convolutions to {{to}}{HOW[mode]}{where}",
            PRECISION,
            Plan(target, frozenset(sites), mode),
        )


def _read(shorter: Iterable[Target], mode: str) -> Iterator[Kind]:
    for target, (what, (sites, where)) in product((_own, *shorter), READ.items()):
        words = f"rounds {what.strip()} of {{of}} to {{to}}{HOW[mode]}{where}"
        yield _kind(
            words, "where tensors are cast: the composed kernel, once, after the composition", Plan(target, sites, mode)
        )


def _inside(shorter: Iterable[Target]) -> Iterator[Kind]:
    for target, (what, (sites, look_at)) in product((_own, _of_parameters, *shorter), INSIDE.items()):
        yield _kind(f"rounds {what} of {{of}} to {{to}}", look_at, Plan(target, sites))


def _composition(target: Target) -> Iterator[Kind]:
    """All of it in another type."""
    forward = COMPOSED | {"identity", "delta", "kernel"}
    back = frozenset(
        {"W.grad_D", "D.grad_W", "grad_kernel", "identity.grad_W", "delta.grad_W", "grad_W", "grad_D_delta"}
    )
    whole, of = frozenset({"1+D.compose", "1+D.grad_W"}), "composes the kernel of {of} in {to}"
    for sites, what in (
        (forward | back, f"{of}, and its gradients"),
        (forward, of),
        (back, "takes the gradients of W and D_delta of {of} through the composition in {to}"),
        (forward | back | whole, f"builds 1 + D_delta and {of}, and its gradients"),
        (forward | {"1+D.compose"}, f"builds 1 + D_delta and {of}"),
    ):
        yield _kind(what, "the type of the composition, a default type", Plan(target, sites, loose=True))


def _sums(target: Target, mode: str, blocks: Iterable[int]) -> Iterator[Kind]:
    starts = {"y": ("", "the bias"), "weight": ("", "the identity's part"), "grad_W": ("", "the identity's part")}
    low = target in (_own, _of_parameters)
    for of, loops in LOOPS.items():
        look_at = f"the type in which {SUMS[of].removesuffix(' of {of}')} is formed"
        for order in _orders(of, loops, starts.get(of, ("",)), blocks):
            yield _kind(_order_in_words(order, mode, low), look_at, Plan(target, mode=mode, order=order))


def _orders(
    of: str, several: Iterable[tuple[str, ...]], starts: Iterable[str], blocks: Iterable[int]
) -> Iterator[Order]:
    for loops in several:
        for first in starts:
            yield Order(of, loops, first=first)
            yield Order(of, loops, terms=True, first=first)
        yield Order(of, loops, terms=True, block=0)
        if len(loops) > 1:
            yield Order(of, loops, way="nested")
            for block in blocks:
                yield Order(of, loops, block=block)
        yield Order(of, loops, way="halves")
        yield Order(of, loops, terms=True, way="halves")


def _order_in_words(order: Order, mode: str, low: bool) -> str:
    what = SUMS[order.of]
    by = " and ".join(f"{name} by {name}" for name in order.loops)
    whole = len(order.loops) > 1 or order.of in ("weight", "grad_W", "grad_D_delta")
    one = "product" if whole and order.of != "grad_bias" else f"{order.loops[-1]}'s share"
    how = HOW[mode]
    if not order.block:
        bare = what.removeprefix("sums of products of ")
        said = "rounds each product of {of} convolutions to {to} before it is added"
        if order.of != "y" or one != "product":
            said = f"rounds each {one} of {bare} to {{to}} before it is added"
        return said + how
    if order.block > 1:
        return f"rounds {what} to {{to}} after each {order.block} products{how}"
    to = "the low-precision type of the parameters, {to}" if order.of == "weight" and low else "{to}"
    said = f"adds up {what.removesuffix(' of {of}') if order.of == 'weight' else what} in {to}"
    said += {
        "sequence": f", {by}",
        "halves": f", in pairs, {by}",
        "nested": f", {by}, each {order.loops[0]} by itself",
    }[order.way]
    said += f", and rounds each {one} to it" if order.terms else ""
    return said + (f", {order.first} first" if order.first else "") + how
