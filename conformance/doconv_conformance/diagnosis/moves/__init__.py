"""Ways in which elements of a tensor change places or are lost: what ports do to `W`, `D`, the kernel, `x`, `y`, the bias.

Each is a fault with one hook. Written once for the forward direction; the gradient of what was moved follows.
"""

from doconv_conformance.diagnosis.moves.activations import of_activations, of_bias
from doconv_conformance.diagnosis.moves.generic import AXES, TENSORS, move
from doconv_conformance.diagnosis.moves.kernels import of_kernel
from doconv_conformance.diagnosis.moves.parameters import of_d, of_w

__all__ = ["AXES", "TENSORS", "move", "of_activations", "of_bias", "of_d", "of_kernel", "of_w"]
