"""What a user says of a file that does not say it itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
Patterns = str | Sequence[str]


@dataclass(frozen=True)
class Hints:
    """What the names and shapes of a state dict leave open. Patterns are globs of layer paths, one or several.

    A pattern that matches no layer is an error where the file is opened: it is misspelt, or the layer is called otherwise.

    Attributes:
        kernel_sizes: the kernel size of the convolutions that a pattern matches.
        transposed: patterns of transposed convolutions.
        embeddings: patterns of embeddings, which otherwise count as linear layers.
        like: the shapes of the plain model's tensors, `<layer>.weight` among them; every over-parameterized layer must be one
            of its layers.
        exclude: patterns of layers that are none of ours, whatever their tensors are called; they are passed on as they are.
        prefix: what to drop from the names that have it; None leaves it to the rule of `_prefixes.py`, "" drops nothing.
        known: kernel sizes by path, not by pattern, as far as a model has such layers; the file need not have them.
        known_transposed: paths of `known` that are transposed convolutions.
        like_transposed: those of `like`'s names that are kernels of transposed convolutions; None where it does not show them.

    Raises:
        TypeError: a value of another type.
    """

    kernel_sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    transposed: Patterns = ()
    embeddings: Patterns = ()
    like: Shapes = field(default_factory=dict)
    exclude: Patterns = ()
    prefix: str | None = None
    known: Mapping[str, Sequence[int]] = field(default_factory=dict)
    known_transposed: Collection[str] = ()
    like_transposed: Collection[str] | None = None

    def __post_init__(self) -> None:
        for name in ("transposed", "embeddings", "exclude"):
            object.__setattr__(self, name, _patterns(name, getattr(self, name)))
        for name in ("kernel_sizes", "known"):
            sizes = getattr(self, name)
            if not isinstance(sizes, Mapping) or not all(isinstance(pattern, str) for pattern in sizes):
                raise TypeError(f"{name} must map globs of layer paths to kernel sizes. Received: {sizes!r}")
            object.__setattr__(self, name, {pattern: _size(name, pattern, size) for pattern, size in sizes.items()})
        if not isinstance(self.like, Mapping):
            raise TypeError(f"like must map names to shapes. Received: {type(self.like).__name__}")
        if not isinstance(self.prefix, str | None):
            raise TypeError(f"prefix must be a string. Received: {self.prefix!r}")


def _patterns(name: str, patterns: Any) -> tuple[str, ...]:
    found = (patterns,) if isinstance(patterns, str) else patterns
    if not isinstance(found, Sequence) or not all(isinstance(pattern, str) for pattern in found):
        raise TypeError(f"{name} must be a glob of layer paths, or several. Received: {patterns!r}")
    return tuple(found)


def _size(name: str, pattern: str, size: Any) -> tuple[int, ...]:
    axes = tuple(size) if hasattr(size, "__iter__") else (size,)
    if not axes or not all(hasattr(axis, "__index__") and not isinstance(axis, bool) for axis in axes):
        raise TypeError(f"{name} must map globs to integers, one per axis. Received: {pattern!r}: {size!r}")
    return tuple(index(axis) for axis in axes)
