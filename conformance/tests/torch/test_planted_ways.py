"""Faults that one way alone meets, planted in a copy of the backend: each is a mismatch there, and eager stays right."""

import os
from collections.abc import Callable

import pytest

from doconv_conformance.adapters.ways.table import ways_of

Compare = Callable[..., tuple[int, dict[str, set[str]]]]
FULL = bool(os.environ.get("DOCONV_FULL"))
# They compile for long, and have faults of their own below.
SLOW = ("aot", "compiled-dynamic")
WAYS = [way.name for way in ways_of("torch") if way.name not in ("eager", *SLOW)]

FAULTS = """

import contextlib
from torch._C import _functorch as functorch
from torch.nn.parallel import DistributedDataParallel
import doconv_torch._layers as layers, doconv_torch._together as together

right_compose, right_order, right_once = layers.compose, layers.ordered, composed_once
right_all = together.compose_all

def compose(W, D, *options, **more):
    return right_compose(*(W, D) if D is None else wrong(W, D), *options, **more)

def wrong(W, D):
    if torch.jit.is_tracing():
        return W, 0 * D  # an exporter's branch forgets D
    if torch.compiler.is_compiling():
        return W, D.mT  # a compiled branch takes it transposed
    if functorch.peek_interpreter_stack() is not None:
        if torch.autograd.forward_ad._current_level >= 0:
            return W, 2 * D  # a tangent counts twice
        if functorch.is_batchedtensor(D):
            return W, functorch.get_unwrapped(D)[0]  # the first of the stack, for all
        return W, 2 * D
    if torch._C._current_graph_task_id() != -1:
        return W, 0 * D  # what is composed again, for the backward pass, is composed without D
    if not W.is_contiguous():
        return W.as_strided(W.shape, torch.empty(W.shape).stride()), D  # read as if it were contiguous
    if DistributedDataParallel._active_ddp_module is not None:
        alone = D.detach().requires_grad_()  # the hook that averages the gradient of D does not run
        alone.register_hook(lambda grad: setattr(D, "grad", grad))
        return W, alone
    if torch.distributed.is_initialized():  # the other ranks' rows of D are not gathered
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        rows = [D if part == rank else torch.zeros_like(D) for part in range(ranks)]
        return W, torch.cat([whole.tensor_split(ranks)[part] for part, whole in enumerate(rows)])
    return W, D

def ordered(weight, channels_last):
    weight = right_order(weight, channels_last)
    return weight.permute(0, 2, 3, 1).reshape(weight.shape) if channels_last else weight

def forward(self, x):
    if torch.is_autocast_enabled("cpu") and x.dtype == torch.float32:  # an input in float32 is not cast
        with torch.autocast("cpu", enabled=False):
            return super(layers.DOConvMixin, self).forward(x)
    return super(layers.DOConvMixin, self).forward(x)

@contextlib.contextmanager
def composed_once(model):
    with right_once(model):
        yield model
    for layer in model.modules():  # what was collected is passed on twice
        if isinstance(layer, DOConvMixin) and layer.W.grad is not None:
            layer.W.grad *= 2

def compose_all(specs, parameters):  # of layers composed together each has the D of the last
    last = parameters[-1].flatten()
    taken = [last[torch.arange(p.numel()) % last.numel()].view_as(p) for p in parameters]
    mixed = [0 * p + taken[at] if at % 2 else p for at, p in enumerate(parameters)]
    return right_all(specs, mixed)

together.compose_all = compose_all
layers.compose, layers.ordered, layers.DOConvMixin.forward = compose, ordered, forward
"""
# The shuffle by which the kernel's gradient was transposed in 0.1.0's first versions: contiguous for PyTorch, but not in the
# layout that the compiler gives to the gradient.
SWAP = """

import doconv_torch._layers as layers

def swap(x, count, rows, numbers, shape):
    size = x.numel() // (count * numbers)
    strides = (size, 1, size, size) if numbers == 1 else (size * numbers, numbers, 1, 1)
    return torch.native_channel_shuffle(x.as_strided((count, size, numbers, 1), strides), rows).view(shape)

class Compose(torch.autograd.Function):
    @staticmethod
    def forward(ctx, W, D):
        ctx.save_for_backward(W, D)
        return W + torch.bmm(W.transpose(0, 1), D.mT).transpose(0, 1)

    @staticmethod
    def backward(ctx, grad):
        (W, D), grad = ctx.saved_tensors, grad.contiguous()
        kernels, channels, columns = W.shape
        g = swap(grad, 1, kernels, 1, (channels, columns, kernels))
        w = swap(W.contiguous(), 1, kernels, 1, (channels, columns, kernels))
        grad_W = torch.baddbmm(g, D.mT, g)
        return swap(grad_W, 1, channels * columns, 1, (kernels, channels, columns)), torch.bmm(g, w.mT)

right_compose = layers.compose

def compose(W, D, groups=1, **options):
    if D is None or groups > 1 or options.get("transposed"):
        return right_compose(W, D, groups, **options)
    return Compose.apply(W, D)

layers.compose = compose
"""
# Of a batch of 2, which a program for any batch does not know; and of an export that is for inference alone.
SLOW_FAULTS = """

from torch.fx.experimental.symbolic_shapes import statically_known_true
import doconv_torch._layers as layers

right = layers.compose

def compose(W, D, *options, **more):
    if D is not None and torch.compiler.is_exporting() and not torch.is_grad_enabled():
        D = 2 * D
    return right(W, D, *options, **more)

def forward(self, x):
    y = super(layers.DOConvMixin, self).forward(x)
    known = not torch.compiler.is_dynamo_compiling() or statically_known_true(x.shape[0] == 2)
    return y if known else 2 * y

layers.compose, layers.DOConvMixin.forward = compose, forward
"""


@pytest.fixture(scope="module")
def planted(compare_copy: Compare) -> tuple[int, dict[str, set[str]]]:
    return compare_copy("torch", FAULTS, "--way", ",".join(["eager", *WAYS]), "--case", "plain-3x3-exact")


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_of_the_way_is_a_mismatch(planted: tuple[int, dict[str, set[str]]], way: str) -> None:
    status, verdicts = planted
    assert status == 1
    assert verdicts["torch"] == {"exact"}
    assert "mismatch" in verdicts[f"torch/{way}"]
    assert verdicts[f"torch/{way}"] <= {"exact", "mismatch"}


def test_gradients_read_in_a_layout_that_the_compiler_does_not_give_them_are_a_mismatch(compare_copy: Compare) -> None:
    case = ("--way", "eager,compiled", "--case", "plain-3x3-exact-float32")
    status, verdicts = compare_copy("torch", SWAP, *case)
    assert status == 1
    assert verdicts["torch"] == {"exact"}
    assert verdicts["torch/compiled"] == {"exact", "mismatch"}  # forward and fold, backward


@pytest.mark.skipif(not FULL, reason="compiles for long: nox -s ways runs it")
def test_faults_of_dynamic_shapes_and_of_an_export_for_inference_are_mismatches(compare_copy: Compare) -> None:
    ways = ("eager", "compiled", "exported", *SLOW)
    status, verdicts = compare_copy("torch", SLOW_FAULTS, "--way", ",".join(ways), "--case", "groups-2-exact-float32")
    assert status == 1
    assert [verdicts[name] for name in ("torch", "torch/compiled", "torch/exported")] == [{"exact"}] * 3
    assert verdicts["torch/aot"] == {"mismatch"}
    assert verdicts["torch/compiled-dynamic"] == {"exact", "mismatch"}  # fold, forward and backward
