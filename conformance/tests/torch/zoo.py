"""Third-party models: `nox -s zoo` runs this file, which needs the libraries; the tests' own run leaves it out.

Each is made small and of random weights, over-parameterized (the outputs stay, bit for bit), trained for a step, folded, and
loaded strictly into the plain model. The values before folding are such that composition rounds nothing, in any order of its
sums: the outputs stay bit for bit here, too.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conformance.tests.torch.libraries import import_torchvision

torchvision = import_torchvision()

import diffusers  # noqa: E402  # these import torchvision
import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402
import transformers  # noqa: E402

from doconv_torch import fold, overparameterize  # noqa: E402
from doconv_torch._layers import DOConvMixin  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
Make = Callable[[], nn.Module]

TIMM = [
    "test_resnet", "test_convnext", "test_convnext2", "test_convnext3", "test_efficientnet", "test_efficientnet_gn",
    "test_efficientnet_ln", "test_efficientnet_evos", "test_byobnet", "test_nfnet", "test_mambaout", "test_coatnet",
    "test_maxvit", "test_vit", "resnet10t", "resnet18", "resnet18d", "resnet26t", "resnext26ts", "seresnext26ts",
    "skresnet18", "ecaresnet26t", "resnetv2_18", "res2net50_26w_4s", "resnest14d", "resnetblur18", "convnext_atto",
    "convnext_atto_ols", "convnext_femto", "convnextv2_atto", "mobilenetv1_100", "mobilenetv2_035", "mobilenetv3_small_050",
    "tf_mobilenetv3_small_minimal_100", "mobilenetv4_conv_small_035", "mobilenet_edgetpu_v2_xs", "tf_efficientnet_lite0",
    "efficientnet_b0", "efficientnetv2_rw_t", "mixnet_s", "tinynet_e", "mnasnet_small", "semnasnet_075", "spnasnet_100",
    "fbnetc_100", "hardcorenas_a", "lcnet_035", "rexnet_100", "ghostnet_050", "ghostnetv2_100", "repghostnet_050",
    "regnetx_002", "regnety_002", "regnetv_040", "repvgg_a0", "mobileone_s0", "gernet_s", "nf_regnet_b0", "eca_nfnet_l0",
    "nf_resnet26", "densenet121", "dla46_c", "dla34", "hrnet_w18_small", "cspresnet50", "cspdarknet53", "darknetaa53",
    "ese_vovnet19b_slim_dw", "selecsls42b", "vgg11_bn", "xception41", "inception_v3", "dpn48b", "tresnet_m",
    "hgnet_tiny", "hgnetv2_b0", "edgenext_xx_small", "mobilevit_xxs", "mobilevitv2_050", "poolformer_s12",
    "poolformerv2_s12", "pvt_v2_b0", "coat_lite_tiny", "fastvit_t8", "repvit_m0_9", "efficientvit_b0", "efficientvit_m0",
    "efficientformerv2_s0", "caformer_s18", "convformer_s18", "starnet_s1", "inception_next_atto", "mambaout_femto",
    "shvit_s1", "tiny_vit_5m_224", "visformer_tiny", "levit_conv_128s", "focalnet_tiny_srf", "nextvit_small",
    "vit_tiny_patch16_224", "convit_tiny", "xcit_nano_12_p16_224", "crossvit_tiny_240", "swin_tiny_patch4_window7_224",
]  # fmt: skip
# Else 64, and what a name says.
SIZES = {
    "test_coatnet": 160, "test_maxvit": 160, "crossvit_tiny_240": 240, "inception_v3": 128, "coat_lite_tiny": 224,
    "efficientformerv2_s0": 224, "visformer_tiny": 224, "levit_conv_128s": 224, "convit_tiny": 224, "shvit_s1": 224,
}  # fmt: skip
TORCHVISION = [
    "resnet18", "resnext50_32x4d", "wide_resnet50_2", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5",
    "squeezenet1_1", "mnasnet0_5", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "regnet_x_400mf",
    "regnet_y_400mf", "densenet121", "vgg11_bn", "alexnet",
]  # fmt: skip


def timm_model(name: str) -> nn.Module:
    return timm.create_model(name, num_classes=4)


def torchvision_model(name: str) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, num_classes=4)


def googlenet() -> nn.Module:
    return torchvision.models.googlenet(weights=None, num_classes=4, init_weights=False, aux_logits=False)


def hugging_face(cls: str, **options: Any) -> Make:
    """A model of transformers; its configuration is of the class that the model names."""
    return lambda: (model := getattr(transformers, cls))(model.config_class(**options))


def unet(cls: str = "UNet2DModel", **options: Any) -> Make:
    """A model of diffusers."""
    return lambda: getattr(diffusers, cls)(**options)


CONDITION = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(0))
BLOCKS = {"norm_num_groups": 4, "block_out_channels": (8, 16), "layers_per_block": 1}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
NARROW = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SPEECH = NARROW | {
    "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2, "mask_time_prob": 0.0, "apply_spec_augment": False,
}  # fmt: skip

# A function that makes the model, and of what shape the input is.
ZOO: dict[str, tuple[Make, tuple[int, ...]]] = {
    **{f"timm-{name}": ((lambda name=name: timm_model(name)), (2, 3, size, size)) for name in TIMM
       for size in [SIZES.get(name) or (224 if name.endswith("224") else 64)]},
    **{f"torchvision-{name}": ((lambda name=name: torchvision_model(name)), (2, 3, 64, 64)) for name in TORCHVISION},
    "torchvision-googlenet": (googlenet, (2, 3, 64, 64)),
    "torchvision-lraspp": (lambda: torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4), (2, 3, 64, 64)),
    "torchvision-deeplabv3": (lambda: torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4), (2, 3, 64, 64)),
    "torchvision-r2plus1d": (lambda: torchvision.models.video.r2plus1d_18(weights=None, num_classes=4), (2, 3, 4, 32, 32)),
    "torchvision-mc3": (lambda: torchvision.models.video.mc3_18(weights=None, num_classes=4), (2, 3, 4, 32, 32)),
    "transformers-ResNet": (hugging_face("ResNetForImageClassification", **RESNET), (2, 3, 32, 32)),
    "transformers-RegNet": (hugging_face("RegNetForImageClassification", **RESNET, groups_width=8), (2, 3, 32, 32)),
    "transformers-Bit": (hugging_face("BitForImageClassification", embedding_size=8, hidden_sizes=[32, 64], depths=[1, 1],
                                      num_groups=4), (2, 3, 32, 32)),
    "transformers-ConvNext": (hugging_face("ConvNextForImageClassification", hidden_sizes=[8, 16, 16, 16],
                                           depths=[1, 1, 1, 1]), (2, 3, 32, 32)),
    "transformers-ConvNextV2": (hugging_face("ConvNextV2ForImageClassification", hidden_sizes=[8, 16, 16, 16],
                                             depths=[1, 1, 1, 1]), (2, 3, 32, 32)),
    "transformers-MobileNetV1": (hugging_face("MobileNetV1ForImageClassification", depth_multiplier=0.25), (2, 3, 64, 64)),
    "transformers-MobileNetV2": (hugging_face("MobileNetV2ForImageClassification", depth_multiplier=0.35), (2, 3, 64, 64)),
    "transformers-MobileViT": (hugging_face("MobileViTForImageClassification", hidden_sizes=[16, 16, 16], image_size=64,
                                            neck_hidden_sizes=[8, 8, 8, 16, 16, 16, 32]), (2, 3, 64, 64)),
    "transformers-SegFormer": (hugging_face("SegformerForSemanticSegmentation", hidden_sizes=[8, 16, 16, 16],
                                            depths=[1, 1, 1, 1], decoder_hidden_size=16), (2, 3, 64, 64)),
    "transformers-PoolFormer": (hugging_face("PoolFormerForImageClassification", hidden_sizes=[8, 16, 16, 16],
                                             depths=[1, 1, 1, 1]), (2, 3, 64, 64)),
    "transformers-Cvt": (hugging_face("CvtForImageClassification", embed_dim=[8, 16, 16], num_heads=[1, 1, 1],
                                      depth=[1, 2, 3]), (2, 3, 64, 64)),
    "transformers-ViT": (hugging_face("ViTForImageClassification", **NARROW, image_size=32, patch_size=8), (2, 3, 32, 32)),
    "transformers-Dinov2": (hugging_face("Dinov2ForImageClassification", hidden_size=16, num_hidden_layers=1,
                                         num_attention_heads=2, image_size=28, patch_size=7), (2, 3, 28, 28)),
    "transformers-Swin": (hugging_face("SwinForImageClassification", image_size=32, patch_size=4, embed_dim=8, depths=[1, 1],
                                       num_heads=[1, 2], window_size=4), (2, 3, 32, 32)),
    "transformers-UperNet": (hugging_face("UperNetForSemanticSegmentation", hidden_size=16, auxiliary_channels=8,
                                          pool_scales=[1, 2], backbone_config=transformers.ConvNextConfig(
                                              hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1],
                                              out_features=["stage1", "stage2", "stage3", "stage4"]),
                                          auxiliary_in_channels=16), (2, 3, 64, 64)),
    "transformers-Wav2Vec2": (hugging_face("Wav2Vec2ForCTC", **SPEECH), (2, 800)),
    "transformers-Hubert": (hugging_face("HubertForCTC", **SPEECH), (2, 800)),
    "transformers-Encodec": (hugging_face("EncodecModel", num_filters=4, hidden_size=16, num_lstm_layers=1,
                                          upsampling_ratios=[4, 2], codebook_dim=16, codebook_size=16,
                                          norm_type="time_group_norm"), (2, 1, 800)),
    "diffusers-UNet2D": (unet(**BLOCKS, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                              up_block_types=("AttnUpBlock2D", "UpBlock2D")), (2, 3, 32, 32)),
    "diffusers-UNet2DCondition": (unet("UNet2DConditionModel", **BLOCKS, in_channels=3, out_channels=3, cross_attention_dim=8,
                                       attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                                       up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")), (2, 3, 32, 32)),
    "diffusers-AutoencoderKL": (unet("AutoencoderKL", **BLOCKS, down_block_types=["DownEncoderBlock2D"] * 2,
                                     up_block_types=["UpDecoderBlock2D"] * 2), (2, 3, 32, 32)),
    "diffusers-AutoencoderTiny": (unet("AutoencoderTiny", encoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
                                       decoder_block_out_channels=(8, 8), num_decoder_blocks=(1, 1)), (2, 3, 32, 32)),
    "diffusers-VQModel": (unet("VQModel", **BLOCKS, down_block_types=["DownEncoderBlock2D"] * 2, num_vq_embeddings=16,
                               up_block_types=["UpDecoderBlock2D"] * 2), (2, 3, 32, 32)),
    **{f"smp-{name}": ((lambda name=name: getattr(smp, name)("resnet18", encoder_weights=None, classes=2)), (2, 3, 128, 128))
       for name in ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN",
                    "UPerNet")},
    **{f"smp-Unet-{name}": ((lambda name=name: smp.Unet(name, encoder_weights=None, classes=2)), (2, 3, 64, 64))
       for name in ("mobilenet_v2", "densenet121", "timm-regnetx_002", "mobileone_s0", "mit_b0", "tu-convnext_atto")},
}  # fmt: skip


def run(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The outputs, in the order of their names; the random choices of a model (a sampled latent) from one seed."""
    torch.manual_seed(1)
    more: tuple[Any, ...] = ()
    if type(model).__name__.startswith("UNet2D"):
        more = (1, CONDITION) if "Condition" in type(model).__name__ else (1,)
    found = list(tensors(model(x, *more)))
    assert found
    return found


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from tensors([value[name] for name in value])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def assert_equal(got: list[Tensor], want: list[Tensor]) -> None:
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other), f"differ by {(one - other).abs().max():.3g}, values to {other.abs().max():.3g}"


