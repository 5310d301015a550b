"""Sizes as boxes: inside or covering, as WebP or as JPEG, and what crops are made around."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from fixtures import make
from imgsvc.imaging.attention import centre_of_attention
from imgsvc.imaging.encode import encode
from imgsvc.imaging.errors import Unreadable
from imgsvc.imaging.geometry import crop_box, fit, output_size, whole_side
from imgsvc.imaging.recipe import Recipe, Variant, scratch_file
from imgsvc.imaging.still_jpeg import still_size
from tests.support.rendered_paths import preview, render


def box(width: int | None, height: int | None, *, cover: bool = False, format: str = "webp") -> Variant:
    return Variant("one", max(width or 0, height or 0), 90, 2, width, height, cover, format)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variant", "size", "expected"),
    [
        (box(400, 300), (4000, 2000), (400, 200)),
        (box(400, 300), (2000, 4000), (150, 300)),
        (box(400, None), (1000, 5000), (400, 2000)),
        (box(None, 100), (1000, 5000), (20, 100)),
        (box(400, 300), (100, 50), (100, 50)),
        (box(100, None), (1, 9), (1, 9)),
        (box(400, 300, cover=True), (4000, 2000), (400, 300)),
        (box(400, 300, cover=True), (200, 2000), (200, 150)),
        (box(400, 300, cover=True), (40, 30), (40, 30)),
        (box(100, 100, cover=True), (10_000, 3), (3, 3)),
        (box(1000, 1, cover=True), (10, 10), (10, 1)),
    ],
)
def test_size_of_a_variant(variant: Variant, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert output_size(variant, size) == expected


def test_number_is_a_square_box() -> None:
    for size in ((3000, 2000), (17, 4999), (601, 600), (5, 5)):
        assert output_size(Variant("one", 600, 85, 4), size) == output_size(box(600, 600), size) == fit(size, 600)


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        ((0.5, 0.5), (100, 0, 300, 200)),
        ((0.0, 0.9), (0, 0, 200, 200)),
        ((1.0, 0.0), (200, 0, 400, 200)),
        ((0.6, 0.5), (140, 0, 340, 200)),
    ],
)
def test_crop_keeps_within_the_picture(centre: tuple[float, float], expected: tuple[int, ...]) -> None:
    assert crop_box(box(50, 50, cover=True), (400, 200), centre) == expected


def test_picture_keeps_what_a_crop_needs() -> None:
    cover = Recipe((box(100, 100, cover=True),), 10**9, 1)
    assert whole_side(cover, (4000, 1000)) == 400
    assert whole_side(cover, (90, 80)) == 90
    # One that may still be turned by its orientation keeps enough for both.
    assert whole_side(Recipe((box(400, 100, cover=True),), 10**9, 1), (4000, 1000)) == 1600


def spot(at: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """A detailed, vivid thing on a plain ground."""
    image = Image.new(mode, (300, 200), "#808880")
    drawing = ImageDraw.Draw(image)
    for x in range(at[0] - 20, at[0] + 20, 4):
        drawing.line((x, at[1] - 20, x, at[1] + 20), fill="#c01020", width=2)
    return image


@pytest.mark.parametrize("at", [(60, 60), (240, 100), (150, 150)])
def test_centre_of_attention(at: tuple[int, int]) -> None:
    x, y = centre_of_attention(spot(at))
    assert abs(x * 300 - at[0]) < 30
    assert abs(y * 200 - at[1]) < 30


@pytest.mark.parametrize("colour", ["#000000", "#777777", "#ffffff"])
def test_picture_without_a_difference_has_its_centre_in_the_middle(colour: str) -> None:
    assert centre_of_attention(Image.new("RGB", (300, 200), colour)) == (0.5, 0.5)
    assert centre_of_attention(Image.new("RGBA", (1, 1), "#00000000")) == (0.5, 0.5)


def rendered(folder: Path, image: Image.Image, recipe: Recipe, **options: Any) -> dict[str, Image.Image]:
    data = make.encoded(image, "JPEG", **options)
    source = folder / "source"
    source.write_bytes(data)
    made = render(source, "image/jpeg", recipe, folder)
    assert [one.format for one in made.variants] == [variant.format for variant in recipe.variants]
    return {one.name: Image.open(scratch_file(folder, one.name)).convert("RGB") for one in made.variants}


def test_crop_is_made_around_the_focal_point(tmp_path: Path) -> None:
    image = Image.new("RGB", (1200, 400), "white")
    image.paste("#d02020", (0, 0, 400, 400))
    image.paste("#2020d0", (800, 0, 1200, 400))
    for focal, colour in (((0.0, 0.5), (208, 32, 32)), ((1.0, 0.5), (32, 32, 208)), ((0.5, 0.5), (255, 255, 255))):
        recipe = Recipe((box(100, 100, cover=True),), 10**7, 1, focal)
        (crop,) = rendered(tmp_path, image, recipe, quality=95).values()
        assert crop.size == (100, 100)
        found = crop.getpixel((50, 50))
        assert isinstance(found, tuple)
        assert all(abs(a - b) < 12 for a, b in zip(found, colour, strict=True))


def test_preview_of_a_crop_has_the_bytes_of_its_render(tmp_path: Path) -> None:
    recipe = Recipe((Variant("large", 300, 85, 2), box(60, 60, cover=True)), 10**7, 1)
    source = tmp_path / "source"
    source.write_bytes(make.jpeg(640, 480))
    assert preview(source, "image/jpeg", recipe, tmp_path) is not None
    first = scratch_file(tmp_path, "one").read_bytes()
    assert render(source, "image/jpeg", recipe, tmp_path)
    assert scratch_file(tmp_path, "one").read_bytes() == first


def test_jpeg_for_mail_and_print(tmp_path: Path) -> None:
    recipe = Recipe((box(200, None, format="jpeg"),), 10**7, 1)
    rendered(tmp_path, make.photo(640, 480), recipe, quality=95, comment=b"GPS")
    data = scratch_file(tmp_path, "one").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (200, 150), "RGB")
        assert image.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression"}
        assert image.info["progressive"]
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # type: ignore[attr-defined]
    assert still_size(io.BytesIO(data)) == (200, 150)


@pytest.mark.parametrize("quality", [0, 50, 100])
def test_jpeg_of_noise(quality: int) -> None:
    output = io.BytesIO()
    noise = Image.effect_noise((400, 300), 200).convert("RGB")
    encode(noise, Variant("one", 400, quality, 0, format="jpeg"), output)
    assert still_size(io.BytesIO(output.getvalue())) == (400, 300)


def test_jpeg_puts_what_is_transparent_on_white() -> None:
    output = io.BytesIO()
    encode(Image.new("RGBA", (64, 64), (200, 0, 0, 0)), Variant("one", 64, 90, 0, format="jpeg"), output)
    with Image.open(output) as image:
        assert image.getpixel((5, 5)) == (255, 255, 255)


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    given = {"quality": 85, "subsampling": 0, "progressive": True, **options}
    make.photo(64, 48).save(buffer, "JPEG", **given)
    return buffer.getvalue()


SPOILT: dict[str, Callable[[], bytes]] = {
    "baseline": lambda: jpeg(progressive=False),
    "subsampled": lambda: jpeg(subsampling=2),
    "comment": lambda: jpeg(comment=b"hello"),
    "exif": lambda: jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "profile": lambda: jpeg(icc_profile=b"x" * 200),
    "trailing": lambda: jpeg() + b"\0",
    "second picture": lambda: jpeg() + jpeg(),
    "cut": lambda: jpeg()[:-2],
    "cut in a scan": lambda: jpeg()[:-200],
    "empty": lambda: b"",
    "WebP": lambda: make.encoded(make.photo(64, 48), "WEBP"),
    "no JFIF": lambda: jpeg()[:2] + jpeg()[20:],
    "JFIF with a thumbnail": lambda: jpeg()[:18] + b"\1\1" + jpeg()[20:],
    "no size": lambda: jpeg()[: jpeg().index(b"\xff\xc2") + 5] + b"\0\0" + jpeg()[jpeg().index(b"\xff\xc2") + 7 :],
}


@pytest.mark.parametrize("kind", SPOILT)
def test_strict_reader_refuses_what_the_encoder_does_not_write(kind: str) -> None:
    assert still_size(io.BytesIO(jpeg())) == (64, 48)
    with pytest.raises(Unreadable):
        still_size(io.BytesIO(SPOILT[kind]()))


def test_text_of_a_recipe() -> None:
    plain = '{"variants":[{"name":"a","side":9,"quality":85,"effort":4}],"max_pixels":10,"max_frames":1}'
    assert Recipe.from_json(plain).to_json() == plain
    boxed = Recipe((box(5, 7, cover=True, format="jpeg"), box(5, None)), 10, 1, (0.25, 1.0))
    assert Recipe.from_json(boxed.to_json()) == boxed
