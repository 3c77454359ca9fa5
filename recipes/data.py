"""Data sets in their files' own formats, and batches that are the same for every framework.

Nothing is downloaded. `load` looks for the files where the usual packages put them, and otherwise says what to install.
"""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FASHION = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist


@dataclass(frozen=True)
class Part:
    """Inputs `(N, C, H, W)` float32, and targets: classes `(N,)` int64, or images as the inputs."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Data:
    train: Part
    validation: Part
    test: Part
    classes: int  # 0 where the targets are images
    crop: int = 0
    flip: bool = False

    def batches(self, seed: int, epoch: int, size: int) -> Iterator[Part]:
        """One epoch of whole batches, its order, crops and flips drawn from the seed and the epoch alone."""
        rng = np.random.default_rng([seed, 2, epoch])
        order = rng.permutation(len(self.train))
        for first in range(0, len(order) - size + 1, size):
            chosen = order[first : first + size]
            yield Part(augment(self.train.x[chosen], rng, self.crop, self.flip), self.train.y[chosen])


def augment(x: np.ndarray, rng: np.random.Generator, crop: int, flip: bool) -> np.ndarray:
    """Shift each picture by up to `crop` pixels either way over zeros, and mirror every second one, at random."""
    if crop:
        padded, (height, width) = np.pad(x, ((0, 0), (0, 0), (crop, crop), (crop, crop))), x.shape[2:]
        corners = rng.integers(0, 2 * crop + 1, (len(x), 2))
        x = np.stack([p[:, i : i + height, j : j + width] for p, (i, j) in zip(padded, corners, strict=True)])
    if flip:
        x = np.where(rng.random(len(x))[:, None, None, None] < 0.5, x[..., ::-1], x)
    return np.ascontiguousarray(x)


def load(
    name: str, *, folder: Path | None = None, train: int = 0, validation: int, crop: int = 0, flip: bool = False,
    sigma: float = 25.0, patch: int = 32,
) -> Data:  # fmt: skip
    """A data set by its name in `recipes.toml`.

    Args:
        name: "fashion-mnist", "cifar-10", "digits" or "photographs".
        folder: where its files are, if not in the usual place.
        train: how many examples to train on; 0 is all but the validation's.
        validation: how many examples, not trained on, choose the learning rate.
        crop: pixels of random shifts.
        flip: random mirrors.
        sigma: of the noise on photographs, of 255.
        patch: edge of a patch of a photograph, in pixels.

    Raises:
        FileNotFoundError: the files are not there; the text says what brings them.
        ValueError: an unknown name, a file that is not in the format, or too few examples.
    """
    if name == "photographs":
        return _photographs(train, validation, sigma, patch)
    readers = {"fashion-mnist": _fashion_mnist, "cifar-10": _cifar10, "digits": _digits}
    if name not in readers:
        raise ValueError(f"the data set must be one of {', '.join(readers)}, photographs. Received: {name!r}")
    whole, test = readers[name](folder)
    train = train or len(whole) - validation
    if train + validation > len(whole):
        raise ValueError(f"{name} has {len(whole)} examples. Received: train={train}, validation={validation}")
    mean, deviation = whole.x[:train].mean(), whole.x[:train].std()
    parts = [Part((part.x - mean) / deviation, part.y) for part in (whole, test)]
    held = slice(len(whole) - validation, None)
    return Data(
        Part(parts[0].x[:train], whole.y[:train]), Part(parts[0].x[held], whole.y[held]), parts[1],
        int(whole.y.max()) + 1, crop, flip,
    )  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of bytes (the format of MNIST), gzipped or not.

    Raises:
        ValueError: it is none, or is cut off.
    """
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        raw = stream.read()
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an IDX file of bytes")
    sizes = struct.unpack_from(f">{raw[3]}I", raw, 4)
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if values.size != np.prod(sizes):
        raise ValueError(f"{path}: {values.size} values where its header says {sizes}")
    return values.reshape(sizes)


def read_cifar(path: Path) -> Part:
    """One batch of CIFAR-10's Python version: pictures `(N, 3, 32, 32)` in 0 to 1."""
    with open(path, "rb") as stream:
        batch: dict[bytes, Any] = pickle.load(stream, encoding="bytes")
    pictures = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
    return Part(pictures.astype(np.float32) / 255, np.asarray(batch[b"labels"], np.int64))


def _fashion_mnist(folder: Path | None) -> tuple[Part, Part]:
    folder = folder or FASHION
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there: `apt-get install dataset-fashion-mnist`, or give the folder of the four "
            "*-ubyte.gz files by --data"
        )
    parts = []
    for name in ("train", "t10k"):
        images, labels = (read_idx(_either(folder, f"{name}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
        parts.append(Part(images[:, None].astype(np.float32) / 255, labels.astype(np.int64)))
    return parts[0], parts[1]


def _either(folder: Path, name: str) -> Path:
    zipped = folder / f"{name}.gz"
    return zipped if zipped.exists() else folder / name


def _cifar10(folder: Path | None) -> tuple[Part, Part]:
    if folder is None or not (folder / "test_batch").exists():
        raise FileNotFoundError(
            f"give the unpacked folder cifar-10-batches-py (torchvision.datasets.CIFAR10(ROOT, download=True) makes it) by "
            f"--data. Received: {folder}"
        )
    batches = [read_cifar(folder / f"data_batch_{number}") for number in range(1, 6)]
    whole = Part(np.concatenate([each.x for each in batches]), np.concatenate([each.y for each in batches]))
    return whole, read_cifar(folder / "test_batch")


def _digits(_: Path | None) -> tuple[Part, Part]:
    """scikit-learn's 1,797 digits of 8x8, in one fixed order; the last 397 are the test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = digits.images[order, None].astype(np.float32) / 16, digits.target[order].astype(np.int64)
    return Part(x[:1400], y[:1400]), Part(x[1400:], y[1400:])


def _photographs(train: int, validation: int, sigma: float, patch: int) -> Data:
    """Grey patches of scikit-learn's two photographs: trained on their left 60%, validated and tested on the rest."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    pictures = [picture.mean(axis=2).astype(np.float32) / 255 for picture in load_sample_images().images]
    edges = {"train": (0.0, 0.6), "validation": (0.6, 0.75), "test": (0.75, 1.0)}
    counts = {"train": train, "validation": validation, "test": 400}
    parts = {}
    for part, (left, right) in edges.items():
        clean = np.empty((counts[part], 1, patch, patch), np.float32)
        for target in clean:
            picture = pictures[rng.integers(len(pictures))]
            low, high = (int(edge * picture.shape[1]) for edge in (left, right))
            i, j = rng.integers(picture.shape[0] - patch), rng.integers(low, high - patch)
            target[0] = picture[i : i + patch, j : j + patch]
        noise = rng.normal(0, sigma / 255, clean.shape).astype(np.float32)
        parts[part] = Part(clean + noise - 0.5, clean - 0.5)
    return Data(**parts, classes=0)
