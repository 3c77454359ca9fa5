"""The order in which a model keeps `W` in memory."""

from __future__ import annotations

import torch

from doconv_torch._layers import DOConvMixin, M, check_module


@torch.no_grad()
def store_by_channel(model: M) -> M:
    """Store each large `W` in the memory order `(C_in, S, C_out)`, in place: a CPU composes it faster.

    Names, shapes and values stay as they are; gradients and the optimizer's state take the same order: call it before the
    optimizer is built. As with `model.to(memory_format=torch.channels_last)`, the parameters are no longer
    contiguous: FSDP2 and `torch.nn.utils.parameters_to_vector` refuse them, and `safetensors` wants `W.contiguous()`. Layers
    with groups, transposed layers and kernels of one tap stay as they are.

    Args:
        model: a module, or a single layer.

    Returns:
        `model`.

    Raises:
        TypeError: `model` is not a module.
    """
    check_module(model)
    for layer in model.modules():
        if isinstance(layer, DOConvMixin) and layer.D is not None and layer.groups == 1 and not layer.transposed:
            layer.W.data = layer.W.data.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return model
