"""The other layers of a file by the names and shapes of their tensors: convolutions, linear layers, embeddings, norms."""

from __future__ import annotations

from doconv_core.checkpoint._do_layers import Leaves, is_transposed, outputs, plain_sizes
from doconv_core.checkpoint._hints import Shapes
from doconv_core.checkpoint._layers import LayerInfo
from doconv_core.checkpoint._reading import Reading

# The names of a normalisation's tensors by their role, in Keras and in Flax.
KERAS_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
FLAX_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def torch_plain(reading: Reading, path: str, leaves: Leaves, shape: Shapes) -> LayerInfo | None:
    """A layer of PyTorch's names; None where it is none that is known here."""
    if "running_mean" in leaves:
        return LayerInfo("batch_norm", {role: leaves[role] for role in BATCH_NORM if role in leaves})
    kernel = "weight"
    if "weight" not in leaves and len(shape.get("W", ())) in (4, 5):
        kernel = "W"  # a folded layer of the authors', as some of their users write it
    weight, bias = shape.get(kernel, ()), shape.get("bias")
    if len(weight) not in (1, 2, 3, 4, 5) or (len(weight) > 2 and 0 in weight):
        return None
    transposed = len(weight) > 2 and is_transposed(reading, path, weight, shape)
    if bias is not None and bias != (outputs(weight[1], shape) if transposed else weight[0],):
        return None
    tensors = {"weight": leaves[kernel]} | ({"bias": leaves["bias"]} if bias is not None else {})
    if len(weight) == 1:
        return LayerInfo("norm", tensors)
    if len(weight) == 2:
        return _matrix(reading, path, tensors)
    if kernel == "W":
        reading.note("W of more than three axes is taken for a folded kernel", path)
    geometry, guessed = plain_sizes(weight[:2], shape, transposed)
    return LayerInfo("conv", tensors, geometry | {"kernel_size": list(weight[2:])}, guessed=guessed)


def channels_last_plain(reading: Reading, path: str, leaves: Leaves, shape: Shapes) -> LayerInfo | None:
    """A layer of Keras's or Flax's names; None where it is none that is known here."""
    bias = {"bias": leaves["bias"]} if "bias" in leaves else {}
    kernel = shape.get("kernel", ())
    if kernel and shape.get("bias", kernel[-1:]) != kernel[-1:]:
        return None  # a depthwise or a transposed layer of Keras, whose names are Flax's
    if reading.dialect == "original-tf" and len(shape.get("depthwise_kernel", ())) in (3, 4, 5):
        return _depthwise(leaves, shape["depthwise_kernel"], bias)
    if len(kernel) == 2:
        return LayerInfo("linear", {"weight": leaves["kernel"]} | bias)
    if len(kernel) in (3, 4, 5) and 0 not in kernel:
        geometry = {"in_channels": kernel[-2], "out_channels": kernel[-1], "kernel_size": list(kernel[:-2])}
        return LayerInfo("conv", {"weight": leaves["kernel"]} | bias, geometry, guessed=("in_channels", "groups"))
    for names in (KERAS_NORM, FLAX_NORM):
        tensors = {role: leaves[leaf] for role, leaf in names.items() if leaf in leaves}
        if "running_mean" in tensors:
            return LayerInfo("batch_norm", tensors)
        if "weight" in tensors and len(shape[names["weight"]]) == 1:
            return LayerInfo("norm", {role: name for role, name in tensors.items() if role in ("weight", "bias")})
    embedding = next((leaf for leaf in ("embeddings", "embedding") if len(shape.get(leaf, ())) == 2), None)
    return LayerInfo("embedding", {"weight": leaves[embedding]}) if embedding else None


def _matrix(reading: Reading, path: str, tensors: dict[str, str]) -> LayerInfo:
    if not reading.matches(path, reading.hints.embeddings):
        return LayerInfo("linear", tensors)
    if "bias" in tensors:
        reading.fail(f"{path} has a bias, which no embedding has. Received: embedding {path}")
    return LayerInfo("embedding", tensors)


def _depthwise(leaves: Leaves, shape: tuple[int, ...], bias: dict[str, str]) -> LayerInfo | None:
    *size, channels, multiplier = shape
    if 0 in shape:
        return None
    geometry = {
        "in_channels": channels,
        "out_channels": channels * multiplier,
        "kernel_size": size,
        "groups": channels,
    }
    return LayerInfo("conv", {"weight": leaves["depthwise_kernel"]} | bias, geometry, depthwise=True)
