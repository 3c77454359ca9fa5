"""Where tensors come from: files of several kinds, or arrays in memory, all read one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doconv_core.checkpoint._archives import read_arrays
from doconv_core.checkpoint._format import CODES, CheckpointError
from doconv_core.checkpoint._noted import read_notes
from doconv_core.checkpoint._reader import Source, TensorFile
from doconv_core.checkpoint._shards import INDEX, PICKLED_INDEX, ShardedFile

BY_KERAS = (
    "load it into its model by Keras, and write that by doconv_keras.save_checkpoint(model, 'model.safetensors'), which every "
    "command reads"
)
BY_FLAX = (
    "restore it by the library that wrote it, and write it by doconv_flax.linen.save_checkpoint (or .nnx), or its parameters "
    "by safetensors.flax.save_file(flax.traverse_util.flatten_dict(params, sep='.'), 'model.safetensors')"
)
HELP = {  # of files that are not read, by their ending
    ".keras": f"is Keras's own: {BY_KERAS}",
    ".msgpack": f"is Flax's own: {BY_FLAX}",
    ".flax": f"is Flax's own: {BY_FLAX}",
}
INSIDE = {  # of folders, by what is in them
    "model.safetensors.index.json": "its checkpoint is model.safetensors.index.json",
    "model.safetensors": "its checkpoint is model.safetensors",
    "pytorch_model.bin.index.json": "its checkpoint is pytorch_model.bin.index.json",
    "pytorch_model.bin": "its checkpoint is pytorch_model.bin",
    ".metadata": (
        "a distributed checkpoint of PyTorch: torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, 'model.pth') "
        "makes one file of it"
    ),
    "zero_to_fp32.py": "DeepSpeed's: its zero_to_fp32.py makes one file of it",
    "_METADATA": f"Orbax's: {BY_FLAX}",
    "saved_model.pb": f"TensorFlow's: {BY_KERAS}",
}
ARCHIVES = (".h5", ".hdf5", ".npz")
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pickle", ".pdparams", ".params")
TORCH_HELP = (
    "which only PyTorch reads: model.load_state_dict(torch.load(path)) (of the authors' code: doconv_torch.load_original), "
    "fold it by the command `doconv fold` where PyTorch is installed, or save its state dict as safetensors"
)
RUNS_CODE = (
    "which may run code when it is loaded, so it is not: load it where you trust it, and write its arrays by "
    "safetensors.numpy.save_file(arrays, 'model.safetensors')"
)
PICKLE_HELP = {
    ".pkl": RUNS_CODE,
    ".pickle": RUNS_CODE,
    ".pdparams": "of NumPy arrays, which Paddle reads: safetensors.numpy.save_file(paddle.load(...)) makes a file of it",
    ".params": "or MXNet's own format: numpy.savez(path, **{n: p.data().asnumpy() for n, p in net.collect_params().items()})",
}


class Arrays(Source):
    """Arrays in memory, or anything that becomes one by `numpy.asarray`, by name, as a `Source`.

    Args:
        label: what errors call them.
        arrays: by name.
        modules: the metadata of the state dict that they are of, in which layers may note what shapes do not show.

    Raises:
        CheckpointError: a name that is no string, or an array of a type that the format lacks.
    """

    def __init__(self, label: str, arrays: Mapping[str, Any], modules: Any = None) -> None:
        self.noted = read_notes(modules)
        self._arrays, self.metadata = arrays, dict[str, str]()
        self._codes: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, array in arrays.items():
            if not isinstance(name, str):
                raise CheckpointError(f"{label}: names must be strings. Received: {name!r}")
            kind = np.dtype(array.dtype)
            if kind.newbyteorder("=") not in CODES:
                raise CheckpointError(f"{label}: {name} has a type that the format lacks. Received: {array.dtype}")
            self._codes[name] = CODES[kind.newbyteorder("=")]
            self.shapes[name] = tuple(array.shape)

    def code(self, name: str) -> str:
        return self._codes[name]

    def array(self, name: str) -> np.ndarray:
        array = np.asarray(self._arrays[name])
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def chunks(self, name: str) -> Iterator[memoryview]:
        yield np.ascontiguousarray(self.array(name)).reshape(-1).view(np.uint8).data


def unread(path: Path) -> str:
    """What to do with a file or folder of a format that is not read; "" for any other."""
    if path.is_dir():
        found = next((help for name, help in INSIDE.items() if (path / name).exists()), "one file is read at a time")
        return f"{path} is a folder: {found}. Received: {path}"
    help = next((help for ending, help in HELP.items() if path.name.endswith(ending)), "")
    return f"{path} {help}. Received: {path.name}" if help else ""


def open_source(path: Path) -> Source:
    """The tensors of a file, whatever kind of file it is.

    Raises:
        CheckpointError: it cannot be read.
        ImportError: an `.h5` file, and h5py is not installed.
        OSError: it cannot be opened.
    """
    if help := unread(path):
        raise CheckpointError(help)
    if path.suffix.lower() in ARCHIVES:
        return Arrays(str(path), read_arrays(path))
    if path.name.endswith(PICKLED_INDEX):
        raise CheckpointError(f"{path} lists pickles, {TORCH_HELP}. Received: {path.name}")
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, {PICKLE_HELP.get(path.suffix.lower(), TORCH_HELP)}. Received: {path.name}"
        )
    return ShardedFile(path) if path.name.endswith(INDEX) else TensorFile(path)
