"""What the ranks of `test_distributed.py` run, in one process group: `python distributed_checks.py FOLDER RANK WORLD`.

Each check compares a rank's gradients with those that one process computes from the batches of all ranks. All numbers are
small integers, every sum is exact, so equal means equal. The answers, "" or a traceback, go to `FOLDER/<world>-<rank>.json`.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from doconv_torch import DOConv2d, compose_together, composed_once, fold, fold_state_dict

CHECKS: dict[str, Callable[[Path], None]] = {}
# Activation checkpointing: of most of the network's forward pass, or of each of its layers.
RECOMPUTE = ("", ", checkpointed", ", checkpointed reentrantly", ", layers checkpointed")
_, BODY, REENTRANT, LAYERS = RECOMPUTE


def checks_of(world: int) -> list[str]:
    """Two processes run all of them, four what takes no compiler."""
    return [name for name in CHECKS if world == 2 or "compiled" not in name]


class Net(nn.Module):
    """DO layers with and without groups and surplus columns; one is used twice, one only where `spare` is given."""

    def __init__(self, recompute: str = "") -> None:
        super().__init__()
        self.first = DOConv2d(2, 4, 3, padding=1)
        self.twice = DOConv2d(4, 4, 2, groups=2, d_mul=7, bias=False)
        self.spare = DOConv2d(4, 4, 2)
        self.point = DOConv2d(4, 2, 1)
        self.recompute = recompute
        self.set_integers(0)
        if recompute == LAYERS:
            apply_activation_checkpointing(self, check_fn=lambda module: isinstance(module, DOConv2d))

    @torch.no_grad()
    def set_integers(self, step: int) -> None:
        for seed, parameter in enumerate(self.parameters()):
            parameter.copy_(integers(*parameter.shape, seed=10 * step + seed) % 2)

    def forward(self, x: Tensor, spare: bool = True) -> Tensor:
        def body(x: Tensor) -> Tensor:
            x = self.twice(self.twice(torch.relu(self.first(x))))
            return self.spare(x) if spare else x

        how = self.recompute
        x = checkpoint(body, x, use_reentrant=how == REENTRANT) if how in (BODY, REENTRANT) else body(x)
        return self.point(x)


def integers(*shape: int, seed: int) -> Tensor:
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


def batch(rank: int, step: int, micro: int) -> Tensor:
    x = integers(1, 2, 5, 5, seed=1000 * rank + 10 * step + micro)
    return x.requires_grad_()  # reentrant checkpointing wants one


def backward(run: Callable[..., Tensor], x: Tensor, spare: bool = True) -> None:
    y = run(x, spare)
    (y * integers(*y.shape, seed=int(x.sum()) + 100)).sum().backward()


def expected(net: Net, step: int, micros: int, spare: bool, low: bool = False) -> dict[str, Tensor | None]:
    """The mean over the ranks, by one process and without any tool; `low`: each backward pass in bfloat16, their sum not."""
    single, world = Net(), distributed.get_world_size()
    single.load_state_dict(net.state_dict())
    sums: dict[str, Tensor | None] = dict.fromkeys(dict(single.named_parameters()))
    for rank, micro in itertools.product(range(world), range(micros)):
        single.zero_grad()
        x = batch(rank, step, micro)
        backward(lambda x, spare: single.bfloat16()(x.bfloat16(), spare) if low else single(x, spare), x, spare)
        for name, parameter in single.named_parameters():
            if parameter.grad is not None:
                grad, before = parameter.grad.float() / world, sums[name]
                sums[name] = grad if before is None else before + grad
    return sums


def assert_same_grads(net: nn.Module, wanted: dict[str, Tensor | None], where: str) -> None:
    for name, parameter in net.named_parameters():
        grad, want = parameter.grad, wanted[name.replace("_checkpoint_wrapped_module.", "")]
        if isinstance(grad, distributed.tensor.DTensor):
            grad = grad.full_tensor()
        assert parameter.numel() < 16 or want is None or want.any(), name  # a gradient that shows a fault
        if grad is None or want is None:
            assert not any(each is not None and each.any() for each in (grad, want)), f"{where}: {name}: {grad}, {want}"
        else:
            error = (grad - want).abs().max().item()
            assert torch.equal(grad, want), f"{where}: the gradient of {name} is off by {error}"


def check(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def register(function: Callable[[Path], None]) -> Callable[[Path], None]:
        CHECKS[name] = function
        return function

    return register


MODES: dict[str, dict[str, bool]] = {
    "default": {},
    "static graph": {"static_graph": True},
    "unused parameters": {"find_unused_parameters": True},
    "bucket view": {"gradient_as_bucket_view": True},
    "static graph, bucket view": {"static_graph": True, "gradient_as_bucket_view": True},
}
KERNELS = ("", ", composed once", ", composed together")


def around(net: nn.Module, kernels: str) -> contextlib.AbstractContextManager[object]:
    """What a step runs in."""
    return composed_once(net) if kernels == KERNELS[1] else contextlib.nullcontext()


def compile_afresh(module: nn.Module) -> Callable[..., Tensor]:
    """By the default backend; programs of other checks would count as compilations of the same code, which are limited."""
    torch.compiler.reset()
    return torch.compile(module)


def ddp(options: dict[str, bool], kernels: str, recompute: str, compiled: bool = False) -> None:
    net = compose_together(Net(recompute), enabled=kernels == KERNELS[2])
    wrapped = DistributedDataParallel(net, **options)
    run = compile_afresh(wrapped) if compiled else wrapped
    unused = options.get("find_unused_parameters", False)
    # PyTorch's static graph can't begin with a pass inside `no_sync`.
    for step, reduce_all in enumerate((True, False, False)):
        net.set_integers(step)
        net.zero_grad()
        spare = not (unused and step == 1)
        wanted = expected(net, step, 3, spare)
        with around(net, kernels):
            for micro in range(3):
                last = micro == 2
                with contextlib.nullcontext() if last or reduce_all else wrapped.no_sync():
                    backward(run, batch(distributed.get_rank(), step, micro), spare)
        assert_same_grads(net, wanted, f"step {step}")


for (mode, options), kernels, how in itertools.product(MODES.items(), KERNELS, RECOMPUTE):
    # Without a static graph DDP supports no reentrant checkpoint around a layer that is used twice, nor any beside unused ones.
    if how == REENTRANT and "static_graph" not in options:
        continue
    name = f"DDP, {mode}{how}{kernels}"
    check(name)(lambda folder, arguments=(options, kernels, how): ddp(*arguments))

for kernels in KERNELS:
    check(f"DDP, compiled{kernels}")(lambda folder, kernels=kernels: ddp({}, kernels, "", compiled=True))


def fsdp(reshard: bool, low: bool, kernels: str, recompute: str, compiled: bool = False) -> None:
    net = compose_together(Net(recompute), enabled=kernels == KERNELS[2])
    sharded = copy.deepcopy(net)
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if low else MixedPrecisionPolicy()
    for layer in (sharded.first, sharded.twice, sharded):
        fully_shard(layer, reshard_after_forward=reshard, mp_policy=policy)
    assert isinstance(sharded, FSDPModule)
    run = compile_afresh(sharded) if compiled else sharded
    for step in range(2):
        net.zero_grad()
        sharded.zero_grad()
        wanted = expected(net, step, 2, True, low)
        with around(sharded, kernels):
            for micro in range(2):
                sharded.set_requires_gradient_sync(micro == 1)
                backward(run, batch(distributed.get_rank(), step, micro))
        assert_same_grads(sharded, wanted, f"step {step}")


for reshard, low, kernels, how in itertools.product((True, False), (False, True), KERNELS, ("", BODY, LAYERS)):
    name = f"FSDP2, {'reshard' if reshard else 'keep'}{', bfloat16' if low else ''}{how}{kernels}"
    check(name)(lambda folder, options=(reshard, low, kernels, how): fsdp(*options))

for kernels in KERNELS[:2]:
    check(f"FSDP2, compiled{kernels}")(lambda folder, kernels=kernels: fsdp(True, False, kernels, "", compiled=True))


@check("FSDP1: fold is refused, folding the full state dict is right")
def fsdp1(folder: Path) -> None:
    for keeps in (True, False):
        net = Net()
        want = fold(copy.deepcopy(net)).state_dict()
        wrapped = FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=keeps)
        with FullyShardedDataParallel.summon_full_params(wrapped):
            for model in (wrapped, wrapped.module) if keeps else (wrapped,):
                with pytest.raises(ValueError, match=r"gather the full state dict|sharded"):
                    fold(model)
            state = {name: tensor.clone() for name, tensor in wrapped.module.state_dict().items()}
        folded = fold_state_dict(state, like=fold(Net()))
        for name, tensor in want.items():
            assert torch.equal(folded[name], tensor), name
        wrapped(batch(distributed.get_rank(), 0, 0)).sum().backward()


@check("DCP: two ranks save, every number of ranks loads")
def save_and_load(folder: Path) -> None:
    net = Net()
    net.set_integers(7)
    sharded = fully_shard(copy.deepcopy(net))
    if distributed.get_world_size() == 2:
        dcp.save(get_model_state_dict(sharded), checkpoint_id=folder / "dcp")
    fresh = fully_shard(Net())
    state = get_model_state_dict(fresh)
    dcp.load(state, checkpoint_id=folder / "dcp")
    set_model_state_dict(fresh, state)
    full = get_model_state_dict(fresh, options=StateDictOptions(full_state_dict=True))
    if distributed.get_rank() == 0:
        for name, tensor in net.state_dict().items():
            assert torch.equal(full[name], tensor), name
        folded = fold_state_dict(full)
        assert "first.weight" in folded
        assert not [name for name in folded if name.endswith((".W", ".D"))]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's own collectives
        yield


def main(folder: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store-{world}", rank=rank, world_size=world)
    answers = {}
    for name in checks_of(world):
        try:
            with quiet():
                CHECKS[name](folder)
            answers[name] = ""
        except Exception:
            answers[name] = traceback.format_exc()
            (folder / f"{world}-{rank}.json").write_text(json.dumps(answers))
            raise  # the other ranks may wait for this one
    (folder / f"{world}-{rank}.json").write_text(json.dumps(answers))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
