"""What each kind of file is read by, and used for where it can be read."""

from __future__ import annotations

import copy
import io
import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save, save_file

from doconv_conformance.adapters.core import CorePort
from doconv_conformance.cli.inspect import describe
from doconv_conformance.cli.pickles import SUFFIXES, load_pickle, load_shards
from doconv_conformance.maintenance import fuzz_files
from doconv_conformance.maintenance.fuzz_files import change_bytes, change_json
from doconv_conformance.protocol.session import file_pair
from doconv_conformance.running import vectors
from doconv_conformance.running.layer_cases import plan_layers, read_layer
from doconv_conformance.running.offline import check_folder
from doconv_conformance.running.picture import load_picture
from doconv_conformance.running.recordings import open_recordings
from doconv_core.checkpoint import (
    Arrays,
    Checkpoint,
    CheckpointError,
    Hints,
    convert_file,
    fold_file,
    layer_stats,
    open_checkpoint,
)
from doconv_core.checkpoint._shards import PICKLED_INDEX
from doconv_core.layouts import FRAMEWORKS

CASE, OPERATION = vectors.select_for_files("forward")[0]  # what the folders of vectors have
OUTPUTS = str(file_pair(Path("vectors", "cases"), CASE.id, OPERATION)[1])


def check_checkpoint(path: Path, rng: random.Random) -> bool:
    """Use a checkpoint in every way; what it may raise is a `CheckpointError`. Returns whether it could be opened."""
    dialect = rng.choice((*[None] * 6, "original-torch", "original-tf"))
    said = (Hints(exclude="*"), Hints(transposed="*"), Hints({"*": (3, 3)}), Hints({"*": (2, 3)}), Hints(prefix="a"))
    hints = rng.choice((*[Hints()] * 10, *said))
    if path.suffix in SUFFIXES and rng.random() < 0.2:
        return _load_original(path)
    try:
        with _open(path, rng, dialect=dialect, hints=hints) as checkpoint:
            _use(checkpoint, rng)
            return True
    except CheckpointError as error:
        return _refuse(error)


def _open(path: Path, rng: random.Random, **options: Any) -> Checkpoint:
    """Open a file as the commands do."""
    ema = rng.random() < 0.02
    if path.name.endswith(PICKLED_INDEX):
        return Checkpoint(load_shards(path)[0], str(path), **options)
    if path.suffix not in SUFFIXES:
        return open_checkpoint(path, **options, ema=ema)
    tensors, _ = load_pickle(path, key="model" if rng.random() < 0.02 else None, ema=ema)
    return Checkpoint(tensors, str(path), **options)


def _use(checkpoint: Checkpoint, rng: random.Random) -> None:
    json.dumps(describe(checkpoint), allow_nan=False)
    for layer, info in checkpoint.layers.items():
        with suppress(CheckpointError):
            checkpoint.read(layer)
        with suppress(CheckpointError):
            if info.has_d:
                layer_stats(checkpoint, layer)
    with suppress(CheckpointError):
        fold_file(checkpoint, os.devnull)
    with suppress(CheckpointError):
        convert_file(checkpoint, os.devnull, rng.choice(FRAMEWORKS))


def _load_original(path: Path) -> bool:
    """As a user of PyTorch, with a model of one layer; what does not fit it is left out."""
    import torch

    from doconv_torch import DOConv2d, load_original

    try:
        load_original(path, torch.nn.ModuleDict({"a": DOConv2d(2, 4, 3)}), strict=False)
        return True
    except ValueError as error:
        return _refuse(error)


def check_recordings(path: Path, rng: random.Random) -> bool:
    """Recorded activations, as `doconv compare --checkpoint --inputs` reads them."""
    checkpoint = Checkpoint(Arrays("model", _model()), "model")
    try:
        recordings = open_recordings(path, checkpoint)
        for plan in plan_layers(checkpoint, recordings):
            read_layer(checkpoint, plan, recordings)
        recordings.source.close()
        return True
    except ValueError as error:
        return _refuse(error)


