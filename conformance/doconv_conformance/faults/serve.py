"""A planted fault as a port: `doconv check -- python -m doconv_conformance.faults.serve NAME` shows what the suite says."""

from __future__ import annotations

import sys

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.faults.catalogue import CATALOGUE
from doconv_conformance.faults.faulty_port import Fault, FaultyPort
from doconv_conformance.port import Tensors, serve
from doconv_core.geometry import ConvGeometry


class PlantedPort(CorePort):
    """The core with a fault, made on the fault's own geometries only."""

    def __init__(self, fault: Fault) -> None:
        self.name = fault.name
        self._faulty = FaultyPort(fault)

    def compose(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self._faulty.answer("compose", geometry, inputs)

    def forward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self._faulty.answer("forward", geometry, inputs)

    def backward(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self._faulty.answer("backward", geometry, inputs)

    def fold(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self._faulty.answer("fold", geometry, inputs)

    def initialise(self, geometry: ConvGeometry, inputs: Tensors) -> Tensors:
        return self._faulty.answer("initialise", geometry, inputs)


def planted(name: str) -> Fault:
    """The fault of the catalogue that has this name.

    Raises:
        ValueError: none has.
    """
    for fault in CATALOGUE:
        if fault.name == name:
            return fault
    raise ValueError(f"no fault of the catalogue has this name. Received: {name!r}")


if __name__ == "__main__":
    serve(PlantedPort(planted(sys.argv[1])))
