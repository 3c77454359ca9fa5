"""Several devices: `test_distribution.py` runs this file on eight of JAX's and on two of TensorFlow's, all of them this CPU.

A model is over-parameterized under a distribution, trained, saved, restored under another one and folded. Its parameters stay
within the derived bound of the core's own steps, which is that of one device.
"""

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
    """Data split in `data` parts, `W` by output channels and `D` by input channels in `model` parts."""
    devices = keras.distribution.list_devices()
    assert len(devices) == 8
    mesh = keras.distribution.DeviceMesh((data, model), ("batch", "model"), devices[: data * model])
    layout = keras.distribution.LayoutMap(mesh)
    if model > 1:
        layout[".*kernel"] = layout[".*D"] = (None, None, None, "model")
    keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"))
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
    {"data": (jax_devices, 8, 1), "parameters": (jax_devices, 1, 4), "both": (jax_devices, 4, 2)}
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


@pytest.mark.parametrize("name", SETTINGS)
def test_over_several_devices(name: str, tmp_path: Path) -> None:
    with setting(name):
        trained = model()
        (conv,) = trained.layers
        if name in ("parameters", "both"):
            for variable in (conv.W, conv.D):
                assert not variable.value.sharding.is_fully_replicated
        x, target = (np.moveaxis(np.concatenate(steps), 1, -1).astype("f") for steps in (TRAINING.x, TRAINING.target))
        trained.fit(x, target, batch_size=TRAINING.batch, shuffle=False, verbose=0)
        after = parameters(conv)
        judgement = judge(expected(TRAINING, "float32"), after, exact=False)
        assert judgement["verdict"] == "within_bound", judgement["reason"]
        assert not np.array_equal(after["D_delta"], TRAINING.start["D_delta"])
        save_checkpoint(trained, tmp_path / "file.safetensors")
        trained.save_weights(tmp_path / "file.weights.h5")
        folded = fold(trained)
    kernel = compose(after["W"], after["D_delta"], TRAINING.geometry)
    following = [*SETTINGS, None][[*SETTINGS].index(name) + 1]
    with setting(following):
        again, weights = model(), model()
        load_checkpoint(tmp_path / "file.safetensors", again)
        weights.load_weights(tmp_path / "file.weights.h5")
        for restored in (again, weights):
            for key, value in parameters(restored.layers[0]).items():
                np.testing.assert_array_equal(value, after[key])
        got = conv.layout().kernel_to_canonical(to_numpy(fold(again).layers[0].kernel))
        np.testing.assert_array_equal(got, kernel)
    np.testing.assert_array_equal(conv.layout().kernel_to_canonical(to_numpy(folded.layers[0].kernel)), kernel)
