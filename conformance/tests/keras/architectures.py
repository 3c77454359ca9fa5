"""Models as users have them, written compactly. Each takes pictures `(N, 8, 8, 1)`, or what `inputs` makes of them."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from doconv_keras import DOConv2D

CLASSES = 10


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `(count, 8, 8, 1)` in [0, 1], and their classes."""
    data = load_digits()
    return (data.images[:count, ..., None] / 16).astype(np.float32), data.target[:count]


def inputs(model: keras.Model, pictures: np.ndarray) -> list[np.ndarray]:
    """The pictures for each input of the model, enlarged by repetition and in as many channels as it wants."""
    shapes = getattr(model, "inputs", None) or [np.empty((1, 8, 8, 1))]
    made = []
    for size, channels in ((tensor.shape[1], tensor.shape[-1]) for tensor in shapes):
        times = size // pictures.shape[1]
        made.append(pictures.repeat(times, 1).repeat(times, 2).repeat(channels, 3))
    return made


def application(name: str) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        return getattr(keras.applications, name)(
            weights=None, input_shape=(32, 32, 3), classes=CLASSES, classifier_activation=None
        )

    return make


def nested() -> keras.Model:
    """Two inputs and outputs, one encoder for both inputs that is a model itself, and a layer used twice."""
    encoder = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="first"),
            layers.BatchNormalization(),
            layers.Conv2D(6, 3, strides=2, padding="same", groups=2, name="second"),
        ],
        name="encoder",
    )
    left, right = layers.Input((8, 8, 1)), layers.Input((8, 8, 1))
    twice = layers.Conv2D(6, 3, padding="same", name="twice")
    x = layers.Concatenate()([twice(encoder(left)), twice(twice(encoder(right)))])
    x = layers.Dropout(0.1)(keras.ops.relu(x) + 0.5)
    pooled = layers.GlobalAveragePooling2D()(x)
    return keras.Model([left, right], [layers.Dense(CLASSES)(pooled), layers.Dense(CLASSES)(layers.Flatten()(x))])


def time_distributed() -> keras.Model:
    """Convolutions inside wrappers, one of them within a model."""
    inner = keras.Sequential(
        [layers.Input((4, 6, 3)), layers.Conv2D(4, (2, 3), name="deep"), layers.ReLU()], name="inner"
    )
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Reshape((2, 4, 8, 1)),
            layers.TimeDistributed(layers.Conv2D(3, (1, 3), activation="relu", name="strip")),
            layers.TimeDistributed(inner),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


def separable() -> keras.Model:
    """A block of Xception: separable convolutions with a residual, and a depthwise one."""
    start = layers.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(start)
    residual = layers.Conv2D(8, 1, strides=2, padding="same", use_bias=False)(x)
    for filters in (6, 8):
        x = layers.ReLU()(x)
        x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, depth_multiplier=2)(x)
        x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x) + residual
    x = layers.DepthwiseConv2D((3, 2), padding="same", activation="relu")(x)
    return keras.Model(start, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def decoder() -> keras.Model:
    """One-dimensional and transposed convolutions, a lambda, random augmentation."""
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.RandomFlip("horizontal", seed=3),
            layers.Conv2DTranspose(3, (3, 2), strides=2, padding="same", activation=lambda x: keras.ops.relu(x) * 0.5),
            layers.Lambda(lambda x: keras.ops.reshape(x, (-1, 16, 48)), output_shape=(16, 48)),
            layers.Conv1D(8, 3, padding="causal", dilation_rate=2),
            layers.Conv1DTranspose(4, 3, strides=2),
            layers.GlobalMaxPooling1D(),
            layers.Dense(CLASSES),
        ]
    )


MODELS: dict[str, Callable[[], keras.Model]] = {
    "ResNet50": application("ResNet50"),
    "MobileNetV2": application("MobileNetV2"),
    "EfficientNetB0": application("EfficientNetB0"),
    "nested": nested,
    "time-distributed": time_distributed,
    "separable": separable,
    "decoder": decoder,
}


class Subclassed(keras.Model):
    """Its layers are made in the constructor: a config cannot reach them."""

    conv = layers.Conv2D

    def __init__(self) -> None:
        super().__init__()
        self.first = self.conv(4, 3)
        self.norm = layers.BatchNormalization()
        self.block = keras.Sequential([self.conv(4, 3), layers.ReLU()])
        self.head = layers.Dense(CLASSES)

    def call(self, x: object, training: bool = False) -> object:
        x = self.block(self.norm(self.first(x), training=training))
        return self.head(keras.ops.mean(x, axis=(1, 2)))


class SubclassedTwin(Subclassed):
    """What a user writes for `transfer_weights`."""

    conv = DOConv2D
