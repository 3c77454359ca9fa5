"""The parts of a tensor that hold all that is wrong."""

import tracemalloc

import numpy as np

from doconv_conformance.diagnosis import selections


def axes(shape: tuple[int, ...]) -> list[selections.Axis]:
    return [
        selections.Axis(f"axis {at}", index, size)
        for at, (size, index) in enumerate(zip(shape, np.ogrid[*map(slice, shape)], strict=True))
    ]


def test_where_nothing_is_wrong_there_are_no_parts():
    """Every condition would hold, and every pair of them: of a kernel of 514 channels once 22 GB of them were kept."""
    assert not list(selections.parts(axes((514, 8, 9)), (514, 8, 9), np.zeros((514, 8, 9), bool)))


def test_the_parts_of_a_large_tensor_are_not_kept():
    shape = (128, 16, 9)
    wrong = np.zeros(shape, bool)
    wrong[-1, -1, -1] = True
    tracemalloc.start()
    count = sum(1 for _ in selections.parts(axes(shape), shape, wrong))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > 20
    assert peak < count * wrong.size / 4  # each once would be count * size
