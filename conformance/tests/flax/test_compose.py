"""The two ways to compose, products and loops: the same sums, and the same derivatives, in every mode."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import doconv_core
import doconv_flax._compose
from doconv_core import ConvGeometry, Layout
from doconv_flax import compose, start_from

RNG = np.random.default_rng(0)
# (kernel_size, C_in, C_out, groups, S, transpose_kernel); the last two are not for loops.
SHAPES = [
    ((3, 3), 8, 6, 1, 9, False), ((3, 2), 4, 6, 1, 13, False), ((3,), 5, 6, 1, 3, False), ((2, 2, 2), 3, 4, 1, 8, False),
    ((3, 3), 8, 6, 2, 9, False), ((3, 2), 4, 6, 1, 7, True),
]  # fmt: skip


def integers(*shape: int) -> jax.Array:
    """Small integers: every sum is exact, in whatever order it is formed."""
    return jnp.asarray(RNG.integers(-2, 3, shape), jnp.float32)


@pytest.fixture(params=["loops", "products"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(doconv_flax._compose, "LOOP_SIZE", 0 if request.param == "loops" else 2**62)
    return request.param


def tensors(kernel_size: tuple[int, ...], C: int, out: int, groups: int, S: int, transpose_kernel: bool) -> Any:
    ends = (out, C) if transpose_kernel else (C // groups, out)
    columns = kernel_size if int(np.prod(kernel_size)) == S else (S,)
    pair = [integers(*columns, *ends), integers(*kernel_size, S, C)]
    return *pair, integers(*columns, *ends), integers(*kernel_size, S, C), integers(*kernel_size, *ends)


def by_core(W: jax.Array, D: jax.Array, groups: int, transpose_kernel: bool) -> np.ndarray:
    ends = W.shape[-2:]
    options: Any = {"transposed": True, "out_channels": ends[0]} if transpose_kernel else {"out_channels": ends[1]}
    geometry = ConvGeometry(
        in_channels=D.shape[-1], kernel_size=D.shape[:-2], groups=groups, d_mul=D.shape[-2], **options
    )
    layout = Layout("flax", geometry, transpose_kernel=transpose_kernel)
    canonical = layout.w_to_canonical(np.asarray(W)), layout.d_to_canonical(np.asarray(D))
    return layout.kernel_from_canonical(doconv_core.compose(*canonical, geometry))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_ways_are_the_core_in_value_and_every_derivative(shape: Any, way: str) -> None:
    W, D, dW, dD, g = tensors(*shape)
    groups, transpose_kernel = shape[3], shape[5]

    def function(W: jax.Array, D: jax.Array) -> jax.Array:
        return compose(W, D, transpose_kernel=transpose_kernel)

    def core(W: jax.Array, D: jax.Array) -> np.ndarray:
        return by_core(W, D, groups, transpose_kernel)

    def loss(W: jax.Array, D: jax.Array) -> jax.Array:
        return (function(W, D) * g).sum()

    @jax.jit
    def everything(W: jax.Array, D: jax.Array) -> dict[str, Any]:
        _, pull = jax.vjp(function, W, D)
        return {
            "start": function(W, jnp.zeros_like(D)),
            "value": function(W, D),
            "forward": jax.jvp(function, (W, D), (dW, dD))[1],
            "linearized": jax.linearize(function, W, D)[1](dW, dD),
            "reverse": pull(g),
            "batched": jax.vmap(function)(jnp.stack([W, dW]), jnp.stack([D, dD])),
            "other axis": jax.vmap(function, (None, 0), 1)(W, jnp.stack([D, dD]))[:, 1],
            "forward over reverse": jax.jvp(lambda W: jax.grad(loss, 1)(W, D), (W,), (dW,))[1],
            "reverse over reverse": jax.grad(lambda D: (jax.grad(loss, 0)(W, D) * dW).sum())(D),
            "gradient in D at dW": jax.grad(loss, 1)(dW, D),
        }

    loops = way == "loops" and groups == 1 and not transpose_kernel
    assert ("custom_jvp" in str(jax.make_jaxpr(function)(W, D))) == loops
    got = everything(W, D)
    # Composing is linear in `E + D_delta` and in `W`, so differences are derivatives.
    in_W, in_D = core(dW, D), core(W, D + dD) - core(W, D)
    wanted = {
        "start": core(W, jnp.zeros_like(D)), "value": core(W, D), "forward": in_W + in_D, "linearized": in_W + in_D,
        "batched": np.stack([core(W, D), core(dW, dD)]), "other axis": core(W, dD),
        "forward over reverse": got["gradient in D at dW"], "reverse over reverse": got["gradient in D at dW"],
    }  # fmt: skip
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    for gradient, tangent, change in zip(got["reverse"], (dW, dD), (in_W, in_D), strict=True):
        np.testing.assert_array_equal((gradient * tangent).sum(), (g * change).sum())


def test_the_start_is_the_plain_kernel_bit_for_bit(way: str) -> None:
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 8, 6))
    for d_mul in (9, 12):
        W, D = start_from(kernel, 8, d_mul=d_mul, key=jax.random.key(1))
        assert (W.shape, D.shape) == ((3, 3, 8, 6) if d_mul == 9 else (12, 8, 6), (3, 3, d_mul, 8))
        assert not D.any()
        np.testing.assert_array_equal(jax.jit(lambda W, D: compose(W, D))(W, D), kernel)
        half, D = start_from(kernel.astype(jnp.bfloat16), 8, d_mul=d_mul)
        composed = jax.jit(lambda W, D: compose(W, D))(half, D)
        assert composed.dtype == jnp.bfloat16
        np.testing.assert_array_equal(composed, kernel.astype(jnp.bfloat16))


def test_half_precision_is_composed_in_float32_and_rounded_once(way: str) -> None:
    keys = jax.random.split(jax.random.key(0))
    shapes = (3, 3, 8, 6), (3, 3, 9, 8)
    half = [jax.random.normal(*of).astype(jnp.bfloat16) for of in zip(keys, shapes, strict=True)]
    wide = compose(*(array.astype(jnp.float32) for array in half))
    np.testing.assert_array_equal(compose(*half), wide.astype(jnp.bfloat16))


def test_large_kernels_of_few_taps_go_by_loops() -> None:
    def by_loops(kernel: tuple[int, ...], D: tuple[int, ...]) -> bool:
        shapes: tuple[Any, ...] = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (kernel, D))
        trace: Callable[..., Any] = jax.make_jaxpr(compose)
        return "custom_jvp" in str(trace(*shapes))

    assert by_loops((3, 3, 256, 256), (3, 3, 9, 256))
    assert by_loops((12, 256, 256), (3, 3, 12, 256))
    assert not by_loops((3, 3, 128, 128), (3, 3, 9, 128))
    assert not by_loops((3, 3, 256, 512), (3, 3, 9, 512))  # two groups
    assert not by_loops((5, 5, 256, 256), (5, 5, 25, 256))
