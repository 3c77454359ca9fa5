"""The layer that `initialise` starts: how its parameters and its kernel may be wrong."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from doconv_conformance.diagnosis import composition, moves
from doconv_conformance.diagnosis.agreement import same
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.faults.gradients import STARTS
from doconv_conformance.port import Tensors
from doconv_core.composition import compose, identity
from doconv_core.geometry import ConvGeometry


def start_fits(row: Row) -> list[tuple[Fault, ...]]:
    """Of the layer that `initialise` starts."""
    found = [*STARTS]

    def started(name: str, fault: Fault, tensor: str) -> Fault:
        def change(outputs: Tensors, weight: np.ndarray, g: ConvGeometry) -> Tensors:
            if tensor not in outputs:
                return outputs
            moved = np.ascontiguousarray(fault.hooks[tensor](outputs[tensor].astype(np.float64), g)).astype(
                weight.dtype
            )
            changed = outputs | {tensor: moved}
            return changed | {"weight": compose(changed["W"], changed.get("D_delta"), g)}

        return Fault(
            f"start-{name}",
            f"starts wrongly: it {fault.words}",
            "the start from a plain kernel",
            {"started": change},
            fault.where,
        )

    found += [started(fault.name, fault, "W") for fault in moves.of_w("W")]
    value = np.unique(row.got["D_delta"].astype(np.float64)) if "D_delta" in row.got else np.zeros(0)
    if len(value) == 1 and value[0]:
        constant = Fault(
            "D-constant", f"fills D_delta with {value[0]:.6g}", "", {"D_delta": lambda D, g: np.full(D.shape, value[0])}
        )
        found.append(started("D-constant", constant, "D_delta"))
    found += _tile_factors(row)
    found += _composed_otherwise(row)
    whole = Fault(
        "D-identity",
        "starts D_delta with the identity and composes with both",
        "",
        {"D_delta": lambda D, g: identity(g) + D},
    )
    found.append(started("D-identity", whole, "D_delta"))
    return [(fault,) for fault in found]


def _composed_otherwise(row: Row) -> list[Fault]:
    """The weight that comes back is not what the returned `W` composes to, though `compose` is right."""
    own, g = {name: row.got[name] for name in ("W", "D_delta") if name in row.got}, row.case.geometry
    if "W" not in own or own["W"].shape != g.w_shape or not row.finite or "weight" not in row.got:
        return []
    got, found = {"weight": row.got["weight"]}, list[Fault]()
    if same(got, run([], g, "compose", own)):
        return []
    for fault in composition.left_faults():
        if same(got, run([fault], g, "compose", own)):

            def start_weight(parameters: Tensors, g: ConvGeometry, fault: Fault = fault) -> Tensors:
                return run([fault], g, "compose", parameters) or {}

            words = f"{fault.words}, in the weight that initialise returns only"
            look_at = "the composed kernel that initialise returns"
            found.append(
                Fault(f"start-weight-{fault.name}", words, look_at, {"start_weight": start_weight}, fault.where)
            )
    return found


def _tile_factors(row: Row) -> list[Fault]:
    """Every whole tile of `W` starts with the plain kernel times a factor of its own."""
    g, W = row.case.geometry, row.got.get("W")
    weight = row.case.tensors["weight"].astype(np.float64).reshape(*g.w_shape[:2], g.taps)
    if W is None or W.shape != g.w_shape or not weight.any() or g.d_mul < 2 * g.taps:
        return []
    count, at = g.d_mul // g.taps, np.unravel_index(np.abs(weight).argmax(), weight.shape)
    tiles = W[..., : count * g.taps].astype(np.float64).reshape(*g.w_shape[:2], count, g.taps)
    factors = [Fraction(float(tiles[*at[:2], tile, at[2]] / weight[at])).limit_denominator(64) for tile in range(count)]
    equal = all(factor == Fraction(1, count) for factor in factors)
    said = "divided equally among its whole tiles" if equal else f"times {', '.join(map(str, factors))} in its tiles"

    def change(outputs: Tensors, kernel: np.ndarray, g: ConvGeometry) -> Tensors:
        tiles = g.d_mul // g.taps
        each = [1 / tiles] * tiles if equal else [float(factor) for factor in factors]
        flat = kernel.astype(np.float64).reshape(*g.w_shape[:2], g.taps)
        W = outputs["W"].copy()
        W[..., : tiles * g.taps] = np.concatenate([factor * flat for factor in each], -1)
        return outputs | {"W": W, "weight": compose(W, outputs.get("D_delta"), g)}

    words, look_at = f"starts W with the plain kernel {said}", "W[..., :K] = w, W[..., K:] = 0"
    return [Fault("start-tile-factors", words, look_at, {"started": change},
                  lambda other: other.d_mul // other.taps == count or equal)]  # fmt: skip
