"""Known architectures, narrow, for both of Flax's interfaces, on pictures `(N, 8, 8, 1)`.

`LINEN` maps a name to a function that builds a model; `NNX` likewise, its parameters drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn
from flax import nnx

CLASSES = 10


class Residual(nn.Module):
    """The basic block of ResNet-18."""

    features: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, self.features, use_bias=False)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        y = nn.relu(norm()(conv((3, 3), self.strides)(x)))
        y = norm()(conv((3, 3))(y))
        if x.shape != y.shape:
            x = norm()(conv((1, 1), self.strides)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Stem, two stages, head."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        for features, strides in ((4, 1), (8, 2)):
            x = Residual(features, strides)(x, train)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class ScannedBlock(nn.Module):
    """A block as `nn.scan` wants it: the carry and nothing else."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, None]:
        return Residual(4)(x, train), None


class Scanned(nn.Module):
    """Three rematerialised blocks in one scan over layers, a vmapped pair of grouped convolutions, a transposed one."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(4, (3, 3), feature_group_count=1)(x)
        blocks = nn.scan(
            nn.remat(ScannedBlock, static_argnums=(2,)), length=3, variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True}, in_axes=(nn.broadcast,),
        )  # fmt: skip
        x, _ = blocks()(x, train)
        pair = nn.vmap(nn.Conv, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=2)
        x = pair(4, (3, 2), feature_group_count=2)(x).sum(0)
        x = nn.ConvTranspose(4, (2, 2), (2, 2), transpose_kernel=True)(nn.relu(x))
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class Shared(nn.Module):
    """`setup`, one convolution called twice, one inside `nn.Sequential`, one whose kernel is normalised by `nn.WeightNorm`."""

    def setup(self) -> None:
        self.stem = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu])
        self.twice = nn.Conv(4, (3, 3))
        self.normed = nn.WeightNorm(nn.Conv(4, (3, 3)))
        self.local = nn.ConvLocal(2, (3, 3), strides=(4, 4))
        self.head = nn.Dense(CLASSES)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.normed(nn.relu(self.twice(nn.relu(self.twice(self.stem(x))))))
        return self.head(self.local(x).mean((1, 2)))


LINEN: dict[str, Callable[[], nn.Module]] = {"resnet": ResNet, "scan and remat": Scanned, "shared": Shared}


class NnxResidual(nnx.Module):
    """The basic block of ResNet-18."""

    def __init__(self, channels: int, features: int, strides: int, *, rngs: nnx.Rngs) -> None:
        conv = partial(nnx.Conv, use_bias=False, rngs=rngs)
        self.conv1, self.bn1 = conv(channels, features, (3, 3), strides), nnx.BatchNorm(features, rngs=rngs)
        self.conv2, self.bn2 = conv(features, features, (3, 3)), nnx.BatchNorm(features, rngs=rngs)
        plain = strides == 1 and channels == features
        self.short = (
            None
            if plain
            else nnx.Sequential(conv(channels, features, (1, 1), strides), nnx.BatchNorm(features, rngs=rngs))
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        return nnx.relu(y + (x if self.short is None else self.short(x)))


class NnxResNet(nnx.Module):
    """Stem, two stages, head."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(1, 4, (3, 3), use_bias=False, rngs=rngs)
        self.blocks = nnx.List([NnxResidual(4, 4, 1, rngs=rngs), NnxResidual(4, 8, 2, rngs=rngs)])
        self.head = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class NnxScanned(nnx.Module):
    """Three rematerialised blocks in one scan over layers, then a transposed convolution and a head."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        make = nnx.vmap(lambda rngs: NnxResidual(4, 4, 1, rngs=rngs), in_axes=0)
        self.blocks = nnx.split_rngs(splits=3)(make)(rngs)
        self.up = nnx.ConvTranspose(4, 4, (2, 2), (2, 2), transpose_kernel=True, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        step = nnx.remat(lambda block, x: block(x))
        x = nnx.scan(lambda x, block: step(block, x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
            self.stem(x), self.blocks
        )
        return self.head(self.up(x).mean((1, 2)))


class NnxShared(nnx.Module):
    """A layer used twice, two layers with one kernel and two biases, one grouped, in a list and in `nnx.Sequential`."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Sequential(nnx.Conv(1, 4, (3, 3), rngs=rngs), nnx.relu)
        self.first, self.second = (nnx.Conv(4, 4, (3, 3), rngs=rngs) for _ in range(2))
        self.second.kernel = self.first.kernel
        self.again = self.first
        self.grouped = nnx.List([nnx.Conv(4, 8, (3, 2), feature_group_count=2, rngs=rngs)])
        self.head = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (self.stem, self.first, self.second, self.again, self.grouped[0]):
            x = nnx.relu(layer(x))
        return self.head(x.mean((1, 2)))


NNX: dict[str, Callable[..., nnx.Module]] = {"resnet": NnxResNet, "scan and remat": NnxScanned, "shared": NnxShared}
