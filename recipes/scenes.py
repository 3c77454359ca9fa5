"""Synthetic scenes: clothes of Fashion-MNIST on scikit-learn's photographs, with exact masks and boxes."""

from __future__ import annotations

import numpy as np

SOLID = 0.1  # a pixel of a garment brighter than this hides the photograph
MOST = 3  # garments in a scene


def compose(
    clothes: np.ndarray, labels: np.ndarray, span: tuple[float, float], count: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """Pictures `(N, 3, size, size)` in 0 to 1, masks `(N, size, size)`, and each picture's boxes `(n, 5)`.

    Args:
        clothes: `(M, 28, 28)` in 0 to 1.
        labels: `(M,)`; in a mask, a garment is its label plus 1 and the photograph 0.
        span: from which to which part of a photograph's width its pieces are cut.
        count: how many scenes.
        size: edge of a scene, in pixels, 28 or more.
        rng: draws everything.
    """
    from sklearn.datasets import load_sample_images

    photographs = [picture.astype(np.float32) / 255 for picture in load_sample_images().images]
    pictures, masks, boxes = np.empty((count, size, size, 3), np.float32), np.zeros((count, size, size), np.int64), []
    for picture, mask in zip(pictures, masks, strict=True):
        photograph = photographs[rng.integers(len(photographs))]
        left, right = (int(edge * photograph.shape[1]) for edge in span)
        i, j = rng.integers(photograph.shape[0] - size), rng.integers(left, right - size)
        picture[:] = photograph[i : i + size, j : j + size]
        here = []
        for garment in rng.integers(len(clothes), size=rng.integers(1, MOST + 1)):
            cloth, (top, left) = clothes[garment], rng.integers(size - 28 + 1, size=2)
            solid, tint = cloth > SOLID, rng.uniform(0.5, 1, 3).astype(np.float32)
            picture[top : top + 28, left : left + 28][solid] = cloth[solid][:, None] * tint
            mask[top : top + 28, left : left + 28][solid] = labels[garment] + 1
            rows, columns = (np.flatnonzero(solid.any(axis=axis)) for axis in (1, 0))
            edges = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
            here.append((labels[garment], *edges))
        boxes.append(np.array(here, np.float64))
    return pictures.transpose(0, 3, 1, 2), masks, tuple(boxes)
