"""Folders of pictures, of PASCAL VOC and of COCO as they lie on a disk, read whole into memory at one size.

A reader takes the folder, the split ("train" or "val"), the edge of a picture in pixels, how many pictures at most (0: all)
and what is learnt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

VOID = 255  # in a mask: a pixel that counts for nothing
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

Read = tuple[np.ndarray, Any, int]  # pictures (N, 3, size, size) in 0 to 1; classes, masks or boxes; how many classes


def read_folder(folder: Path, split: str, size: int, most: int, _: str) -> Read:
    """`SPLIT/CLASS/*.jpg`, as ImageNet lies on a disk: cut to a square about the centre, in one random order.

    Classes are in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
    """
    from PIL import Image, ImageOps

    names = sorted(each.name for each in _there(folder / split).iterdir() if each.is_dir())
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / split / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise FileNotFoundError(f"no pictures {split}/CLASS/*{SUFFIXES[0]} in {folder}")
    chosen = [found[i] for i in np.random.default_rng(0).permutation(len(found))[: most or None]]
    pictures = np.empty((len(chosen), 3, size, size), np.float32)
    for place, (path, _) in zip(pictures, chosen, strict=True):
        with Image.open(path) as picture:
            place[:] = _array(ImageOps.fit(picture.convert("RGB"), (size, size)))
    return pictures, np.array([label for _, label in chosen], np.int64), len(names)


def read_voc(folder: Path, split: str, size: int, most: int, kind: str) -> Read:
    """`VOC2012/`: masks of `SegmentationClass` (0 is the background), or boxes of `Annotations` without the difficult ones.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: an object of a class that VOC does not have.
    """
    from PIL import Image

    of = "Segmentation" if kind == "masks" else "Main"
    names = _there(folder / "ImageSets" / of / f"{split}.txt").read_text("utf-8").split()[: most or None]
    pictures, found = [], list[np.ndarray]()
    for name in names:
        picture, shape = _resized(folder / "JPEGImages" / f"{name}.jpg", size)
        pictures.append(picture)
        if kind == "masks":
            with Image.open(folder / "SegmentationClass" / f"{name}.png") as mask:
                found.append(np.asarray(mask.resize((size, size), Image.Resampling.NEAREST), np.int64))
        else:
            found.append(_scaled(_voc_boxes(folder / "Annotations" / f"{name}.xml"), shape, size))
    return _together(pictures, found, kind, len(VOC))


def read_coco(folder: Path, split: str, size: int, most: int, kind: str) -> Read:
    """`annotations/instances_SPLIT2017.json` and `SPLIT2017/`: boxes without crowds, or masks with crowds as void.

    Classes are the categories in the order of their ids; in a mask, 0 is the background.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a mask of compressed runs, which COCO's own files do not have.
    """
    file = next(iter(sorted((folder / "annotations").glob(f"instances_{split}*.json"))), None)
    file = file or _there(folder / "annotations" / f"instances_{split}2017.json")
    said = json.loads(file.read_text("utf-8"))
    classes = {each["id"]: i for i, each in enumerate(sorted(said["categories"], key=lambda each: each["id"]))}
    of: dict[int, list[dict[str, Any]]] = {}
    for each in said["annotations"]:
        of.setdefault(each["image_id"], []).append(each)
    pictures, found = [], list[np.ndarray]()
    for image in sorted(said["images"], key=lambda each: each["id"])[: most or None]:
        picture, shape = _resized(folder / file.stem.removeprefix("instances_") / image["file_name"], size)
        pictures.append(picture)
        mine = of.get(image["id"], [])
        if kind == "masks":
            found.append(_coco_mask(mine, classes, shape, size))
        else:
            boxes = [(classes[e["category_id"]], *e["bbox"]) for e in mine if not e.get("iscrowd")]
            array = np.array(boxes, np.float64).reshape(-1, 5)
            array[:, 3:] += array[:, 1:3]  # COCO gives width and height
            found.append(_scaled(array, shape, size))
    return _together(pictures, found, kind, len(classes))


def _voc_boxes(path: Path) -> np.ndarray:
    """VOC counts pixels from 1, both edges included."""
    boxes = []
    for each in ElementTree.parse(path).iter("object"):
        name = each.findtext("name", "")
        if name not in VOC:
            raise ValueError(f"{path}: an object must be of one of VOC's classes. Received: {name!r}")
        if each.findtext("difficult", "0").strip() == "1":
            continue
        edges = [float(each.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append((VOC.index(name), edges[0] - 1, edges[1] - 1, *edges[2:]))
    return np.array(boxes, np.float64).reshape(-1, 5)


def _coco_mask(
    annotations: Sequence[dict[str, Any]], classes: dict[int, int], shape: tuple[int, int], size: int
) -> np.ndarray:
    """`shape` is width and height of the picture on the disk."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", shape)
    for each in sorted(annotations, key=lambda each: not each.get("iscrowd")):
        parts = each["segmentation"]
        if isinstance(parts, list):
            for polygon in parts:
                ImageDraw.Draw(mask).polygon(polygon, fill=classes[each["category_id"]] + 1)
            continue
        if not isinstance(parts["counts"], list):
            raise ValueError("a mask of runs must give its counts as a list. Received: a compressed string")
        runs = np.repeat(np.arange(len(parts["counts"])) % 2, parts["counts"]).astype(bool)
        crowd = runs.reshape(parts["size"], order="F")
        mask.paste(VOID, mask=Image.fromarray(crowd))
    return np.asarray(mask.resize((size, size), Image.Resampling.NEAREST), np.int64)


def _resized(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture and its width and height on the disk."""
    from PIL import Image

    with Image.open(_there(path)) as picture:
        return _array(picture.convert("RGB").resize((size, size))), picture.size


def _scaled(boxes: np.ndarray, shape: tuple[int, int], size: int) -> np.ndarray:
    return boxes * np.array([1, size / shape[0], size / shape[1], size / shape[0], size / shape[1]])


def _together(pictures: list[np.ndarray], found: list[np.ndarray], kind: str, classes: int) -> Read:
    if kind == "masks":
        return np.stack(pictures), np.stack(found), classes + 1
    return np.stack(pictures), tuple(found), classes


def _array(picture: Any) -> np.ndarray:
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


def _there(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    return path
