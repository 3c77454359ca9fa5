"""A checkpoint in several files with an index, as Hugging Face writes large ones: read and written file by file.

`model.safetensors.index.json` has a `weight_map` from the name of each tensor to that of its file, which lies beside the index;
`pytorch_model.bin.index.json` the same of PyTorch's files, which are only read, by a function that the caller hands in.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from doconv_core.checkpoint._format import CheckpointError, Tensors, count_bytes, without_twins
from doconv_core.checkpoint._reader import Gathered, Source, TensorFile
from doconv_core.checkpoint._writer import TensorWriter
from doconv_core.outputs import Output

INDEX, PICKLED_INDEX = ".safetensors.index.json", ".bin.index.json"
LONGEST_INDEX = 100_000_000


class ShardedFile(Gathered):
    """The files of an index as one `Source`.

    Args:
        path: the index.
        opener: what opens one of its files; by default they are safetensors.

    Attributes:
        shapes: of every tensor.
        metadata: the strings of the files, which agree.
        index_metadata: what the index says beside the map.
        shards: the files, in the order of their names.
        shard_of: for each tensor, the number of its file.

    Raises:
        CheckpointError: the index cannot be read, names a file outside its folder, or does not agree with the files.
        OSError: a file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], opener: Callable[[Path], Source] = TensorFile) -> None:
        self.path = Path(path)
        weight_map, self.index_metadata = _read_index(self.path)
        self.shards = listed_shards(self.path)
        numbers = {shard.name: number for number, shard in enumerate(self.shards)}
        self.shard_of = {name: numbers[shard] for name, shard in weight_map.items()}
        metadata: dict[str, str] = {}
        files: list[Source] = []
        with ExitStack() as stack:
            for shard in self.shards:
                files.append(stack.enter_context(opener(shard)))
                for key, value in files[-1].metadata.items():
                    if metadata.setdefault(key, value) != value:
                        raise CheckpointError(f"{shard} has other metadata than the files before it. Received: {key!r}")
            for shard, file in zip(self.shards, files, strict=True):
                said = {name for name, listed in weight_map.items() if listed == shard.name}
                if wrong := sorted(said ^ file.shapes.keys()):
                    raise CheckpointError(f"{self.path} and {shard} do not agree on its tensors. Received: {wrong[0]}")
            stack.pop_all()
        super().__init__({name: (files[number], name) for name, number in self.shard_of.items()}, metadata)


class ShardedWriter:
    """Several files and their index, with the interface of `TensorWriter`. Nothing is published before all are on the disk.

    Args:
        path: the index to write; the files are named after it, `<name>-00001-of-00002.safetensors` beside it.
        tensors: the code of its type and the shape of every tensor.
        metadata: strings to store in every file.
        shard_of: for each tensor, the number of its file.
        index_metadata: what else the index says; sizes are counted again.

    Raises:
        TypeError, ValueError, OSError: as `TensorWriter`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tensors: Tensors,
        metadata: Mapping[str, str],
        shard_of: Mapping[str, int],
        index_metadata: Mapping[str, Any],
    ) -> None:
        self.path = Path(path)
        groups: dict[int, dict[str, tuple[str, tuple[int, ...]]]] = {}
        for name in tensors:
            groups.setdefault(shard_of[name], {})[name] = tensors[name]
        self._writer_of: dict[str, TensorWriter] = {}
        weight_map: dict[str, str] = {}
        for shard, number in zip(shard_paths(self.path, len(groups)), sorted(groups), strict=True):
            self._writer_of |= dict.fromkeys(groups[number], TensorWriter(shard, groups[number], metadata))
            weight_map |= dict.fromkeys(groups[number], shard.name)
        self._writers = list(dict.fromkeys(self._writer_of.values()))
        self.order = [name for writer in self._writers for name in writer.order]
        self.size = sum(writer.size for writer in self._writers)
        self.is_stream = any(writer.is_stream for writer in self._writers)
        sizes = {"total_size": sum(count_bytes(*tensor) for tensor in tensors.values())}
        if "total_parameters" in index_metadata:
            sizes["total_parameters"] = sum(math.prod(shape) for _, shape in tensors.values())
        index = {"metadata": {**index_metadata, **sizes}, "weight_map": dict(sorted(weight_map.items()))}
        self._index = (json.dumps(index, indent=2) + "\n").encode()

    def __enter__(self) -> ShardedWriter:
        with ExitStack() as stack:
            for writer in self._writers:
                writer.__enter__()
                stack.callback(writer.discard)
            stack.pop_all()
        return self

    def write(self, name: str, data: np.ndarray | memoryview, offset: int = 0) -> None:
        """As `TensorWriter.write`."""
        self._writer_of[name].write(name, data, offset)

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            if kind is None:
                for writer in self._writers:
                    writer.sync()
                with Output(self.path, len(self._index)) as index:
                    index.put(self._index)
                    for writer in self._writers:
                        writer.publish()
        finally:
            for writer in self._writers:
                writer.discard()  # nothing is left of what is not published


def listed_shards(index: Path) -> list[Path]:
    """The files of an index that is there, in the order of their names.

    Raises:
        CheckpointError: the index cannot be read, names a file outside its folder or one that is not there.
    """
    return [index.parent / name for name in sorted(set(_read_index(index)[0].values()))]


def shard_paths(index: Path, count: int) -> list[Path]:
    """The files of an index: `model.safetensors.index.json` has `model-00001-of-00002.safetensors` and so on."""
    stem = index.name.removesuffix(INDEX)
    return [index.with_name(f"{stem}-{number:05d}-of-{count:05d}.safetensors") for number in range(1, count + 1)]


def _read_index(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    ending = ".bin" if path.name.endswith(PICKLED_INDEX) else ".safetensors"
    if path.stat().st_size > LONGEST_INDEX:
        raise CheckpointError(f"{path} is too large for an index. Received: {path.stat().st_size} bytes")
    try:
        index = json.loads(path.read_bytes(), object_pairs_hook=without_twins)
        weight_map, metadata = index["weight_map"], index.get("metadata") or {}
        names = [(name, shard) for name, shard in weight_map.items()]
        sizes = {key: value for key, value in metadata.items() if type(value) in (int, float, str)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not an index of {ending[1:]} files: {type(error).__name__}: {error}"
        ) from None
    for name, shard in names:
        if not isinstance(shard, str) or not re.fullmatch(r"[^/\\\x00]+" + re.escape(ending), shard):
            raise CheckpointError(f"{path}: {name} must be in a file beside the index. Received: {shard!r}")
        if not (path.parent / shard).is_file():
            raise CheckpointError(f"{path}: the file of {name} is missing. Received: {shard}")
    return weight_map, sizes
