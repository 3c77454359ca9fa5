"""Files in their real formats, tiny, and batches that depend on nothing but their seed."""

import gzip
import json
import pickle
import struct
from pathlib import Path

import data
import detection
import networks
import numpy as np
import pictures
import pytest
import recipe
import scenes
import train
from PIL import Image


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


@pytest.mark.parametrize(("name", "parameters"), [("resnet-18", 11_689_512), ("resnet-50", 25_557_032)])
def test_the_networks_for_large_pictures_are_those_of_torchvision(name: str, parameters: int) -> None:
    sizes = {key: value for key, value in recipe.load(name).network.items() if key != "name"}
    start = networks.start(networks.build("resnet", 1000, **sizes), 3, 0)
    kernels = [array for key, array in start.items() if key.endswith("weight")]
    norms = sum(2 * array.shape[0] for array in kernels if array.ndim == 4)
    assert sum(array.size for array in kernels) + norms + 1000 == parameters


@pytest.mark.parametrize(("blocks", "layers", "parameters"), [(1, 8, 78_042), (3, 20, 272_474), (9, 56, 855_770)])
def test_the_residual_networks_are_those_of_the_paper(blocks: int, layers: int, parameters: int) -> None:
    network = networks.build("resnet-cifar", 10, blocks=blocks)
    start = networks.start(network, 3, 0)
    kernels = [array for name, array in start.items() if name.endswith("weight")]
    assert sum(array.ndim == 2 or array.shape[2] == 3 for array in kernels) == layers
    norms = sum(2 * array.shape[0] for array in kernels if array.ndim == 4)
    assert sum(array.size for array in kernels) + norms + 10 == parameters


