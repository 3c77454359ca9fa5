"""A port in Python, half finished: it composes and starts layers, for float32 and float64 parameters, and says so.

doconv check -- python port.py
"""

import numpy as np

from doconv_conformance.port import Port, Unsupported, serve


class Half(Port):
    """`Port` speaks the protocol; a port in Python is a class with a method for each operation that it has."""

    name = "example-python"
    version = "1"
    supports = {  # noqa: RUF012  # plain on purpose
        "operations": ["compose", "initialise"],
        "dtypes": {name: ["float32", "float64"] for name in ("float64", "float32", "float16", "bfloat16")},
        "spatial_ranks": [1, 2, 3],
        "transposed": True,
        "groups": True,
        "padding_modes": ["zeros", "reflect", "replicate", "circular"],
    }
    numerics = {"algorithm": "direct"}  # noqa: RUF012

    def compose(self, geometry, inputs):
        return {"weight": compose(geometry, inputs["W"], inputs.get("D_delta"))}

    def initialise(self, geometry, inputs):
        weight, K, S = inputs["weight"], geometry.taps, geometry.d_mul
        W = np.zeros(geometry.w_shape, weight.dtype)
        W[..., :K] = weight.reshape(*W.shape[:2], K)
        surplus = W[..., S // K * K :]  # meets zeros of E: random, or nothing would ever train it
        surplus[...] = np.random.default_rng(0).uniform(-1, 1, surplus.shape) / (W.shape[1] * S) ** 0.5
        outputs = {"W": W, "weight": compose(geometry, W, None)}
        return outputs | ({"D_delta": np.zeros(geometry.d_shape, weight.dtype)} if geometry.taps > 1 else {})


def compose(geometry, W, D_delta):
    """`W'[o, c, k] = sum_s (E + D_delta)[i, k, s] * W[o, c, s]`; `E` adds up the tiles of `W`."""
    if W.dtype not in (np.float32, np.float64):
        raise Unsupported("float32 and float64 parameters only")
    K, tiles = geometry.taps, geometry.d_mul // geometry.taps
    kernel = W[..., : tiles * K].reshape(*W.shape[:2], tiles, K).sum(axis=2)
    o, c = np.indices(W.shape[:2])
    i = o if geometry.transposed else o // (geometry.out_channels // geometry.groups) * W.shape[1] + c
    if D_delta is not None:
        kernel = kernel + np.einsum("ocks,ocs->ock", D_delta[i], W)
    return kernel.reshape(geometry.kernel_shape)


if __name__ == "__main__":
    serve(Half())
