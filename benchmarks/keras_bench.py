"""Keras: compiled training steps and inference, on the backend that `KERAS_BACKEND` names."""

from __future__ import annotations

import argparse
import os
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from keras import layers as L
from keras import ops
from measure import Bench, Run

import doconv_keras._layers as do_layers
from doconv_keras import fold, overparameterize


def textbook(W: Any, D: Any, *, transposed: bool = False) -> Any:
    """From the formula, for a 2-D convolution with `S == K` and one group: `D = D_delta + I`, `W' = D^T o W`."""
    *kernel_size, columns, channels = D.shape
    full = ops.reshape(D, (columns, columns, channels)) + ops.eye(columns, dtype=D.dtype)[..., None]
    kernel = ops.einsum("ksc,sco->kco", full, ops.reshape(W, (columns, *W.shape[-2:])))
    return ops.reshape(kernel, (*kernel_size, *W.shape[-2:]))


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
        variants = {"plain": _step(keras.models.clone_model(base), x, y), "ours": _step(overparameterize(base), x, y)}
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


def inference(bench: Bench, width: int, size: int) -> None:
    """`predict_on_batch` composes at each call; a loop folds a copy before."""
    base, x = resnet18(width, size, 1 if bench.quick else 4), np.ones((1, size, size, 3), "float32")
    ours = overparameterize(base)
    models = {"plain": base, "ours": ours, "folded": fold(ours)}
    variants = {name: (lambda model=model: model.predict_on_batch(x)) for name, model in models.items()}
    bench.compare("inference, compiled", f"ResNet-18 w{width}, CIFAR form, {size}x{size}, batch 1", "plain", variants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each benchmark once, small, to see that it runs")
    parser.add_argument("--only", default="", help="names of benchmarks that contain this")
    parser.add_argument("--seconds", type=float, default=6.0, help="for one row, about")
    options = parser.parse_args()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    bench = Bench(f"Keras on {backend}", quick=options.quick, seconds=options.seconds)
    width, size = (8, 8) if options.quick else (64, 16)
    for benchmark in (steps, inference):
        if options.only in benchmark.__name__:
            benchmark(bench, width, size)
    bench.write(["keras", backend, "doconv-core"])


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    main()
