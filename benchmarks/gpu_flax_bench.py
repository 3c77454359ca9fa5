"""Flax linen on a GPU: training steps of ResNet-18 in every precision. Without a GPU: "not measured"."""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
from flax_bench import case, linen_steps
from measure import Bench

# The precision of float32 products, and the type that the layers compute in.
PRECISIONS = {"float32": ("highest", None), "TF32": ("tensorfloat32", None), "bfloat16": ("default", jnp.bfloat16)}


WIDTH, SIZE, BATCHES = 64, 64, (32, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one row")
    parser.add_argument("--seconds", type=float, default=6.0, help="for one row, about")
    options = parser.parse_args()
    bench = Bench("Flax on a GPU", quick=options.quick, seconds=options.seconds, clock="wall")
    for name, (precision, dtype) in PRECISIONS.items():
        if jax.default_backend() == "gpu":
            with jax.default_matmul_precision(precision):
                linen_steps(bench, WIDTH, SIZE, BATCHES, dtype, f", {name}")
        else:
            for batch in BATCHES:
                bench.note(
                    "training step, jit",
                    case(WIDTH, SIZE, batch, f", {name}"),
                    "of plain",
                    {"plain": None, "ours": None},
                )
        if options.quick:
            break
    bench.write(["flax", "jax", "doconv-core"])


if __name__ == "__main__":
    main()
