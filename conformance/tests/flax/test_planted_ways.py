"""Faults that one way alone meets, planted in a copy of the backend: each is a mismatch there."""

from collections.abc import Callable

import pytest

from doconv_conformance.adapters.ways.table import ways_of

Compare = Callable[..., tuple[int, dict[str, set[str]]]]
# Of a way that has its own name in the report; the default is where no fault is met.
WAYS = [way.name for way in ways_of("flax") if way.name not in ("compiled", "eager")]

FAULTS = '''

import sys
import jax, jax.numpy as jnp
import doconv_flax._compose as _compose
import doconv_flax._linen_layers as _linen, doconv_flax._nnx_layers as _nnx

right = _compose.compose

def within(name):
    """Whether one of JAX's modules of this name traces the layer."""
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.endswith(name):
        frame = frame.f_back
    return frame is not None

def compose(kernel, D, **options):
    return right(kernel, D if D is None else wrong(D), **options)

def wrong(D):
    batch = getattr(D, "batch_dim", None)
    if batch is not None:
        return jax.lax.index_in_dim(D.val, 0, batch, keepdims=False)  # the first of the stack, for all
    if within("control_flow/loops.py"):
        return 2 * D  # a step of the scan counts it twice
    if within("ad_checkpoint.py"):
        return 0 * D  # forgotten where the forward pass is run again
    if within("_export.py"):
        return jnp.flip(D, -2)  # what is exported has its columns in another order
    if within("shard_map.py"):
        return D / jax.lax.axis_size("devices")  # each device has a share, and nobody adds them up
    if jax.device_count() > 1:
        return D.at[..., D.shape[-2] // 2 :, :].set(0)  # the columns on the other devices are not gathered
    return D

_compose.compose = _linen.compose = _nnx.compose = compose
'''


@pytest.fixture(scope="module")
def planted(compare_copy: Compare) -> tuple[int, dict[str, set[str]]]:
    return compare_copy("flax", FAULTS, "--way", ",".join(["compiled", *WAYS]), "--case", "plain-3x3-exact-float32")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["flax", "flax-nnx"])
def test_a_fault_of_the_way_is_a_mismatch(planted: tuple[int, dict[str, set[str]]], name: str, way: str) -> None:
    status, verdicts = planted
    assert status == 1
    assert verdicts[name] == {"exact"}
    assert verdicts[f"{name}/{way}"] == {"exact", "mismatch"}  # exact: the fold
