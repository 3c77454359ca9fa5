"""How each way of the PyTorch backend runs a layer.

A way is given a module: the layer with the padding of its case around it. What it does not override it does as PyTorch does.
"""

from __future__ import annotations

import copy
import io
import multiprocessing
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacfwd, vjp, vmap

import doconv_torch
from doconv_conformance.port import Unsupported

NO_CHANNELS_LAST = "PyTorch has no channels_last for 1-D"
Gradients = tuple[Tensor | None, dict[str, Tensor | None]]


class Eager:
    """The module is called, its loss propagated back. Mixed precision runs under autocast."""

    def prepare(self, layer: Any) -> Any:
        """What is done to a layer when it is made."""
        return layer

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        with mixed_precision(module, x):
            return module(x)

    def backward(self, module: nn.Module, x: Tensor, grad_y: Tensor) -> Gradients:
        """The gradients of `x` and of the module's parameters by name, for `sum(y * grad_y)`."""
        x.requires_grad_()
        self.forward(module, x).backward(grad_y)
        return x.grad, {name: parameter.grad for name, parameter in module.named_parameters()}

    def fold(self, layer: Any) -> Any:
        return doconv_torch.fold(layer)


def mixed_precision(module: nn.Module, x: Tensor) -> Any:
    """Autocast to the type of `x` where the parameters are of a wider one."""
    parameter = next(module.parameters())
    return nullcontext() if parameter.dtype == x.dtype else torch.autocast(x.device.type, x.dtype)


class Compiled(Eager):
    """Compiled by the default backend for one shape, forward and backward."""

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        torch._dynamo.reset()  # each case is a program of its own: nothing of another may count as a recompilation
        x.requires_grad_()  # one program for forward and backward, compiled once
        return super().forward(torch.compile(module, fullgraph=True, dynamic=False), x)


class CompiledDynamic(Eager):
    """Compiled for any shape and called with another batch before: the second call must not compile again."""

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        torch._dynamo.reset()
        compiled = torch.compile(module, fullgraph=True, dynamic=True)
        x.requires_grad_()
        with mixed_precision(module, x), torch.fx.experimental._config.patch(use_duck_shape=False):
            compiled(torch.cat([x, x, x]).detach().requires_grad_())
            recompile = "default" if len(x) == 1 else "fail_on_recompile"  # a size of 1 is never dynamic
            with torch.compiler.set_stance(recompile):
                return compiled(x)


class Autocast(Eager):
    """The input comes in float32, as it does at the start of a network; the backward pass runs outside."""

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        if next(module.parameters()).dtype == x.dtype:
            raise Unsupported("autocast is for float32 parameters and a lower precision")
        with mixed_precision(module, x):
            return module(x.float())


class ChannelsLast(Eager):
    """Made from a plain layer in channels_last; input and gradient are in it, too."""

    def prepare(self, layer: Any) -> Any:
        if layer.D is None:
            return layer
        plain = doconv_torch.fold(copy.deepcopy(layer))
        made = doconv_torch.overparameterize(plain.to(memory_format=memory_format(plain.weight)), d_mul=layer.d_mul)
        made.load_state_dict(layer.state_dict())
        return made

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        return super().forward(module, x.contiguous(memory_format=memory_format(x)))

    def backward(self, module: nn.Module, x: Tensor, grad_y: Tensor) -> Gradients:
        return super().backward(module, x, grad_y.contiguous(memory_format=memory_format(grad_y)))


def memory_format(tensor: Tensor) -> torch.memory_format:
    if tensor.ndim == 3:
        raise Unsupported(NO_CHANNELS_LAST)
    return {4: torch.channels_last, 5: torch.channels_last_3d}[tensor.ndim]


