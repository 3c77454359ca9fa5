"""The smoke case: before any other, one that leaves no room for mathematics, so that its failure is the harness's."""

from __future__ import annotations

import numpy as np

from doconv_conformance.cases.table import DTYPES
from doconv_conformance.port import OPERATIONS
from doconv_conformance.protocol.process import PortCrash, PortTimeout
from doconv_conformance.protocol.session import PortSession
from doconv_core.geometry import ConvGeometry

X, W = (1.0, 2.0, 3.0, 4.0), 2.0
ADVICE = "the program does not speak the protocol yet, what follows says nothing of its mathematics"


def smoke(session: PortSession) -> str:
    """Ask for one operation of a 1x1 convolution of one channel; returns what is wrong with the answer, or nothing.

    The first operation, dtype and number of axes that the port declares; without bias and (one tap) without `D_delta`. `W` is
    2, `x` is 1, 2, 3, 4, the upstream gradient is ones.
    """
    supports = session.hello["supports"]
    operation = min(supports["operations"], key=OPERATIONS.index)
    dtype, parameters = next(iter(supports["dtypes"].items()))
    param_dtype = parameters[0] if parameters else dtype
    rank = supports["spatial_ranks"][0]
    geometry = ConvGeometry(in_channels=1, out_channels=1, kernel_size=(1,) * rank)
    kernel = np.full(geometry.kernel_shape, W, DTYPES[param_dtype])
    x = np.asarray(X, DTYPES[dtype]).reshape(1, 1, *[1] * (rank - 1), -1)
    inputs = {"W": kernel.reshape(geometry.w_shape), "x": x, "grad_y": np.ones_like(x), "weight": kernel}
    outputs = {"weight": kernel, "y": 2 * x, "W": inputs["W"], "grad_x": 2 * np.ones_like(x), "grad_W": inputs["W"] * 5}
    names = {
        "compose": (("W",), ("weight",)),
        "forward": (("x", "W"), ("y",)),
        "backward": (("x", "W", "grad_y"), ("grad_x", "grad_W")),
        "fold": (("x", "W"), ("weight", "y")),
        "initialise": (("weight",), ("weight", "W")),
    }[operation]
    try:
        status, reason, got = session.run(
            "smoke", operation, geometry, dtype, param_dtype, {name: inputs[name] for name in names[0]}
        )
    except (PortCrash, PortTimeout) as failure:
        return f"{operation}: {failure}"
    if status == "unsupported":  # honest, if odd; the cases will tell
        return ""
    if status == "error":
        return f"{operation}: {reason}"
    for name in names[1]:
        want = outputs[name]
        if name not in got:
            return f"{operation}: output {name} is missing; received {sorted(got)}"
        if (got[name].shape, got[name].dtype) != (want.shape, want.dtype):
            return (
                f"{operation}: {name} must be {want.dtype} of shape {want.shape}; "
                f"received {got[name].dtype} of shape {got[name].shape}"
            )
        if not np.array_equal(got[name], want):
            return (
                f"{operation}: {name} must be {want.ravel().tolist()}; received {got[name].ravel().tolist()}: "
                "look at how bytes are read and written"
            )
    return ""
