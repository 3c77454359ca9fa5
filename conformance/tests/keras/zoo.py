"""Third-party models: `nox -s zoo` runs this file, which needs keras-hub; the tests' own run leaves it out.

Each is made small and of random weights, over-parameterized (the outputs stay, bit for bit), given a `D`, saved, loaded
and folded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import applications
from keras_hub import models
from keras_hub.src.models.vae.vae_backbone import VAEBackbone

from doconv_keras import fold, overparameterize
from doconv_keras._arrays import to_numpy
from doconv_keras._layers import DOConvMixin
from doconv_keras._transfer import walk

SHAPE = (32, 32, 3)
X = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)


def application(name: str, size: int = 32) -> Callable[[], keras.Model]:
    return lambda: getattr(applications, name)(weights=None, input_shape=(size, size, 3), classes=4)


def resnet() -> keras.Model:
    return models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 16], stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2], block_type="basic_block", image_shape=SHAPE,
    )  # fmt: skip


def vgg() -> keras.Model:
    return models.VGGBackbone(stackwise_num_repeats=[2, 2], stackwise_num_filters=[8, 16], image_shape=SHAPE)


def densenet() -> keras.Model:
    return models.DenseNetBackbone(stackwise_num_repeats=[2, 2], image_shape=SHAPE)


def efficientnet() -> keras.Model:
    return models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3], stackwise_num_repeats=[1, 2], stackwise_input_filters=[8, 16],
        stackwise_output_filters=[16, 24], stackwise_expansion_ratios=[1, 4], stackwise_strides=[1, 2],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25], width_coefficient=1.0, depth_coefficient=1.0,
        stackwise_block_types=["v1", "v1"], image_shape=SHAPE,
    )  # fmt: skip


def hgnet() -> keras.Model:
    return models.HGNetV2Backbone(
        depths=[1, 1], embedding_size=8, hidden_sizes=[8, 16], stem_channels=[3, 8, 8], hidden_act="relu",
        use_learnable_affine_block=True, stackwise_stage_filters=[[8, 4, 8, 1, 3, 3], [8, 4, 16, 1, 3, 3]],
        apply_downsample=[False, True], use_lightweight_conv_block=[False, True], image_shape=SHAPE,
    )  # fmt: skip


def mit() -> keras.Model:
    return models.MiTBackbone(
        layerwise_depths=[1, 1], num_layers=2, layerwise_num_heads=[1, 2], layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.0, layerwise_patch_sizes=[7, 3], layerwise_strides=[4, 2], image_shape=SHAPE,
        hidden_dims=[4, 8],
    )  # fmt: skip


def segformer() -> keras.Model:
    return models.SegFormerImageSegmenter(
        backbone=models.SegFormerBackbone(image_encoder=mit(), projection_filters=8), num_classes=2
    )


def vit() -> keras.Model:
    return models.ViTBackbone(image_shape=SHAPE, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16)


def swin() -> keras.Model:
    return models.SwinTransformerBackbone(
        image_shape=SHAPE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
    )


def mobilenet() -> keras.Model:
    return models.MobileNetBackbone(
        stackwise_expansion=[[8, 16], [16]], stackwise_num_blocks=[2, 1], stackwise_num_filters=[[8, 8], [12]],
        stackwise_kernel_size=[[3, 5], [5]], stackwise_num_strides=[[2, 1], [1]], stackwise_se_ratio=[[None, 0.25], [0.25]],
        stackwise_activation=[["relu", "hard_swish"], ["hard_swish"]], stackwise_padding=[[1, 2], [2]],
        output_num_filters=16, depthwise_filters=8, depthwise_stride=2, depthwise_residual=False, last_layer_filter=16,
        squeeze_and_excite=0.5, input_num_filters=8, image_shape=SHAPE,
    )  # fmt: skip


def xception() -> keras.Model:
    return models.XceptionBackbone([[8, 8], [8, 16]], [True, False], image_shape=SHAPE)


def vae() -> keras.Model:
    """Its blocks are of 32 groups; the mean of the latent code, in place of a sample."""
    return VAEBackbone([32, 32], [1, 1], [32, 32], [1, 1], sampler_method="mode")


BACKBONES = (
    resnet, vgg, densenet, efficientnet, hgnet, mit, segformer, vit, swin, mobilenet, xception, vae,
)  # fmt: skip
ZOO: dict[str, Callable[[], keras.Model]] = {
    **{f.__name__: f for f in BACKBONES},
    "classifier": lambda: models.ImageClassifier(backbone=resnet(), num_classes=3),
    "DenseNet121": application("DenseNet121"),
    "ConvNeXtTiny": application("ConvNeXtTiny"),
    "EfficientNetV2B0": application("EfficientNetV2B0"),
    "MobileNetV3Small": application("MobileNetV3Small"),
    "Xception": application("Xception", 71),
    "NASNetMobile": application("NASNetMobile"),
}


def out(model: Any, size: int) -> np.ndarray:
    x = np.resize(X, (2, size, size, 3)) if size != SHAPE[0] else X
    return np.concatenate([to_numpy(y).ravel() for y in keras.tree.flatten(model(x))])


@pytest.mark.filterwarnings("ignore")  # Keras's, of KerasHub's layers
@pytest.mark.parametrize("name", ZOO)
def test_it_starts_equal_is_saved_and_loaded_and_folds(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    plain = ZOO[name]()
    size = 71 if name == "Xception" else 32
    model = overparameterize(plain)
    before = out(model, size)
    np.testing.assert_array_equal(before, out(plain, size))
    convs = [layer for _, layer in walk(model) if isinstance(layer, DOConvMixin) and layer.D is not None]
    for conv in convs:  # exact values, composed without a rounding
        conv.W.assign(np.round(to_numpy(conv.W) * 256) / 256)
        conv.D.assign(np.full(conv.D.shape, 0.25))
    after = out(model, size)
    assert not np.array_equal(after, before)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(out(loaded, size), after)
    folded = fold(model)
    np.testing.assert_array_equal(out(folded, size), after)
    np.testing.assert_array_equal(out(fold(loaded), size), after)
    assert not [layer for _, layer in walk(folded) if isinstance(layer, DOConvMixin)]
    assert [variable.shape for variable in folded.variables] == [variable.shape for variable in plain.variables]


def test_a_classifier_of_an_overparameterized_backbone_folds() -> None:
    made = models.ImageClassifier(backbone=overparameterize(resnet()), num_classes=3)
    folded = fold(made)
    np.testing.assert_array_equal(out(folded, 32), out(made, 32))