class Func(Eager):
    """The parameters are arguments; the module's own are others."""

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        return self.call(*disown(module), x)

    def call(self, module: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        with mixed_precision(module, x):
            return functional_call(module, parameters, (x,))

    def backward(self, module: nn.Module, x: Tensor, grad_y: Tensor) -> Gradients:
        module, parameters = disown(module)
        grads, grad_x = vjp(lambda p, x: self.call(module, p, x), parameters, x)[1](grad_y)
        return grad_x, grads


def disown(module: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module with other parameters, and its own as plain tensors."""
    own = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7)
    return module, own


class Vmap(Func):
    """Forward over stacked parameters, of which the second are the case's; gradients sample by sample."""

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        module, own = disown(module)
        stacked = {name: torch.stack([value + 1, value]) for name, value in own.items()}
        return vmap(lambda p: self.call(module, p, x))(stacked)[1]

    def backward(self, module: nn.Module, x: Tensor, grad_y: Tensor) -> Gradients:
        module, own = disown(module)

        def of_sample(x: Tensor, grad_y: Tensor) -> Any:
            return vjp(lambda p, x: self.call(module, p, x[None]), own, x)[1](grad_y[None])

        grads, grad_x = vmap(of_sample)(x, grad_y)
        return grad_x, {name: grad.sum(0) for name, grad in grads.items()}


class Jvp(Func):
    """Forward mode: a tangent for each number of the parameters and the input."""

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        module, own = disown(module)
        return torch.func.jvp(lambda p: self.call(module, p, x), (own,), (own,))[0]

    def backward(self, module: nn.Module, x: Tensor, grad_y: Tensor) -> Gradients:
        module, own = disown(module)
        return jacfwd(lambda x, p: (self.call(module, p, x) * grad_y).sum(), (0, 1))(x, own)


class Exported(Eager):
    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        return export(module, x).module()(x)


def export(module: nn.Module, x: Tensor) -> Any:
    return torch.export.export(module.eval(), (x,))


class Onnx(Eager):
    dynamo = True

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        import onnxruntime

        file = io.BytesIO()
        if self.dynamo:
            torch.onnx.export(module.eval(), (x,), dynamo=True, verbose=False).save(file)
        else:
            torch.onnx.export(module.eval(), (x,), file, dynamo=False)
        session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


class OnnxTorchscript(Onnx):
    dynamo = False


class Aot(Eager):
    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            package = torch._inductor.aoti_compile_and_package(
                export(module, x), package_path=str(Path(folder) / "layer.pt2")
            )
            return torch._inductor.aoti_load_package(package)(x)


class Checkpointed(Eager):
    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        with mixed_precision(module, x):
            return torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)


class ComposedOnce(Eager):
    """A pass for each sample, all with one kernel."""

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        with doconv_torch.composed_once(module), mixed_precision(module, x):
            return torch.cat([module(sample) for sample in x.split(1)])

    def backward(self, module: nn.Module, x: Tensor, grad_y: Tensor) -> Gradients:
        x.requires_grad_()
        with doconv_torch.composed_once(module):
            for sample, grad in zip(x.split(1), grad_y.split(1), strict=True):
                Eager.forward(self, module, sample).backward(grad)
        return x.grad, {name: parameter.grad for name, parameter in module.named_parameters()}


class ComposedTogether(Eager):
    """With another layer in the model, of another shape."""

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        other = doconv_torch.DOConv2d(2, 5, (2, 3), d_mul=7, device=x.device, dtype=next(module.parameters()).dtype)
        model = nn.Sequential()
        model.add_module("other", other)
        model.add_module("module", module)
        model.forward = module.forward  # type: ignore[method-assign]  # other takes no part in the output
        return super().forward(doconv_torch.compose_together(model), x)


class RecomputeKernels(Eager):
    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        with doconv_torch.recompute_kernels():
            return super().forward(module, x)


class ByChannel(Eager):
    def prepare(self, layer: Any) -> Any:
        return doconv_torch.store_by_channel(layer)


class Replicated(Eager):
    """This process is rank 0; it sends the module and its work to rank 1, and each runs its half of the batch."""

    processes = 2

    def __init__(self) -> None:
        file = Path(tempfile.mkdtemp()) / "store"
        context = multiprocessing.get_context("spawn")
        for rank in range(1, self.processes):
            context.Process(target=follow, args=(type(self), rank, file), daemon=True).start()
        self.join(0, file)

    def join(self, rank: int, file: Path) -> None:
        self.rank = rank
        torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=self.processes)

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        return self.lead("work", module, x, None)[0]

    def backward(self, module: nn.Module, x: Tensor, grad_y: Tensor) -> Gradients:
        _, grad_x, grads = self.lead("work", module, x, grad_y)
        return grad_x, grads

    def lead(self, method: str, *arguments: Any) -> Any:
        torch.distributed.broadcast_object_list([(method, arguments)])
        return getattr(self, method)(*arguments)

    def follow(self) -> None:
        received: list[Any] = [None]
        torch.distributed.broadcast_object_list(received)
        method, arguments = received[0]
        getattr(self, method)(*arguments)

    def work(self, module: nn.Module, x: Tensor, grad_y: Tensor | None) -> Any:
        """This rank's part; what the ranks hold is put together again."""
        module = self.wrap(module)
        alone = len(x) == 1  # every rank has the sample then, and only rank 0 a gradient
        mine = x if alone else x.tensor_split(self.processes)[self.rank]
        mine = mine.detach().clone().requires_grad_(grad_y is not None)
        y = Eager.forward(self, module, mine)
        grads: dict[str, Tensor | None] = {}
        if grad_y is not None:  # the ranks' gradients are averaged
            scaled = grad_y * self.processes
            y.backward(scaled * (self.rank == 0) if alone else scaled.tensor_split(self.processes)[self.rank])
            grads = {name: whole(parameter.grad) for name, parameter in self.parameters(module)}
        parts: list[Any] = [None] * self.processes
        torch.distributed.all_gather_object(parts, (y.detach(), mine.grad))
        parts = parts[:1] if alone else parts
        grad_x = None if grad_y is None else torch.cat([part[1] for part in parts]) / self.processes
        return torch.cat([part[0] for part in parts]), grad_x, grads

    def wrap(self, module: nn.Module) -> nn.Module:
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        return nn.parallel.DistributedDataParallel(module)

    def parameters(self, module: nn.Module) -> Any:
        return module.module.named_parameters()


