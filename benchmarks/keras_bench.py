"""Keras: composition, compiled training steps and inference, on the backend that `KERAS_BACKEND` names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from keras import layers as L
from keras import ops
from measure import Bench, Run, command_line

if keras.backend.backend() == "jax":
    import jax
else:
    import tensorflow as tf

import doconv_keras._layers as do_layers
from doconv_keras import fold, overparameterize
from doconv_keras._compose import compose


def textbook(W: Any, D: Any, *, transposed: bool = False) -> Any:
    """From the formula, for a convolution with `S == K`: `D = D_delta + I`, `W' = D^T o W`."""
    columns, channels = D.shape[-2:]
    local, out = W.shape[-2:]
    groups = channels // local
    full = ops.reshape(D, (columns, columns, channels)) + ops.eye(columns, dtype=D.dtype)[..., None]
    grouped = ops.reshape(W, (columns, local, groups, out // groups))
    kernel = ops.einsum("ksgc,scgo->kcgo", ops.reshape(full, (columns, columns, groups, local)), grouped)
    return ops.reshape(kernel, W.shape)


def composition(bench: Bench) -> None:
    for taps, C, groups in product((3, 7), (64, 128, 256, 512), ("1", "32", "C")):
        G = C if groups == "C" else int(groups)
        W, g = (keras.random.normal((taps, taps, C // G, C), seed=seed) for seed in range(2))
        D = keras.random.normal((taps, taps, taps**2, C), stddev=0.1, seed=2)
        variants = {"textbook": _gradient(textbook, W, D, g), "ours": _gradient(compose, W, D, g),
                    "products alone": _products([(W, D)])}  # fmt: skip
        bench.compare(
            "composition, forward and backward, compiled", f"{taps}x{taps} C={C} G={groups}", "textbook", variants
        )
        if bench.quick:
            return


def _gradient(function: Any, W: Any, D: Any, g: Any) -> Run:
    def both(W: Any, D: Any, g: Any) -> Any:
        if keras.backend.backend() == "jax":
            kernel, gradients = jax.vjp(function, W, D)
            return kernel, gradients(g)
        with tf.GradientTape() as tape:
            tape.watch([W, D])
            kernel = function(W, D)
        return kernel, tape.gradient(kernel, [W, D], output_gradients=g)

    return _compiled(both, W, D, g)


def _products(layers: Iterable[tuple[Any, Any]]) -> Run:
    """The three matrix products of layers with these `W` and `D` alone, every operand in the order that they want."""
    operands = []
    for W, D in layers:
        columns, channels = D.shape[-2:]
        shared = math.prod(W.shape[-2:]) // channels
        sizes = (
            (columns, columns),
            (columns, shared),
            (columns, columns),
            (columns, shared),
            (columns, shared),
            (shared, columns),
        )
        operands.append([keras.random.normal((channels, *size)) for size in sizes])

    def products(operands: Any) -> Any:
        return [
            ops.matmul(one, other)
            for numbers in operands
            for one, other in zip(numbers[::2], numbers[1::2], strict=True)
        ]

    return _compiled(products, operands)


def _compiled(function: Any, *arguments: Any) -> Run:
    if keras.backend.backend() == "jax":
        jitted = jax.jit(function)
        return lambda: jax.block_until_ready(jitted(*arguments))
    graph = tf.function(function)
    return lambda: graph(*arguments)


def resnet18(width: int, size: int, stages: int = 4) -> keras.Model:
    """ResNet-18 in CIFAR form; fewer stages to see that it runs."""

    def convolution(x: Any, out: int, kernel: int = 3, stride: int = 1) -> Any:
        x = L.Conv2D(out, kernel, stride, padding="same", use_bias=False)(x)
        return L.BatchNormalization()(x)

    inputs = keras.Input((size, size, 3))
    x = L.MaxPooling2D(2)(L.ReLU()(convolution(inputs, width)))
    for stage in range(stages):
        for block in range(2):
            stride, out = 2 if stage and not block else 1, width * 2**stage
            y = convolution(L.ReLU()(convolution(x, out, stride=stride)), out)
            x = L.ReLU()(L.Add()([y, x if x.shape[-1] == out else convolution(x, out, 1, stride)]))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def steps(bench: Bench, width: int, size: int) -> None:
    for batch in (8, 32):
        keras.utils.set_random_seed(0)
        base = resnet18(width, size, 1 if bench.quick else 4)
        x, y = np.random.default_rng(0).random((batch, size, size, 3), "float32"), np.arange(batch) % 10
        ours = overparameterize(base)
        plain, twin = (_step(keras.models.clone_model(base), x, y) for _ in range(2))
        variants = {"plain": plain, "ours": _step(ours, x, y), "plain + products": _with_products(twin, ours)}
        with patch.object(do_layers, "compose", textbook):  # while the step is traced
            variants["textbook"] = _step(overparameterize(base), x, y)
            variants["textbook"]()
        bench.compare(
            "training step, compiled",
            f"ResNet-18 w{width}, CIFAR form, {size}x{size}, batch {batch}",
            "plain",
            variants,
        )
        if bench.quick:
            return


def _step(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Run:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
    return lambda: model.train_on_batch(x, y)


def _with_products(step: Run, model: keras.Model) -> Run:
    alone = _products((layer.W, layer.D) for layer in model.layers if getattr(layer, "D", None) is not None)
    return lambda: (step(), alone())


def inference(bench: Bench, width: int, size: int) -> None:
    """`predict_on_batch` composes at each call; a loop folds a copy before."""
    base, x = resnet18(width, size, 1 if bench.quick else 4), np.ones((1, size, size, 3), "float32")
    ours = overparameterize(base)
    models = {"plain": base, "ours": ours, "folded": fold(ours)}
    variants = {name: (lambda model=model: model.predict_on_batch(x)) for name, model in models.items()}
    bench.compare("inference, compiled", f"ResNet-18 w{width}, CIFAR form, {size}x{size}, batch 1", "plain", variants)


def main() -> None:
    options = command_line(__doc__).parse_args()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    bench = Bench(f"Keras on {backend}", quick=options.quick, seconds=options.seconds)
    width, size = (8, 8) if options.quick else (64, 16)
    bench.run((composition,), options.only)
    bench.run((steps, inference), options.only, width, size)
    bench.write(["keras", backend, "doconv-core"])


if __name__ == "__main__":
    main()
