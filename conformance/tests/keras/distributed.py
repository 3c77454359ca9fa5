"""Several devices: `test_distribution.py` runs this file on eight of JAX's and on two of TensorFlow's, all of them this CPU.

As a program, `python -m conformance.tests.keras.distributed PROCESS PORT FOLDER` is one of two processes of four devices.

A model is over-parameterized under a distribution, trained, saved, restored under another one and folded. Its parameters stay
within the derived bound of the core's own steps, which is that of one device.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from conformance.tests.keras.test_training import Loss, layer
from doconv_conformance.layer_checks.training import LEARNING_RATE, Training, expected
from doconv_conformance.verdicts.judge import judge
from doconv_core import ConvGeometry
from doconv_core.composition import compose
from doconv_keras import fold, load_checkpoint, overparameterize, save_checkpoint
from doconv_keras._arrays import to_numpy

TRAINING = Training("distributed", ConvGeometry(in_channels=4, out_channels=8, kernel_size=(3, 2)), (3, 3), batch=8)


@contextmanager
def jax_devices(data: int, model: int) -> Iterator[None]:
    """Data split in `data` parts, `W` by output channels and `D`, where it has as many, by input channels in `model` parts."""
    devices = keras.distribution.list_devices()
    assert len(devices) == 8
    mesh = keras.distribution.DeviceMesh((data, model), ("batch", "model"), devices[: data * model])
    layout = keras.distribution.LayoutMap(mesh)
    if model > 1:
        layout[".*kernel"] = (None, None, None, "model")
        layout[".*D"] = (None, None, None, "model" if model <= TRAINING.geometry.in_channels else None)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)
    )
    yield
    keras.distribution.set_distribution(None)


@contextmanager
def tensorflow_devices(count: int) -> Iterator[None]:
    import tensorflow as tf

    devices = tf.config.list_logical_devices("CPU")
    assert len(devices) == 2
    with tf.distribute.MirroredStrategy([device.name for device in devices[:count]]).scope():
        yield


SETTINGS: dict[str, AbstractContextManager] = (
    {"data": (jax_devices, 8, 1), "parameters": (jax_devices, 1, 8), "both": (jax_devices, 4, 2)}
    if keras.backend.backend() == "jax"
    else {"mirrored": (tensorflow_devices, 2)}
)


def setting(name: str | None) -> AbstractContextManager:
    make, *sizes = SETTINGS[name] if name else (nullcontext,)
    return make(*sizes)


def model() -> Any:
    """Over-parameterized under the distribution that is set, at the start of `TRAINING`."""
    plain = keras.Sequential([keras.Input((*TRAINING.input_size, 4)), layer(TRAINING, "float32", plain=True)])
    made = overparameterize(plain)
    (conv,) = made.layers
    conv.W.assign(conv.layout().w_from_canonical(TRAINING.start["W"]))
    conv.D.assign(conv.layout().d_from_canonical(TRAINING.start["D_delta"]))
    conv.bias.assign(TRAINING.start["bias"])
    made.compile(keras.optimizers.SGD(LEARNING_RATE), Loss(reduction="sum"), jit_compile=False)
    return made


def parameters(conv: Any) -> dict[str, np.ndarray]:
    layout = conv.layout()
    return {"W": layout.w_to_canonical(to_numpy(conv.W)), "D_delta": layout.d_to_canonical(to_numpy(conv.D)),
            "bias": to_numpy(conv.bias)}  # fmt: skip


def check(name: str, following: str | None, folder: Path, part: slice = slice(None), *, in_file: bool = True) -> None:
    """
    Args:
        name: the setting to train under.
        following: the setting to restore under.
        folder: to save in.
        part: of every batch, what this process feeds.
        in_file: whether Keras can save the weights; it cannot where they are spread over processes.
    """
    with setting(name):
        trained = model()
        (conv,) = trained.layers
        if name in ("parameters", "both"):
            assert not conv.W.value.sharding.is_fully_replicated
            assert conv.D.value.sharding.is_fully_replicated is (name == "parameters")
        x, target = (
            np.moveaxis(np.concatenate([step[part] for step in steps]), 1, -1).astype("f")
            for steps in (TRAINING.x, TRAINING.target)
        )
        batch = len(TRAINING.x[0][part])
        trained.fit(x, target, batch_size=batch, shuffle=False, verbose=0)
        after = parameters(conv)
        judgement = judge(expected(TRAINING, "float32"), after, exact=False)
        assert judgement["verdict"] == "within_bound", judgement["reason"]
        assert not np.array_equal(after["D_delta"], TRAINING.start["D_delta"])
        save_checkpoint(trained, folder / "file.safetensors")
        if in_file:
            trained.save_weights(folder / "file.weights.h5")
        folded = to_numpy(fold(trained).layers[0].kernel)
    kernel = compose(after["W"], after["D_delta"], TRAINING.geometry)
    with setting(following):
        again, weights = model(), model()
        load_checkpoint(folder / "file.safetensors", again)
        if in_file:
            weights.load_weights(folder / "file.weights.h5")
        for restored in (again, weights) if in_file else (again,):
            for key, value in parameters(restored.layers[0]).items():
                np.testing.assert_array_equal(value, after[key])
        got = conv.layout().kernel_to_canonical(to_numpy(fold(again).layers[0].kernel))
        np.testing.assert_array_equal(got, kernel)
    np.testing.assert_array_equal(conv.layout().kernel_to_canonical(folded), kernel)


@pytest.mark.parametrize("name", SETTINGS)
def test_over_several_devices(name: str, tmp_path: Path) -> None:
    check(name, [*SETTINGS, None][[*SETTINGS].index(name) + 1], tmp_path)


def one_of_two(process: int, port: int, folder: Path) -> None:
    """Each has half of every batch; both have all parameters, or their halves of the devices have."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(f"localhost:{port}", 2, process)
    assert len(jax.devices()) == 8 == 2 * len(jax.local_devices())
    half = TRAINING.batch // 2
    mine, whole = slice(process * half, (process + 1) * half), slice(None)
    for name, following, part in (("data", "both", mine), ("both", "parameters", mine), ("parameters", "data", whole)):
        (own := folder / f"{name}-{process}").mkdir()
        check(name, following, own, part, in_file=name == "data")
    print("within the bound of one device")


if __name__ == "__main__":
    one_of_two(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
