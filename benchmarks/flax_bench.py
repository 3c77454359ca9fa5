"""Flax linen and nnx: composition, training steps under jit, and micro-batches in a scan with the fold outside of it."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from measure import Bench, Run, command_line

import doconv_flax
import doconv_flax._compose
import doconv_flax._fold
import doconv_flax._nnx_layers
from doconv_flax._compose import compose


def textbook(kernel: Any, D: Any, *, transpose_kernel: bool = False) -> Any:
    """From the formula, for `S == K`: `D = D_delta + I`, `W' = D^T o W`."""
    if D is None:
        return kernel
    columns, channels = D.shape[-2:]
    local, out = kernel.shape[-2:]
    groups = channels // local
    full = D.reshape(columns, columns, channels) + jnp.eye(columns)[..., None]
    W = kernel.reshape(columns, local, groups, out // groups)
    return jnp.einsum("ksgc,scgo->kcgo", full.reshape(columns, columns, groups, local), W).reshape(kernel.shape)


def composition(bench: Bench) -> None:
    for taps, C, groups in product((3, 7), (64, 128, 256, 512), ("1", "32", "C")):
        G = C if groups == "C" else int(groups)
        keys = jax.random.split(jax.random.key(0), 3)
        W, g = (jax.random.normal(key, (taps, taps, C // G, C)) for key in keys[:2])
        D = jax.random.normal(keys[2], (taps, taps, taps**2, C)) * 0.1
        alone = products({"kernel": W, "D": D})
        variants = {
            "textbook": _gradient(textbook, W, D, g),
            "ours": _gradient(compose, W, D, g),
            "products alone": alone,
        }
        bench.compare("composition, forward and backward, jit", f"{taps}x{taps} C={C} G={groups}", "textbook", variants)
        if bench.quick:
            return


def _gradient(function: Any, W: jax.Array, D: jax.Array, g: jax.Array) -> Run:
    @jax.jit
    def both(W: jax.Array, D: jax.Array, g: jax.Array) -> Any:
        kernel, gradients = jax.vjp(function, W, D)
        return kernel, gradients(g)

    return lambda: jax.block_until_ready(both(W, D, g))


class LinenResNet18(linen.Module):
    """ResNet-18 in CIFAR form; fewer stages to see that it runs."""

    width: int
    stages: int = 4
    dtype: Any = None

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def convolution(x: jax.Array, out: int, kernel: int = 3, stride: int = 1) -> jax.Array:
            x = linen.Conv(out, (kernel, kernel), stride, use_bias=False, dtype=self.dtype)(x)
            return linen.BatchNorm(use_running_average=False, dtype=self.dtype)(x)

        x = linen.max_pool(linen.relu(convolution(x, self.width)), (2, 2), (2, 2))
        for stage in range(self.stages):
            for block in range(2):
                stride, out = 2 if stage and not block else 1, self.width * 2**stage
                y = convolution(linen.relu(convolution(x, out, stride=stride)), out)
                x = linen.relu(y + (x if x.shape[-1] == out else convolution(x, out, 1, stride)))
        return linen.Dense(10)(x.mean((1, 2), dtype=jnp.float32))


class NnxConvolution(nnx.Module):
    def __init__(self, channels: int, out: int, kernel: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(channels, out, (kernel, kernel), stride, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(out, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class NnxBlock(nnx.Module):
    def __init__(self, channels: int, out: int, stride: int, rngs: nnx.Rngs) -> None:
        self.first = NnxConvolution(channels, out, 3, stride, rngs)
        self.second = NnxConvolution(out, out, 3, 1, rngs)
        self.shortcut = NnxConvolution(channels, out, 1, stride, rngs) if channels != out else lambda x: x

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.second(nnx.relu(self.first(x))) + self.shortcut(x))


class NnxResNet18(nnx.Module):
    def __init__(self, width: int, stages: int, rngs: nnx.Rngs) -> None:
        self.stem = NnxConvolution(3, width, 3, 1, rngs)
        blocks, channels = [], width
        for stage in range(stages):
            for block in range(2):
                blocks.append(NnxBlock(channels, width * 2**stage, 2 if stage and not block else 1, rngs))
                channels = width * 2**stage
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(channels, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.stem(x)), (2, 2), (2, 2))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


OPTIMIZER = optax.sgd(1e-3, momentum=0.9)


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def _linen(width: int, size: int, stages: int, dtype: Any = None) -> tuple[Any, Any, Any, Any]:
    """The model, its variables, and the parameters plain and over-parameterized."""
    model = LinenResNet18(width, stages, dtype)
    x = jnp.ones((1, size, size, 3))
    variables = model.init(jax.random.key(0), x)
    spec = doconv_flax.linen.conv_spec(model, x)
    params = variables["params"]
    return model, variables["batch_stats"], params, doconv_flax.linen.overparameterize(params, spec)


def products(params: Any) -> Run:
    """The three matrix products of every layer alone, `W` and gradient in the order that they want."""
    flat = dict(jax.tree_util.tree_leaves_with_path(params))
    operands = []
    for path, D in flat.items():
        if path[-1].key == "D":
            taps, channels = D.shape[-2:]
            kernel = flat[(*path[:-1], jax.tree_util.DictKey("kernel"))]
            shared = kernel.shape[-1] * kernel.shape[-2] // channels
            operands.append([jnp.ones((channels, taps, n)) for n in (taps, shared, shared)])

    @jax.jit
    def alone(operands: Any) -> Any:
        matmul = partial(jnp.matmul, precision="highest")
        return [(matmul(D, w), matmul(D.mT, g), matmul(g, w.mT)) for D, w, g in operands]

    return lambda: jax.block_until_ready(alone(operands))


def with_products(run: Run, params: Any) -> Run:
    alone = products(params)
    return lambda: (run(), alone())


def case(width: int, size: int, batch: int, more: str = "") -> str:
    return f"linen, ResNet-18 w{width}, CIFAR form, {size}x{size}, batch {batch}{more}"


def linen_steps(
    bench: Bench, width: int, size: int, batches: tuple[int, ...] = (8, 32), dtype: Any = None, more: str = ""
) -> None:
    model, stats, plain, ours = _linen(width, size, 1 if bench.quick else 4, dtype)

    def step_of(params: Any, prepare: Any) -> Any:
        def loss(params: Any, stats: Any, x: jax.Array, y: jax.Array) -> Any:
            variables = {"params": prepare(params), "batch_stats": stats}
            logits, updated = model.apply(variables, x, mutable=["batch_stats"])
            return cross_entropy(logits, y), updated["batch_stats"]

        @partial(jax.jit, donate_argnums=0)
        def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
            params, stats, opt = state
            gradients, stats = jax.grad(loss, has_aux=True)(params, stats, x, y)
            updates, opt = OPTIMIZER.update(gradients, opt)
            return optax.apply_updates(params, updates), stats, opt

        params, own = jax.tree.map(jnp.copy, (params, stats))  # the step takes their memory
        return step, (params, own, OPTIMIZER.init(params))

    for batch in batches:
        x, y = _data(batch, size)
        variants = {"plain": _advance(*step_of(plain, lambda p: p), x, y),
                    "ours": _advance(*step_of(ours, doconv_flax.linen.fold), x, y),
                    "plain + products": with_products(_advance(*step_of(plain, lambda p: p), x, y), ours)}  # fmt: skip
        with patch.object(doconv_flax._fold, "compose", textbook):  # while the step is traced
            variants["textbook"] = _advance(*step_of(ours, doconv_flax.linen.fold), x, y)
            variants["textbook"]()
        bench.compare("training step, jit", case(width, size, batch, more), "plain", variants)
        if bench.quick:
            return


def _advance(step: Any, state: Any, x: jax.Array, y: jax.Array) -> Run:
    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, x, y))

    return run


def _data(batch: int, size: int) -> tuple[jax.Array, jax.Array]:
    return jax.random.uniform(jax.random.key(1), (batch, size, size, 3)), jnp.arange(batch) % 10


def nnx_steps(bench: Bench, width: int, size: int) -> None:
    def made(overparameterized: bool) -> tuple[Any, Any]:
        model = NnxResNet18(width, 1 if bench.quick else 4, nnx.Rngs(0))
        if overparameterized:
            doconv_flax.nnx.overparameterize(model)
        optimizer = nnx.Optimizer(model, OPTIMIZER, wrt=nnx.Param)
        graph, state = nnx.split((model, optimizer))

        @partial(jax.jit, donate_argnums=0)
        def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
            model, optimizer = nnx.merge(graph, state)
            gradients = nnx.grad(lambda model: cross_entropy(model(x), y))(model)
            optimizer.update(model, gradients)
            return nnx.state((model, optimizer))

        return step, state

    for batch in (8, 32):
        x, y = _data(batch, size)
        variants = {"plain": _advance(*made(False), x, y), "ours": _advance(*made(True), x, y)}
        with patch.object(doconv_flax._nnx_layers, "compose", textbook):
            variants["textbook"] = _advance(*made(True), x, y)
            variants["textbook"]()
        bench.compare(
            "training step, jit",
            f"nnx, ResNet-18 w{width}, CIFAR form, {size}x{size}, batch {batch}",
            "plain",
            variants,
        )
        if bench.quick:
            return


def micro_batches(bench: Bench, width: int, size: int) -> None:
    """Gradients of 8 micro-batches in a scan: composed in each, and, by `fold` outside of the scan, once."""
    model, stats, plain, ours = _linen(width, size, 1 if bench.quick else 4)
    x, y = _data(64, size)
    x, y = x.reshape(8, 8, *x.shape[1:]), y.reshape(8, 8)
    fold = doconv_flax.linen.fold

    def total(params: Any, prepare: Any) -> jax.Array:
        def one(carry: jax.Array, batch: Any) -> Any:
            variables = {"params": prepare(params), "batch_stats": stats}
            logits, _ = model.apply(variables, batch[0], mutable=["batch_stats"])
            return carry + cross_entropy(logits, batch[1]), None

        return jax.lax.scan(jax.checkpoint(one), jnp.zeros(()), (x, y))[0]

    ways = {"plain": (plain, lambda p: total(p, lambda q: q)), "ours": (ours, lambda p: total(p, fold)),
            "folded outside": (ours, lambda p: total(fold(p), lambda q: q))}  # fmt: skip
    variants = {}
    for name, (params, way) in ways.items():
        gradient = jax.jit(jax.grad(way))
        variants[name] = lambda params=params, gradient=gradient: jax.block_until_ready(gradient(params))
    bench.compare(
        "8 micro-batches of 8, jit", f"linen, ResNet-18 w{width}, CIFAR form, {size}x{size}", "plain", variants
    )


def main() -> None:
    options = command_line(__doc__).parse_args()
    bench = Bench("Flax", quick=options.quick, seconds=options.seconds)
    width, size = (8, 8) if options.quick else (64, 16)
    bench.run((composition,), options.only)
    bench.run((linen_steps, nnx_steps, micro_batches), options.only, width, size)
    bench.write(["flax", "jax", "doconv-core"])


if __name__ == "__main__":
    main()
