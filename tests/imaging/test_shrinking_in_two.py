"""Shrinking first the width and then the height takes less memory, and gives the same pixels."""

import io

import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging.geometry import fit
from imgsvc.imaging.header import Header
from imgsvc.imaging.pipeline import Picture, fit_largest
from imgsvc.imaging.resize import resized


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "RGBA", "LA"])
@pytest.mark.parametrize("size", [(640, 400), (401, 640), (333, 500), (300, 7)], ids=str)
@pytest.mark.parametrize("side", [299, 300, 100, 33, 1])
@pytest.mark.parametrize("lacking", [0, 0.375], ids=["whole", "rounded up"])
def test_same_pixels(mode: str, size: tuple[int, int], side: int, lacking: float) -> None:
    image = make.photo(*size).convert(mode)
    if "A" in mode:
        image.putalpha(Image.linear_gradient("L").resize(size))
    picture = Picture(io.BytesIO(), Header("JPEG", *size, 3), side, (), {}, False)
    picture.image, picture.extent = image, (size[0] - lacking, size[1] - lacking)
    fit_largest(picture)
    expected = resized(image, fit(size, side), (size[0] - lacking, size[1] - lacking))
    assert picture.image.tobytes() == expected.tobytes()
