"""Loaders of other libraries, their own code: `nox -s zoo` runs this file; `test_loaders.py` has what they do in small.

A model that over-parameterizes in its constructor loads its own checkpoints. A plain one starts its layers or is refused, and
never leaves its kernels out.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_model, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

from conformance.tests.torch.libraries import import_torchvision

import_torchvision()

import accelerate  # noqa: E402  # these import torchvision
import diffusers  # noqa: E402
import lightning  # noqa: E402
import timm  # noqa: E402
import transformers  # noqa: E402

from doconv_torch import overparameterize  # noqa: E402
from doconv_torch._layers import DOConvMixin  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
X = torch.rand(1, 3, 32, 32)


def plain_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()


def net() -> nn.Sequential:
    return overparameterize(plain_net())


def trained(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, DOConvMixin) and layer.D is not None:
            nn.init.normal_(layer.D, std=0.1)
    return model


class PlainTask(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = plain_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Task(PlainTask):
    def __init__(self) -> None:
        super().__init__()
        overparameterize(self)


CONFIG = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")


class DOResNet(transformers.ResNetForImageClassification):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        overparameterize(self)


class OfTheLibrary(DOResNet):
    """Whose initialisers transformers calls for every module."""


OfTheLibrary.__module__ = "transformers.models.resnet"
UNET = {
    "sample_size": 32, "layers_per_block": 1, "block_out_channels": (8, 8), "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
}  # fmt: skip


class DOUNet(diffusers.UNet2DModel):
    @functools.wraps(diffusers.UNet2DModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        overparameterize(self)


def close(one: Tensor, other: Tensor) -> None:
    """Equal but for the order of sums, which depends on how a loader lays out `W` in memory."""
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("cls", [DOResNet, OfTheLibrary])
def test_transformers(cls: type[nn.Module], tmp_path: Path) -> None:
    own = trained(cls(CONFIG).eval())
    own.save_pretrained(tmp_path / "own")
    for options in ({}, {"device_map": "cpu"}):
        loaded = cls.from_pretrained(tmp_path / "own", **options).eval()
        assert all(
            torch.equal(ours, theirs)
            for ours, theirs in zip(own.state_dict().values(), loaded.state_dict().values(), strict=True)
        )
        close(loaded(X).logits, own(X).logits)
    plain = transformers.ResNetForImageClassification(CONFIG).eval()
    for name, model in (("plain", plain), ("base", plain.resnet)):
        model.save_pretrained(tmp_path / name)
        with pytest.raises(
            RuntimeError, match=r"from_pretrained can't start a DO layer .*convolution\.weight, for DOConv"
        ):
            cls.from_pretrained(tmp_path / name)
    converted = overparameterize(transformers.ResNetForImageClassification.from_pretrained(tmp_path / "plain").eval())
    assert torch.equal(converted(X).logits, plain(X).logits)


@torch.no_grad()
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("device_map", [None, {"": "cpu"}, {"": "disk"}])
@pytest.mark.parametrize("dispatch", [False, True])
def test_accelerate(dispatch: bool, device_map: dict[str, str] | None, strict: bool, tmp_path: Path) -> None:
    def load(state: dict[str, Tensor]) -> nn.Module:
        torch.save(state, tmp_path / "model.bin")
        options = {"device_map": device_map, "strict": strict, "offload_folder": tmp_path / "offload"}
        if not dispatch:
            model = net()
            accelerate.load_checkpoint_in_model(model, str(tmp_path / "model.bin"), **options)
            return model
        with accelerate.init_empty_weights():
            model = net()
        return accelerate.load_checkpoint_and_dispatch(model, str(tmp_path / "model.bin"), **options)

    own, plain = trained(net()), plain_net()
    if dispatch or device_map != {"": "disk"}:
        close(load(own.state_dict())(X), own(X))
    if device_map:
        with pytest.raises(ValueError, match=r"DOConv2d\(.* does not have a parameter or a buffer named weight"):
            load(plain.state_dict())
    else:
        assert torch.equal(load(plain.state_dict())(X), plain(X))


def by_timm(folder: Path, plain: nn.Module) -> nn.Module:
    torch.save({"state_dict": plain.state_dict()}, folder / "model.pth")
    model = overparameterize(timm.create_model("resnet10t", num_classes=4)).eval()
    timm.models.load_checkpoint(model, str(folder / "model.pth"))
    return model


def by_lightning(folder: Path, plain: nn.Module, *, strict: bool = True) -> nn.Module:
    content = {"state_dict": plain.state_dict(), "pytorch-lightning_version": lightning.__version__}
    torch.save(content, folder / "model.ckpt")
    return Task.load_from_checkpoint(folder / "model.ckpt", weights_only=False, strict=strict).eval()


def by_safetensors(folder: Path, plain: nn.Module) -> nn.Module:
    save_file(plain.state_dict(), folder / "model.safetensors")
    model = net()
    load_model(model, folder / "model.safetensors")
    return model


WAYS: dict[str, tuple[Callable[[], nn.Module], Callable[..., nn.Module]]] = {
    "timm": (lambda: timm.create_model("resnet10t", num_classes=4), by_timm),
    "Lightning": (PlainTask, by_lightning),
    "Lightning, leniently": (PlainTask, functools.partial(by_lightning, strict=False)),
    "safetensors": (plain_net, by_safetensors),
}


@torch.no_grad()
@pytest.mark.parametrize("way", WAYS)
def test_what_goes_through_load_state_dict(way: str, tmp_path: Path) -> None:
    make, load = WAYS[way]
    plain = make().eval()
    assert torch.equal(load(tmp_path, plain)(X), plain(X))


@torch.no_grad()
def test_distributed_checkpoints(tmp_path: Path) -> None:
    own, model = trained(net()), net()
    dcp.save({"model": own.state_dict()}, checkpoint_id=tmp_path / "own")
    dcp.save({"model": plain_net().state_dict()}, checkpoint_id=tmp_path / "plain")
    state = {"model": get_model_state_dict(model)}
    with pytest.raises(dcp.api.CheckpointException, match=r"Missing key in checkpoint state_dict: model\.0\.W"):
        dcp.load(state, checkpoint_id=tmp_path / "plain")
    dcp.load(state, checkpoint_id=tmp_path / "own")
    set_model_state_dict(model, state["model"])
    assert torch.equal(model(X), own(X))


@torch.no_grad()
def test_diffusers(tmp_path: Path) -> None:
    own, plain = trained(DOUNet(**UNET).eval()), diffusers.UNet2DModel(**UNET)
    own.save_pretrained(tmp_path / "own")
    plain.save_pretrained(tmp_path / "plain")
    close(DOUNet.from_pretrained(tmp_path / "own").eval()(X, 1).sample, own(X, 1).sample)
    with pytest.raises(RuntimeError, match="they were never loaded"):
        DOUNet.from_pretrained(tmp_path / "plain")(X, 1)
    torch.use_deterministic_algorithms(True)  # what is not initialised is NaN
    try:
        for name, want in (("own", own), ("plain", plain)):
            loaded = DOUNet.from_pretrained(tmp_path / name, low_cpu_mem_usage=False).eval()
            close(loaded(X, 1).sample, want.eval()(X, 1).sample)
    finally:
        torch.use_deterministic_algorithms(False)
