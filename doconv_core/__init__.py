"""The mathematics of DO-Conv in NumPy: what every backend and every port is compared with.

Read `composition.py` first, then `convolution.py`; `geometry.py` holds every check, `padding.py` and `layouts.py` what the
frameworks name and store differently, `checkpoint/` the files.
"""

from doconv_core.composition import (
    compose,
    compose_features,
    compose_vjp,
    dialect_rows,
    identity,
    start,
    start_from_kernel,
)
from doconv_core.convolution import convolve, convolve_vjp
from doconv_core.geometry import ConvGeometry
from doconv_core.layouts import Layout

__version__ = "0.1.0"

__all__ = [
    "ConvGeometry",
    "Layout",
    "compose",
    "compose_features",
    "compose_vjp",
    "convolve",
    "convolve_vjp",
    "dialect_rows",
    "identity",
    "start",
    "start_from_kernel",
]
