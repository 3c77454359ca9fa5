"""What the Flax layers promise: any groups, the plain layer's start, composition in the parameters' type, clear refusals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import doconv_flax
from doconv_conformance.layer_checks.contract import GROUPED, SMALL, grouped_tensors, impulse_tensors
from doconv_core import ConvGeometry, Layout

APIS = ("linen", "nnx")


def run(api: str, geometry: ConvGeometry, tensors: dict[str, np.ndarray], **options: Any) -> np.ndarray:
    """The output of a DO layer, in canonical order."""
    layout = Layout("flax", geometry)
    x = jnp.asarray(layout.activation_from_canonical(tensors["x"]))
    params = {
        "kernel": jnp.asarray(layout.w_from_canonical(tensors["W"])),
        "D": jnp.asarray(layout.d_from_canonical(tensors["D_delta"])),
    }
    options |= {"padding": "VALID", "feature_group_count": geometry.groups, "use_bias": False}
    if api == "linen":
        layer = doconv_flax.linen.DOConv(geometry.out_channels, geometry.kernel_size, **options)
        y = layer.apply({"params": params}, x)
    else:
        channels = (geometry.in_channels, geometry.out_channels)
        layer = doconv_flax.nnx.DOConv(*channels, geometry.kernel_size, rngs=nnx.Rngs(0), **options)
        for name, value in params.items():
            getattr(layer, name)[...] = value
        y = layer(x)
    return layout.activation_to_canonical(np.asarray(y))


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("geometry", GROUPED, ids=ConvGeometry.describe)
def test_the_layer_equals_feature_composition_for_every_group_count(api: str, geometry: ConvGeometry) -> None:
    tensors, y = grouped_tensors(geometry)
    np.testing.assert_array_equal(run(api, geometry, tensors), y)


@pytest.mark.parametrize("api", APIS)
def test_mixed_precision_rounds_the_composed_kernel_once(api: str) -> None:
    tensors, kernel, bound = impulse_tensors()
    y = run(api, SMALL, tensors, dtype=jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    assert (np.abs(y.astype(np.float64) - kernel) <= bound).all()


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_the_start_is_the_plain_layer_of_the_same_seed_or_kernel(name: str) -> None:
    x, key = jax.random.uniform(jax.random.key(1), (2, 9, 8, 4)), jax.random.key(0)
    options = {"feature_group_count": 2} if name == "Conv" else {"strides": (2, 2)}
    plain, do = getattr(nn, name)(6, (3, 2), **options), getattr(doconv_flax.linen, f"DO{name}")(6, (3, 2), **options)
    variables = plain.init(key, x)
    y = plain.apply(variables, x)
    np.testing.assert_array_equal(do.apply(do.init(key, x), x), y)
    kernel, D = doconv_flax.start_from(variables["params"]["kernel"], 4)
    given = {"params": variables["params"] | {"kernel": kernel, "D": D}}
    np.testing.assert_array_equal(do.apply(given, x), y)
    module = getattr(nnx, name)(4, 6, (3, 2), rngs=nnx.Rngs(0), **options)
    do_module = getattr(doconv_flax.nnx, f"DO{name}")(4, 6, (3, 2), rngs=nnx.Rngs(0), **options)
    np.testing.assert_array_equal(do_module(x), module(x))


@pytest.mark.parametrize(
    ("d_mul", "error", "text"),
    [
        (8, ValueError, r"d_mul must be at least 9, .* Received: kernel shape \(3, 3, 4, 6\), d_mul=8"),
        (0, ValueError, "d_mul must be positive. Received: .*d_mul=0"),
        (9.0, TypeError, "d_mul must be an integer, not float. Received: .*d_mul=9.0"),
    ],
)
def test_bad_arguments_are_named(d_mul: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        doconv_flax.linen.DOConv(6, (3, 3), d_mul=d_mul).init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))
    with pytest.raises(error, match=text):
        doconv_flax.nnx.DOConv(4, 6, (3, 3), d_mul=d_mul, rngs=nnx.Rngs(0))


def test_parameters_that_do_not_belong_together_are_named() -> None:
    with pytest.raises(ValueError, match=r"do not belong together. Received: shapes \(3, 3, 3, 6\) and \(3, 3, 9, 4\)"):
        doconv_flax.compose(jnp.ones((3, 3, 3, 6)), jnp.ones((3, 3, 9, 4)))
