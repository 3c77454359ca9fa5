"""Checkpoints without a framework: portable files, the authors' files, and tools that fold and convert them.

A portable checkpoint is one safetensors file. Its tensors are canonical (`doconv_core.layouts`): `<layer>.W` and
`<layer>.D_delta`, or `<layer>.weight`; `<layer>.bias` and the companions of `_layers.NAMES`. Its metadata has the key "doconv":
JSON with the format's version, the layout, and for each layer its kind and what is known of its geometry.

`_files.py` reads and writes safetensors, `_layers.py` names the tensors, `_recognise.py` finds layers where no metadata does,
`_original.py` reads the authors' files, `_checkpoint.py` opens all of them, `_tools.py` folds and converts files,
`_models.py` is what the backends save and load models with.
"""

from doconv_core.checkpoint._checkpoint import Arrays, Checkpoint, open_checkpoint, row_order
from doconv_core.checkpoint._format import CheckpointError
from doconv_core.checkpoint._reader import TensorFile
from doconv_core.checkpoint._writer import TensorWriter, write_tensors
from doconv_core.checkpoint._fold import fold_tensors
from doconv_core.checkpoint._layers import LayerInfo
from doconv_core.checkpoint._models import ModelLayer, ModelState, ModelTensor, NameMap, load_model, mapped, save_model
from doconv_core.checkpoint._recognise import Hints
from doconv_core.checkpoint._tools import Written, convert_file, fold_file

__all__ = [
    "Arrays",
    "Checkpoint",
    "CheckpointError",
    "Hints",
    "LayerInfo",
    "ModelLayer",
    "ModelState",
    "ModelTensor",
    "NameMap",
    "TensorFile",
    "TensorWriter",
    "Written",
    "convert_file",
    "fold_file",
    "fold_tensors",
    "load_model",
    "mapped",
    "open_checkpoint",
    "row_order",
    "save_model",
    "write_tensors",
]
