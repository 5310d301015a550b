import hashlib
from fractions import Fraction

import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging.geometry import fit
from tests.support.rendering import FORMS, SIDES, Studio, assert_upright, near


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_comes_out_upright(studio: Studio, form: str, value: int) -> None:
    rendering = studio.render(make.oriented(value, form, (640, 400)), form)
    assert (rendering.width, rendering.height) == (640, 400)
    sizes = {one.name: (one.width, one.height) for one in rendering.variants}
    assert sizes == {"large": (300, 188), "medium": (120, 75), "small": (40, 25)}
    for name, size in sizes.items():
        image = studio.variant(name)
        assert image.size == size
        assert_upright(image)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", range(1, 9))
def test_every_preview_comes_out_upright(studio: Studio, form: str, value: int) -> None:
    rendering = studio.preview(make.oriented(value, form, (640, 400)), form)
    assert rendering
    assert (rendering.width, rendering.height) == (640, 400)
    assert [(one.name, one.width, one.height) for one in rendering.variants] == [("small", 40, 25)]
    assert_upright(studio.variant("small"))


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
@pytest.mark.parametrize("form", FORMS)
def test_an_unknown_orientation_counts_as_upright(studio: Studio, form: str, value: int) -> None:
    data = make.encoded(make.quadrants(), form, exif=make.exif(value))
    assert (studio.render(data, form).width, studio.variant().size) == (320, (300, 188))
    assert_upright(studio.variant())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("junk", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + b"\xff" * 60])
def test_damaged_exif_counts_as_upright(studio: Studio, form: str, junk: bytes) -> None:
    studio.render(make.encoded(make.quadrants(), form, exif=junk), form)
    assert_upright(studio.variant())


def expected_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(Fraction(1), Fraction(side, max(size)))
    width, height = (max(1, int(length * scale + Fraction(1, 2))) for length in size)
    return width, height


SIZES = [
    (1, 1),
    (1, 2),
    (1, 10_000),
    (10_000, 1),
    (3, 9_999),
    (301, 301),
    (299, 17),
    (333, 777),
    (1601, 1199),
    (300, 1),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes_are_rounded_and_never_enlarged(studio: Studio, form: str, size: tuple[int, int]) -> None:
    rendering = studio.render(make.encoded(Image.new("RGB", size, make.RED), form), form)
    assert (rendering.width, rendering.height) == size
    assert [one.name for one in rendering.variants] == ["small", "large", "medium"]
    for one in rendering.variants:
        assert (one.width, one.height) == expected_size(size, SIDES[one.name]) == studio.variant(one.name).size
        assert near(studio.variant(one.name).getpixel((0, 0)), make.RED)


@pytest.mark.parametrize("side", [1, 2, 7, 150, 1000])
def test_fit_is_exact(side: int) -> None:
    for width in range(1, 60):
        for height in (1, 2, 31, 997, 10_000):
            assert fit((width, height), side) == expected_size((width, height), side)
            assert fit((height, width), side) == expected_size((height, width), side)


def test_what_is_told_of_a_variant_is_true(studio: Studio) -> None:
    for one in studio.render(make.jpeg(500, 300), "JPEG").variants:
        data = studio.bytes_of(one.name)
        assert (one.size_bytes, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert one.format == "webp" and data[8:12] == b"WEBP"


def test_the_dominant_colour_is_that_of_the_picture(studio: Studio) -> None:
    image = make.quadrants(400, 400)
    image.paste(make.BLUE, (0, 0, 400, 300))
    data = make.encoded(image, "PNG")
    rendering, first = studio.render(data), studio.preview(data)
    assert first and first.dominant_colour == rendering.dominant_colour == "#{:02x}{:02x}{:02x}".format(*make.BLUE)
