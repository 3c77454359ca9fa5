"""What an output is made of beside the map: linear or not, the bias, the fold; and forward's own composition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_conformance.diagnosis import added, composition, convolution, in_parts, moves, selections
from doconv_conformance.diagnosis.agreement import is_near, same
from doconv_conformance.diagnosis.asking import Ask, Question, random_question
from doconv_conformance.diagnosis.options import modes_of_ends
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.readings import readings
from doconv_conformance.diagnosis.wiring import wirings
from doconv_conformance.faults.convolution import BIASES, CONVOLUTION
from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.faults.gradients import FOLDING
from doconv_conformance.port import Tensors
from doconv_core.composition import sum_tiles
from doconv_core.convolution import convolve
from doconv_core.geometry import ConvGeometry
from doconv_core.padding import pad

Fits = list[tuple[Fault, ...]]


def output_fits(
    ask: Ask, case: Case, known: Sequence[Fault], operation: str, holds: Callable[[tuple[Fault, ...]], bool]
) -> Fits:
    """Sets of faults of the convolution, the bias, the composition inside `forward`, or the fold.

    Those of the plainest source that has some for which `holds` is true, as it is asked of the failing row itself.
    """
    question = random_question(case, 1)
    bare = question.with_(bias=np.zeros(case.geometry.out_channels)) if case.bias else question
    answer, whole = ask(operation, bare), ask(operation, question)
    if answer is None or whole is None:
        return []
    if same(answer, _planted(known, bare, operation)):
        found = [*_with_bias([()], whole, known, question, operation), *_in_a_part(whole, known, question, operation)]
        found.sort(key=lambda fit: any(fault.name.startswith(in_parts.OF_BIAS) for fault in fit))  # the plainer first
        return [fit for fit in found if holds(fit)]
    for bases in _of_the_map(ask, case, known, operation, bare, answer):
        if found := [fit for fit in _with_bias(bases, whole, known, question, operation) if holds(fit)]:
            return found
    return []


def _in_a_part(whole: Tensors, known: Sequence[Fault], question: Question, operation: str) -> Fits:
    """What is done to the finished output in one part of it."""
    right, hook = _planted(known, question, operation), "y" if operation == "forward" else "out_y"
    if right is None or "y" not in whole:
        return []
    return [(fault,) for fault in selections.fits(hook, whole["y"], right["y"], question.geometry)]


def _with_bias(bases: Fits, whole: Tensors, known: Sequence[Fault], question: Question, operation: str) -> Fits:
    """Those of `bases` that explain the answer with a bias, too; else with a fault of the bias on top."""
    found = [base for base in bases if same(whole, _planted((*known, *base), question, operation))]
    if found or "bias" not in question.tensors:
        return found
    for base in bases[:8]:
        bare = _planted((*known, *base), question.with_(bias=np.zeros_like(question.tensors["bias"])), operation)
        in_a_part = in_parts.of_bias(whole["y"], bare["y"], question) if bare and "y" in whole else []
        usable = [
            fault
            for fault in (*biases(), *in_a_part)
            if same(whole, _planted((*known, *base, fault), question, operation))
        ]
        found += [(*base, fault) for fault in usable]
    return found


def _of_the_map(
    ask: Ask, case: Case, known: Sequence[Fault], operation: str, bare: Question, answer: Tensors
) -> Iterator[Fits]:
    """What explains the answer without a bias, from one source after the other."""
    right, found = _planted(known, bare, operation), list[tuple[Fault, ...]]()
    if operation == "forward":
        measured = convolution.measure(ask, case, known)
        ends = [rule.fault("options") for rule in modes_of_ends() if case.geometry.padding_mode != "zeros"]
        of_ends = _planted_alike([*ends, *wirings()], known, bare, answer, operation)
        found += [*(convolution.fits(measured) if measured else ()), *of_ends]
    if operation == "fold":
        found += [(fault,) for fault in folds() if same(answer, _planted((*known, fault), bare, operation))]
    single = (
        *moves.of_activations("x"),
        *moves.of_activations("bare"),
        *moves.of_activations("y"),
        *moves.of_kernel("conv_kernel"),
        *elementwise(answer, right),
        *(added.fits("y", answer["y"], right["y"], {"x": bare.tensors["x"]}) if right and "y" in answer else ()),
        *by_taps_inside(),
        *paddings(),
    )
    single = (*single, *padded_with(answer_to_nothing(ask, bare), known, bare))
    found += [*_readings_alike(known, bare, answer, operation), *_planted_alike(single, known, bare, answer, operation)]
    yield [fit for at, fit in enumerate(found) if fit not in found[:at]]
    if right is not None and "y" in answer:
        hooks = ("bare", "y") if operation == "forward" else ("out_y",)
        yield [(fault,) for hook in hooks for fault in selections.fits(hook, answer["y"], right["y"], case.geometry)]
    if operation == "forward" and "y" in answer:
        yield composition.fits(ask, replace(case, bias=False), known, operation)
        yield [
            (fault,)
            for fault in in_parts.of_output((*CONVOLUTION, *single, *_firsts(case.geometry)), known, bare, answer["y"])
        ]
        yield [(fault,) for fault in in_parts.of_input_channels(ask, case, known)]


def _planted_alike(
    faults: Sequence[Fault], known: Sequence[Fault], question: Question, answer: Tensors, operation: str
) -> Fits:
    """Those of single faults with which the reference answers like that."""
    usable = [fault for fault in faults if fault.where(question.geometry)]
    return [(fault,) for fault in usable if same(answer, _planted((*known, fault), question, operation))]


def _firsts(g: ConvGeometry) -> list[Fault]:
    return [rules[0].fault("options") for rules in readings(g)]


def _readings_alike(known: Sequence[Fault], question: Question, answer: Tensors, operation: str) -> Fits:
    """The same for every misreading of one option."""
    found: Fits = []
    for rules in readings(question.geometry):
        one, *others = (rule.fault("options") for rule in rules)
        if same(answer, _planted((*known, one), question, operation)):
            found += [(fault,) for fault in (one, *others)]
    return found


@cache
def paddings() -> tuple[Fault, ...]:
    """Padded inputs whose axes do not act apart, or that have a mode on some axes only."""

    def of(name: str, words: str, keep: Callable[[np.ndarray], Any]) -> Fault:
        """`keep` says which elements are padded by the mode, by the axes along which they lie outside; others are zero."""

        def padded(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
            if g.padding_mode == "zeros":
                return pad(x, g.padding, g.padding_mode)
            outside = [
                np.pad(np.zeros(size), pair, constant_values=1).reshape(
                    [-1 if at == axis else 1 for at in range(g.spatial_rank)]
                )
                for axis, (size, pair) in enumerate(zip(x.shape[2:], g.padding, strict=True))
            ]
            stacked = np.stack(np.broadcast_arrays(*outside)).astype(bool)
            return np.where(~stacked.any(0) | keep(stacked), pad(x, g.padding, g.padding_mode), 0.0)

        where = "the order in which the axes are padded"
        return Fault(f"padding-{name}", words, where, {"padded": padded}, lambda g: g.padding_mode != "zeros")

    def of_first_image(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
        inside = pad(np.ones((1, 1, *x.shape[2:])), g.padding, "zeros")
        whole = pad(x, g.padding, g.padding_mode)
        return np.where(inside == 1, whole, whole[:1])

    words = "takes the padding of every image from the first one"
    return (
        of(
            "corners",
            "has zeros for padding that lies outside along two axes or more",
            lambda outside: outside.sum(0) == 1,
        ),
        Fault("padding-first-image", words, "the index of the image where the padding is copied", {"padded": of_first_image},
              lambda g: g.padding_mode != "zeros"),
    )  # fmt: skip


def answer_to_nothing(ask: Ask, bare: Question) -> Tensors | None:
    """What comes for an input of zeros without a bias."""
    return ask("forward", bare.with_(x=np.zeros_like(bare.tensors["x"])))


def padded_with(nothing: Tensors | None, known: Sequence[Fault], bare: Question) -> list[Fault]:
    """Padding by another number than 0, which is what an input of zeros shows."""
    g = bare.geometry
    if nothing is None or "y" not in nothing or not nothing["y"].any() or g.padding_mode != "zeros" or g.transposed:
        return []
    ones = _planted((*known, _padded(1.0)), bare.with_(x=np.zeros_like(bare.tensors["x"])), "forward")
    if ones is None or ones["y"].shape != nothing["y"].shape or not ones["y"].any():
        return []
    at = np.unravel_index(np.abs(ones["y"]).argmax(), ones["y"].shape)
    return [_padded(float(nothing["y"][at] / ones["y"][at]))]


def _padded(number: float) -> Fault:
    def padded(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
        if g.padding_mode != "zeros":
            return pad(x, g.padding, g.padding_mode)
        return np.pad(x, [(0, 0), (0, 0), *g.padding], constant_values=number)

    return Fault(f"padding-{number:.6g}", f"pads with {number:.6g} where the mode is zeros", "the number that is padded with",
                 {"padded": padded}, lambda g: g.padding_mode == "zeros" and not g.transposed)  # fmt: skip


def elementwise(got: Tensors, right: Tensors | None) -> list[Fault]:
    """What can be done to every element of the output alone: an offset, a limit, a sign lost."""
    if right is None or "y" not in got or got["y"].shape != right["y"].shape or not np.isfinite(got["y"]).all():
        return []
    values = got["y"].astype(np.float64)
    low, high, offset = float(values.min()), float(values.max()), float((values - right["y"]).ravel()[0])

    def of(name: str, words: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
        return Fault(
            f"output-{name}",
            words,
            "what is done to the output after the convolution",
            {"result": lambda y, kernel, inputs, g: change(y)},
        )

    changes: list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = [
        ("relu", "takes 0 for negative outputs", lambda y: np.maximum(y, 0)),
        ("absolute", "gives the absolute values of the outputs", np.abs),
        ("offset", f"adds {offset:.6g} to every output", lambda y: y + offset),
        ("clip", f"limits the outputs to [{low:.6g}, {high:.6g}]", lambda y: np.clip(y, low, high)),
        ("clip-high", f"limits the outputs to at most {high:.6g}", lambda y: np.minimum(y, high)),
        ("clip-low", f"limits the outputs to at least {low:.6g}", lambda y: np.maximum(y, low)),
        ("square", "squares the outputs", np.square),
        ("minus-relu", "takes 0 for positive outputs", lambda y: np.minimum(y, 0)),
    ]
    for limit, least, most in (("clip", low, high), ("clip-high", -np.inf, high), ("clip-low", low, np.inf)):
        clear = selections.are_limits(right["y"].astype(np.float64), least, most)
        changes = [change for change in changes if change[0] != limit or clear]
    if abs(offset) <= selections.NO_ROUNDING * np.abs(values).max():
        changes = [change for change in changes if change[0] != "offset"]
    found = [of(name, words, change) for name, words, change in changes]
    for name, words, change in changes:
        found.append(
            Fault(
                f"bare-{name}",
                f"{words}, before it adds the bias",
                "what is done to the result of the convolution",
                {"bare": lambda y, g, change=change: change(y)},
            )
        )
    return found


@cache
def by_taps_inside() -> tuple[Fault, ...]:
    """An output that is divided by the number of taps that lie inside the input, as an average or a partial convolution is."""

    def of(name: str, words: str, factor: Callable[[np.ndarray, int], np.ndarray]) -> Fault:
        def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
            one = ConvGeometry.from_json(
                g.to_json() | {"in_channels": 1, "out_channels": 1, "groups": 1, "padding_mode": "zeros"}
            )
            ones = np.ones((1, 1, *inputs["x"].shape[2:]))
            inside = convolve(ones, np.ones((1, 1, *g.kernel_size)), None, one, dtype=np.float64)
            bias = inputs.get("bias")
            added = 0.0 if bias is None else bias.astype(np.float64).reshape(-1, *[1] * g.spatial_rank)
            return added + (y - added) * factor(np.maximum(inside, 1), g.taps)

        return Fault(f"taps-inside-{name}", words, "what is done at the border of the input", {"result": result})

    return (
        of("partial", "multiplies each output by K over the number of taps inside the input", lambda n, taps: taps / n),
        of("mean", "divides each output by the number of taps inside the input", lambda n, taps: 1 / n),
        of(
            "share",
            "multiplies each output by the share of the taps that are inside the input",
            lambda n, taps: n / taps,
        ),
    )


def limited(got: Tensors, right: Tensors | None, g: ConvGeometry) -> list[Fault]:
    """The same of the composed kernel."""
    if (
        right is None
        or "weight" not in got
        or got["weight"].shape != right["weight"].shape
        or not np.isfinite(got["weight"]).all()
    ):
        return []
    values = got["weight"].astype(np.float64)
    low, high, offset = float(values.min()), float(values.max()), float((values - right["weight"]).ravel()[0])

    def of(name: str, words: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
        return Fault(
            f"kernel-{name}",
            words,
            "what is done to the composed kernel at the end",
            {"kernel": lambda kernel, g: change(kernel)},
        )

    offsets = [of("offset", f"adds {offset:.6g} to every entry of the composed kernel", lambda kernel: kernel + offset)]
    limits = [
        of("clip", f"limits the composed kernel to [{low:.6g}, {high:.6g}]", lambda kernel: np.clip(kernel, low, high))
    ]
    return [
        *(limits if selections.are_limits(right["weight"].astype(np.float64), low, high) else ()),
        of("relu", "takes 0 for negative entries of the composed kernel", lambda kernel: np.maximum(kernel, 0)),
        of("absolute", "gives the absolute values of the composed kernel", np.abs),
        *(offsets if abs(offset) > selections.NO_ROUNDING * np.abs(values).max() else ()),
        of("halved", "halves the composed kernel", lambda kernel: kernel / 2),
        *selections.fits("kernel", got["weight"], right["weight"], g),
    ]


def _planted(faults: Sequence[Fault], question: Question, operation: str) -> Tensors | None:
    active = [fault for fault in faults if fault.where(question.geometry)]
    return run(active, question.geometry, operation, question.inputs(operation))


@cache
def biases() -> tuple[Fault, ...]:
    """Of the bias: the catalogue's, moves of its entries, and places where it is added."""
    return (*BIASES, *moves.of_bias("bias"), *_added())


