"""Data sets in their files' own formats, and batches that are the same for every framework.

`load` looks for the files where the usual packages put them, and otherwise says what to install. `downloaded` has them
fetched by a framework's own loader.
"""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import detection
import numpy as np
import pictures
import scenes

FASHION = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist


# What is learnt from a data set, by the end of its name, and how it is measured. Every other data set is of classes.
KINDS = {"classes": "accuracy, %", "images": "PSNR, dB", "masks": "mean IoU, %", "boxes": "AP at IoU 0.5, %"}


def kind_of(name: str) -> str:
    """Which of `KINDS` a data set of `recipes.toml` is."""
    end = name.rpartition("-")[2]
    return "images" if name == "photographs" else end if end in KINDS else "classes"


@dataclass(frozen=True)
class Part:
    """Inputs `(N, C, H, W)` float32, and their targets.

    Those are classes `(N,)` int64, images as the inputs, masks `(N, H, W)` int64 with `pictures.VOID` for pixels that do not
    count, or the arrays of `detection.targets`, made from `boxes`.
    """

    x: np.ndarray
    y: np.ndarray
    boxes: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        return len(self.x)


Halves = tuple[Part, Part, int]  # to train on, to test on, how many classes


@dataclass(frozen=True)
class Data:
    train: Part
    validation: Part
    test: Part
    kind: str  # of KINDS
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
    name: str, *, folder: Path | None = None, read: Halves | None = None, train: int = 0, validation: int,
    test: int = 400, crop: int = 0, flip: bool = False, sigma: float = 25.0, patch: int = 32, size: int = 64,
) -> Data:  # fmt: skip
    """A data set by its name in `recipes.toml`.

    Args:
        name: see `READERS`; or "photographs", "scenes-masks" and "scenes-boxes", which are made here.
        folder: where its files are, if not in the usual place.
        read: what `downloaded` returned, in place of the files.
        train: how many examples to train on; 0 is all but the validation's.
        validation: how many examples, not trained on, choose the learning rate.
        test: how many examples to make for the test, of a data set that is made here.
        crop: pixels of random shifts, of pictures of classes.
        flip: random mirrors, of pictures of classes.
        sigma: of the noise on photographs, of 255.
        patch: edge of a patch of a photograph, in pixels.
        size: edge of a picture that is scaled or made here, in pixels.

    Raises:
        FileNotFoundError: the files are not there; the text says what brings them.
        ValueError: an unknown name, a file that is not in the format, too few examples, or crops and flips where there are no
            classes.
    """
    kind = kind_of(name)
    if (crop or flip) and kind != "classes":
        raise ValueError(f"crop and flip are for pictures of classes. Received: {name}, crop={crop}, flip={flip}")
    if name == "photographs":
        return _photographs(train, validation, test, sigma, patch)
    if name.startswith("scenes-"):
        return _scenes(kind, folder, (train, validation, test), size)
    if name not in READERS:
        known = ", ".join((*READERS, "photographs", "scenes-masks", "scenes-boxes"))
        raise ValueError(f"the data set must be one of {known}. Received: {name!r}")
    if read is None:
        read = READERS[name](folder, size, train + validation if train else 0, kind)
    whole, tested, classes = read
    train = train or len(whole) - validation
    if train + validation > len(whole):
        raise ValueError(f"{name} has {len(whole)} examples. Received: train={train}, validation={validation}")
    parts = _part(whole, 0, train), _part(whole, len(whole) - validation, len(whole)), tested
    return _scaled(parts, kind, classes, crop, flip)


def downloaded(name: str, framework: str, folder: Path) -> Halves:
    """The training and test part, fetched into `folder` by torchvision or TensorFlow Datasets, into `~/.keras` by Keras.

    TensorFlow Datasets has an order of its own: its batches are not those of the files.

    Raises:
        ValueError: a data set that the loaders do not all have.
        ImportError: the loader is not installed.
        RuntimeError: it could not fetch the data; the text has its reason.
    """
    if name not in ("fashion-mnist", "cifar-10"):
        raise ValueError(f"fashion-mnist and cifar-10 can be downloaded. Received: {name!r}")
    load = {"torch": _by_torchvision, "keras": _by_keras, "flax": _by_tfds}[framework]
    try:
        halves = load(name, folder)
    except ImportError:
        raise
    except Exception as error:  # each loader has its own, and some raise Exception itself
        raise RuntimeError(
            f"{name} could not be downloaded ({error}): give the folder of its files by --data"
        ) from error
    train, test = (_of_bytes(*half) for half in halves)
    return train, test, 10


def _by_torchvision(name: str, folder: Path) -> list[tuple[Any, Any]]:
    from torchvision import datasets

    of = datasets.FashionMNIST if name == "fashion-mnist" else datasets.CIFAR10
    halves = [of(str(folder), train=train, download=True) for train in (True, False)]
    return [(np.asarray(half.data), half.targets) for half in halves]


def _by_keras(name: str, _: Path) -> list[tuple[Any, Any]]:
    from keras import datasets

    return list((datasets.fashion_mnist if name == "fashion-mnist" else datasets.cifar10).load_data())


def _by_tfds(name: str, folder: Path) -> list[tuple[Any, Any]]:
    import tensorflow_datasets as tfds

    of = {"fashion-mnist": "fashion_mnist", "cifar-10": "cifar10"}[name]
    return list(
        tfds.as_numpy(tfds.load(of, split=["train", "test"], batch_size=-1, as_supervised=True, data_dir=folder))
    )


def _of_bytes(x: Any, y: Any) -> Part:
    """Pictures `(N, H, W)` or `(N, H, W, C)` of bytes."""
    bytes_ = np.asarray(x)
    planes = bytes_.reshape(*bytes_.shape[:3], -1).transpose(0, 3, 1, 2)
    return Part(planes.astype(np.float32) / 255, np.asarray(y, np.int64).ravel())


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


