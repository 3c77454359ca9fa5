"""Canonical layouts to a framework's, and back, as permutations of named axes.

An axis has a letter: `n` batch, `c` channels of an activation, `x` all spatial axes, `i` input channels, `o` output channels
(of a group, where the kernel is grouped), `k` the kernel's axes, `s` the depth multiplier, `m` the channel multiplier of a
depthwise kernel. A layout is the string of its axes: a plain kernel is `oik` in PyTorch and `kio` in Keras and Flax.

| | activation | kernel | `W` | `D_delta` |
|---|---|---|---|---|
| canonical | `ncx` | `oik`, transposed `iok` | `ois`, transposed `ios` | `iks` (`k` one axis) |
| torch | `ncx` | as canonical | as canonical | as canonical |
| keras, flax | `nxc` | `kio`, Keras transposed `koi` | the kernel's, `k` replaced by one `s` axis where `S != K` | `ksi` |
| keras depthwise | `nxc` | `kim` | the same | `ksi` |
"""

from __future__ import annotations

import numpy as np

from doconv_core.geometry import ConvGeometry

FRAMEWORKS = ("canonical", "torch", "keras", "flax")


class Layout:
    """How one framework stores the tensors of one convolution.

    Args:
        framework: "canonical", "torch", "keras" or "flax".
        geometry: the convolution.
        depthwise: a Keras `DepthwiseConv`, whose kernel is `(*kernel_size, C_in, multiplier)`.
        transpose_kernel: Flax's option of that name (transposed convolutions only). Where it is False, Flax's kernel is
            `(*kernel_size, C_in, C_out)` and its taps are in reverse order.

    Raises:
        ValueError: an unknown framework, or `depthwise` where the groups are not the input channels.
    """

    def __init__(
        self, framework: str, geometry: ConvGeometry, *, depthwise: bool = False, transpose_kernel: bool = False
    ) -> None:
        if framework not in FRAMEWORKS:
            raise ValueError(f"framework must be one of {', '.join(FRAMEWORKS)}. Received: {framework!r}")
        if depthwise and (geometry.groups != geometry.in_channels or geometry.transposed):
            raise ValueError(f"a depthwise kernel has groups == in_channels. Received: {geometry.describe()}")
        self.geometry = geometry
        self.depthwise = depthwise
        self.channels_last = framework in ("keras", "flax")
        self.reversed_taps = framework == "flax" and geometry.transposed and not transpose_kernel
        # Where the first two canonical axes go, `oi`, transposed `io`: the kernel is `kio`, transposed and not reversed `koi`.
        self._channel_axes = (-2, -1) if self.reversed_taps else (-1, -2)

    def activation_from_canonical(self, x: np.ndarray) -> np.ndarray:
        """`(N, C, *space)` to the framework's order."""
        return np.moveaxis(x, 1, -1) if self.channels_last else x

    def activation_to_canonical(self, x: np.ndarray) -> np.ndarray:
        """The framework's order to `(N, C, *space)`."""
        return np.moveaxis(x, -1, 1) if self.channels_last else x

    def kernel_from_canonical(self, kernel: np.ndarray) -> np.ndarray:
        """A composed kernel `(C_out, C_in/G, *kernel_size)`, transposed `(C_in, C_out/G, *kernel_size)`."""
        return self._channels_from_canonical(self._reverse_taps(kernel))

    def kernel_to_canonical(self, kernel: np.ndarray) -> np.ndarray:
        """The inverse of `kernel_from_canonical`."""
        return self._reverse_taps(self._channels_to_canonical(kernel))

    def w_from_canonical(self, w: np.ndarray) -> np.ndarray:
        """`W`, canonical `(C_out, C_in/G, S)`, transposed `(C_in, C_out/G, S)`."""
        w = self._reverse_columns(w)
        if not self.channels_last:
            return w
        if self.geometry.d_mul == self.geometry.taps:
            w = w.reshape(*w.shape[:2], *self.geometry.kernel_size)
        return self._channels_from_canonical(w)

    def w_to_canonical(self, w: np.ndarray) -> np.ndarray:
        """The inverse of `w_from_canonical`."""
        if self.channels_last:
            w = self._channels_to_canonical(w)
        return self._reverse_columns(w.reshape(*w.shape[:2], -1))

    def d_from_canonical(self, d: np.ndarray) -> np.ndarray:
        """`D_delta`, canonical `(C_in, K, S)`; Keras and Flax `(*kernel_size, S, C_in)`."""
        d = self._reverse_columns(d)
        d = d[:, ::-1] if self.reversed_taps else d
        if not self.channels_last:
            return d
        return np.moveaxis(d, 0, -1).reshape(*self.geometry.kernel_size, d.shape[2], d.shape[0])

    def d_to_canonical(self, d: np.ndarray) -> np.ndarray:
        """The inverse of `d_from_canonical`."""
        if self.channels_last:
            d = np.moveaxis(d.reshape(-1, *d.shape[-2:]), -1, 0)
        d = d[:, ::-1] if self.reversed_taps else d
        return self._reverse_columns(d)

    def _channels_from_canonical(self, kernel: np.ndarray) -> np.ndarray:
        if self.depthwise:  # o = i * multiplier + m, and the group's one input channel is the middle axis
            kernel = kernel.reshape(self.geometry.in_channels, -1, *kernel.shape[2:])
            return np.moveaxis(kernel, (0, 1), (-2, -1))
        return np.moveaxis(kernel, (0, 1), self._channel_axes) if self.channels_last else kernel

    def _channels_to_canonical(self, kernel: np.ndarray) -> np.ndarray:
        if self.depthwise:
            kernel = np.moveaxis(kernel, (-2, -1), (0, 1))
            return kernel.reshape(self.geometry.out_channels, 1, *kernel.shape[2:])
        return np.moveaxis(kernel, self._channel_axes, (0, 1)) if self.channels_last else kernel

    def _reverse_taps(self, kernel: np.ndarray) -> np.ndarray:
        return np.flip(kernel, tuple(range(2, kernel.ndim))) if self.reversed_taps else kernel

    def _reverse_columns(self, tensor: np.ndarray) -> np.ndarray:
        """Reverse the columns of each tile of `E` with the taps, so that the identity stays the identity."""
        if not self.reversed_taps:
            return tensor
        taps, multiplier = self.geometry.taps, self.geometry.d_mul
        columns = np.arange(multiplier)
        tiled = multiplier - multiplier % taps
        columns[:tiled] = columns[:tiled].reshape(-1, taps)[:, ::-1].ravel()
        return tensor[..., columns]
