"""Text, line art and smooth gradients keep their edges and steps; no variant outweighs a source of its own size."""

import io
import itertools

import pytest
from PIL import Image, ImageDraw

from fixtures import make
from imgsvc.imaging.encode import encode
from imgsvc.imaging.recipe import Recipe, Variant
from tests.support.rendered_paths import render
from tests.support.rendering import Studio

ORIGINAL = Recipe((Variant("original", 4096, 85, 2),), 50_000_000, 100)


def screenshot(width: int = 600, height: int = 400) -> Image.Image:
    """Red text of 8 pixels on blue: what 4:2:0 blurs most."""
    image = Image.new("RGB", (width, height), (30, 60, 200))
    draw = ImageDraw.Draw(image)
    for line in range(height // 12):
        draw.text((8, 12 * line), "the quick brown fox jumps over the lazy dog " * 3, fill=(220, 30, 30))
    return image


def ramp(width: int = 1200, height: int = 300) -> Image.Image:
    image = Image.new("RGB", (width, height))
    for x in range(width):
        share = x / (width - 1)
        image.paste((round(8 + 32 * share), round(8 + 32 * share), round(10 + 38 * share)), (x, 0, x + 1, height))
    return image


def original(studio: Studio, image: Image.Image, form: str = "PNG", **options: object) -> tuple[Image.Image, int, int]:
    """What came out, its bytes, and those of the source."""
    data = make.encoded(image, form, **options)
    rendering = render(studio.place(data), f"image/{form.lower()}", ORIGINAL, studio.folder)
    return studio.variant("original"), rendering.variants[0].size_bytes, len(data)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_text_comes_out_exactly_and_smaller(studio: Studio, form: str) -> None:
    image = screenshot()
    found, size, source = original(studio, image, form, **({"lossless": True} if form == "WEBP" else {}))
    assert found.convert("RGB").tobytes() == image.tobytes()
    assert size <= source


def longest_run(image: Image.Image) -> int:
    row = image.convert("RGB").crop((0, image.height // 2, image.width, image.height // 2 + 1)).tobytes()
    pixels = [row[at : at + 3] for at in range(0, len(row), 3)]
    longest = run = 1
    for before, after in itertools.pairwise(pixels):
        run = run + 1 if after == before else 1
        longest = max(longest, run)
    return longest


def test_dark_gradient_has_no_bands(studio: Studio) -> None:
    image = ramp()
    assert longest_run(original(studio, image)[0]) <= 2 * longest_run(image)


def test_smooth_gradient_comes_out_exactly_although_lossy_coding_is_shorter(studio: Studio) -> None:
    image = Image.radial_gradient("L").convert("RGB")
    found, size, _ = original(studio, image)
    assert found.convert("RGB").tobytes() == image.tobytes()
    assert size > len(make.encoded(image, "WEBP", quality=85, method=2))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_smaller_screenshot_is_coded_the_shorter_way(studio: Studio, mode: str) -> None:
    small = screenshot(1200, 800).resize((600, 400), Image.Resampling.LANCZOS).convert(mode)
    encoded = encode(small, Variant("small", 600, 85, 2), io.BytesIO())
    lossy = io.BytesIO()
    small.save(lossy, "WEBP", quality=85, method=2)
    assert encoded.size_bytes < len(lossy.getvalue()) / 2


@pytest.mark.parametrize(("quality", "method"), [(75, 2), (80, 6), (85, 6)])
def test_variant_of_the_source_s_size_is_not_larger(studio: Studio, quality: int, method: int) -> None:
    """Down to a quality of 75, which is 10 less than the variant's."""
    _, size, source = original(studio, make.photo(900, 700), "WEBP", quality=quality, method=method)
    assert size <= source


def test_photo_is_not_coded_without_loss(studio: Studio) -> None:
    found, size, source = original(studio, make.photo(900, 700))
    assert found.convert("RGB").tobytes() != make.photo(900, 700).tobytes()
    assert size < source / 5
