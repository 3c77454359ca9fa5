"""The composition by products along the taps of a kernel: the formula, on the weights where they lie.

Only operations that PyTorch's derivatives, transforms, compilers and exporters know; nothing here depends on a memory layout.
"""

from __future__ import annotations

import torch
from torch import Tensor

# From so many numbers on a CPU adds the products to a copy: one array less that the system has to give.
MANY_NUMBERS = 2**18


def composed(W: Tensor, D: Tensor, groups: int) -> Tensor:
    """`W E^T + D ∘ W`: `W` `(C_out, C_in/G, S)`, `D` `(C_in, K, S)`; gives `(C_out, C_in/G, K)`."""
    return _plus_product(sum_tiles(W, D.shape[1]), _by_channel(W, groups), D.transpose(1, 2), groups)


def gradients(
    W: Tensor, D: Tensor, grad: Tensor, groups: int, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """`dL/dW = g E + D^T g` and `dL/dD = sum g W^T` over the kernels that read an input channel, where needed."""
    # Channels last, as some convolutions give it, `bmm` would copy each channel's matrix by itself.
    grad = grad.contiguous()
    g = _by_channel(grad, groups)
    grad_W = _plus_product(spread_tiles(grad, D.shape[2]), g, D, groups) if needs[0] else None
    grad_D = None
    if needs[1]:
        left, right = g.transpose(1, 2), _by_channel(W, groups)
        grad_D = left * right if right.shape[1] == 1 else torch.bmm(left, right)
    return grad_W, grad_D


def _by_channel(W: Tensor, groups: int) -> Tensor:
    """`(C_out, C_in/G, S)` to `(C_in, C_out/G, S)`, a view unless there are groups of several channels."""
    if groups == 1:
        return W.transpose(0, 1)
    if W.shape[1] == 1:
        return W.reshape(groups, -1, W.shape[2])
    return W.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def _plus_product(plain: Tensor, by_channel: Tensor, D: Tensor, groups: int) -> Tensor:
    """`plain`, `(C_out, C_in/G, K)`, and the products of each input channel, in the order of `plain`."""
    if groups == 1:
        if plain.numel() >= MANY_NUMBERS and plain.device.type == "cpu" and not torch.is_grad_enabled():
            total = plain.clone()
            total.transpose(0, 1).baddbmm_(by_channel, D)
            return total
        return plain + torch.bmm(by_channel, D).transpose(0, 1)
    product = torch.bmm(by_channel, D)
    if plain.shape[1] == 1:
        return plain + product.view(plain.shape)
    by_kernel = product.unflatten(0, (groups, -1)).transpose(1, 2)
    return (plain.unflatten(0, (groups, -1)) + by_kernel).flatten(0, 1)


def sum_tiles(W: Tensor, taps: int, dim: int = 2) -> Tensor:
    """`W E^T`: `S` columns along `dim` to `K`; surplus columns take no part."""
    tiles = W.shape[dim] // taps
    return W if W.shape[dim] == taps else W.narrow(dim, 0, tiles * taps).unflatten(dim, (tiles, taps)).sum(dim)


def spread_tiles(g: Tensor, columns: int, dim: int = 2) -> Tensor:
    """`g E`, the transpose of `sum_tiles`: `K` columns along `dim` to `S`, zeros in the surplus columns."""
    tiles, surplus = divmod(columns, g.shape[dim])
    if g.shape[dim] == columns:
        return g
    copies = g.repeat([tiles if axis == dim else 1 for axis in range(3)])
    return torch.nn.functional.pad(copies, (0, 0) * (2 - dim) + (0, surplus))
