"""The authors' own checkpoints, read without their code or a framework.

- PyTorch: a layer is `W` `(C_out, C_in/G, S)`, `D` `(C_in, K, S)` and the stored identity, `D_diag` before July 2022 and
  `d_diag` after it; `D` is what is added to the identity. A kernel of one tap is `W` alone. Names may begin with `module.`, as
  `DataParallel` saves them.
- TensorFlow: a layer is `kernel` `(S, C_in/G, C_out)` and `D` `(K, S, C_in)`, in the HDF5 files of `tf.keras`.

All have two spatial axes. How rows of `D` pair with kernels is `doconv_core.dialect_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doconv_core.checkpoint._format import CheckpointError

PREFIX = "module."  # of every name, as DataParallel saves them


def read_arrays(path: Path) -> dict[str, Any]:
    """The weights of an HDF5 file of `tf.keras`, or of a `.npz` with the same names, by dotted name: `conv1.kernel`.

    Nothing is read before an array is used.

    Raises:
        CheckpointError: the file cannot be read, or was written by Keras 3, whose names say nothing.
        ImportError: h5py is not installed.
    """
    if path.suffix == ".npz":
        try:
            with np.load(path) as archive:
                return _named({name: archive[name] for name in archive.files})
        except (ValueError, OSError, EOFError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading an .h5 file needs h5py: pip install h5py") from error
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise CheckpointError(f"{path} is not a readable HDF5 file: {error}") from None
    root = file.get("model_weights", file)
    found: dict[str, Any] = {}
    root.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    if any("/vars/" in name for name in found):
        raise CheckpointError(
            f"{path} was written by Keras 3, not by the authors' tf.keras: load it there and use doconv_keras.save_checkpoint. "
            f"Received: {next(name for name in found if '/vars/' in name)}"
        )
    # `<layer>/<scope of the weight>/kernel:0`; the scope repeats the layer's name, in a nested or subclassed model with more.
    return _named({name.split("/", 1)[1] if name.count("/") > 1 else name: item for name, item in found.items()})


def _named(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removesuffix(":0").replace("/", "."): tensor for name, tensor in tensors.items()}
