"""Files of checkpoints as nobody should write them: valid ones, changed where their structure makes it likely to matter."""

from __future__ import annotations

import argparse
import copy
import io
import json
import random
import struct
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from doconv_core.checkpoint import Arrays, Checkpoint, TensorFile, convert_file
from doconv_core.layouts import FRAMEWORKS

LEAVES: tuple[str, ...] = (
    "W",
    "D",
    "D_delta",
    "D_diag",
    "d_diag",
    "weight",
    "bias",
    "kernel",
    "scale",
    "gamma",
    "running_mean",
    "mean",
)
LEAVES += ("depthwise_kernel", "embedding", "embeddings", "moving_mean", "num_batches_tracked")
PATHS = (
    "",
    "a",
    "a.b",
    "module.a",
    "_orig_mod.a",
    "ema_a",
    "params/a",
    "params.a",
    "batch_stats.a",
    "é",
    "a\n",
    "x" * 300,
)
KEYS = ("model", "state_dict", "current_model_state", "ema", "model_ema", "params", "optimizer", "epoch", "teacher")
CODES = {"F32": 4, "F64": 8, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "C64": 8, "F8_E8M0": 1}
NUMBERS = (0, -1, 1, 2, 3, 9, 2**31, 2**40, 2**63, 2**64, 10**30, 1.5, -0.0, float("nan"), float("inf"), 1e308, True)
VALUES: tuple[Any, ...] = (
    *NUMBERS, None, "", "x", "\ud800", "\x1b[2J", "a" * 5000, [], {}, [[]], ["x", 2 * 10**9], [2**40], [3, 3], [1] * 100,
    "conv", "canonical", "keras", [0], [-1, -1],
)  # fmt: skip
TYPES = (*["f4"] * 30, "f8", "f2", ">f4", "i8", "?", "S3", "c16", "f4,i4")
Shapes = dict[str, tuple[str, tuple[int, ...]]]  # the code of the type and the shape of each tensor


def safetensors_file(rng: random.Random) -> bytes:
    """A safetensors file, its header changed as JSON or as bytes."""
    tensors, metadata = _tensors(rng), {"format": "pt"}
    if rng.random() < 0.4:
        tensors, metadata["doconv"] = _portable(rng)
    header: dict[str, Any] = {"__metadata__": metadata}
    position = 0
    for name, (code, shape) in tensors.items():
        size = CODES[code] * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        change_json(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        text = change_bytes(text, rng)
    data = (
        rng.randbytes(position) if rng.random() < 0.2 else np.ones(position // 4 + 1, np.float32).tobytes()[:position]
    )
    whole = struct.pack("<Q", len(text)) + text + data
    return change_bytes(whole, rng) if rng.random() < 0.1 else whole


def npz_file(rng: random.Random) -> bytes:
    """A `.npz`, the header of one of its arrays or its own bytes changed."""
    buffer = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),  # of two members of one name
        zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive,
    ):
        for name, (_, shape) in _tensors(rng).items():
            member = io.BytesIO()
            np.save(member, np.ones(shape, rng.choice(TYPES)))
            content = member.getvalue()
            if rng.random() < 0.1:
                content = content.replace(str(shape).encode(), str(rng.choice(VALUES)).encode("utf-8", "replace"), 1)
            if rng.random() < 0.1:
                content = change_bytes(content, rng)
            archive.writestr(f"{name.replace('.', '/')}:0.npy".replace("\n", ""), content)
    return change_bytes(buffer.getvalue(), rng) if rng.random() < 0.4 else buffer.getvalue()


