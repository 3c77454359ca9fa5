"""What can happen to the gradients: to all of them, to one alone, to what they are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Any

import numpy as np

from doconv_conformance.diagnosis import moves
from doconv_conformance.diagnosis.composition import computed_identities, computed_rows, identities, rows
from doconv_conformance.diagnosis.copies import of_copies
from doconv_conformance.diagnosis.planted import joined, run
from doconv_conformance.diagnosis.readings import readings
from doconv_conformance.faults.faulty_port import Fault, FaultyPort
from doconv_conformance.faults.gradients import GRADIENTS
from doconv_conformance.port import Tensors
from doconv_core.composition import identity
from doconv_core.geometry import ConvGeometry

# Ends the names of faults that change nothing alone.
OF_RIGHT = "-of-the-right-layer"
# Rules that do the same at a geometry, of which so many are tried.
MOST_ALIKE = 3
OUTPUTS = ("grad_x", "grad_W", "grad_D_delta", "grad_bias")


@cache
def of_all() -> tuple[Fault, ...]:
    """Mistakes that show in several gradients at once."""
    found = [fault for fault in GRADIENTS if fault.hooks.keys() & {"gradients", "compose_vjp", "sum_group"}]
    for name, factor, words in (
        ("mean-over-batch", lambda g, inputs: 1 / len(inputs["x"]), "divides every gradient by the size of the batch"),
        ("mean-over-y", lambda g, inputs: 1 / inputs["grad_y"].size, "divides every gradient by the number of outputs"),
        ("negated", lambda g, inputs: -1.0, "negates every gradient"),
        ("doubled", lambda g, inputs: 2.0, "counts every gradient twice"),
    ):
        found.append(_factor(f"gradients-{name}", words, factor, OUTPUTS))
        found.append(
            _factor(
                f"parameters-{name}",
                words.replace("every gradient", "the gradients of the parameters"),
                factor,
                OUTPUTS[1:],
            )
        )
    found.append(_of_ones())
    found += moves.of_kernel("grad_kernel")
    found += [_grad_y_moved(fault, OUTPUTS, "every gradient") for fault in moves.of_activations("y")]
    some = {OUTPUTS[1:3]: "the gradients of W and D_delta", OUTPUTS[:3]: "every gradient but the bias's"}
    for outputs, words in some.items():
        found += [_grad_y_moved(fault, outputs, words) for fault in moves.of_activations("y")]
    found += [
        Fault(
            f"grad-{fault.name}", f"in the gradients {fault.words}", fault.look_at, {"grad_rows": fault.hooks["rows"]}
        )
        for fault in rows()
    ]
    return tuple(found)


@cache
def gates() -> tuple[Fault, ...]:
    """`grad_y` that counts in part of its elements only, by the sign of something that the layer computes."""
    signs: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
        ("positive", lambda t: t > 0),
        ("positive or 0", lambda t: t >= 0),
        ("negative", lambda t: t < 0),
        ("negative or 0", lambda t: t <= 0),
        ("not 0", lambda t: t != 0),
    ]

    def of_y(inputs: Tensors, port: FaultyPort, g: ConvGeometry) -> np.ndarray:
        return port.forward(g, inputs)["y"]

    def of_bare(inputs: Tensors, port: FaultyPort, g: ConvGeometry) -> np.ndarray:
        return port.forward(g, {name: value for name, value in inputs.items() if name != "bias"})["y"]

    def of_grad_y(inputs: Tensors, port: FaultyPort, g: ConvGeometry) -> np.ndarray:
        return inputs["grad_y"]

    sources = {"y": of_y, "y without the bias": of_bare, "grad_y itself": of_grad_y}
    found = []
    for (source, of), (sign, holds) in product(sources.items(), signs):

        def change(
            grad_y: np.ndarray, port: FaultyPort, inputs: Tensors, g: ConvGeometry, of: Any = of, holds: Any = holds
        ) -> np.ndarray:
            return np.where(holds(of(inputs, port, g)), grad_y, 0).astype(grad_y.dtype)

        found.append(
            Fault(
                f"gate-{source}-{sign}".replace(" ", "-"),
                f"counts grad_y in the gradients only where {source} is {sign}",
                "the gradient of an activation that the layer does not have",
                {"grad_y": change},
            )
        )
    return tuple(found)


def _factor(name: str, words: str, factor: Callable[[ConvGeometry, Tensors], float], outputs: Sequence[str]) -> Fault:
    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        by = factor(g, inputs)
        return {key: (value * by).astype(value.dtype) if key in outputs else value for key, value in gradients.items()}

    return Fault(name, words, "a factor of the gradients: a mean in place of a sum", {"gradients": change})


def _grad_y_moved(fault: Fault, outputs: Sequence[str], words: str) -> Fault:
    """`grad_y` read otherwise in some of the gradients."""

    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        moved = np.ascontiguousarray(fault.hooks["y"](inputs["grad_y"], g)).astype(inputs["grad_y"].dtype)
        found = run([], g, "backward", {**inputs, "grad_y": moved})
        if found is None:
            return gradients
        return {key: found[key] if key in outputs else value for key, value in gradients.items()}

    of_grad_y = re.sub(r"\by\b", "grad_y", fault.words)
    return Fault(
        f"{'-'.join(outputs)}-{fault.name}",
        f"in {words} {of_grad_y}",
        fault.look_at,
        {"gradients": change},
        fault.where,
    )


def in_grad_x_only(faults: Sequence[Fault]) -> Fault:
    """Faults of the forward direction that the gradient of `x` follows, while the other gradients are the right layer's."""

    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        other = run([fault for fault in faults if fault.where(g)], g, "backward", inputs)
        return gradients if other is None else gradients | {"grad_x": other["grad_x"]}

    whole = joined(faults)
    words = f"{whole.words}, in the gradient of x too, while those of the parameters are already the right layer's"
    look_at = "the way back to x; the gradients of W and D_delta need no change"
    return Fault(f"grad_x-only-{whole.name}", words, look_at, {"gradients": change})


