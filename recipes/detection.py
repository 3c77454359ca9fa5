"""Detection after FCOS (Tian et al., 2019) with one level: each position of the output says which object it lies in.

Boxes are `(n, 5)`: class, left, top, right, bottom, in pixels. A network of `C` classes gives `(N, C + 5, h, w)`: a logit of
each class, the logarithms of the four distances to the edges, in strides, and a logit of centreness.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

STRIDE = 4
PRIOR = float(np.log(99))  # subtracted from the logits: at the start a position is of a class with probability 1%
LEAST = 0.05  # the score of a box
SAME = 0.6  # boxes of a class that overlap more are one
RIGHT = 0.5  # a box that overlaps the true one so much is right


def targets(boxes: Sequence[np.ndarray], classes: int, size: int) -> np.ndarray:
    """`(N, C + 5, h, w)` float32: one-hot class, distances in strides, centreness; all zero outside every box.

    A position in several boxes belongs to the smallest.
    """
    centres = _centres(size)
    made = np.zeros((len(boxes), classes + 5, *centres.shape[:2]), np.float32)
    for target, mine in zip(made, boxes, strict=True):
        for box in sorted(mine, key=lambda b: -(b[3] - b[1]) * (b[4] - b[2])):
            distances = np.concatenate([centres - box[1:3], box[3:5] - centres], axis=2) / STRIDE
            inside = distances.min(axis=2) > 0
            near = distances[inside]
            ratios = [np.minimum(near[:, i], near[:, i + 2]) / np.maximum(near[:, i], near[:, i + 2]) for i in (0, 1)]
            target[:, inside] = 0
            target[int(box[0]), inside] = 1
            target[classes:-1, inside] = near.T
            target[-1, inside] = np.sqrt(ratios[0] * ratios[1])
    return made


def loss(xp: ModuleType, output: Any, target: Any) -> Any:
    """The loss of each picture, `(N,)`: focal, overlap and centreness, each divided by its weight in that picture.

    Args:
        xp: `torch`, `jax.numpy` or `keras.ops`.
        output: `(N, h, w, C + 5)`, float32.
        target: of the same shape, from `targets`.
    """
    logits, wanted = output[..., :-5] - PRIOR, target[..., :-5]
    inside, goal = xp.sum(wanted, -1), target[..., -1]
    share = (1 + xp.tanh(logits / 2)) / 2
    focal = 0.25 * wanted * (1 - share) ** 2 * _softplus(xp, -logits)
    focal += 0.75 * (1 - wanted) * share**2 * _softplus(xp, logits)
    got, true = xp.exp(output[..., -5:-1]), target[..., -5:-1]
    both, least = _area(got) + _area(true), xp.minimum(got, true)
    missing = xp.log((both - _area(least) + 1) / (_area(least) + 1))
    centre = _softplus(xp, output[..., -1]) - goal * output[..., -1]
    return _over(xp, xp.sum(focal, -1), inside) + _over(xp, goal * missing, goal) + _over(xp, inside * centre, inside)


def _softplus(xp: ModuleType, x: Any) -> Any:
    return xp.logaddexp(x, xp.zeros_like(x))


def _area(distances: Any) -> Any:
    return (distances[..., 0] + distances[..., 2]) * (distances[..., 1] + distances[..., 3])


def _over(xp: ModuleType, values: Any, weights: Any) -> Any:
    """The sum of the values over the sum of the weights, of each picture; over 1 where the weights are nothing."""
    total = xp.sum(weights, (1, 2))
    return xp.sum(values, (1, 2)) / xp.where(total > 0, total, xp.ones_like(total))


def found(output: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of one picture, `(n, 5)`, and their scores, `(n,)`, from an output `(C + 5, h, w)`."""
    chance = _sigmoid(output[:-5] - PRIOR) * _sigmoid(output[-1])
    kind, row, column = np.nonzero(chance > LEAST)
    centres, distances = _centres(size)[row, column], np.exp(output[-5:-1, row, column].T) * STRIDE
    boxes = np.column_stack([kind, centres - distances[:, :2], centres + distances[:, 2:]])
    scores = chance[kind, row, column]
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        others = [k for k in kept if boxes[k, 0] == boxes[index, 0]]
        if not others or overlaps(boxes[index], boxes[others]).max() <= SAME:
            kept.append(int(index))
    return boxes[kept], scores[kept]


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with others, `(n,)`."""
    low, high = np.maximum(box[1:3], boxes[:, 1:3]), np.minimum(box[3:5], boxes[:, 3:5])
    both = np.clip(high - low, 0, None).prod(axis=1)
    areas = [(each[..., 3:5] - each[..., 1:3]).prod(axis=-1) for each in (box, boxes)]
    return both / (areas[0] + areas[1] - both)


def average_precision(results: Sequence[tuple[np.ndarray, np.ndarray]], truth: Sequence[np.ndarray]) -> float:
    """AP at an overlap of 0.5, the mean over the classes in `truth`: the area under precision against recall."""
    classes = np.unique(np.concatenate([boxes[:, 0] for boxes in truth]))
    return float(np.mean([_precision_of(kind, results, truth) for kind in classes]))


def _precision_of(kind: float, results: Sequence[tuple[np.ndarray, np.ndarray]], truth: Sequence[np.ndarray]) -> float:
    hits: list[tuple[float, bool]] = []
    wanted = [boxes[boxes[:, 0] == kind] for boxes in truth]
    for (boxes, scores), mine in zip(results, wanted, strict=True):
        free = np.ones(len(mine), bool)
        for index in np.argsort(-scores, kind="stable"):
            if boxes[index, 0] != kind:
                continue
            overlap = overlaps(boxes[index], mine)
            best = int(overlap.argmax()) if len(mine) else 0
            right = len(mine) > 0 and overlap[best] >= RIGHT and bool(free[best])
            if right:
                free[best] = False
            hits.append((float(scores[index]), right))
    right = np.cumsum([hit for _, hit in sorted(hits, key=lambda each: -each[0])])
    if not len(right):
        return 0.0
    recall, precision = right / sum(map(len, wanted)), right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _centres(size: int) -> np.ndarray:
    """`(h, w, 2)`: x and y of each position's centre, in pixels."""
    line = np.arange(size // STRIDE) * STRIDE + STRIDE / 2
    return np.stack(np.meshgrid(line, line), axis=2)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2
