"""Third-party models: `nox -s zoo` runs this file, which needs the libraries that it imports; the tests' own run leaves it out.

Each is made small and of random weights, over-parameterized (the outputs stay, bit for bit), trained, saved by Orbax and as
msgpack, restored, and folded.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flaxmodels
import jax
import jax.numpy as jnp
import jax_resnet
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import serialization
from flax.traverse_util import flatten_dict, unflatten_dict
from flaxdiff.models.simple_unet import Unet

from doconv_flax import linen as do

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32))
TIMES, TEXT = jnp.ones(2), jnp.ones((2, 4, 16))
Model = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


@pytest.fixture(autouse=True)
def promoting() -> Iterator[None]:
    """These models promote dtypes and ranks, which `conftest.py` forbids ours."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def jax_resnets(name: str, hidden: tuple[int, ...] = (8, 8, 16, 16)) -> Callable[[], Model]:
    return lambda: (getattr(jax_resnet, name)(n_classes=4, hidden_sizes=hidden, stage_sizes=(1, 1, 1, 1)), (X,), {})


def flaxmodel(name: str, **options: Any) -> Callable[[], Model]:
    return lambda: (getattr(flaxmodels, name)("logits", pretrained=None, **options), (X,), {"train": False})


def unet() -> Model:
    attention = {"heads": 2}
    net = Unet(emb_features=16, feature_depths=(8, 16), attention_configs=(None, attention), num_res_blocks=1)
    return net, (X, TIMES, TEXT), {}


ZOO: dict[str, Callable[[], Model]] = {
    **{name: jax_resnets(name) for name in ("ResNet18", "ResNet50", "ResNetD50", "ResNeSt50Fast")},
    "ResNeXt50": jax_resnets("ResNeXt50", (16, 16, 16, 16)),  # 32 groups of a sixteenth of these
    "VGG16": flaxmodel("VGG16", include_head=False),
    "flaxmodels ResNet18": flaxmodel("ResNet18", num_classes=4),
    "diffusion U-Net": unet,
}


def equal(one: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), one, other)


def exact(params: Any) -> Any:
    """Parameters whose composition is exact in float32, so that folding changes no bit."""
    flat = flatten_dict(params)
    for names in [names for names in flat if names[-1] == "D"]:
        kernel = (*names[:-1], "kernel")
        flat |= {kernel: jnp.round(flat[kernel] * 64) / 64, names: jnp.full_like(flat[names], 0.25)}
    return unflatten_dict(flat)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore:Sharding info not provided")  # Orbax's, of a restore to the devices there are
def test_a_linen_model_starts_equal_trains_is_restored_and_folds(name: str, tmp_path: Path) -> None:
    plain, args, options = ZOO[name]()
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    model = do.OverParameterized(plain)
    before, variables = plain.init(rngs, *args, **options), model.init(rngs, *args, **options)
    spec = do.conv_spec(plain, *args, **options)
    equal(do.fold(variables["params"], spec), before["params"])
    rest = {key: value for key, value in variables.items() if key != "params"}

    def run(model: nn.Module) -> Callable[[Any], Any]:
        return jax.jit(lambda params: model.apply({"params": params} | rest, *args, **options))

    equal(run(model)(variables["params"]), run(plain)(before["params"]))
    gradient = jax.jit(jax.grad(lambda params: jnp.mean((run(model)(params) - 1) ** 2)))
    stepped = variables["params"]
    for _ in range(3):  # of a block that starts as the identity the first reaches what scales it, and no kernel
        stepped = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, stepped, gradient(stepped))
    ds = {names: leaf for names, leaf in flatten_dict(stepped).items() if names[-1] == "D"}
    assert ds
    assert all(leaf.any() for leaf in ds.values())
    params = exact(stepped)
    after, folded = run(model)(params), do.fold(params, spec)
    assert not np.array_equal(after, run(plain)(before["params"]))
    equal(run(plain)(folded), after)
    equal(serialization.from_bytes(variables["params"], serialization.to_bytes(params)), params)
    equal(do.fold(serialization.msgpack_restore(serialization.to_bytes(params)), spec), folded)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", params)
        checkpointer.wait_until_finished()
        equal(checkpointer.restore(tmp_path / "params", jax.eval_shape(lambda: params)), params)
        equal(do.fold(checkpointer.restore(tmp_path / "params"), spec), folded)
