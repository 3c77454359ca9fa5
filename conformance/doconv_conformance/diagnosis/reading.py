"""Whether a port takes the bytes of one tensor for another's: a file of inputs lists its tensors in an order of their own.

What it would read so is computed from the file itself; the reference on that must give the port's values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from doconv_conformance.cases.table import LOW_PRECISION
from doconv_conformance.diagnosis.agreement import is_near
from doconv_conformance.diagnosis.planted import run
from doconv_conformance.diagnosis.replay import Row
from doconv_conformance.port import Tensors
from doconv_conformance.protocol.session import inputs_file

ORDERS: dict[str, Callable[[list[str]], list[str]]] = {
    "in the order in which the header lists them": list,
    "in the order of their names": sorted,
}
# Of fewer rows an order would be an accident.
LEAST = 3


def order_of_bytes(rows: Sequence[Row]) -> str:
    """In which wrong order a port takes the bytes, in words; nothing where it reads them right.

    Args:
        rows: those that failed, the smallest first.
    """
    plain = [row for row in rows if row.case.numbers in ("integers", "wide") and row.case.dtype not in LOW_PRECISION]
    several = [row for row in plain if len(row.case.inputs(row.operation)) > 1]
    if len(several) < LEAST:
        return ""
    return next((words for words, order in ORDERS.items() if all(_is_of(row, order) for row in several)), "")


def _is_of(row: Row, order: Callable[[list[str]], list[str]]) -> bool:
    """Whether the right outputs of what is read in that order, a wrong one, are the port's, but for the order of summation."""
    inputs = row.case.inputs(row.operation)
    read = _read(inputs, order)
    planted = run((), row.case.geometry, row.operation, read)
    is_other = any(read[name].tobytes() != tensor.tobytes() for name, tensor in inputs.items())
    return (
        is_other
        and planted is not None
        and all(
            name in row.got and row.got[name].shape == want.shape and is_near(row.got[name], want)
            for name, want in planted.items()
        )
    )


def _read(tensors: Tensors, order: Callable[[list[str]], list[str]]) -> Tensors:
    """The tensors of the file that is written of `tensors`, each from where the one before it ends."""
    whole = inputs_file(tensors)
    start = 8 + int.from_bytes(whole[:8], "little")
    header, found = json.loads(whole[8:start]), dict[str, np.ndarray]()
    for name in order(list(header)):
        found[name] = np.frombuffer(whole, tensors[name].dtype, tensors[name].size, start).reshape(tensors[name].shape)
        start += tensors[name].nbytes
    return found
