"""Planted faults: mistakes that ports make, each a small change of the core, to prove that the suite finds them."""

from doconv_conformance.faults.catalogue import CATALOGUE
from doconv_conformance.faults.faulty_port import Fault, FaultyPort

__all__ = ["CATALOGUE", "Fault", "FaultyPort"]
