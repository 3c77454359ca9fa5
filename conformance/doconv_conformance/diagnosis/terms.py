"""Which products make up one element of a right output: what a report shows where nothing else explains a failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from doconv_conformance.cases.table import Case
from doconv_conformance.verdicts.integers import composition_products, convolution_products

Key = tuple[int, ...]


@dataclass(frozen=True)
class Term:
    """`factor * other`, each named and with its value; `other` is empty where the term is one number."""

    factor: str
    value: float
    other: str = ""
    other_value: float = 1.0

    @property
    def product(self) -> float:
        """The value of the term."""
        return self.value * self.other_value

    def __str__(self) -> str:
        one = f"{self.factor}={self.value:.9g}"
        return f"{one} * {self.other}={self.other_value:.9g}" if self.other else one


def terms(case: Case, operation: str, output: str, index: Key) -> list[Term]:
    """The terms whose sum is element `index` of `output`.

    Tensors of the case carry its values; `D` is `E + D_delta`, `W'` the composed kernel and `grad_W'` its gradient.
    """
    known = _Tensors(case)
    if operation == "initialise":
        return _initialised(known, output, index)
    if output == "bias":
        return [known.single("bias", index)]
    if output == "grad_bias":
        return [known.single("grad_y", key) for key in np.ndindex(*known["grad_y"].shape) if key[1] == index[0]]
    if output in ("weight", "grad_W", "grad_D_delta"):
        return list(_composed(known, output, index))
    found = [known.single("bias", index[1:2])] if output == "y" and case.bias else []
    for y, x, k in convolution_products(case, known["grad_y"].shape):
        if output == "y" and y == index:
            found.append(Term(_name("W'", k), known.kernel(k), _name("x", x), known["x"][x]))
        elif output == "grad_x" and x == index:
            found.append(Term(_name("W'", k), known.kernel(k), _name("grad_y", y), known["grad_y"][y]))
    return found


class _Tensors:
    """The case's tensors in float64, and what is made of them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._tensors = {name: tensor.astype(np.float64) for name, tensor in case.tensors.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name]

    def single(self, name: str, key: Key) -> Term:
        return Term(_name(name, key), self[name][key])

    def d(self, key: Key, identity: int) -> float:
        return identity + (self["D_delta"][key] if self.case.geometry.has_d else 0.0)

    def kernel(self, key: Key) -> float:
        return sum(term.product for term in _composed(self, "weight", key))

    def grad_kernel(self, key: Key) -> float:
        shape = self["grad_y"].shape
        return sum(self["x"][x] * self["grad_y"][y] for y, x, k in convolution_products(self.case, shape) if k == key)


def _composed(known: _Tensors, output: str, index: Key) -> Iterator[Term]:
    for k, d, w, identity in composition_products(known.case):
        if output == "weight" and k == index:
            yield Term(_name("D", d), known.d(d, identity), _name("W", w), known["W"][w])
        elif output == "grad_W" and w == index:
            yield Term(_name("D", d), known.d(d, identity), _name("grad_W'", k), known.grad_kernel(k))
        elif output == "grad_D_delta" and d == index:
            yield Term(_name("W", w), known["W"][w], _name("grad_W'", k), known.grad_kernel(k))


def _initialised(known: _Tensors, output: str, index: Key) -> list[Term]:
    """The kernel in the first tile of `W`; nothing in the rest of `W` and in `D_delta`."""
    g = known.case.geometry
    if output == "weight":
        return [known.single("weight", index)]
    if output == "W" and index[2] < g.taps:
        tap = tuple(int(i) for i in np.unravel_index(index[2], g.kernel_size))
        return [known.single("weight", (*index[:2], *tap))]
    return []


def _name(tensor: str, key: Key) -> str:
    return f"{tensor}[{','.join(map(str, key))}]"