def h5_file(rng: random.Random) -> bytes:
    """An HDF5 file of `tf.keras`, its bytes changed."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, (_, shape) in _tensors(rng).items():
            chunked: dict[str, Any] = {"chunks": True, "compression": "gzip"} if shape and 0 not in shape else {}
            options = chunked if rng.random() < 0.3 else {}
            with suppress(ValueError, OSError):  # names that stand in each other's way
                file.create_dataset(f"a/{name.replace('.', '/')}:0", data=np.ones(shape, "f4"), **options)
    return change_bytes(buffer.getvalue(), rng) if rng.random() < 0.8 else buffer.getvalue()


def index_file(rng: random.Random, ending: str = ".safetensors") -> bytes:
    """The index of two files, changed as JSON or as bytes."""
    one, two = f"one{ending}", f"two{ending}"
    index: dict[str, Any] = {"metadata": {"total_size": 1}, "weight_map": {"a.W": one, "b.W": one, "a.D": two}}
    for _ in range(rng.choice((0, 1, 2))):
        change_json(index, rng)
    text = json.dumps(index).encode("utf-8", "surrogatepass")
    return change_bytes(text, rng) if rng.random() < 0.3 else text


def pth_file(rng: random.Random) -> bytes:
    """A `.pth` of PyTorch: dicts around the state dict, odd values in it, what layers note of themselves, the bytes of the file
    or of its pickle changed.
    """
    import torch

    others = ("float64", "float16", "bfloat16", "int64", "bool", "complex64", "float8_e4m3fn", "float8_e5m2", "uint16")
    types = (*[torch.float32] * 60, *(getattr(torch, name) for name in others))
    loaded: Any = {name: torch.ones(shape, dtype=rng.choice(types)) for name, (_, shape) in _tensors(rng).items()}
    for _ in range(rng.choice((0, 0, 0, 0, 0, 1, 2))):
        loaded[rng.choice((*LEAVES, "a.W", 0, None, "n_averaged"))] = _odd(loaded, rng)
    if rng.random() < 0.3:
        loaded = OrderedDict(loaded)
        loaded._metadata = _notes(loaded, rng)
    for _ in range(rng.choice((0, 0, 1, 2))):
        beside = {rng.choice(KEYS): _odd(loaded, rng)} if rng.random() < 0.3 else {}
        loaded = beside | {rng.choice(KEYS): loaded}
    buffer = io.BytesIO()
    torch.save(loaded, buffer, _use_new_zipfile_serialization=rng.random() < 0.8)
    whole = buffer.getvalue()
    if zipfile.is_zipfile(buffer) and rng.random() < 0.3:
        whole = _repacked(whole, rng)
    return change_bytes(whole, rng) if rng.random() < 0.2 else whole


def _notes(loaded: dict[Any, Any], rng: random.Random) -> Any:
    """The metadata of a state dict, with a note of each layer, some of it changed."""
    sizes = ([3, 3], [2, 2], [1, 9], [9], [1, 3, 3], [2, 3])
    notes: Any = {
        name[:-1].rstrip("."): {
            "version": 1,
            "doconv": {"kernel_size": list(rng.choice(sizes)), "transposed": rng.random() < 0.3},
        }
        for name in loaded
        if isinstance(name, str) and name.endswith("W")
    }
    for _ in range(rng.choice((0, 0, 1, 2))):
        change_json(notes, rng)
    return notes if rng.random() < 0.95 else rng.choice(VALUES)


def _odd(loaded: dict[Any, Any], rng: random.Random) -> Any:
    """What stands in a `.pth` beside tensors, or in their place."""
    import torch

    odd: tuple[Callable[[], Any], ...] = (
        lambda: loaded, lambda: dict(loaded), lambda: rng.choice(VALUES), lambda: [torch.ones(2)], lambda: torch.ones(()),
        lambda: torch.ones(1).expand(2**rng.choice((4, 40)), 2, 9), lambda: torch.ones(2, 2).to_sparse(),
        lambda: torch.empty(2, 2, 9, device="meta"), lambda: torch.nn.Parameter(torch.ones(4, 2, 9)),
        lambda: torch.quantize_per_tensor(torch.ones(2, 2), 1.0, 0, torch.qint8), lambda: torch.ones(2, 2).T,
        lambda: argparse.Namespace(lr=0.1, model=loaded),
        lambda: torch.ones(4, 2, 9)[::2], lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):  # of kinds of tensors that PyTorch gives up
        return rng.choice(odd)()


def _repacked(whole: bytes, rng: random.Random) -> bytes:
    """The archive with its checksums right, one of its members changed: most often the pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        chosen = rng.choice((*[name for name in old.namelist() if name.endswith("data.pkl")] * 10, *old.namelist()))
        for name in old.namelist():
            new.writestr(name, change_bytes(old.read(name), rng) if name == chosen else old.read(name))
    return buffer.getvalue()


def _tensors(rng: random.Random) -> Shapes:
    """Names and shapes: those of layers, some of them changed."""
    found: Shapes = {}
    for _ in range(rng.randint(1, 4)):
        path, code = rng.choice(PATHS), rng.choice((*["F32"] * 20, *CODES))
        for leaf, shape in _layer(rng).items():
            name = leaf if rng.random() < 0.97 else rng.choice(LEAVES)
            axes = list(shape)
            if rng.random() < 0.04:
                axes[rng.randrange(len(axes))] = rng.choice((0, 1, 2, 3, 9, 27))
            if rng.random() < 0.02:
                axes.pop()
            kind = code if rng.random() < 0.98 else rng.choice(list(CODES))
            found[f"{path}.{name}" if path else name] = (kind, tuple(axes))
    return found


