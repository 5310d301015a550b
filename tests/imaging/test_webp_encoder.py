"""Lossy WebP by libwebp's own interface: the same file as Pillow's, from less memory."""

import io

import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging import webp_encoder
from imgsvc.imaging.encode import webp_bytes
from imgsvc.imaging.recipe import Variant

ROWS = webp_encoder.ROWS
SIZES = [(1, 1), (2, 1), (1, 2), (97, 65), (5, ROWS - 1), (6, ROWS), (7, ROWS + 1), (63, 2 * ROWS + 1), (513, 387)]


def by_pillow(image: Image.Image, quality: int, effort: int) -> bytes:
    output = io.BytesIO()
    image.save(output, "WEBP", quality=quality, method=effort)
    return output.getvalue()


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise(size, 100) for _ in range(3)])


def test_interface_of_the_installed_library_is_known() -> None:
    assert webp_encoder.is_available()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("quality", "effort"), [(85, 4), (0, 0), (100, 2), (40, 6)])
def test_same_file_as_by_pillow(size: tuple[int, int], quality: int, effort: int) -> None:
    for image in (noise(size), make.photo(*size)):
        assert webp_encoder.lossy(image, quality, effort) == by_pillow(image, quality, effort)


def test_every_colour_has_the_same_luma_and_chroma() -> None:
    """One in eight of them, with all values of each channel."""
    colours = Image.new("RGB", (1024, 2048))
    colours.putdata([(place >> 13, place >> 5 & 255, place << 3 & 255 | place % 8) for place in range(1024 * 2048)])
    assert webp_encoder.lossy(colours, 100, 0) == by_pillow(colours, 100, 0)


def test_variant_has_the_same_bytes_without_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    image, variant = make.photo(333, 210), Variant("one", 4096, 85, 4)
    found = webp_bytes(image, variant)
    monkeypatch.setattr(webp_encoder, "_libwebp", None)
    assert webp_bytes(image, variant) == found


def test_failure_has_the_words_of_pillow() -> None:
    image = Image.new("RGB", (16_384, 1))
    with pytest.raises(ValueError, match="encoding error 5"):
        by_pillow(image, 85, 0)
    with pytest.raises(ValueError, match="encoding error 5"):
        webp_encoder.lossy(image, 85, 0)