def _of_ones() -> Fault:
    """`grad_y` not used: the gradients of the plain sum of `y`."""

    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        ones = {**inputs, "grad_y": np.ones_like(inputs["grad_y"])}
        found = run([], g, "backward", ones)
        return gradients if found is None else found

    return Fault(
        "grad-y-ignored",
        "gives the gradients of the sum of y, whatever grad_y is",
        "whether grad_y reaches the gradients",
        {"gradients": change},
    )


@lru_cache(maxsize=64)
def of_one(name: str, g: ConvGeometry) -> list[Fault]:
    """What can happen to one gradient alone."""
    found = [_as_if_right(name)]
    found += [
        fault
        for fault in GRADIENTS
        if name in fault.hooks or "gradients" in fault.hooks or fault.hooks.keys() & {"compose_vjp", "sum_group"}
    ]
    if name == "grad_x":
        found += [*of_copies(), *moves.of_activations("grad_x")]
        found += moves.of_kernel("grad_x_kernel")
        found += [
            rule.fault("options_grad_x", "in the gradient of x") for rules in readings(g) for rule in rules[:MOST_ALIKE]
        ]
        found += _kernel_without_delta()
        found += [_grad_y_moved(fault, ("grad_x",), "the gradient of x") for fault in moves.of_activations("y")]
    elif name == "grad_bias":
        found += moves.of_bias("grad_bias")
        found += [
            _grad_y_moved(fault, ("grad_bias",), "the gradient of the bias") for fault in moves.of_activations("y")
        ]
        found += _bias_sums()
    elif name == "grad_W":
        found += [
            _parts("grad-W-without-identity", "drops the part g E of the identity from the gradient of W", 0, 1),
            _parts("grad-W-without-delta", "drops the part with D_delta from the gradient of W", 1, 0),
            _parts("grad-W-identity-doubled", "counts the identity's part of the gradient of W twice", 2, 1),
            _parts("grad-W-delta-doubled", "counts the part with D_delta in the gradient of W twice", 1, 2),
            _parts("grad-W-delta-negated", "subtracts the part with D_delta in the gradient of W", 1, -1),
        ]
        found += [*moves.of_w("grad_W"), *moves.of_d("grad_delta_D"), *_batches("grad_W")]
        found += [_only_in("grad_W", fault) for fault in (*_row_faults(), *identities(), *computed_identities())]
    else:
        found += [
            *moves.of_d("grad_D_delta"),
            *moves.of_w("grad_delta_W"),
            *_batches("grad_D_delta"),
            *_kernels_summed(),
            _added_identity(),
            *_composed_for_W(),
        ]
        found += [_only_in("grad_D_delta", fault) for fault in _row_faults()]
    return found


def _as_if_right(name: str) -> Fault:
    """The gradient of the layer as it should be, where the forward direction is another."""

    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        right = run([], g, "backward", inputs)
        return gradients if right is None or name not in right else gradients | {name: right[name]}

    words = f"gives the right {name}, which is not that of its own output"
    return Fault(f"{name}{OF_RIGHT}", words, "the gradients do not follow the forward direction", {"gradients": change})


@cache
def _row_faults() -> tuple[Fault, ...]:
    return tuple(
        Fault(fault.name, fault.words, fault.look_at, {"grad_rows": fault.hooks["rows"]})
        for fault in (*rows(), *computed_rows())
    )