def _added() -> list[Fault]:
    def bias_added(name: str, words: str, where: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Fault:
        """Another array of the output's shape is added, of the bias."""

        def result(y: np.ndarray, kernel: np.ndarray, inputs: Tensors, g: object) -> np.ndarray:
            bias = inputs.get("bias")
            if bias is None:
                return y
            b = bias.astype(np.float64)
            right = np.broadcast_to(b.reshape(-1, *[1] * (y.ndim - 2)), y.shape)
            return y - right + where(b, y)

        return Fault(f"bias-{name}", words, "where and how the bias is added", {"result": result})

    def column(b: np.ndarray, y: np.ndarray) -> np.ndarray:
        return b.reshape(-1, *[1] * (y.ndim - 2))

    def only(y: np.ndarray, at: Any, b: np.ndarray) -> np.ndarray:
        out = np.zeros(y.shape)
        out[at] = np.broadcast_to(column(b, y), y.shape)[at]
        return out

    return [
        bias_added("first-image", "adds the bias to the first image only", lambda b, y: only(y, (slice(0, 1),), b)),
        bias_added(
            "first-row",
            "adds the bias to the first row only",
            lambda b, y: only(y, (slice(None), slice(None), slice(0, 1)), b),
        ),
        bias_added(
            "first-position",
            "adds the bias at the first position only",
            lambda b, y: only(y, (slice(None), slice(None), *[slice(0, 1)] * (y.ndim - 2)), b),
        ),
        bias_added(
            "without-last-row",
            "does not add the bias to the last row",
            lambda b, y: only(y, (slice(None), slice(None), slice(0, -1)), b),
        ),
        bias_added(
            "without-first-row",
            "does not add the bias to the first row",
            lambda b, y: only(y, (slice(None), slice(None), slice(1, None)), b),
        ),
        bias_added(
            "without-last-column",
            "does not add the bias to the last column",
            lambda b, y: only(y, (Ellipsis, slice(0, -1)), b),
        ),
        bias_added(
            "without-first-column",
            "does not add the bias to the first column",
            lambda b, y: only(y, (Ellipsis, slice(1, None)), b),
        ),
        bias_added("last-image", "adds the bias to the last image only", lambda b, y: only(y, (slice(-1, None),), b)),
        bias_added(
            "first-channel",
            "adds the first entry of the bias to every channel",
            lambda b, y: np.broadcast_to(b[0], y.shape),
        ),
        bias_added("sum", "adds the sum of the bias to every channel", lambda b, y: np.broadcast_to(b.sum(), y.shape)),
        bias_added(
            "last-axis",
            "adds the bias along the last axis of y where the lengths allow it",
            lambda b, y: (
                np.broadcast_to(b, y.shape) if y.shape[-1] == len(b) else np.broadcast_to(column(b, y), y.shape)
            ),
        ),
        bias_added(
            "first-space-axis",
            "adds the bias along the first spatial axis where the lengths allow it",
            lambda b, y: (
                np.broadcast_to(b.reshape(-1, *[1] * (y.ndim - 3)), y.shape)
                if y.shape[2] == len(b)
                else np.broadcast_to(column(b, y), y.shape)
            ),
        ),
        bias_added(
            "times-taps",
            "adds the bias once for every tap of the kernel",
            lambda b, y: np.broadcast_to(column(b, y), y.shape),
        ),
    ][:-1]


@cache
def folds() -> tuple[Fault, ...]:
    """Of the plain layer that `fold` returns."""
    return (*FOLDING, *_folded())


def _folded() -> list[Fault]:
    """The folded weight or bias is moved, with the output that follows from it, or alone."""
    found = []

    def add(name: str, fault: Fault, hook: str, words: str, change: Callable[..., np.ndarray]) -> None:
        found.append(
            Fault(f"fold-{name}-{fault.name}", f"{words}: it {fault.words}", fault.look_at, {hook: change}, fault.where)
        )

    for fault in moves.of_kernel("kernel"):
        hook = fault.hooks["kernel"]
        add(
            "weight-alone",
            fault,
            "out_weight",
            "folds a weight that is not the kernel of its own output",
            lambda weight, inputs, g, hook=hook: hook(weight, g),
        )
        add(
            "weight",
            fault,
            "folded",
            "folds and uses a weight that is not the composed kernel",
            lambda kernel, inputs, g, hook=hook: np.ascontiguousarray(hook(kernel, g)).astype(kernel.dtype),
        )
    for fault in moves.of_bias("bias"):
        hook = fault.hooks["bias"]
        add(
            "bias-alone",
            fault,
            "out_bias",
            "folds a bias that its own output does not show",
            lambda bias, inputs, g, hook=hook: hook(bias, g),
        )
        add(
            "bias",
            fault,
            "folded_bias",
            "folds and uses another bias",
            lambda bias, g, hook=hook: np.ascontiguousarray(hook(bias, g)).astype(bias.dtype),
        )
    for fault in moves.of_activations("y"):
        hook = fault.hooks["y"]
        add(
            "y",
            fault,
            "out_y",
            "gives another output for the folded layer than forward does",
            lambda y, inputs, g, hook=hook: hook(y, g),
        )

    def without_bias(y: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        bias = inputs.get("bias")
        return y if bias is None else y - bias.astype(np.float64).reshape(-1, *[1] * g.spatial_rank)

    def with_bias(y: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        return 2 * y.astype(np.float64) - without_bias(y, inputs, g)

    def bare_weight(weight: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        return sum_tiles(inputs["W"].astype(np.float64), g).reshape(g.kernel_shape)

    def first_columns(weight: np.ndarray, inputs: Tensors, g: ConvGeometry) -> np.ndarray:
        return inputs["W"][..., : g.taps].reshape(g.kernel_shape)

    look_at = "what the folded layer computes"
    found += [
        Fault(
            "fold-weight-first-columns",
            "folds the first K columns of W, as they are, for the weight, though its own output is right",
            look_at,
            {"out_weight": first_columns},
        ),
        Fault(
            "fold-y-without-bias",
            "leaves the bias out of the output of the folded layer",
            look_at,
            {"out_y": without_bias},
        ),
        Fault(
            "fold-y-bias-twice", "adds the bias twice in the output of the folded layer", look_at, {"out_y": with_bias}
        ),
        Fault(
            "fold-weight-without-delta",
            "folds W E^T without D_delta, though its own output has it",
            look_at,
            {"out_weight": bare_weight},
        ),
    ]
    return found


def fold_fits(ask: Ask, case: Case, known: Sequence[Fault]) -> Fits:
    """Sets of faults of the outputs of `fold`: one, or one for each output that is wrong."""
    question = random_question(case, 1)
    got, right = ask("fold", question), _planted(known, question, "fold")
    if got is None or right is None:
        return []
    usable = [fault for fault in (*folds(), *biases()) if fault.where(case.geometry)]
    answers = [(fault, _planted((*known, fault), question, "fold")) for fault in usable]
    found: Fits = [(fault,) for fault, planted in answers if same(got, planted)]
    if found:
        return found
    each: Fits = [()]
    for name, hook in (("weight", "out_weight"), ("bias", "out_bias"), ("y", "out_y")):
        if name not in right or (name in got and same({name: got[name]}, {name: right[name]})):
            continue
        of_name = [
            fault
            for fault, planted in answers
            if hook in fault.hooks
            and planted is not None
            and name in got
            and same({name: got[name]}, {name: planted[name]})
        ]
        if not of_name and name in got:
            of_name = selections.fits(hook, got[name], right[name], case.geometry)
        each = [(*before, fault) for before in each for fault in of_name[:4]]
    return [fit for fit in each if fit]


def bias_facts(ask: Ask, case: Case, known: Sequence[Fault]) -> list[str]:
    """In words, whether the output is right where there is no bias."""
    question = random_question(case, 1)
    if "bias" not in question.tensors:
        return []
    bare = question.with_(bias=np.zeros(case.geometry.out_channels))
    fine = [same(ask("forward", asked), _planted(known, asked, "forward")) for asked in (bare, question)]
    return ["with a bias of zeros y is right"] if fine == [True, False] else []


def fold_facts(ask: Ask, case: Case, known: Sequence[Fault]) -> list[str]:
    """In words: which outputs of `fold` are wrong, and whether its `y` is that of its own weight and bias, or of `forward`."""
    question = random_question(case, 1)
    got, right = ask("fold", question), _planted(known, question, "fold")
    if got is None or right is None:
        return []
    wrong = [name for name in right if name not in got or not same({name: got[name]}, {name: right[name]})]
    lines = [f"of the outputs of fold {' and '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} wrong"] if wrong else []
    forward = ask("forward", question)
    if forward is not None and "y" in got and "y" in wrong and same({"y": got["y"]}, {"y": forward["y"]}):
        lines.append("y of fold is that of forward")
    return lines


def properties(ask: Ask, case: Case, operation: str) -> list[str]:
    """In words, which property of the layer the port lacks: linear in `x` and `W`, affine in `D_delta` and the bias."""
    if operation not in ("compose", "forward"):
        return []
    name = "weight" if operation == "compose" else "y"
    one, other = random_question(case, 5), random_question(case, 6)
    lines = []
    zero = {key: np.zeros(value.shape) for key, value in one.tensors.items()}
    nothing = ask(operation, Question(case.geometry, zero, case.dtype, case.param_dtype))
    if nothing and name in nothing and nothing[name].astype(np.float64).any():
        lines.append(
            f"with every input 0 there is {np.unique(nothing[name].astype(np.float64))[:3].tolist()} in {name}"
        )
    bare = one.with_(bias=np.zeros_like(one.tensors["bias"])) if "bias" in one.tensors else one
    for tensor in ("x", "W") if operation == "forward" else ("W",):
        lines += _additivity(ask, operation, name, bare, other, tensor)
    if case.geometry.has_d:
        lines += _affinity(ask, operation, name, bare, other, "D_delta")
    if operation == "forward" and case.bias:
        lines += _affinity(ask, operation, name, one, other, "bias")
    return lines


def _additivity(ask: Ask, operation: str, name: str, one: Question, other: Question, tensor: str) -> list[str]:
    first, second = one.tensors[tensor], other.tensors[tensor]
    answers = [
        ask(operation, one.with_(**{tensor: value})) for value in (first, second, first + second, 2 * first, -first)
    ]
    values = [answer[name].astype(np.float64) for answer in answers if answer is not None and name in answer]
    if len(values) < len(answers):
        return []
    a, b, both, twice, negative = values
    if not is_near(both, a + b):
        detail = "" if is_near(twice, 2 * a) else ", nor twice as large for twice the input"
        sign = ", nor odd" if not is_near(negative, -a) else ""
        return [f"{name} is not linear in {tensor}: not the sum for the sum of two{detail}{sign}"]
    return []


def _affinity(ask: Ask, operation: str, name: str, one: Question, other: Question, tensor: str) -> list[str]:
    first, second = one.tensors[tensor], other.tensors[tensor]
    answers = [ask(operation, one.with_(**{tensor: value})) for value in (0 * first, first, second, first + second)]
    values = [answer[name].astype(np.float64) for answer in answers if answer is not None and name in answer]
    if len(values) < len(answers):
        return []
    zero, a, b, both = values
    return [] if is_near(both, a + b - zero) else [f"{name} is not affine in {tensor}"]
