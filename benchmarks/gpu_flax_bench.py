"""Flax linen on a GPU: training steps of ResNet-18 in every precision. Without a GPU: "not measured"."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax_bench import case, linen_steps
from measure import Bench, command_line

# The precision of float32 products, and the type that the layers compute in.
PRECISIONS = {"float32": ("highest", None), "TF32": ("tensorfloat32", None), "bfloat16": ("default", jnp.bfloat16)}


WIDTH, SIZE, BATCHES = 64, 64, (32, 256)


def steps(bench: Bench) -> None:
    for name, (precision, dtype) in PRECISIONS.items():
        if jax.default_backend() == "gpu":
            with jax.default_matmul_precision(precision):
                linen_steps(bench, WIDTH, SIZE, BATCHES, dtype, f", {name}")
        else:
            for batch in BATCHES:
                row = "training step, jit", case(WIDTH, SIZE, batch, f", {name}"), "of plain"
                bench.note(*row, {"plain": None, "ours": None})
        if bench.quick:
            return


def main() -> None:
    options = command_line(__doc__).parse_args()
    bench = Bench("Flax on a GPU", quick=options.quick, seconds=options.seconds, clock="wall")
    bench.run((steps,), options.only)
    bench.write(["flax", "jax", "doconv-core"])


if __name__ == "__main__":
    main()