def _only_in(name: str, fault: Fault) -> Fault:
    """A fault of both gradients of the composition, seen in one of them."""
    (key,) = fault.hooks
    hook = fault.hooks[key]

    alone = Fault("", "", "", {key: hook})

    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        other = run([alone], g, "backward", inputs)
        return gradients if other is None or name not in other else gradients | {name: other[name]}

    of = {"grad_W": "W", "grad_D_delta": "D_delta"}[name]
    return Fault(
        f"{name}-{fault.name}", f"{fault.words}, in the gradient of {of}", fault.look_at, {"gradients": change}
    )


def _parts(name: str, words: str, one: float, other: float) -> Fault:
    return Fault(name, words, "the gradient of W: g E + D_delta^T g", {"grad_parts": (one, other)})


def _added_identity() -> Fault:
    return Fault(
        "grad-D-plus-identity",
        "adds the identity to the gradient of D_delta",
        "the gradient of D_delta, which is that of D",
        {"grad_D_delta": lambda grad, g: grad + identity(g)},
    )


def _composed_for_W() -> list[Fault]:
    """The gradient of `D_delta` with the composed kernel where `W` belongs."""

    def of(name: str, words: str, tiles: Callable[[ConvGeometry], int]) -> Fault:
        def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
            composed = run([], g, "compose", inputs)
            if composed is None or "grad_D_delta" not in gradients:
                return gradients
            kernel, count = composed["weight"].reshape(*g.w_shape[:2], g.taps), tiles(g)

            def replaced(W: np.ndarray, g: ConvGeometry) -> np.ndarray:
                return np.concatenate([*[kernel.astype(np.float64)] * count, W[..., count * g.taps :]], -1)

            found = run([Fault("", "", "", {"grad_delta_W": replaced})], g, "backward", inputs)
            return gradients if found is None else gradients | {"grad_D_delta": found["grad_D_delta"]}

        return Fault(
            f"grad-D-{name}", f"takes the composed kernel for {words} of W in the gradient of D_delta",
            "what grad_W' is multiplied by in the gradient of D_delta: W", {"gradients": change},
        )  # fmt: skip

    return [
        of("composed-first", "the first K columns", lambda g: 1),
        of("composed-tiles", "each whole tile", lambda g: g.d_mul // g.taps),
    ]


def _kernel_without_delta() -> list[Fault]:
    def of(name: str, words: str, columns: Callable[[ConvGeometry], int]) -> Fault:
        def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
            bare = {key: np.zeros_like(value) if key == "D_delta" else value for key, value in inputs.items()}
            bare["W"] = np.where(np.arange(g.d_mul) < columns(g), inputs["W"], 0).astype(inputs["W"].dtype)
            found = run([], g, "backward", bare)
            return gradients if found is None else gradients | {"grad_x": found["grad_x"]}

        return Fault(
            name, f"makes the gradient of x of {words}", "the kernel in the gradient of x", {"gradients": change}
        )

    return [
        of("grad-x-without-delta", "the kernel without D_delta", lambda g: g.d_mul),
        of("grad-x-first-columns", "the first K columns of W, as they are", lambda g: g.taps),
    ]


def _bias_sums() -> list[Fault]:
    def summed(name: str, words: str, of: Callable[[np.ndarray], np.ndarray]) -> Fault:
        def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
            if "grad_bias" not in gradients:
                return gradients
            value = of(inputs["grad_y"].astype(np.float64))
            return gradients | {"grad_bias": value.astype(gradients["grad_bias"].dtype)}

        return Fault(f"grad-bias-{name}", words, "the sum that makes the gradient of the bias", {"gradients": change})

    def space(grad: np.ndarray) -> tuple[int, ...]:
        return tuple(range(2, grad.ndim))

    return [
        summed(
            "last-image",
            "sums the gradient of the bias over the last image only",
            lambda grad: grad[-1:].sum((0, *space(grad))),
        ),
        summed(
            "first-image",
            "sums the gradient of the bias over the first image only",
            lambda grad: grad[:1].sum((0, *space(grad))),
        ),
        summed(
            "mean-batch",
            "takes the mean over the batch for the gradient of the bias",
            lambda grad: grad.mean(0).sum(tuple(range(1, grad.ndim - 1))),
        ),
        summed(
            "mean-space",
            "takes the mean over the positions for the gradient of the bias",
            lambda grad: grad.mean(space(grad)).sum(0),
        ),
        summed(
            "mean",
            "takes the mean over batch and positions for the gradient of the bias",
            lambda grad: grad.mean((0, *space(grad))),
        ),
        summed(
            "batch-only",
            "sums the gradient of the bias over the batch at the first position only",
            lambda grad: grad.sum(0).reshape(grad.shape[1], -1)[:, 0],
        ),
        summed(
            "first-row",
            "sums the gradient of the bias over the first row only",
            lambda grad: grad[:, :, :1].sum((0, *space(grad))),
        ),
        summed(
            "without-last-row",
            "leaves the last row out of the gradient of the bias",
            lambda grad: grad[:, :, :-1].sum((0, *space(grad))),
        ),
        summed(
            "without-last-column",
            "leaves the last column out of the gradient of the bias",
            lambda grad: grad[..., :-1].sum((0, *space(grad))),
        ),
        summed(
            "first-column",
            "sums the gradient of the bias over the first column only",
            lambda grad: grad[..., :1].sum((0, *space(grad))),
        ),
        summed(
            "last-axis",
            "sums the gradient of the bias over every axis but the last, where that is C_out long",
            lambda grad: grad.sum(
                (0, *space(grad)) if grad.shape[-1] != grad.shape[1] else tuple(range(grad.ndim - 1))
            ),
        ),
        summed(
            "count",
            "counts the positions for the gradient of the bias, whatever grad_y is",
            lambda grad: np.ones_like(grad).sum((0, *space(grad))),
        ),
    ]


def _batches(name: str) -> list[Fault]:
    """Sums over the batch that lose images, or means."""

    def of(
        label: str, words: str, images: Callable[[int], slice], factor: Callable[[int], float] = lambda n: 1.0
    ) -> Fault:
        def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
            count = len(inputs["x"])
            some = {**inputs, **{key: inputs[key][images(count)] for key in ("x", "grad_y")}}
            found = run([], g, "backward", some)
            if found is None or name not in found:
                return gradients
            return gradients | {name: (found[name] * factor(count)).astype(found[name].dtype)}

        tensor = {"grad_W": "W", "grad_D_delta": "D_delta"}[name]
        return Fault(f"{name}-{label}", words.format(tensor), "the sum over the batch", {"gradients": change})

    return [
        of("last-image", "gives {} the gradient of the last image only", lambda n: slice(n - 1, n)),
        of("first-image", "gives {} the gradient of the first image only", lambda n: slice(0, 1)),
        of("mean-batch", "gives {} the mean over the batch for its gradient", lambda n: slice(None), lambda n: 1 / n),
        of("without-last", "leaves the last image out of the gradient of {}", lambda n: slice(0, n - 1)),
    ]


def _kernels_summed() -> list[Fault]:
    """The sum over the kernels that share a row of `D`, done otherwise."""

    def of(label: str, words: str, one: Callable[[np.ndarray], np.ndarray]) -> Fault:
        def summed(products: np.ndarray, rows_: np.ndarray, g: ConvGeometry) -> np.ndarray:
            grad = np.zeros(g.d_shape)
            for row in range(g.in_channels):
                mine = products[rows_ == row]
                grad[row] = one(mine) if len(mine) else 0
            return grad

        return Fault(
            f"grad-D-{label}", words, "the sum over the output channels that read a row of D", {"sum_group": summed}
        )

    return [
        of(
            "last-output",
            "keeps only the last output channel's share of the gradient of D_delta",
            lambda items: items[-1],
        ),
        of(
            "first-output",
            "keeps only the first output channel's share of the gradient of D_delta",
            lambda items: items[0],
        ),
        of(
            "mean-output",
            "takes the mean over the output channels for the gradient of D_delta",
            lambda items: items.mean(0),
        ),
        of(
            "without-last",
            "leaves the last output channel out of the gradient of D_delta",
            lambda items: items[:-1].sum(0),
        ),
        of(
            "without-first",
            "leaves the first output channel out of the gradient of D_delta",
            lambda items: items[1:].sum(0),
        ),
    ]


def overwritten() -> Fault:
    """`grad_x` written over `x` too early."""

    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        found = run([], g, "backward", {**inputs, "x": gradients["grad_x"]})
        parameters = ("grad_W", "grad_D_delta")
        return gradients if found is None else gradients | {key: found[key] for key in parameters if key in found}

    words = "takes grad_x for x in the gradients of W and D_delta"
    return Fault("grad-x-over-x", words, "the buffer of grad_x, which must not be that of x", {"gradients": change})


def x_moved(fault: Fault) -> Fault:
    """`x` moved in the gradients of the parameters only."""

    def change(gradients: Tensors, inputs: Tensors, g: ConvGeometry) -> Tensors:
        moved = {**inputs, "x": np.ascontiguousarray(fault.hooks["x"](inputs["x"], g)).astype(inputs["x"].dtype)}
        found = run([], g, "backward", moved)
        return (
            gradients
            if found is None
            else gradients | {key: value for key, value in found.items() if key in ("grad_W", "grad_D_delta")}
        )

    return Fault(
        f"parameters-{fault.name}",
        f"in the gradients of the parameters {fault.words}",
        fault.look_at,
        {"gradients": change},
    )
