"""Optimizers that scale a step by the parameter's own norm hardly move `D`, which starts at zero; its own rule moves it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

from doconv_flax.linen import OverParameterized

STEPS = 100


def rule(params: Any) -> Any:
    """As on the page for Flax's users."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "D" if path[-1].key == "D" else "rest", params)


def rest(params: Any) -> Any:
    return jax.tree.map(lambda name: name == "rest", rule(params))


# The optimizer, the same with the remedy, and how far at most the first moves `D` in units of what it moves `W`.
OPTIMIZERS = {
    "adafactor": (
        optax.adafactor(1e-3),
        optax.multi_transform({"rest": optax.adafactor(1e-3), "D": optax.adam(1e-3)}, rule),
        0.05,
    ),
    "adaptive clipping": (
        optax.chain(optax.adaptive_grad_clip(0.01), optax.sgd(0.1)),
        optax.chain(optax.masked(optax.adaptive_grad_clip(0.01), rest), optax.sgd(0.1)),
        0.05,
    ),
    "lamb": (optax.lamb(1e-3), optax.multi_transform({"rest": optax.lamb(1e-3), "D": optax.adam(1e-3)}, rule), 0.2),
}


def movement(tx: optax.GradientTransformation) -> float:
    """How far `D` has moved after 100 steps, in units of what `W` has moved."""
    model = OverParameterized(nn.Conv(16, (3, 3)))
    x, target = (jax.random.normal(jax.random.key(seed), (4, 8, 8, 16)) for seed in (1, 2))
    start = model.init(jax.random.key(0), x)["params"]

    def loss(params: Any) -> jax.Array:
        return ((model.apply({"params": params}, x) - target) ** 2).mean()

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda: jax.lax.scan(step, (start, tx.init(start)), None, STEPS))()
    moved = {name: jnp.linalg.norm((params[name] - start[name]).ravel()) for name in ("kernel", "D")}
    return float(moved["D"] / moved["kernel"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_d_moves_with_a_rule_of_its_own(name: str) -> None:
    alone, with_rule, most = OPTIMIZERS[name]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert movement(alone) < most
        assert movement(with_rule) > 0.5
