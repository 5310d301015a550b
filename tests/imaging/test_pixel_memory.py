"""A large photo is shrunk in the memory that it was decoded into: to the same pixels, and without a second picture."""

import io
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging import pixel_memory
from imgsvc.imaging.geometry import fit
from imgsvc.imaging.limits import probe
from imgsvc.imaging.malloc import TUNABLES, tunables
from imgsvc.imaging.open import Opened, open_image
from imgsvc.imaging.pipeline import Picture, decode, fit_largest
from imgsvc.imaging.pixel_memory import LEAST_PIXELS
from imgsvc.imaging.resize import resized
from imgsvc.settings.jobs import Images
from tests.support.rendering import FORMS
from tests.support.server_process import ROOT


def opened(data: bytes, side: int) -> Opened:
    stream = io.BytesIO(data)
    return open_image(stream, probe(stream, "image/jpeg", max_pixels=50_000_000), side)


@pytest.fixture
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_memory, "LEAST_PIXELS", 1)


@pytest.mark.usefixtures("every_size")
@pytest.mark.parametrize("size", [(640, 400), (401, 640), (333, 501), (300, 7), (7, 300), (2, 99)], ids=str)
@pytest.mark.parametrize("side", [332, 299, 150, 149, 33, 1])
def test_same_pixels(size: tuple[int, int], side: int) -> None:
    data = make.jpeg(*size)
    found, (width, height) = opened(data, side), fit(size, side)
    rows = found.image.height
    narrow = resized(found.image.copy(), (width, rows), (found.extent[0], rows))
    expected = resized(narrow, (width, height), (width, found.extent[1]))
    stream = io.BytesIO(data)
    picture = Picture(stream, probe(stream, "image/jpeg", max_pixels=50_000_000), side, (), {}, False)
    decode(picture)
    assert picture.memory
    assert picture.memory.holds(picture.image) == (fit(picture.image.size, side) != picture.image.size)
    fit_largest(picture)
    assert picture.image.size == expected.size
    assert picture.image.tobytes() == expected.tobytes()
    assert picture.memory is None


def writable_bytes() -> int:
    """What RLIMIT_DATA counts of this process (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * mmap.PAGESIZE


def test_memory_beyond_the_shrunk_photo_is_unmapped() -> None:
    """The ceiling of a worker counts what is mapped: lossless coding may need the rest."""
    stream = io.BytesIO(make.jpeg(3000, 2000))
    picture = Picture(stream, probe(stream, "image/jpeg", max_pixels=50_000_000), 1501, (), {}, False)
    before = writable_bytes()
    decode(picture)
    assert picture.memory
    assert picture.memory.holds(picture.image)
    assert writable_bytes() - before > 4 * 3000 * 2000
    fit_largest(picture)
    assert writable_bytes() - before < 4 * 1501 * 1001 + (2 << 20)


@pytest.mark.usefixtures("every_size")
def test_without_the_interface_of_this_pillow_a_picture_has_its_usual_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make.jpeg(300, 200)
    expected = opened(data, 100)
    assert expected.memory.holds(expected.image)

    def other(*_arguments: object) -> None:
        raise TypeError

    monkeypatch.setattr("PIL._imaging.map_buffer", other)
    found = opened(data, 100)
    assert not found.memory.holds(found.image)
    assert found.image.tobytes() == expected.image.tobytes()


@pytest.mark.parametrize(
    ("mode", "size", "side", "held"),
    [
        ("RGB", (1000, 1000), 999, True),
        ("RGB", (1000, 1000), 1000, False),
        ("RGB", (999, 1000), 999, False),
        ("L", (1000, 1000), 999, False),
        ("CMYK", (1000, 1000), 999, False),
    ],
)
def test_large_photos_that_are_shrunk_are_held(mode: str, size: tuple[int, int], side: int, held: bool) -> None:
    assert LEAST_PIXELS == 1_000_000
    found = opened(make.encoded(Image.new(mode, size), "JPEG"), side)
    assert found.memory.holds(found.image) == held


@pytest.mark.parametrize("form", FORMS)
def test_no_decoder_stays_with_the_pixels(form: str) -> None:
    """That of WebP holds two pictures."""
    stream = io.BytesIO(make.encoded(make.photo(64, 48), form))
    found = open_image(stream, probe(stream, f"image/{form.lower()}", max_pixels=50_000_000), 32)
    assert type(found.image) is Image.Image


MEASURE = """
import io, json, resource, sys
from pathlib import Path
from imgsvc.imaging.pipeline import render
from imgsvc.imaging.recipe import Recipe
from imgsvc.imaging.warm_up import use_codecs

use_codecs()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
recipe, source = Recipe.from_json(sys.argv[1]), Path(sys.argv[2]).open("rb")
outputs = {variant.name: io.BytesIO() for variant in recipe.variants}
idle = peak()
made = render(source, "image/jpeg", recipe, outputs)
print(json.dumps([peak() - idle, max(one.width for one in made.variants)]))
"""


@pytest.mark.parametrize("large_pages", [False, True], ids=["small pages", "large pages"])
def test_photo_of_15_megapixels_takes_little_more_than_its_pixels(tmp_path: Path, large_pages: bool) -> None:
    """57 MB decoded, 48 MB shrunk: two of them at once are not there, nor a copy beside the encoder's."""
    source = tmp_path / "photo.jpg"
    source.write_bytes(make.jpeg(4474, 3354))
    command = [sys.executable, "-c", MEASURE, Images().recipe.to_json(), str(source)]
    environment = {**os.environ, TUNABLES: tunables(large_pages=large_pages)}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    megabytes, width = json.loads(ran.stdout)
    assert width == 4096
    assert megabytes < 90