class Sharded(Replicated):
    """Each rank holds a part of every parameter, too."""

    def wrap(self, module: nn.Module) -> nn.Module:
        from torch.distributed.fsdp import fully_shard

        mesh = torch.distributed.init_device_mesh("cpu", (self.processes,))
        return fully_shard(module, mesh=mesh)

    def fold(self, layer: Any) -> Any:
        return self.lead("gather", layer)

    def gather(self, layer: Any) -> Any:
        """The plain layer, from the state dict that the ranks gather: `fold` itself refuses sharded layers."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        plain = nn.Sequential(doconv_torch.fold(copy.deepcopy(layer)))
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter.fill_(7)
        sharded = self.wrap(nn.Sequential(layer))
        state = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True))
        plain.load_state_dict(doconv_torch.fold_state_dict(state, like=plain))
        return plain[0]

    def parameters(self, module: nn.Module) -> Any:
        return module.named_parameters()


def follow(way: type[Replicated], rank: int, file: Path) -> None:
    """What a rank beside the first does until the port ends."""
    torch.set_num_threads(1)
    follower = way.__new__(way)
    follower.join(rank, file)
    while True:
        follower.follow()


def whole(tensor: Any) -> Tensor | None:
    """A tensor, put together where it is sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


WAYS: dict[str, type[Eager]] = {
    "eager": Eager,
    "compiled": Compiled,
    "compiled-dynamic": CompiledDynamic,
    "autocast": Autocast,
    "channels-last": ChannelsLast,
    "func": Func,
    "vmap": Vmap,
    "jvp": Jvp,
    "exported": Exported,
    "onnx": Onnx,
    "onnx-torchscript": OnnxTorchscript,
    "aot": Aot,
    "checkpointed": Checkpointed,
    "composed-once": ComposedOnce,
    "composed-together": ComposedTogether,
    "recompute-kernels": RecomputeKernels,
    "by-channel": ByChannel,
    "replicated": Replicated,
    "sharded": Sharded,
}