def picture(path: Path, colour: tuple[int, int, int], shape: tuple[int, int] = (40, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape, colour).save(path)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1)):
        for number in range(count):
            picture(tmp_path / split / "cat" / f"{number}.png", (255, 0, 0))
            picture(tmp_path / split / "dog" / f"{number}.jpg", (0, 0, 255))
    read = data.load("folder", folder=tmp_path, validation=2, size=16)
    assert read.train.x.shape == (4, 3, 16, 16)
    assert (read.kind, read.classes) == ("classes", 2)
    assert {*read.train.y, *read.validation.y} == {0, 1}
    red = read.train.x[:, 0].mean((1, 2)) > read.train.x[:, 2].mean((1, 2))
    assert (red == (read.train.y == 0)).all()  # each class is its own colour, wherever the shuffle put it
    (tmp_path / "val" / "dog" / "0.jpg").unlink()
    (tmp_path / "val" / "dog").rmdir()
    with pytest.raises(ValueError, match="train has 2 classes and val 1"):
        data.load("folder", folder=tmp_path, validation=2, size=16)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three pictures of 40x20: a dog at the left half, a difficult person, a border of void."""
    for part in ("Segmentation", "Main"):
        (tmp_path / "ImageSets" / part).mkdir(parents=True)
        (tmp_path / "ImageSets" / part / "train.txt").write_text("2007_1\n2007_2\n")
        (tmp_path / "ImageSets" / part / "val.txt").write_text("2007_3\n")
    dog, person = pictures.VOC.index("dog"), pictures.VOC.index("person")
    for number in (1, 2, 3):
        picture(tmp_path / "JPEGImages" / f"2007_{number}.jpg", (number * 60, 0, 0))
        mask = np.zeros((20, 40), np.uint8)
        mask[:, :20], mask[:, 20:22], mask[:10, 30:] = dog + 1, 255, person + 1
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        indexed = Image.fromarray(mask, "L").convert("P")
        indexed.putdata(mask.ravel())
        indexed.save(tmp_path / "SegmentationClass" / f"2007_{number}.png")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"2007_{number}.xml").write_text(
            "<annotation><object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>20</xmax><ymax>20</ymax></bndbox></object><object><name>person</name><difficult>1</difficult>"
            "<bndbox><xmin>31</xmin><ymin>1</ymin><xmax>40</xmax><ymax>10</ymax></bndbox></object></annotation>"
        )
    return tmp_path


def test_voc_masks(voc: Path) -> None:
    read = data.load("voc-masks", folder=voc, validation=1, size=20)
    assert (read.kind, read.classes, len(read.train), len(read.test)) == ("masks", 21, 1, 1)
    mask = read.test.y[0]
    dog, person = pictures.VOC.index("dog"), pictures.VOC.index("person")
    assert (mask[:, :10] == dog + 1).all()
    assert (mask[:, 10] == pictures.VOID).all()
    assert (mask[:10, 15:] == person + 1).all()
    assert (mask[10:, 11:] == 0).all()


def test_voc_boxes(voc: Path) -> None:
    read = data.load("voc-boxes", folder=voc, validation=1, size=20)
    assert (read.kind, read.classes) == ("boxes", 20)
    assert read.test.boxes[0].tolist() == [[pictures.VOC.index("dog"), 0, 0, 10, 20]]  # without the difficult person
    assert read.test.y.shape == (1, 25, 5, 5)
    path = voc / "Annotations" / "2007_3.xml"
    path.write_text(path.read_text().replace("dog", "wolf"))
    with pytest.raises(ValueError, match=r"2007_3\.xml: an object must be of one of VOC's classes\. Received: 'wolf'"):
        data.load("voc-boxes", folder=voc, validation=1, size=20)
    with pytest.raises(FileNotFoundError, match="give the folder of the data set by --data"):
        data.load("voc-boxes", validation=1)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two pictures of 40x20: a zebra (category 24), a triangle of an apple (53), and a crowd at the right."""
    crowd = [20 * 30, 20 * 10]  # runs down the columns: 600 pixels outside, 200 inside
    for split, number in (("train", 5), ("val", 9)):
        annotations = [
            {"image_id": number, "category_id": 24, "bbox": [10, 5, 20, 10], "iscrowd": 0,
             "segmentation": [[10, 5, 29, 5, 29, 14, 10, 14]]},
            {"image_id": number, "category_id": 53, "bbox": [0, 0, 4, 4], "iscrowd": 0, "segmentation": [[0, 0, 3, 0, 0, 3]]},
            {"image_id": number, "category_id": 53, "bbox": [30, 0, 10, 20], "iscrowd": 1,
             "segmentation": {"counts": crowd, "size": [20, 40]}},
        ]  # fmt: skip
        said = {
            "images": [{"id": each, "file_name": f"{each:012}.jpg"} for each in (number, number + 1)],
            "categories": [{"id": 53, "name": "apple"}, {"id": 24, "name": "zebra"}],
            "annotations": annotations,
        }
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(said))
        for each in (number, number + 1):
            picture(tmp_path / f"{split}2017" / f"{each:012}.jpg", (each * 10, 0, 0))
    return tmp_path


def test_coco_boxes(coco: Path) -> None:
    read = data.load("coco-boxes", folder=coco, validation=1, size=20)
    assert (read.kind, read.classes) == ("boxes", 2)
    assert read.test.boxes[0].tolist() == [[0, 5, 5, 15, 15], [1, 0, 0, 2, 4]]  # by id: zebra is 0; without the crowd
    assert read.test.boxes[1].shape == (0, 5)
    assert not read.test.y[1].any()


def test_coco_masks(coco: Path) -> None:
    read = data.load("coco-masks", folder=coco, validation=1, size=20)
    assert read.classes == 3
    mask = read.test.y[0]
    assert (mask[5:15, 5:15] == 1).all()
    assert mask[0, 0] == 2
    assert (mask[:, 15:] == pictures.VOID).all()
    assert (mask[16:, :14] == 0).all()
    file = coco / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace("[600, 200]", '"Zk2"'))
    with pytest.raises(ValueError, match=r"counts as a list\. Received: a compressed string"):
        data.load("coco-masks", folder=coco, validation=1, size=20)


