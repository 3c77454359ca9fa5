"""All planted faults, in the order of the stages they show in."""

from __future__ import annotations

from doconv_conformance.faults.combined import COMBINED
from doconv_conformance.faults.composition import COMPOSITION
from doconv_conformance.faults.convolution import CONVOLUTION
from doconv_conformance.faults.faulty_port import Fault
from doconv_conformance.faults.gradients import LAYER
from doconv_conformance.faults.precision import PRECISION

CATALOGUE: tuple[Fault, ...] = (*COMPOSITION, *CONVOLUTION, *LAYER, *PRECISION, *COMBINED)
