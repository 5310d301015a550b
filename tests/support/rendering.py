"""One source through the pipeline, and a look at what comes out."""

import tempfile
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from fixtures import make
from imgsvc.imaging.pipeline import Rendering
from imgsvc.imaging.recipe import Recipe, Variant, scratch_file
from tests.support.rendered_paths import preview, render

SIDES = {"large": 300, "medium": 120, "small": 40}
RECIPE = Recipe(tuple(Variant(name, side, 95, 1) for name, side in SIDES.items()), 50_000_000, 100)
QUADRANTS = (make.RED, make.GREEN, make.BLUE, make.WHITE)
FORMS = ["JPEG", "PNG", "WEBP"]


class Studio:
    """One source file and the folder that its variants go to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, data: bytes) -> Path:
        source = self.folder / "source"
        source.write_bytes(data)
        return source

    def render(self, data: bytes, form: str = "PNG", **options: Any) -> Rendering:
        return render(self.place(data), f"image/{form.lower()}", RECIPE, self.folder, **options)

    def preview(self, data: bytes, form: str = "PNG", **options: Any) -> Rendering | None:
        return preview(self.place(data), f"image/{form.lower()}", RECIPE, self.folder, **options)

    def bytes_of(self, name: str) -> bytes:
        return scratch_file(self.folder, name).read_bytes()

    def variant(self, name: str = "large") -> Image.Image:
        with Image.open(scratch_file(self.folder, name), formats=["WEBP"]) as image:
            image.load()
        return image


def near(colour: object, expected: tuple[int, ...], tolerance: int = 16) -> bool:
    assert isinstance(colour, tuple)
    return all(abs(a - b) <= tolerance for a, b in zip(colour, expected, strict=True))


def assert_upright(image: Image.Image) -> None:
    width, height = image.size
    places = [(width * x // 4, height * y // 4) for y in (1, 3) for x in (1, 3)]
    colours = [image.convert("RGB").getpixel(place) for place in places]
    assert all(near(colour, expected) for colour, expected in zip(colours, QUADRANTS, strict=True)), colours


def same_as(studio: Studio, damaged: bytes, sound: bytes, form: str, tolerance: int = 0) -> None:
    """Both come out alike, pixel by pixel in the smallest and the largest variant."""
    studio.render(damaged, form)
    for name, picture in _smallest_and_largest(sound, form).items():
        found = studio.variant(name).convert("RGB")
        assert found.size == picture.size
        worst = max(ImageChops.difference(found, picture).tobytes())
        assert worst <= tolerance, (name, worst)


@lru_cache(maxsize=16)  # each is compared with many that are damaged
def _smallest_and_largest(sound: bytes, form: str) -> dict[str, Image.Image]:
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(folder))
        studio.render(sound, form)
        return {name: studio.variant(name).convert("RGB") for name in ("small", "large")}


@cache
def photo(form: str, size: tuple[int, int]) -> bytes:
    return make.encoded(make.photo(*size), form, compress_level=1)
