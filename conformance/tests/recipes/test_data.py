"""Files in their real formats, tiny, and batches that depend on nothing but their seed."""

import gzip
import pickle
import struct
from pathlib import Path

import data
import networks
import numpy as np
import pytest


def write_idx(path: Path, values: np.ndarray) -> None:
    raw = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    with gzip.open(path, "wb") as stream:
        stream.write(raw)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("train", 30), ("t10k", 10)):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


def test_idx_files(fashion: Path) -> None:
    read = data.load("fashion-mnist", folder=fashion, train=20, validation=8)
    assert [len(part) for part in (read.train, read.validation, read.test)] == [20, 8, 10]
    assert read.train.x.shape == (20, 1, 28, 28)
    assert read.classes == 10
    assert read.validation.y.tolist() == [i % 10 for i in range(22, 30)]  # the last ones, not trained on
    assert abs(read.train.x.mean()) < 1e-5
    assert read.train.x.std() == pytest.approx(1, rel=1e-5)
    pixels = data.read_idx(fashion / "t10k-images-idx3-ubyte.gz")
    scaled = np.corrcoef(read.test.x.ravel(), pixels.ravel())[0, 1]
    assert scaled == pytest.approx(1)


def test_a_damaged_idx_file(fashion: Path) -> None:
    path = fashion / "plain-ubyte"
    raw = gzip.decompress((fashion / "t10k-labels-idx1-ubyte.gz").read_bytes())
    path.write_bytes(raw[:-3])
    with pytest.raises(ValueError, match=r"7 values where its header says \(10,\)"):
        data.read_idx(path)
    path.write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match="not an IDX file of bytes"):
        data.read_idx(path)


def test_cifar_files(tmp_path: Path) -> None:
    pictures = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072) % 256
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {b"data": pictures.astype(np.uint8), b"labels": [3, 9]}
        (tmp_path / name).write_bytes(pickle.dumps(batch))
    read = data.load("cifar-10", folder=tmp_path, validation=2)
    assert read.train.x.shape == (8, 3, 32, 32)
    assert read.test.y.tolist() == [3, 9]
    one = data.read_cifar(tmp_path / "test_batch").x
    assert one[0, 1, 2, 3] == np.float32((1024 + 2 * 32 + 3) % 256) / np.float32(255)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        data.load("fashion-mnist", folder=tmp_path / "none", validation=1)
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-py"):
        data.load("cifar-10", validation=1)
    with pytest.raises(ValueError, match=r"the data set must be one of .* Received: 'mnist'"):
        data.load("mnist", validation=1)
    with pytest.raises(ValueError, match=r"digits has 1400 examples\. Received: train=1399, validation=2"):
        data.load("digits", train=1399, validation=2)


def test_photographs_are_split_by_place() -> None:
    read = data.load("photographs", train=50, validation=20, patch=16)
    noise = read.train.x - read.train.y
    assert noise.std() == pytest.approx(25 / 255, rel=0.05)  # 12,800 draws: their deviation is known to 0.6%
    assert read.classes == 0
    assert not np.isin(read.test.y[:, 0, 0, :4].view("V16"), read.train.y[:, 0, 0, :4].view("V16")).all()


def test_batches_depend_on_the_seed_and_the_epoch_alone() -> None:
    read = data.load("digits", train=100, validation=10, crop=1, flip=True)
    first, again = ([part.x for part in read.batches(3, 1, 30)] for _ in range(2))
    assert len(first) == 3
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first[0], next(read.batches(3, 2, 30)).x)
    assert not np.array_equal(first[0], next(read.batches(4, 1, 30)).x)


def test_crops_and_flips_move_pixels_as_they_say() -> None:
    x = np.arange(200 * 9, dtype=np.float32).reshape(200, 1, 3, 3) + 1
    moved = data.augment(x, np.random.default_rng(0), crop=1, flip=True)
    seen = set()
    for before, after in zip(x[:, 0], moved[:, 0], strict=True):
        padded = np.pad(before, 1)
        views = {
            (i, j, f): padded[i : i + 3, j : j + 3][:, :: -1 if f else 1]
            for i in range(3)
            for j in range(3)
            for f in (0, 1)
        }
        matches = [key for key, view in views.items() if np.array_equal(view, after)]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 18  # every shift, mirrored and not


@pytest.mark.parametrize(("blocks", "layers", "parameters"), [(1, 8, 78_042), (3, 20, 272_474), (9, 56, 855_770)])
def test_the_residual_networks_are_those_of_the_paper(blocks: int, layers: int, parameters: int) -> None:
    network = networks.build("resnet-cifar", 10, blocks=blocks)
    start = networks.start(network, 3, 0)
    kernels = [array for name, array in start.items() if name.endswith("weight")]
    assert sum(array.ndim == 2 or array.shape[2] == 3 for array in kernels) == layers
    norms = sum(2 * array.shape[0] for array in kernels if array.ndim == 4)
    assert sum(array.size for array in kernels) + norms + 10 == parameters