def check_picture(path: Path, rng: random.Random) -> bool:
    """A picture, as `doconv compare --image` reads it."""
    try:
        load_picture(path)
        return True
    except ValueError as error:
        return _refuse(error)


def check_vectors(path: Path, rng: random.Random) -> bool:
    """A folder of vectors with a port's answers and outputs, as `doconv vectors check` reads it."""
    try:
        folder = next(parent for parent in path.parents if parent.name == "vectors")
        return bool(check_folder(folder, [(CASE, OPERATION)]).outputs)
    except ValueError as error:
        return _refuse(error)


def recordings_file(rng: random.Random, *, npz: bool) -> bytes:
    """Activations for two layers, some of them of other names, shapes or types; then the bytes changed."""
    arrays = {"a": np.ones((1, 2, 5, 5), "f4"), "b/c": np.ones((2, 2, 3, 4), "f4")}
    for name in tuple(arrays):
        if rng.random() < 0.2:
            arrays[rng.choice(("a", "b.c", "x", "é", ""))] = arrays.pop(name)
        elif rng.random() < 0.3:
            axes = [rng.choice((0, 1, 2, 3, 5, 6)) for _ in range(rng.choice((0, 1, 3, 4, 5)))]
            values = rng.choice((1, float("nan"), 1e300))
            with np.errstate(over="ignore"):
                arrays[name] = np.full(axes, values).astype(rng.choice(("f4", "f2", "f8")))
        elif rng.random() < 0.1:
            arrays[name] = arrays[name].astype(rng.choice(("i4", "?")))
    if npz:
        buffer = io.BytesIO()
        np.savez(buffer, **{name or "a": array for name, array in arrays.items()})  # type: ignore[arg-type]
        whole = buffer.getvalue()
    else:
        whole = save(arrays)
    return change_bytes(whole, rng) if rng.random() < 0.5 else whole


