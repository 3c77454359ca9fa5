"""The composition by products along the taps of a kernel: the formula, on the weights where they lie.

Only operations that PyTorch's derivatives, transforms, compilers and exporters know; nothing here depends on a memory layout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[..., Tensor]
# From so many numbers on a CPU adds the products to a copy: one array less that the system has to give.
MANY_NUMBERS = 2**18


def swap(x: Tensor, groups: int) -> Tensor:
    """`(C_out, C_in/G, n)` to the order of input channels `(C_in, C_out/G, n)`, or back; a view but for groups of several."""
    if groups == 1:
        return x.transpose(0, 1)
    if len(x) == groups or x.shape[1] == 1:
        return x if len(x) == groups * x.shape[1] == groups else x.reshape(groups * x.shape[1], -1, x.shape[2])
    return x.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def _plus_product(fit: Product, x: Tensor, by_channel: Tensor, D: Tensor, groups: int) -> Tensor:
    """`x`, fit to the columns of `D`, and its product with `D`; `by_channel` is `x` in the order of input channels."""
    columns = D.shape[2]
    if groups > 1:
        return swap(torch.baddbmm(fit(by_channel, columns), by_channel, D), groups)
    plain = fit(x, columns)
    if plain.numel() >= MANY_NUMBERS and plain.device.type == "cpu" and not torch.is_grad_enabled():
        total = plain.clone()
        total.transpose(0, 1).baddbmm_(by_channel, D)
        return total
    return plain + torch.bmm(by_channel, D).transpose(0, 1)


def composed(W: Tensor, D: Tensor, groups: int, plus_product: Product = _plus_product) -> Tensor:
    """`W E^T + D ∘ W`: `W` `(C_out, C_in/G, S)`, `D` `(C_in, K, S)`; gives `(C_out, C_in/G, K)`."""
    return plus_product(sum_tiles, W, swap(W, groups), D.transpose(1, 2), groups)


def gradients(
    W: Tensor, D: Tensor, grad: Tensor, groups: int, needs: tuple[bool, ...], plus_product: Product = _plus_product
) -> tuple[Tensor | None, Tensor | None]:
    """`dL/dW = g E + D^T g` and `dL/dD = sum g W^T` over the kernels that read an input channel, where needed."""
    # Channels last, as some convolutions give it, `bmm` would copy each channel's matrix by itself.
    grad = grad.contiguous()
    g = swap(grad, groups)
    grad_W = plus_product(spread_tiles, grad, g, D, groups) if needs[0] else None
    grad_D = None
    if needs[1]:
        left, right = g.transpose(1, 2), swap(W, groups)
        grad_D = left * right if right.shape[1] == 1 else torch.bmm(left, right)
    return grad_W, grad_D


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
