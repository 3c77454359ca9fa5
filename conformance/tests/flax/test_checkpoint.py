"""Portable checkpoints of Flax models; `checkpoints/test_travel.py` sends one through all frameworks."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from flax.core import freeze
from safetensors.numpy import load_file

import doconv_flax

X = jnp.ones((2, 6, 6, 4))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        return nn.relu(nn.Conv(4, (3, 3))(x)), None


class Net(nn.Module):
    """An embedding, both norms, a transposed conv stored the other way round, bfloat16, one tap."""

    transpose_kernel: bool = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = Block(name="block")(x)[0]
        x = nn.BatchNorm(use_running_average=True, name="bn")(x)
        x = nn.ConvTranspose(4, (2, 3), (2, 1), transpose_kernel=self.transpose_kernel, name="up")(x)
        x = nn.Conv(6, (1, 1), dtype=jnp.float32, param_dtype=jnp.bfloat16, name="one")(nn.LayerNorm(name="last")(x))
        return nn.Dense(2, name="fc")(x.mean((1, 2)) + nn.Embed(5, 6, name="words")(jnp.arange(2)))


def variables(model: nn.Module, seed: int, d_mul: int | None = None) -> tuple[Any, Any]:
    given = model.init(jax.random.key(0), X)
    spec = doconv_flax.linen.conv_spec(model, X)
    given = {**given, "params": doconv_flax.linen.overparameterize(given["params"], spec, d_mul=d_mul)}
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), given), spec


def same(first: Any, second: Any) -> bool:
    return jax.tree.structure(first) == jax.tree.structure(second) and all(
        bool((a == b).all()) and a.dtype == b.dtype
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


@pytest.mark.parametrize("d_mul", [None, 13])
def test_linen_there_and_back(d_mul: int | None, tmp_path: Path) -> None:
    first, spec = variables(Net(), 0, d_mul)
    other, _ = variables(Net(), 1, d_mul)
    doconv_flax.linen.save_checkpoint(first, tmp_path / "file", spec)
    assert same(doconv_flax.linen.load_checkpoint(tmp_path / "file", other, spec), first)
    assert not same(other, first)
    frozen = doconv_flax.linen.load_checkpoint(tmp_path / "file", freeze(other), spec)
    assert same(frozen, freeze(first))
    assert {"block.Conv_0.W", "up.D_delta", "bn.running_mean", "words.weight"} <= load_file(tmp_path / "file").keys()


def test_params_alone_will_do_where_there_are_no_statistics(tmp_path: Path) -> None:
    model = Block()
    (first, spec), (other, _) = variables(model, 0), variables(model, 1)
    doconv_flax.linen.save_checkpoint(first["params"], tmp_path / "file", spec)
    assert same(doconv_flax.linen.load_checkpoint(tmp_path / "file", other["params"], spec), first["params"])


def test_a_transposed_kernel_is_canonical_in_the_file(tmp_path: Path) -> None:
    """The same function, stored the other way round: one file for both."""
    first, spec = variables(Net(transpose_kernel=True), 0)
    doconv_flax.linen.save_checkpoint(first, tmp_path / "file", spec)
    other, other_spec = variables(Net(transpose_kernel=False), 1)
    loaded = doconv_flax.linen.load_checkpoint(tmp_path / "file", other, other_spec)
    assert not jnp.array_equal(loaded["params"]["up"]["kernel"], first["params"]["up"]["kernel"])
    doconv_flax.linen.save_checkpoint(loaded, tmp_path / "again", other_spec)
    again = load_file(tmp_path / "again")
    assert all((array == again[name]).all() for name, array in load_file(tmp_path / "file").items())


def test_stacked_layers_are_refused_by_name(tmp_path: Path) -> None:
    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return blocks(name="blocks")(x, None)[0]

    given = Scanned().init(jax.random.key(0), X)
    spec = doconv_flax.linen.conv_spec(Scanned(), X)
    with pytest.raises(ValueError, match=r"Received: blocks\.Conv_0\.(kernel|bias), blocks\.Conv_0\.(kernel|bias)"):
        doconv_flax.linen.save_checkpoint(given, tmp_path / "file", spec)
    doconv_flax.linen.save_checkpoint(given, tmp_path / "file", spec, strict=False)
    zeros = jax.tree.map(jnp.zeros_like, given)
    assert same(doconv_flax.linen.load_checkpoint(tmp_path / "file", zeros, spec), given)


def test_linen_takes_trees_only(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"variables must be nested dicts of arrays. Received: list"):
        doconv_flax.linen.save_checkpoint([], tmp_path / "file", {})


class NnxNet(nnx.Module):
    """A layer used twice, lists, every kind of layer, and a random state, which is not saved."""

    def __init__(self, seed: int) -> None:
        rngs = nnx.Rngs(seed)
        self.blocks = nnx.List(
            [nnx.Conv(4, 4, (3, 3), rngs=rngs), nnx.Conv(4, 6, (3, 2), feature_group_count=2, rngs=rngs)]
        )
        self.again = self.blocks[0]
        self.bn = nnx.BatchNorm(6, rngs=rngs)
        self.up = nnx.ConvTranspose(6, 4, (2, 3), strides=(2, 1), transpose_kernel=True, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(4, rngs=rngs), nnx.RMSNorm(4, rngs=rngs), nnx.GroupNorm(4, 2, rngs=rngs)])
        self.words = nnx.Embed(5, 4, rngs=rngs)
        self.fc = nnx.Linear(4, 2, use_bias=False, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        doconv_flax.nnx.overparameterize(self)
        rng = np.random.default_rng(seed)
        state = nnx.state(self, (nnx.Param, nnx.BatchStat))
        nnx.update(self, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), state))


def test_nnx_there_and_back(tmp_path: Path) -> None:
    first, other = NnxNet(0), NnxNet(1)
    kernel = other.blocks[0].kernel
    doconv_flax.nnx.save_checkpoint(first, tmp_path / "file")
    assert doconv_flax.nnx.load_checkpoint(tmp_path / "file", other) is other
    kinds = (nnx.Param, nnx.BatchStat)
    assert same(nnx.state(first, kinds), nnx.state(other, kinds))
    assert other.blocks[0].kernel is kernel
    assert other.again is other.blocks[0]
    assert len([name for name in load_file(tmp_path / "file") if name.endswith("D_delta")]) == 3


def test_nnx_names_what_no_layer_covers(tmp_path: Path) -> None:
    class Odd(nnx.Module):
        def __init__(self) -> None:
            self.scale = nnx.Param(jnp.ones(3))
            self.attention = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0))

    with pytest.raises(ValueError, match=r"Received: .*attention\.query\.kernel.*scale"):
        doconv_flax.nnx.save_checkpoint(Odd(), tmp_path / "file")
    doconv_flax.nnx.save_checkpoint(Odd(), tmp_path / "file", strict=False)
    other = Odd()
    other.scale[...] = jnp.zeros(3)
    doconv_flax.nnx.load_checkpoint(tmp_path / "file", other)
    assert (other.scale[...] == 1).all()
    with pytest.raises(TypeError, match=r"model must be a flax\.nnx\.Module. Received: dict"):
        doconv_flax.nnx.save_checkpoint({}, tmp_path / "file")


@pytest.mark.parametrize("name_map", [{"fc": 5}, ["ab"], [("(", "b")]])
def test_a_name_map_of_another_form_is_refused_before_any_work(name_map: Any, tmp_path: Path) -> None:
    model, spec = variables(Net(), 0)
    with pytest.raises((TypeError, ValueError), match=r"name_map (must be a dict|has a pattern)"):
        doconv_flax.linen.load_checkpoint(tmp_path / "no file", model, spec, name_map=name_map)


def test_names_with_a_prefix_in_the_file_are_found(tmp_path: Path) -> None:
    (model, spec), (other, _) = variables(Net(), 0), variables(Net(), 1)
    doconv_flax.linen.save_checkpoint(model, tmp_path / "file", spec, name_map=lambda path: f"net.{path}")
    assert same(doconv_flax.linen.load_checkpoint(tmp_path / "file", other, spec), model)