def picture_file(rng: random.Random) -> bytes:
    """A picture of one of several formats and modes, its bytes changed."""
    from PIL import Image

    mode, kind = rng.choice(
        (("RGB", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG"),
         ("F", "TIFF"), ("RGB", "TIFF"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "BMP"), ("L", "PPM"))
    )  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = rng.choice((1, 3, 6, 9))
    buffer = io.BytesIO()
    picture = Image.new(mode, (rng.choice((1, 31, 40)), 40))
    picture.save(buffer, kind, **({"exif": exif} if kind == "JPEG" else {}))
    return change_bytes(buffer.getvalue(), rng) if rng.random() < 0.8 else buffer.getvalue()


def manifest_file(rng: random.Random) -> bytes:
    """The list of a folder of vectors, a small part of it, changed."""
    return _changed_lines([json.loads(_manifest())], rng)


def answers_file(rng: random.Random) -> bytes:
    """What a port answered, changed."""
    hello: dict[str, Any] = {"type": "hello", "protocol": [1], "name": "port", "version": "1", "language": "C"}
    hello |= {"supports": copy.deepcopy(CorePort.supports), "numerics": copy.deepcopy(CorePort.numerics)}
    status = rng.choice(("ok", "error", "unsupported"))
    result = {"type": "result", "id": f"{CASE.id}/{OPERATION}", "status": status, "reason": "x"}
    return _changed_lines([hello, result], rng)


def outputs_file(rng: random.Random) -> bytes:
    """The outputs of a port: the right ones, or others, the bytes changed."""
    outputs = _right_outputs()
    if rng.random() < 0.3:
        shape, kind = rng.choice(((), (0,), (3, 2, 1))), rng.choice(("f4", "i8", "?"))
        outputs |= {rng.choice((*outputs, "x")): np.full(shape, 1, kind)}
    return change_bytes(save(outputs), rng) if rng.random() < 0.8 else save(outputs)


def _changed_lines(values: list[Any], rng: random.Random) -> bytes:
    """JSON values, one per line, changed as JSON or as bytes."""
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        change_json(values, rng)
    lines = [json.dumps(value).encode("utf-8", "surrogatepass") for value in values]
    if rng.random() < 0.05:
        lines.append(rng.choice((b"[" * 100_000, b'{"a":' * 990, b"1" * 5000, b"\xff", b"")))
    whole = b"\n".join(lines)
    return change_bytes(whole, rng) if rng.random() < 0.2 else whole


def _refuse(error: Exception) -> bool:
    str(error).encode("utf-8", "surrogatepass")
    return False


@cache
def _model() -> dict[str, np.ndarray]:
    return {
        "a.W": np.ones((4, 2, 9), "f4"), "a.D": np.ones((2, 9, 9), "f4"),
        "b.c.W": np.ones((2, 2, 4), "f4"), "b.c.D": np.ones((2, 4, 4), "f4"),
    }  # fmt: skip


@cache
def _manifest() -> str:
    """The list of a folder of vectors, but for most of the cases: all of them take a tenth of a second to check."""
    whole = json.loads(vectors.stored())
    return json.dumps(whole | {"cases": whole["cases"][:3]})


def _right_outputs() -> dict[str, np.ndarray]:
    return CorePort().forward(CASE.geometry, CASE.inputs(OPERATION))


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: the bytes of a file from random numbers.
        name: of the file in its folder.
        check: reads and uses it; True where it could be read.
        prepare: puts what belongs to it into the folder.
        needs: a package that may not be installed.
    """

    make: Callable[[random.Random], bytes]
    name: str
    check: Callable[[Path, random.Random], bool] = check_checkpoint
    prepare: Callable[[Path], None] = lambda folder: None
    needs: str = "numpy"


def _prepare_shards(folder: Path) -> None:
    save_file({"a.W": np.ones((4, 2, 9), "f4"), "b.W": np.ones((2, 2, 1), "f4")}, folder / "one.safetensors")
    save_file({"a.D": np.ones((2, 9, 9), "f4")}, folder / "two.safetensors")


def _prepare_torch(folder: Path) -> None:
    """Load one file, for all that PyTorch imports at its first use: on a busy machine that takes longer than a file may."""
    import torch

    path = folder / "first.pth"
    torch.save({"a.W": torch.ones(4, 2, 9), "a.D": torch.ones(2, 9, 9)}, path)
    load_pickle(path)
    _load_original(path)


def _prepare_pickles(folder: Path) -> None:
    import torch

    torch.save({"a.W": torch.ones(4, 2, 9), "b.W": torch.ones(2, 2, 1)}, folder / "one.bin")
    torch.save({"a.D": torch.ones(2, 9, 9)}, folder / "two.bin")
    _prepare_torch(folder)


def _prepare_vectors(folder: Path) -> None:
    vectors.export(folder / "vectors", [(CASE, OPERATION)])
    (folder / "vectors" / vectors.MANIFEST).write_text(_manifest())
    save_file(_right_outputs(), folder / OUTPUTS)


KINDS = {
    "safetensors": Kind(fuzz_files.safetensors_file, "in.safetensors"),
    "npz": Kind(fuzz_files.npz_file, "in.npz"),
    "h5": Kind(fuzz_files.h5_file, "in.h5", needs="h5py"),
    "index": Kind(fuzz_files.index_file, "in.safetensors.index.json", prepare=_prepare_shards),
    "index-bin": Kind(
        partial(fuzz_files.index_file, ending=".bin"), "in.bin.index.json", prepare=_prepare_pickles, needs="torch"
    ),
    "pth": Kind(fuzz_files.pth_file, "in.pth", prepare=_prepare_torch, needs="torch"),
    "inputs": Kind(partial(recordings_file, npz=False), "in.safetensors", check_recordings),
    "inputs-npz": Kind(partial(recordings_file, npz=True), "in.npz", check_recordings),
    "picture": Kind(picture_file, "picture", check_picture, needs="PIL"),
    "manifest": Kind(manifest_file, f"vectors/{vectors.MANIFEST}", check_vectors, _prepare_vectors),
    "answers": Kind(answers_file, f"vectors/{vectors.ANSWERS}", check_vectors, _prepare_vectors),
    "outputs": Kind(
        outputs_file,
        OUTPUTS,
        check_vectors,
        _prepare_vectors,
    ),
}
