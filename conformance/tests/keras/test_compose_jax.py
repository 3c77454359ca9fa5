"""On Keras's JAX backend, loops and products: the same values and derivatives in every mode. `test_backends` runs this."""

from typing import Any

import keras
import numpy as np
import pytest

from doconv_keras import _compose

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="for Keras's JAX backend")

# (kernel_size, C_in, C_out, S): as many columns as taps, tiles with a surplus, one and three axes.
SHAPES = [((3, 3), 8, 6, 9), ((3, 2), 4, 6, 13), ((2, 2, 2), 3, 4, 9), ((3,), 5, 6, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loops_and_products_are_equal_in_value_and_every_derivative(
    shape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax
    import jax.numpy as jnp

    kernel_size, channels, out, S = shape
    columns = kernel_size if int(np.prod(kernel_size)) == S else (S,)
    rng = np.random.default_rng(0)

    def integers(*shape: int) -> jax.Array:
        return jnp.asarray(rng.integers(-2, 3, shape), jnp.float32)

    W, dW = (integers(*columns, channels, out) for _ in range(2))
    D, dD = (integers(*kernel_size, S, channels) for _ in range(2))
    g = integers(*kernel_size, channels, out)
    got = {}
    for way, size in {"loops": 0, "products": 2**62}.items():
        monkeypatch.setattr(_compose._compose_jax, "LOOP_SIZE", size)

        def function(W: jax.Array, D: jax.Array) -> jax.Array:
            return _compose.compose(W, D)

        def loss(W: jax.Array, D: jax.Array) -> jax.Array:
            return (_compose.compose(W, D) * g).sum()

        assert ("custom_jvp" in str(jax.make_jaxpr(function)(W, D))) == (way == "loops")

        @jax.jit
        def everything(W: jax.Array, D: jax.Array) -> dict[str, Any]:
            return {
                "value": function(W, D),
                "forward": jax.jvp(function, (W, D), (dW, dD))[1],
                "reverse": jax.vjp(function, W, D)[1](g),
                "batched": jax.vmap(function)(jnp.stack([W, dW]), jnp.stack([D, dD])),
                "forward over reverse": jax.jvp(lambda W: jax.grad(loss, 1)(W, D), (W,), (dW,))[1],
                "reverse over reverse": jax.grad(lambda D: (jax.grad(loss, 0)(W, D) * dW).sum())(D),
            }

        got[way] = everything(W, D)
    jax.tree.map(np.testing.assert_array_equal, got["loops"], got["products"])
    assert all(np.any(leaf) for leaf in jax.tree.leaves(got["loops"]))


def test_large_dense_kernels_of_few_taps_go_by_loops() -> None:
    import jax.numpy as jnp

    def goes(kernel_size: tuple[int, ...], channels: int, out: int, groups: int = 1) -> bool:
        W = jnp.zeros((*kernel_size, channels // groups, out))
        return _compose._compose_jax.takes(W, jnp.zeros((*kernel_size, int(np.prod(kernel_size)), channels)))

    assert goes((3, 3), 256, 256)
    assert not goes((3, 3), 64, 64)
    assert not goes((5, 5), 256, 256)
    assert not goes((3, 3), 512, 512, groups=2)
