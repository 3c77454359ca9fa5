"""The safetensors format: its types, its header, and the checks that a header must pass.

Eight bytes with the length of a JSON header, the header (name, type, shape and byte range of each tensor), then the bytes.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

DTYPES: dict[str, np.dtype] = {
    code: np.dtype(kind)
    for code, kind in {
        "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "C64": np.complex64,
        "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "BOOL": np.bool_,
        "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
        "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    }.items()
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}
# Bits of every type of the format, in the order in which the library puts tensors of different types.
BITS = {
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F32": 32, "U32": 32, "I32": 32, "BF16": 16, "F16": 16, "U16": 16, "I16": 16,
    "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8,
    "F6_E3M2": 6, "F6_E2M3": 6, "F4": 4, "BOOL": 8,
}  # fmt: skip
ORDER = {code: place for place, code in enumerate(BITS)}
OTHERS = {  # files of other formats, by their first bytes
    b"PK\x03\x04": "a zip archive: PyTorch's need a name that ends in .pth, NumPy's in .npz",
    b"\x80": "a pickle: PyTorch's need a name that ends in .pth",
    b"\x89HDF": "an HDF5 file: of tf.keras, it needs a name that ends in .h5",
    b"\x93NUMPY": "one array of NumPy: numpy.savez(path, **{'conv.W': W, 'conv.D': D}) keeps names",
    b"GGUF": "a GGUF file, which holds no layers of this kind",
    b"version ": "a pointer of Git LFS and not the file: `git lfs pull` gets it",
    b"\x1f\x8b": "compressed by gzip: `gunzip` it first",
    b"{": "JSON: the index of several files needs a name that ends in .safetensors.index.json or .bin.index.json",
    b"<": "a web page, as a download leaves that went wrong",
}
LONGEST_HEADER = 100_000_000  # the library's limit
MOST_AXES = 64  # NumPy's limit
BYTES_OF_AN_ENTRY = 2000  # at most, without strings: `:{:,:[64 axes],:[0,1]},`
STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
LONGEST_REASON = 300  # characters: the library may quote a whole header
EXPLAINED = 1_000_000  # bytes of a header that is looked at again to say what is wrong with it

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # the code of its type and the shape of every tensor


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit; the text names the file and the tensor."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file: the format's code of its type, its shape, and its byte range counted from the file's start."""

    code: str
    shape: tuple[int, ...]
    start: int
    end: int


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, for `object_pairs_hook`.

    Raises:
        ValueError: a key that stands twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"a key occurs twice. Received: {twice!r}")
    return values


def some(names: Iterable[str], shown: int) -> str:
    """The first of many names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def count_bytes(code: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * BITS[code] // 8


def read_header(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors of a file in the order of their bytes, and its metadata."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 0 < length <= min(size - 8, LONGEST_HEADER):
            raise _no_header(path, first, length, size)
        text = file.read(length)
        if length > EXPLAINED:
            _check_density(path, text)
        # The library goes first: it refuses most nonsense without building it in memory.
        fault = _fault_by_library(path)
        if fault and length > EXPLAINED:
            raise fault
        listed, metadata = _parse(path, text)
    stored = _check_ranges(path, listed, 8 + length, size)
    if fault:
        raise fault
    return stored, metadata


def kind_of(first: bytes) -> str:
    """What a file of another format is, by its first bytes; "" where they are not known."""
    return next((kind for start, kind in OTHERS.items() if first.startswith(start)), "")


def _no_header(path: Path, first: bytes, length: int, size: int) -> CheckpointError:
    """What a file is whose first bytes give no length that a header has."""
    kind = kind_of(first)
    if kind and (len(first) < 8 or length > LONGEST_HEADER):  # not one that is truncated
        return CheckpointError(
            f"{path} is no safetensors file, it is {kind}. Received: a file that begins with {first!r}"
        )
    return CheckpointError(
        f"{path} is not a safetensors file, or is truncated: its header should have {length} bytes. Received: {size} bytes"
    )


def make_header(tensors: Tensors, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The first bytes of a file of `tensors`, in the library's order, and the byte range of each tensor after them."""
    check_metadata(metadata)
    for name in tensors:
        _check_text("the name of a tensor must be a string", name, repr(name))
    if "__metadata__" in tensors:
        raise ValueError("the format keeps a name for itself. Received: a tensor '__metadata__'")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ranges: dict[str, tuple[int, int]] = {}
    position = 0
    for name in sorted(tensors, key=lambda name: (ORDER[tensors[name][0]], name)):
        code, shape = tensors[name]
        start, position = position, position + count_bytes(code, shape)
        ranges[name] = (start, position)
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, position]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEADER:
        raise ValueError(f"the format has headers of {LONGEST_HEADER} bytes at most. Received: {len(text)} bytes")
    return struct.pack("<Q", len(text)) + text, ranges


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise unless a file can hold `metadata`.

    Raises:
        TypeError: keys or values that are not strings.
        ValueError: such that UTF-8 cannot write.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(f"the metadata of a file must map strings to strings. Received: {type(metadata).__name__}")
    for key, value in metadata.items():
        _check_text("the metadata of a file must be strings", key, f"{key!r}: {value!r}")
        _check_text("the metadata of a file must be strings", value, f"{key!r}: {value!r}")


