"""JAX for these tests: nothing is promoted silently, eight devices to lay arrays out on, and XLA compiles quickly."""

import os

# Most of the time here is LLVM's; what it is told to leave out makes programs faster, not other.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_force_host_platform_device_count=8",
)

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