def _fashion_mnist(folder: Path | None, *_: object) -> Halves:
    folder = folder or FASHION
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there: `apt-get install dataset-fashion-mnist`, or give the folder of the four "
            "*-ubyte.gz files by --data, or have them fetched by --download"
        )
    parts = []
    for name in ("train", "t10k"):
        images, labels = (read_idx(_either(folder, f"{name}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
        parts.append(Part(images[:, None].astype(np.float32) / 255, labels.astype(np.int64)))
    return parts[0], parts[1], 10


def _either(folder: Path, name: str) -> Path:
    zipped = folder / f"{name}.gz"
    return zipped if zipped.exists() else folder / name


def _cifar10(folder: Path | None, *_: object) -> Halves:
    if folder is None or not (folder / "test_batch").exists():
        raise FileNotFoundError(
            f"give the unpacked folder cifar-10-batches-py by --data, or have it fetched by "
            f"--download. Received: {folder}"
        )
    batches = [read_cifar(folder / f"data_batch_{number}") for number in range(1, 6)]
    whole = Part(np.concatenate([each.x for each in batches]), np.concatenate([each.y for each in batches]))
    return whole, read_cifar(folder / "test_batch"), 10


def _digits(*_: object) -> Halves:
    """scikit-learn's 1,797 digits of 8x8, in one fixed order; the last 397 are the test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = digits.images[order, None].astype(np.float32) / 16, digits.target[order].astype(np.int64)
    return Part(x[:1400], y[:1400]), Part(x[1400:], y[1400:]), 10


def _folder(folder: Path | None, size: int, most: int, kind: str) -> Halves:
    return _halves(pictures.read_folder, folder, size, most, kind)


def _voc(folder: Path | None, size: int, most: int, kind: str) -> Halves:
    return _halves(pictures.read_voc, folder, size, most, kind)


def _coco(folder: Path | None, size: int, most: int, kind: str) -> Halves:
    return _halves(pictures.read_coco, folder, size, most, kind)


def _halves(
    reader: Callable[[Path, str, int, int, str], pictures.Read], folder: Path | None, size: int, most: int, kind: str
) -> Halves:
    """Trained on the split "train", tested on "val": the test's own answers are not in these data sets."""
    if folder is None:
        raise FileNotFoundError("give the folder of the data set by --data. Received: none")
    train, test = reader(folder, "train", size, most, kind), reader(folder, "val", size, 0, kind)
    if train[2] != test[2]:
        raise ValueError(f"train has {train[2]} classes and val {test[2]}, in {folder}")
    return _made(*train, kind), _made(*test, kind), train[2]


def _made(x: np.ndarray, found: Any, classes: int, kind: str) -> Part:
    if kind != "boxes":
        return Part(x, found)
    return Part(x, detection.targets(found, classes, x.shape[2]), found)


def _part(part: Part, first: int, last: int) -> Part:
    return Part(part.x[first:last], part.y[first:last], part.boxes[first:last])


def _scaled(parts: Sequence[Part], kind: str, classes: int, crop: int = 0, flip: bool = False) -> Data:
    """With mean 0 and deviation 1 over the pictures that are trained on."""
    mean, deviation = parts[0].x.mean(), parts[0].x.std()
    train, validation, test = (Part((part.x - mean) / deviation, part.y, part.boxes) for part in parts)
    return Data(train, validation, test, kind, classes, crop, flip)


def _scenes(kind: str, folder: Path | None, counts: tuple[int, int, int], size: int) -> Data:
    """Trained on the left 60% of the photographs, validated and tested on the rest, each with other clothes."""
    whole, test, _ = _fashion_mnist(folder)
    clothes = _part(whole, 0, len(whole) * 5 // 6), _part(whole, len(whole) * 5 // 6, len(whole)), test
    rng, parts = np.random.default_rng(0), []
    for part, span, count in zip(clothes, SPANS, counts, strict=True):
        x, masks, boxes = scenes.compose(part.x[:, 0], part.y, span, count, size, rng)
        parts.append(_made(x, masks if kind == "masks" else boxes, 10, kind))
    return _scaled(parts, kind, 11 if kind == "masks" else 10)


READERS: dict[str, Callable[[Path | None, int, int, str], Halves]] = {
    "fashion-mnist": _fashion_mnist, "cifar-10": _cifar10, "digits": _digits, "folder": _folder,
    "voc-masks": _voc, "voc-boxes": _voc, "coco-masks": _coco, "coco-boxes": _coco,
}  # fmt: skip
# Of the width of scikit-learn's photographs: trained, validated and tested on.
SPANS = ((0.0, 0.6), (0.6, 0.75), (0.75, 1.0))


def _photographs(train: int, validation: int, test: int, sigma: float, patch: int) -> Data:
    """Grey patches of scikit-learn's two photographs: trained on their left 60%, validated and tested on the rest."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    grey = [picture.mean(axis=2).astype(np.float32) / 255 for picture in load_sample_images().images]
    parts = []
    for (left, right), count in zip(SPANS, (train, validation, test), strict=True):
        clean = np.empty((count, 1, patch, patch), np.float32)
        for target in clean:
            picture = grey[rng.integers(len(grey))]
            low, high = (int(edge * picture.shape[1]) for edge in (left, right))
            i, j = rng.integers(picture.shape[0] - patch), rng.integers(low, high - patch)
            target[0] = picture[i : i + patch, j : j + patch]
        noise = rng.normal(0, sigma / 255, clean.shape).astype(np.float32)
        parts.append(Part(clean + noise - 0.5, clean - 0.5))
    return Data(*parts, kind="images", classes=0)