def _check_text(rule: str, text: object, received: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{rule}. Received: {received}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{rule} that UTF-8 can write. Received: {received}") from None


def _check_density(path: Path, text: bytes) -> None:
    """Of a large header, refuse what cannot be tensors: lists of 50 million numbers take gigabytes to read as JSON."""
    outside = sum(len(part) for part in STRING.split(text))
    tensors = text.count(b'"dtype"')
    if outside > EXPLAINED + BYTES_OF_AN_ENTRY * tensors:
        raise CheckpointError(
            f"{path} has no readable safetensors header: {tensors} tensors do not need {outside} bytes. "
            f"Received: a header of {len(text)} bytes"
        )


def _fault_by_library(path: Path) -> CheckpointError | None:
    """A second opinion: what passes here can be read by every user of the format."""
    try:
        with safe_open(path, "numpy"):
            return None
    except SafetensorError as error:
        return CheckpointError(f"{path} is not a valid safetensors file: {str(error)[:LONGEST_REASON]}")


def _parse(path: Path, text: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    begin = 8 + len(text)

    def compact(pairs: list[tuple[str, Any]]) -> Any:
        """Each tensor as soon as it is read: a million of them as dicts would take a gigabyte."""
        values = without_twins(pairs)
        if isinstance(values.get("data_offsets"), list) and isinstance(values.get("shape"), list):
            first, last = values["data_offsets"]
            return Stored(
                str(values["dtype"]),
                tuple(map(index, values["shape"])),
                begin + index(first),
                begin + index(last),
            )
        return values

    try:
        header = json.loads(text, object_pairs_hook=compact)
        metadata = header.pop("__metadata__", None) or {}
        for entry in header.values():
            if not isinstance(entry, Stored):
                entry["dtype"], entry["shape"], entry["data_offsets"]
                raise TypeError("no tensor")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has no readable safetensors header: {type(error).__name__}: {error}") from None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path} has metadata that are not strings. Received: {type(metadata).__name__}")
    return header, metadata


def _check_ranges(path: Path, listed: dict[str, Stored], begin: int, size: int) -> dict[str, Stored]:
    """The tensors in the order of their bytes, which must follow each other from `begin` to the end of the file."""
    stored = dict(sorted(listed.items(), key=lambda item: (item[1].start, item[1].end)))
    position = begin
    for name, tensor in stored.items():
        if tensor.start != position or tensor.end < tensor.start:
            raise CheckpointError(
                f"{path}: the header lies about {name}, whose bytes must begin where the last tensor's end, at "
                f"{position - begin}. Received: {_number(tensor.start - begin)} to {_number(tensor.end - begin)}"
            )
        if tensor.end > size:
            raise CheckpointError(
                f"{path} is truncated: {name} ends at byte {_number(tensor.end)}. Received: a file of {size} bytes"
            )
        _check_shape(path, name, tensor)
        position = tensor.end
    if position != size:
        raise CheckpointError(f"{path}: the tensors end at byte {position}. Received: a file of {size} bytes")
    return stored


def _check_shape(path: Path, name: str, tensor: Stored) -> None:
    def lie(text: str) -> NoReturn:
        raise CheckpointError(f"{path}: the header lies about {name}, {text}")

    if len(tensor.shape) > MOST_AXES:
        lie(f"which can have {MOST_AXES} axes at most. Received: {len(tensor.shape)} axes")
    if any(not 0 <= axis < 2**63 for axis in tensor.shape):
        lie(f"whose axes must be from 0 to 2^63. Received: {', '.join(map(_number, tensor.shape))}")
    if tensor.code in BITS and count_bytes(tensor.code, tensor.shape) != tensor.end - tensor.start:
        lie(
            f"{tensor.code} of shape {tensor.shape} has {count_bytes(tensor.code, tensor.shape)} bytes. "
            f"Received: {tensor.end - tensor.start} bytes"
        )


def _number(value: int) -> str:
    """An integer for a message; Python writes no integers of thousands of digits."""
    if abs(value) < 2**64:
        return str(value)
    return f"about {'-' if value < 0 else ''}2^{value.bit_length() - 1}"