def _layer(rng: random.Random) -> dict[str, tuple[int, ...]]:
    groups, taps = rng.choice((1, 1, 2, 3)), rng.choice((1, 4, 9, 6))
    channels, outs, columns = groups * rng.randint(1, 3), groups * rng.randint(1, 3), taps + rng.choice((0, 0, 3))
    width = channels // groups
    layers: tuple[dict[str, tuple[int, ...]], ...] = (
        {"W": (outs, width, columns), "D": (channels, taps, columns), "bias": (outs,)},
        {"W": (outs, width, taps), "D": (channels, taps, taps), "D_diag": (channels, taps, taps)},
        {"W": (outs, width, columns), "D_delta": (channels, taps, columns)},
        {"W": (outs, width, 1)},
        {"kernel": (3, 3, width, outs), "D": (3, 3, 9, channels), "bias": (outs,)},
        {"kernel": (columns, width, outs), "D": (taps, columns, channels)},
        {"kernel": (columns, width, outs), "D": (2, 2, columns, channels)},
        {"weight": (outs, width, 3, 3), "D": (9, 9, channels)},
        {"depthwise_kernel": (3, 3, channels, 2)},
        {"weight": (outs, width, 3, 3), "bias": (outs,)},
        {"weight": (outs, channels), "bias": (outs,)},
        {"weight": (outs,), "bias": (outs,), "running_mean": (outs,), "running_var": (outs,)},
        {"scale": (outs,), "bias": (outs,), "mean": (outs,), "var": (outs,)},
    )
    return rng.choice(layers)


def _portable(rng: random.Random) -> tuple[Shapes, str]:
    """The tensors of a file of this project, and its value of the key "doconv", some of it changed."""
    tensors, value = _converted(rng.choice(FRAMEWORKS))
    changed = json.loads(value) | ({"aliases": {"again": "fc"}} if rng.random() < 0.2 else {})
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        change_json(changed, rng)
    text = json.dumps(changed)
    if rng.random() < 0.05:
        text = rng.choice((text[: rng.randrange(len(text))], "[" * 990 + "]" * 990, '{"a":' * 990))
    return tensors, text


@lru_cache
def _converted(layout: str) -> tuple[Shapes, str]:
    over: list[dict[str, tuple[int, ...]]] = [
        {"W": (4, 2, 9), "D": (4, 9, 9)},
        {"W": (6, 3, 11), "D": (3, 9, 11), "bias": (6,)},
    ]
    arrays = {f"l{i}.{leaf}": np.ones(shape, "f4") for i, layer in enumerate(over) for leaf, shape in layer.items()}
    arrays["fc.weight"] = np.ones((3, 2), "f4")
    with tempfile.TemporaryDirectory() as folder:
        convert_file(Checkpoint(Arrays("x", arrays), "x"), Path(folder) / "made", layout)
        with TensorFile(Path(folder) / "made") as made:
            return {name: (made.code(name), shape) for name, shape in made.shapes.items()}, made.metadata["doconv"]


def change_json(value: Any, rng: random.Random) -> None:
    """Change one place of a JSON value: another value, a key less, a key more, or one of another name."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items: dict[Any, Any] = (
            node if isinstance(node, dict) else dict(enumerate(node)) if isinstance(node, list) else {}
        )
        for key, item in items.items():
            places.append((node, key))
            walk(item)

    walk(value)
    if not places:
        return
    node, key = rng.choice(places)
    what = rng.random()
    if what < 0.6:
        node[key] = copy.deepcopy(rng.choice(VALUES))
    elif what < 0.75:
        del node[key]
    elif isinstance(node, dict):
        name = rng.choice((*LEAVES, "padding", "d_mul", "guessed", "transposed", "", "\ud800"))
        node[name] = copy.deepcopy(node[key])


def change_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change, insert, remove or repeat some bytes, or cut the end off."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not changed:
            break
        place, length = rng.randrange(len(changed)), rng.choice((1, 1, 2, 8, 100))
        what = rng.random()
        if what < 0.5:
            changed[place] ^= 1 << rng.randrange(8)
        elif what < 0.65:
            changed[place : place + length] = b""
        elif what < 0.8:
            changed[place:place] = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length, b"9" * length))
        elif what < 0.9:
            changed[place : place + length] = b"\xff" * length
        else:
            del changed[place:]
    return bytes(changed)
