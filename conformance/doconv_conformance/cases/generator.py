"""The numbers of the cases: a counter-based generator that any language reproduces with 64-bit integers.

    key   = the first eight bytes, big-endian, of SHA-256 of "<case id>/<tensor name>/<seed>" in UTF-8
    draw  = mix(key + (index + 1) * 0x9E3779B97F4A7C15)        index: of the element, in row-major order
    mix   = SplitMix64's finaliser; all arithmetic modulo 2**64

An integer in `low..high` is `low + draw % (high - low + 1)`; a float in [-1, 1) is `(draw >> 40) / 2**23 - 1`, exact in
float32, or `(draw >> 11) / 2**52 - 1`, exact in float64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np


def draws(label: str, shape: Sequence[int]) -> np.ndarray:
    """`uint64` draws of `shape` for a label."""
    key = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")
    index = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    z = np.uint64(key) + index * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(shape)


def integers(label: str, shape: Sequence[int], low: int, high: int) -> np.ndarray:
    """Integers in `low..high`, as float64."""
    return (low + (draws(label, shape) % np.uint64(high - low + 1)).astype(np.int64)).astype(np.float64)


def floats(label: str, shape: Sequence[int], bits: int = 24) -> np.ndarray:
    """Multiples of `2**(1 - bits)` in [-1, 1), as float64: 24 bits for float32 and lower, 53 for float64."""
    return (draws(label, shape) >> np.uint64(64 - bits)).astype(np.float64) / 2.0 ** (bits - 1) - 1.0
