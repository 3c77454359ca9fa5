"""Gradient accumulation in Flax with one composition a step: `fold` outside the scan over micro-batches.

    python examples/flax_accumulate.py

`fold` is a function of the parameters that JAX differentiates. Inside the scan it would compose once for each micro-batch;
outside it composes once, and its gradient, too, is computed once, from the sum of what the micro-batches ask for. Both ways
give the same gradients but for rounding: the program prints how far apart they are.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import doconv_flax


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(16, (3, 3), 2)(x))
        x = nn.relu(nn.Conv(32, (3, 3), 2)(x))
        return nn.Dense(10)(x.mean((1, 2)))


model = Network()
images = jax.random.normal(jax.random.key(0), (8, 4, 32, 32, 3))  # 8 micro-batches of 4
labels = jax.random.randint(jax.random.key(1), (8, 4), 0, 10)

plain = model.init(jax.random.key(2), images[0])["params"]
spec = doconv_flax.linen.conv_spec(model, images[0])
params = doconv_flax.linen.overparameterize(plain, spec)


def loss_of_batch(folded, batch):
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(model.apply({"params": folded}, x), y).mean()


def loss(params, once=True):
    fold = doconv_flax.linen.fold
    folded = fold(params) if once else None  # outside the scan

    def add(total, batch):
        return total + loss_of_batch(folded if once else fold(params), batch), None

    # With `jax.checkpoint` the scan keeps no activations of earlier micro-batches.
    total, _ = jax.lax.scan(jax.checkpoint(add), jnp.zeros(()), (images, labels))
    return total / len(images)


gradients = jax.jit(jax.grad(loss))(params)
expected = jax.jit(jax.grad(lambda params: loss(params, once=False)))(params)
distance = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max()), gradients, expected)
print(f"largest relative difference of a gradient: {max(jax.tree.leaves(distance)):.1e}")

optimizer = optax.sgd(0.1)
state = optimizer.init(params)
updates, state = optimizer.update(gradients, state)
params = optax.apply_updates(params, updates)
print(f"loss after a step: {loss(params):.4f}")