def test_scenes_have_exact_masks_and_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    clothes, labels = np.zeros((4, 28, 28), np.float32), np.arange(4)
    for number, cloth in enumerate(clothes):
        cloth[5 + number : 20, 3:25] = 0.8
    pictured, masks, boxes = scenes.compose(clothes, labels, (0.0, 0.6), 40, 48, rng)
    assert pictured.shape == (40, 3, 48, 48)
    assert {len(each) for each in boxes} == {1, 2, 3}
    for mask, mine in zip(masks, boxes, strict=True):
        for label, left, top, right, bottom in mine[-1:].astype(int):  # the last garment lies on top
            assert (mask[top:bottom, left:right] == label + 1).all()
            assert (right - left, bottom - top) == (22, 15 - label)
        inside = np.zeros_like(mask, bool)
        for _, left, top, right, bottom in mine.astype(int):
            inside[top:bottom, left:right] = True
        assert ((mask > 0) == inside).all()


def test_what_detection_aims_at_is_what_it_finds() -> None:
    """An output that says the targets gives the boxes back, and the whole precision; moved boxes give none."""
    boxes = (np.array([[2, 4.0, 6, 30, 34], [0, 8, 30, 60, 62]]), np.array([[1, 2.0, 2, 20, 20]]))
    aim = detection.targets(boxes, 3, 64)
    assert aim.shape == (2, 8, 16, 16)
    large = np.where(aim[:, :3] > 0, 20.0, -20.0)
    centre = np.where(aim[:, 7:] > 0.999, 20.0, np.where(aim[:, 7:] > 0, 0.0, -20.0))
    output = np.concatenate([large, np.log(np.maximum(aim[:, 3:7], 1e-3)), centre], axis=1)
    results = [detection.found(each, 64) for each in output]
    for want, (got, _) in zip(boxes, results, strict=True):
        np.testing.assert_allclose(got[np.argsort(got[:, 0])], want[np.argsort(want[:, 0])], atol=1e-4)
    assert detection.average_precision(results, boxes) == 1.0
    moved = tuple(np.add(each, [0, 25, 25, 25, 25]) for each in boxes)
    assert detection.average_precision(results, moved) == 0.0


def test_the_average_precision_of_a_worked_example() -> None:
    """Two boxes of a class: found by the first and third of three guesses. Precision 1 to recall 1/2, then 2/3 to recall 1."""
    truth = np.array([[0, 0.0, 0, 10, 10], [0, 50, 50, 60, 60]])
    guesses = np.array([[0, 0.0, 0, 10, 10], [0, 0, 1, 10, 10], [0, 50, 50, 60, 60]])
    result = detection.average_precision([(guesses, np.array([0.9, 0.8, 0.7]))], [truth])
    assert result == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_intersection_over_union_leaves_void_out() -> None:
    want = np.array([[0, 0, 1, 1, pictures.VOID]])
    got = np.array([[0, 1, 1, 1, 0]])
    assert train.mean_iou(got, want) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_crops_are_for_classes() -> None:
    with pytest.raises(ValueError, match=r"crop and flip are for pictures of classes\. Received: scenes-masks, crop=2"):
        data.load("scenes-masks", validation=1, crop=2)


def test_what_was_downloaded_is_read_as_the_files_are(fashion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(*_: object) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            (
                data.read_idx(fashion / f"{name}-images-idx3-ubyte.gz"),
                data.read_idx(fashion / f"{name}-labels-idx1-ubyte.gz"),
            )
            for name in ("train", "t10k")
        ]

    monkeypatch.setattr(data, "_by_keras", halves)
    read = data.load("fashion-mnist", read=data.downloaded("fashion-mnist", "keras", fashion), train=20, validation=8)
    files = data.load("fashion-mnist", folder=fashion, train=20, validation=8)
    for got, want in ((read.train, files.train), (read.validation, files.validation), (read.test, files.test)):
        assert np.array_equal(got.x, want.x)
        assert np.array_equal(got.y, want.y)


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise Exception("URL fetch failure")  # what keras.utils.get_file raises

    monkeypatch.setattr(data, "_by_keras", unreachable)
    command = ["six-layers", "--framework", "keras", "--download", "--out", str(tmp_path / "runs.csv")]
    with pytest.raises(
        SystemExit, match=r"could not be downloaded \(URL fetch failure\): give the folder .* by --data"
    ):
        train.main(command)
    with pytest.raises(
        SystemExit, match=r"--download: fashion-mnist and cifar-10 can be downloaded\. Received: 'digits'"
    ):
        train.main(["digits", *command[1:]])
