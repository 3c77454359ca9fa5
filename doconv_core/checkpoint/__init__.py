"""Checkpoints without a framework: portable files, the authors' files, and tools that fold and convert them.

A portable checkpoint is one safetensors file. Its tensors are canonical (`doconv_core.layouts`): `<layer>.W` and
`<layer>.D_delta`, or `<layer>.weight`; `<layer>.bias` and the companions of `_layers.NAMES`. Its metadata has the key "doconv":
JSON with the format's version, the layout, and for each layer its kind and what is known of its geometry.

| file | subject |
|---|---|
| `_format.py`, `_reader.py`, `_writer.py`, `_shards.py` | safetensors: header, reader, writer, an index of several files |
| `_archives.py`, `_pickles.py` | NumPy's `.npz` and the HDF5 files of `tf.keras`; PyTorch's `.pth` by PyTorch |
| `_sources.py` | any file, or arrays, as a source of tensors |
| `_layers.py`, `_metadata.py` | what a layer is, and what a file of this project says about it |
| `_prefixes.py`, `_hints.py`, `_reading.py` | what names, the user and assumptions say where a file does not |
| `_do_layers.py`, `_plain_layers.py`, `_recognise.py` | layers by the names and shapes of their tensors |
| `_checkpoint.py`, `_nested.py` | a checkpoint opened; the weights among the rest that a training script saved |
| `_fold.py`, `_tools.py` | fold arrays; fold and convert files |
| `_stats.py` | what training made of a layer |
| `_models.py` | what the backends save and load models with |
"""

from doconv_core.checkpoint._checkpoint import Checkpoint, open_checkpoint, row_order
from doconv_core.checkpoint._fold import fold_tensors
from doconv_core.checkpoint._format import CheckpointError
from doconv_core.checkpoint._hints import Hints
from doconv_core.checkpoint._layers import LayerInfo
from doconv_core.checkpoint._models import (
    ModelLayer,
    ModelState,
    ModelTensor,
    NameMap,
    check_name_map,
    load_model,
    mapped,
    save_model,
)
from doconv_core.checkpoint._nested import find_average, find_state
from doconv_core.checkpoint._pickles import read_pickle
from doconv_core.checkpoint._reader import TensorFile
from doconv_core.checkpoint._shards import ShardedFile, listed_shards, shard_paths
from doconv_core.checkpoint._sources import Arrays, open_source
from doconv_core.checkpoint._stats import LayerStats, layer_stats
from doconv_core.checkpoint._tools import Written, convert_file, fold_file
from doconv_core.checkpoint._writer import TensorWriter, write_tensors

__all__ = [
    "Arrays",
    "Checkpoint",
    "CheckpointError",
    "Hints",
    "LayerInfo",
    "LayerStats",
    "ModelLayer",
    "ModelState",
    "ModelTensor",
    "NameMap",
    "ShardedFile",
    "TensorFile",
    "TensorWriter",
    "Written",
    "check_name_map",
    "convert_file",
    "find_average",
    "find_state",
    "fold_file",
    "fold_tensors",
    "layer_stats",
    "listed_shards",
    "load_model",
    "mapped",
    "open_checkpoint",
    "open_source",
    "read_pickle",
    "row_order",
    "save_model",
    "shard_paths",
    "write_tensors",
]
