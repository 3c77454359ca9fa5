"""The reference with one mistake of the arithmetic planted: a rounding at some sites, or the rounded sum of one output.

A *site* is where a tensor is rounded: where it is read (`x.y` is `x` in the products of `y`), inside the composition, or where
a result is written. Between the sites everything is float64. A *sum* is formed term by term in an order of loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np

from doconv_conformance.cases.draws import DIGITS
from doconv_conformance.cases.table import DTYPES, LOW_PRECISION
from doconv_conformance.diagnosis.planted import (
    MeasuredPort,
    fitted,
    grouped,
    kernels_of,
    patches_of,
    relations,
    unpatched,
)
from doconv_conformance.faults.precision import rounded_to_bits
from doconv_conformance.port import Tensors
from doconv_core.geometry import ConvGeometry

# The outputs that each site and each sum shows in.
COMPOSED = frozenset({"weight", "y", "grad_x"})
SHOWS = {
    **dict.fromkeys(
        ("W.compose", "D.compose", "1+D.compose", "identity", "delta", "kernel", "sum of weight"), COMPOSED
    ),
    **dict.fromkeys(("used",), COMPOSED - {"weight"}),
    **dict.fromkeys(("x.y", "kernel.y", "bias.y", "bare", "y", "sum of y"), frozenset({"y"})),
    **dict.fromkeys(("kernel.grad_x", "grad_y.grad_x", "grad_x", "sum of grad_x"), frozenset({"grad_x"})),
    **dict.fromkeys(
        ("x.grad_kernel", "grad_y.grad_kernel", "grad_kernel", "sum of grad_kernel"),
        frozenset({"grad_W", "grad_D_delta"}),
    ),
    **dict.fromkeys(("D.grad_W", "1+D.grad_W", "identity.grad_W", "delta.grad_W"), frozenset({"grad_W"})),
    **dict.fromkeys(("grad_W", "sum of grad_W"), frozenset({"grad_W"})),
    **dict.fromkeys(("W.grad_D", "grad_D_delta", "sum of grad_D_delta"), frozenset({"grad_D_delta"})),
    **dict.fromkeys(("grad_y.grad_bias", "grad_bias", "sum of grad_bias"), frozenset({"grad_bias"})),
    "weight": frozenset({"weight"}),
    "bias": frozenset({"bias"}),
    "start": frozenset({"W", "D_delta"}),
}


def rounded(tensor: np.ndarray, to: str, mode: str = "nearest") -> np.ndarray:
    """To a type, to "TF32", or to "N digits", as float64.

    Modes: "nearest" (halves to even), "towards zero", "cut" (towards zero, and what overflows is infinite), "halves away" (from
    zero), "flushed" (below the smallest normal number it is 0), "saturating" (beyond the largest number it is that).
    """
    if to not in DTYPES:
        digits, kind = 11 if to == "TF32" else int(to.split()[0]), np.dtype(np.float32)
    else:
        digits, kind = DIGITS[to], DTYPES[to]
    limits = ml_dtypes.finfo(kind)
    if mode == "saturating":
        tensor = np.clip(tensor, float(limits.min), float(limits.max))
    if mode in ("towards zero", "cut", "halves away"):
        _, exponent = np.frexp(tensor)
        unit = np.ldexp(1.0, np.maximum(exponent, limits.minexp + 1) - digits)
        size = np.abs(tensor) / unit
        size = np.floor(size + 0.5) if mode == "halves away" else np.trunc(size)
        tensor = np.where(np.isfinite(tensor), np.copysign(size * unit, tensor), tensor)
        most = float(limits.max)
        beyond = most if mode == "towards zero" else np.inf
        return np.where(np.isfinite(tensor) & (np.abs(tensor) > most), np.copysign(beyond, tensor), tensor)
    tensor = tensor.astype(kind).astype(np.float64) if to in DTYPES else rounded_to_bits(tensor, digits)
    return np.where(np.abs(tensor) < float(limits.smallest_normal), 0.0, tensor) if mode == "flushed" else tensor


@dataclass(frozen=True)
class Order:
    """How a sum is formed.

    Attributes:
        of: the output: "y", "grad_x", "grad_kernel", "grad_bias", "weight", "grad_W" or "grad_D_delta".
        loops: over what its terms run, the outer loop first; what is not listed is summed exactly in each term.
        terms: whether each term is rounded.
        block: after how many terms the sum is rounded; 0: at no time.
        way: "sequence", "halves" (in pairs, these in pairs, ...) or "nested" (each inner loop has a sum of its own).
        first: what the sum begins with in place of zero: "the bias" or "the identity's part".
    """

    of: str
    loops: tuple[str, ...]
    terms: bool = False
    block: int = 1
    way: str = "sequence"
    first: str = ""


# From the types of the activations (None where there are none) and the parameters: the type that is rounded to, or None.
Target = Callable[[str | None, str], str | None]


@dataclass(frozen=True, eq=False)
class Plan:
    """One mistake.

    Attributes:
        target: the type it rounds to.
        sites: where; of `SHOWS`.
        mode: as of `rounded`.
        order: of the one sum that is rounded.
        casts: whether it is the rounding to a tensor's own type that is another; `target` gives the types that it is made in.
        loose: whether what is between the sites is computed in that type, too, in no order that is known.
    """

    target: Target
    sites: frozenset[str] = frozenset()
    mode: str = "nearest"
    order: Order | None = None
    casts: bool = False
    loose: bool = False

    @property
    def shows(self) -> frozenset[str]:
        """The outputs that may be others."""
        of_sum = {f"sum of {self.order.of}"} if self.order else set[str]()
        return frozenset().union(*(SHOWS[site] for site in self.sites | of_sum))

    def port(self, fault: Any) -> MeasuredPort:
        """The reference with a fault that holds this plan."""
        return RoundedPort(fault)


class RoundedPort(MeasuredPort):
    """`MeasuredPort` with the further hook `arithmetic`, a `Plan`."""

    to: str | None = None

    def _enter(self, inputs: Tensors) -> None:
        if self.hooks.keys() & {"compose", "convolve", "padded", "compose_vjp"}:
            raise ValueError("these steps have no sites")
        self.plan: Plan = self.hooks["arithmetic"]
        kept = inputs["W"] if "W" in inputs else inputs["weight"]
        self.to = self.plan.target(str(inputs["x"].dtype) if "x" in inputs else None, str(kept.dtype))

    def _at(self, site: str, tensor: np.ndarray, own: np.dtype | None = None) -> np.ndarray:
        """A tensor as it is behind a site, float64; `own` is the type that it is cast to next."""
        tensor = tensor.astype(np.float64)
        if site not in self.plan.sites or self.to is None:
            return tensor
        if not self.plan.casts:
            return rounded(tensor, self.to, self.plan.mode)
        return rounded(tensor, str(own), self.plan.mode) if str(own) in LOW_PRECISION else tensor

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        self._enter(inputs)
        weight = super().compose(geometry, inputs)["weight"]
        return {"weight": self._at("weight", self.raw, weight.dtype).astype(weight.dtype)}

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        self._enter(inputs)
        return super().forward(geometry, inputs)

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        self._enter(inputs)
        self.types = {name: tensor.dtype for name, tensor in inputs.items()}
        return super().backward(geometry, inputs)

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        self._enter(inputs)
        outputs = super().fold(geometry, inputs)
        if "weight" in self.plan.sites:
            kind = outputs["weight"].dtype
            outputs["weight"] = self._at("weight", self.raw, kind).astype(kind)
        if "bias" in outputs:
            outputs["bias"] = self._at("bias", outputs["bias"], outputs["bias"].dtype).astype(outputs["bias"].dtype)
        return outputs

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        outputs = super().initialise(geometry, inputs)
        for name in outputs.keys() & {"W", "D_delta"}:
            outputs[name] = self._at("start", outputs[name], outputs[name].dtype).astype(outputs[name].dtype)
        return outputs

    def _compose(self, geometry: ConvGeometry, inputs: Tensors) -> np.ndarray:
        W, D = self._parameters(geometry, inputs)
        W = self._at("W.compose", W)
        E = self._part("identity_part", self._identity(geometry)[None, None], geometry)
        W_of_E = self._move("identity_W", W, geometry)
        raw = (E @ W_of_E[..., None])[..., 0]
        if D is not None:
            D = self._part("delta_part", self._at("D.compose", D)[self._rows(geometry)], geometry)
            D = self._at("1+D.compose", E + D) - E
            W_of_D = self._move("delta_W", W, geometry)

            def term(column: int | slice = slice(None)) -> np.ndarray:
                part: np.ndarray = np.einsum("abks,abs->abk", D[..., _one(column)], W_of_D[..., _one(column)])
                return part

            identity = self._at("identity", raw)
            raw = self._sum("weight", term, {"column": geometry.d_mul}, {"the identity's part": identity}, "delta")
        raw = self._move("kernel", raw.reshape(geometry.kernel_shape), geometry)
        self.raw = self._at("kernel", raw, inputs["W"].dtype)
        return self.raw.astype(inputs["W"].dtype)

    def _used(self, kernel: np.ndarray, inputs: Tensors, geometry: ConvGeometry) -> np.ndarray:
        kernel = self._at("used", kernel, inputs["x"].dtype).astype(inputs["x"].dtype)
        return super()._used(kernel, inputs, geometry)

    def _convolve(
        self, geometry: ConvGeometry, inputs: Tensors, weight: np.ndarray, bias: np.ndarray | None
    ) -> np.ndarray:
        x = self._at("x.y", self._move("x", inputs["x"], geometry))
        kernel = self._at("kernel.y", self._used(weight, inputs, geometry))
        g = self._geometry(geometry)
        tables = relations(self._options("options", g), g, x.shape[2:])
        patches, kernels = grouped(patches_of(x, tables), 1, g.groups), kernels_of(kernel, g)
        shape = (len(x), g.out_channels, *(len(table) for table in tables))
        wide = np.zeros(()) if bias is None else self._at("bias.y", self._move("bias", bias, geometry))
        wide = wide if bias is None else wide.reshape(-1, *[1] * geometry.spatial_rank)

        def term(tap: int | slice = slice(None), channel: int | slice = slice(None)) -> np.ndarray:
            part = np.einsum(
                "ngcpk,gock->ngop",
                patches[:, :, _one(channel)][..., _one(tap)],
                kernels[:, :, _one(channel)][..., _one(tap)],
                optimize=True,
            )
            return self._move("bare", part.reshape(shape), geometry)

        sizes = {"tap": g.taps, "channel": g.in_channels // g.groups}
        y = self._move("y", self._sum("y", term, sizes, {"the bias": wide}, "bare"), geometry)
        if "result" in self.hooks:
            y = self.hooks["result"](y, kernel, inputs, geometry)
        return self._at("y", y, inputs["x"].dtype).astype(inputs["x"].dtype)

    def _plain_vjp(
        self, x: np.ndarray, kernel: np.ndarray, grad_y: np.ndarray, g: ConvGeometry
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        of_x, of_kernel = (
            fitted(relations(self._options(name, g), g, x.shape[2:]), grad_y.shape[2:])
            for name in ("options_grad_x", "options_grad_kernel")
        )
        moved = self.hooks["grad_x_kernel"](kernel, g) if "grad_x_kernel" in self.hooks else kernel
        grad_x = self._grad_x(self._at("grad_y.grad_x", grad_y), self._at("kernel.grad_x", moved), of_x, x.shape, g)
        x, of_bias = self._at("x.grad_kernel", x), self._at("grad_y.grad_bias", grad_y)
        grad_kernel = self._grad_kernel(x, self._at("grad_y.grad_kernel", grad_y), of_kernel, g)
        flat = of_bias.reshape(*of_bias.shape[:2], -1)

        def term(image: int | slice = slice(None), position: int | slice = slice(None)) -> np.ndarray:
            part: np.ndarray = flat[_one(image)][..., _one(position)].sum(axis=(0, 2))
            return part

        return grad_x, grad_kernel, self._sum("grad_bias", term, {"image": len(flat), "position": flat.shape[2]})

    def _grad_x(
        self, grad_y: np.ndarray, kernel: np.ndarray, tables: list[np.ndarray], shape: tuple[int, ...], g: ConvGeometry
    ) -> np.ndarray:
        flat, kernels = grouped(grad_y.reshape(*grad_y.shape[:2], -1), 1, g.groups), kernels_of(kernel, g)

        def term(tap: int | slice = slice(None), channel: int | slice = slice(None)) -> np.ndarray:
            of = kernels[:, _one(channel)][..., _one(tap)]
            grad = np.einsum("ngop,gock->ngcpk", flat[:, :, _one(channel)], of, optimize=True)
            at = tables
            if not isinstance(tap, slice):
                index = np.unravel_index(tap, g.kernel_size)
                at = [table[..., k : k + 1] for table, k in zip(tables, index, strict=True)]
            return unpatched(grad.reshape(len(grad_y), g.in_channels, *grad.shape[3:]), at).reshape(shape)

        return self._sum("grad_x", term, {"tap": g.taps, "channel": g.out_channels // g.groups})

    def _grad_kernel(self, x: np.ndarray, grad_y: np.ndarray, tables: list[np.ndarray], g: ConvGeometry) -> np.ndarray:
        patches = grouped(patches_of(x, tables), 1, g.groups)
        flat = grouped(grad_y.reshape(*grad_y.shape[:2], -1), 1, g.groups)

        def term(image: int | slice = slice(None), position: int | slice = slice(None)) -> np.ndarray:
            of_x = patches[_one(image)][:, :, :, _one(position)]
            grad: np.ndarray = np.einsum(
                "ngcpk,ngop->gock", of_x, flat[_one(image)][..., _one(position)], optimize=True
            )
            return (grad.swapaxes(1, 2) if g.transposed else grad).reshape(g.kernel_shape)

        return self._sum("grad_kernel", term, {"image": len(x), "position": flat.shape[3]})

    def _compose_vjp(
        self, geometry: ConvGeometry, inputs: Tensors, grad_kernel: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        W, D = self._parameters(geometry, inputs)
        g = grad_kernel.reshape(*W.shape[:2], geometry.taps)
        one, other = self.hooks.get("grad_parts", (1.0, 1.0))
        E = self._part("identity_part", self._identity(geometry)[None, None], geometry)
        grad_W = one * self._moved_back("identity_W", (g[..., None, :] @ E)[..., 0, :], W.shape, geometry)
        if D is None:
            return grad_W, None
        rows = self._grad_rows(geometry)
        used = self._at("D.grad_W", self._move("grad_delta_D", D, geometry))[rows]
        used = self._at("1+D.grad_W", E + self._part("delta_part", used, geometry)) - E

        def of_W(tap: int | slice = slice(None)) -> np.ndarray:
            part = np.einsum("abk,abks->abs", g[..., _one(tap)], used[:, :, _one(tap)])
            return other * self._moved_back("delta_W", part, W.shape, geometry)

        first = {"the identity's part": self._at("identity.grad_W", grad_W)}
        grad_W = self._sum("grad_W", of_W, {"tap": geometry.taps}, first, "delta.grad_W")
        W = self._at("W.grad_D", self._move("grad_delta_W", self._move("delta_W", W, geometry), geometry))
        products = self._part("delta_part", self._delta(geometry) * g[..., :, None] * W[..., None, :], geometry)
        if "sum_group" in self.hooks:
            return grad_W, self.hooks["sum_group"](products, rows, geometry)
        axis, size = (1, W.shape[1]) if geometry.transposed else (0, geometry.out_channels // geometry.groups)

        def of_D(channel: int | slice = slice(None)) -> np.ndarray:
            at = slice(None) if isinstance(channel, slice) else np.arange(channel, W.shape[axis], size)
            index = (slice(None), at) if axis else (at,)
            grad = np.zeros(D.shape)
            np.add.at(grad, rows[index], products[index])
            return grad

        return grad_W, self._sum("grad_D_delta", of_D, {"channel": size})

    def _gradient(self, name: str, gradient: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
        changed = super()._gradient(name, gradient, geometry)
        own = {"grad_kernel": "x", "grad_D_delta": "W"}.get(name, name.removeprefix("grad_"))
        return self._at(name, changed, self.types[own])

    def _sum(
        self, of: str, term: Callable[..., np.ndarray], sizes: dict[str, int],
        first: dict[str, np.ndarray] | None = None, site: str = "",
    ) -> np.ndarray:  # fmt: skip
        """The sum of all terms, and of what it may begin with.

        Args:
            of: the output.
            term: of some loops' indices, the others summed exactly.
            sizes: how long each loop is.
            first: what is added to the sum, by its name.
            site: of the sum without that.
        """
        (name, start), *_ = (first or {"": np.zeros(())}).items()
        order = self.plan.order
        if order is None or order.of != of or self.to is None:
            return self._at(site, term()) + start
        begins = order.first != "" and order.first == name

        def rounds(tensor: np.ndarray) -> np.ndarray:
            assert self.to is not None
            return rounded(tensor, self.to, self.plan.mode)

        total = _total(term, [(loop, sizes[loop]) for loop in order.loops], order, rounds, start if begins else None)
        return total if begins else total + start


def _one(index: int | slice) -> slice:
    """An index that keeps the axis."""
    return index if isinstance(index, slice) else slice(index, index + 1)


def _total(
    term: Callable[..., np.ndarray], loops: list[tuple[str, int]], order: Order,
    rounds: Callable[[np.ndarray], np.ndarray], start: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    """The rounded sum of the terms of some loops, in their order."""
    if order.way == "nested" and len(loops) > 1:
        (name, size), *inner = loops
        parts = (_total(partial(term, **{name: at}), inner, order, rounds, None) for at in range(size))
        return _in_sequence(parts, rounds, order, start)
    names, ranges = [name for name, _ in loops], [range(size) for _, size in loops]
    terms = (term(**dict(zip(names, index, strict=True))) for index in product(*ranges))
    terms = (rounds(part) for part in terms) if order.terms else terms
    if order.way == "halves":
        total = _halved(list(terms), rounds)
        return total if start is None else rounds(start + total)
    return _in_sequence(terms, rounds, order, start)


def _in_sequence(
    terms: Iterable[np.ndarray], rounds: Callable[[np.ndarray], np.ndarray], order: Order, start: np.ndarray | None
) -> np.ndarray:
    total = np.zeros(()) if start is None else rounds(start)
    for number, term in enumerate(terms, 1):
        total = total + term
        if order.block and number % order.block == 0:
            total = rounds(total)
    return total


def _halved(terms: list[np.ndarray], rounds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    while len(terms) > 1:
        pairs = [reduce(np.add, terms[at : at + 2]) for at in range(0, len(terms), 2)]
        terms = [rounds(pair) for pair in pairs]
    return terms[0]
