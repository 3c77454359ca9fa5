"""The numbers that the backends are held to can tell right from wrong."""

import numpy as np
import pytest

from doconv_conformance.layer_checks.contract import GROUPED, grouped_tensors, impulse_tensors, naive_impulse_response
from doconv_core import ConvGeometry, compose, convolve


@pytest.mark.parametrize("geometry", GROUPED, ids=ConvGeometry.describe)
def test_a_dialect_of_the_original_files_gives_another_output(geometry: ConvGeometry) -> None:
    tensors, y = grouped_tensors(geometry)
    groups, outputs = geometry.groups, geometry.out_channels
    for dialect in ("original-torch", "original-tf"):
        same = groups == 1 or (groups == geometry.in_channels and (dialect == "original-tf" or outputs == groups))
        kernel = compose(tensors["W"], tensors["D_delta"], geometry, dialect=dialect)
        assert np.array_equal(convolve(tensors["x"], kernel, None, geometry), y) == same


def test_composing_in_bfloat16_is_out_of_bounds() -> None:
    _, kernel, bound = impulse_tensors()
    wrong = np.abs(naive_impulse_response() - kernel) > bound
    assert wrong.sum() >= 5