def made(name: str, seed: int) -> nn.Module:
    """The model, its scales such that nothing starts without a gradient (the last normalisation of a block is often zero)."""
    torch.manual_seed(seed)
    model = ZOO[name][0]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.uniform_(0.5, 1)
    return model


def layers(model: nn.Module) -> dict[str, DOConvMixin]:
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, DOConvMixin)}


def selectable(model: nn.Module) -> Callable[[str, nn.Module], bool]:
    """All but the kernels that weight norm computes."""
    return lambda path, conv: "weight" in conv._parameters


def train_one_step(model: nn.Module, x: Tensor) -> None:
    """Every layer that the outputs depend on moves, W and D."""
    before = {path: (layer.W.detach().clone(), layer.D.detach().clone()) for path, layer in layers(model).items()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-30)  # moves by the sign of a gradient, however small
    model.train()
    torch.stack([output.square().mean() for output in run(model, x) if output.requires_grad]).sum().backward()
    used = {path: layer for path, layer in layers(model).items() if layer.W.grad is not None and layer.W.grad.any()}
    assert len(used) > len(before) / 3  # an encoder before a quantizer has no gradients
    optimizer.step()
    for path, layer in used.items():
        assert not torch.equal(layer.W, before[path][0]), path
        assert not torch.equal(layer.D, before[path][1]), path
    model.eval()


@torch.no_grad()
def make_exact(model: nn.Module) -> None:
    """Values whose products and sums are exact in float32."""
    for layer in layers(model).values():
        layer.W.copy_((layer.W * 256).round() / 256)
        layer.D.fill_(1 / 64)


@pytest.mark.parametrize("name", ZOO)
def test_it_starts_equal_trains_and_folds(name: str) -> None:
    plain, x = made(name, 0), torch.rand(ZOO[name][1], generator=torch.Generator().manual_seed(0))
    model = overparameterize(copy.deepcopy(plain), where=selectable(plain), max_taps=300)
    assert layers(model)
    with torch.no_grad():
        assert_equal(run(model, x), run(plain, x))
    train_one_step(model, x)
    make_exact(model)
    with torch.no_grad():
        want = run(model, x)
        folded = fold(copy.deepcopy(model))
        assert not layers(folded)
        assert_equal(run(folded, x), want)
        loaded = made(name, 1)
        loaded.load_state_dict(folded.state_dict(), strict=True)
        assert_equal(run(loaded.eval(), x), want)
