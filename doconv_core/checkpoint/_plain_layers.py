"""The other layers of a file by the names and shapes of their tensors: convolutions, linear layers, embeddings, norms."""

from __future__ import annotations

from doconv_core.checkpoint._do_layers import is_transposed, outputs, plain_sizes
from doconv_core.checkpoint._layers import LayerInfo, names_of
from doconv_core.checkpoint._reading import Candidate


def torch_plain(layer: Candidate) -> LayerInfo | None:
    """A layer of PyTorch's names; None where it is none that is known here."""
    if "running_mean" in layer.stored:
        return LayerInfo("batch_norm", layer.roles(**names_of("batch_norm", "torch")))
    kernel = "weight"
    if "weight" not in layer.stored and layer.rank("W") in (4, 5):
        kernel = "W"  # a folded layer of the authors', as some of their users write it
    weight, bias = layer.shapes.get(kernel, ()), layer.shapes.get("bias")
    if len(weight) not in (1, 2, 3, 4, 5) or (len(weight) > 2 and 0 in weight):
        return None
    transposed = len(weight) > 2 and is_transposed(layer, weight)
    if bias is not None and bias != (outputs(weight[1], layer.shapes) if transposed else weight[0],):
        return None
    tensors = layer.roles(weight=kernel, bias="bias")
    if len(weight) == 1:
        return LayerInfo("norm", tensors)
    if len(weight) == 2:
        return _matrix(layer, tensors)
    if kernel == "W":
        layer.note("W of more than three axes is taken for a folded kernel")
    geometry, guessed = plain_sizes(weight[:2], layer.shapes, transposed)
    return LayerInfo("conv", tensors, geometry | {"kernel_size": list(weight[2:])}, guessed=guessed)


def channels_last_plain(layer: Candidate) -> LayerInfo | None:
    """A layer of Keras's or Flax's names; None where it is none that is known here."""
    kernel, tensors = layer.shapes.get("kernel", ()), layer.roles(weight="kernel", bias="bias")
    if kernel and layer.shapes.get("bias", kernel[-1:]) != kernel[-1:]:
        return None  # a depthwise or a transposed layer of Keras, whose names are Flax's
    if layer.reading.dialect == "original-tf" and layer.rank("depthwise_kernel") in (3, 4, 5):
        return _depthwise(layer)
    if len(kernel) == 2:
        return LayerInfo("linear", tensors)
    if len(kernel) in (3, 4, 5) and 0 not in kernel:
        geometry = {"in_channels": kernel[-2], "out_channels": kernel[-1], "kernel_size": list(kernel[:-2])}
        return LayerInfo("conv", tensors, geometry, guessed=("in_channels", "groups"))
    for layout in ("keras", "flax"):
        normalised = layer.roles(**names_of("batch_norm", layout))
        if "running_mean" in normalised:
            return LayerInfo("batch_norm", normalised)
        for kind, rank in (("norm", 1), ("embedding", 2)):
            if layer.rank(names_of(kind, layout)["weight"]) == rank:
                return LayerInfo(kind, layer.roles(**names_of(kind, layout)))
    return None


def _matrix(layer: Candidate, tensors: dict[str, str]) -> LayerInfo:
    path, reading = layer.path, layer.reading
    if not reading.matches(path, reading.hints.embeddings):
        return LayerInfo("linear", tensors)
    if "bias" in tensors:
        reading.fail(f"{path} has a bias, which no embedding has. Received: embedding {path}")
    return LayerInfo("embedding", tensors)


def _depthwise(layer: Candidate) -> LayerInfo | None:
    *size, channels, multiplier = layer.shapes["depthwise_kernel"]
    if 0 in (*size, channels, multiplier):
        return None
    sizes = {"in_channels": channels, "out_channels": channels * multiplier, "kernel_size": size, "groups": channels}
    return LayerInfo("conv", layer.roles(weight="depthwise_kernel", bias="bias"), sizes, depthwise=True)
