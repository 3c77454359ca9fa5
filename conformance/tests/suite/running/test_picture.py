"""Pictures of `doconv compare --image`: what a file holds, and what the reference needs to compute the network."""

import tracemalloc
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from doconv_conformance.running.picture import load_picture, reference
from doconv_conformance.verdicts.bounds import Numerics

Image = pytest.importorskip("PIL.Image", reason="the extra `report` is not installed")

BYTES = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
WORDS = np.random.default_rng(1).integers(0, 2**16, (40, 50), np.uint16)


def pixels(path: Path) -> np.ndarray:
    """`(height, width, 3)` of a file."""
    picture = load_picture(path)
    assert picture.dtype == np.float32
    return picture[0].transpose(1, 2, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "L", "P", "1"])
def test_values_are_those_of_the_colours(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(BYTES).convert(mode)
    image.save(tmp_path / "in.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "in.tif"), np.asarray(image.convert("RGB"), np.float32) / 255)


TURNED = {
    1: BYTES, 2: BYTES[:, ::-1], 3: BYTES[::-1, ::-1], 4: BYTES[::-1], 5: BYTES.transpose(1, 0, 2), 6: np.rot90(BYTES, -1),
    7: np.rot90(BYTES, 2).transpose(1, 0, 2), 8: np.rot90(BYTES),
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNED)
def test_the_camera_says_how_it_is_turned(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(BYTES).save(tmp_path / "in.png", exif=exif)
    np.testing.assert_array_equal(pixels(tmp_path / "in.png"), TURNED[orientation].astype(np.float32) / 255)


@pytest.mark.parametrize("file", ["in.png", "in.tif", "in.pgm"])
def test_sixteen_bits_keep_their_values(file: str, tmp_path: Path) -> None:
    Image.fromarray(WORDS).save(tmp_path / file)
    found = pixels(tmp_path / file)
    np.testing.assert_array_equal(found, np.repeat((WORDS / np.float32(65535))[..., None], 3, axis=2))
    assert len(np.unique(found)) > 1900


def test_floats_are_taken_as_they_are(tmp_path: Path) -> None:
    values = (WORDS / np.float32(65535)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "in.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "in.tif")[..., 2], values)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (WORDS.astype(np.float32), r"must be floats in \[0, 1\]. Received: \d+.0 to 65\d+.0"),
        (np.full((40, 50), np.nan, np.float32), r"must be floats in \[0, 1\]. Received: nan to nan"),
        (WORDS.astype(np.int32) * 3, r"must be integers of 16 bits. Received: \d+ to 19\d+"),
        (-WORDS.astype(np.int32), "must be integers of 16 bits"),
    ],
)
def test_values_that_say_no_brightness_are_refused(values: np.ndarray, error: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "in.tif")
    with pytest.raises(ValueError, match=error):
        load_picture(tmp_path / "in.tif")


@pytest.mark.filterwarnings("ignore")  # as where nobody makes errors of warnings
@pytest.mark.parametrize("side", [5_800, 10_000, 14_000])  # Pillow warns of the second and refuses the third
def test_too_many_pixels_are_refused_in_one_line(side: int, tmp_path: Path) -> None:
    Image.new("1", (side, side)).save(tmp_path / "in.png")
    with pytest.raises(ValueError, match=rf"the picture is too large: Image size \({side**2} pixels\)") as caught:
        load_picture(tmp_path / "in.png")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")  # Pillow's own, before it raises
@pytest.mark.parametrize("file", ["in.png", "in.jpg", "in.tif"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_files_that_are_cut_are_refused(file: str, share: float, tmp_path: Path) -> None:
    Image.fromarray(BYTES).save(tmp_path / file)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="cannot read a picture from"):
        load_picture(tmp_path / file)


def test_whatever_a_decoder_raises_is_a_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TIFF whose strips begin at a fraction of a byte, which the fuzz found, is a `TypeError` of Pillow."""
    Image.fromarray(BYTES).save(tmp_path / "in.tif")
    seek = MagicMock(side_effect=TypeError("'float' object cannot be interpreted as an integer"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", seek)
    with pytest.raises(ValueError, match=r"cannot read a picture from .*in\.tif: 'float' object"):
        load_picture(tmp_path / "in.tif")


@pytest.mark.parametrize("size", [(40, 50), (97, 61), (33, 200)])
@pytest.mark.parametrize("at_once", [1, 700, 3000])
def test_the_reference_in_bands_is_that_of_the_whole(size: tuple[int, int], at_once: int) -> None:
    picture = np.random.default_rng(2).random((1, 3, *size), np.float32)
    whole, bands = reference(picture, Numerics()), reference(picture, Numerics(), pixels=at_once)
    for name in ("value", "bound", "scale"):
        want = getattr(whole, name)
        np.testing.assert_allclose(getattr(bands, name), want, rtol=1e-12, atol=1e-13 * np.abs(want).max())


def test_the_reference_takes_memory_for_a_band_only() -> None:
    peaks = []
    for height in (800, 1600):
        picture = np.zeros((1, 3, height, 512), np.float32)
        tracemalloc.start()
        reference(picture, Numerics())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 100e6  # 300 MB at once
    assert peaks[1] < 1.6 * peaks[0]
