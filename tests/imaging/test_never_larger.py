"""A variant as large as its source in pixels has no more bytes, if its source was of a format for pages."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from fixtures import make
from imgsvc.imaging.encode import Ceiling, encode
from imgsvc.imaging.recipe import Format, Recipe, Variant
from tests.conftest import Starter
from tests.support.rendered_paths import render


def variant(form: Format = "webp", quality: int = 85) -> Variant:
    return Variant("one", 4096, quality, {"webp": 4, "jpeg": 0, "avif": 2}[form], format=form)


def length(data: bytes, mime: str, tmp_path: Path, form: Format = "webp") -> int:
    """Of the variant that is made of a source."""
    source = tmp_path / "source"
    source.write_bytes(data)
    recipe = Recipe((variant(form), Variant("small", 64, 85, 2)), 10**9, 1)
    return render(source, mime, recipe, tmp_path).variants[-1].size_bytes


def size_of(image: Image.Image, one: Variant, most: Ceiling) -> int:
    return encode(image.copy(), one, io.BytesIO(), most).size_bytes


def plan(width: int, height: int) -> Image.Image:
    """Thin lines of many colours, which lossy coding makes long."""
    image = Image.new("RGB", (width, height), "white")
    drawing = ImageDraw.Draw(image)
    for n in range(0, width, 3):
        drawing.line((n, 0, (n * 7) % width, height), fill=(n * 5 % 256, n * 3 % 256, n % 256))
    return image


@pytest.mark.parametrize("form", ["webp", "jpeg", "avif"])
def test_photo_of_a_lower_quality(tmp_path: Path, form: Format) -> None:
    data = make.jpeg(400, 300, quality=78, subsampling=0)
    assert length(data, "image/jpeg", tmp_path, form) <= len(data)


def test_quality_falls_by_no_more_than_it_must() -> None:
    image = make.photo(400, 300)
    sizes = [size_of(image, variant(quality=quality), Ceiling()) for quality in (85, 80, 75)]
    for most, expected in ((sizes[0], 0), (sizes[0] - 1, 1), (sizes[1], 1), (sizes[1] - 1, 2), (1, 2)):
        assert size_of(image, variant(), Ceiling(most, noisy=True)) == sizes[expected]


def test_lossless_where_that_is_shorter(tmp_path: Path) -> None:
    image = plan(500, 400)
    lossless = make.encoded(image, "WEBP", lossless=True)
    found = encode(image.copy(), variant(), output := io.BytesIO(), Ceiling(len(lossless) + 2000))
    assert found.size_bytes <= len(lossless) + 2000
    assert Image.open(output).convert("RGB").tobytes() == image.tobytes()


def test_sample_tells_a_drawing_from_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lossless coding of a whole photo is not even tried where its source was a JPEG."""
    from imgsvc.imaging import encode as module

    tried: list[tuple[int, int]] = []
    without_loss = module._without_loss

    def counted(image: Image.Image, one: Variant) -> bytes:
        tried.append(image.size)
        return without_loss(image, one)

    monkeypatch.setattr(module, "_without_loss", counted)
    photo = make.photo(800, 600)
    size_of(photo, variant(), Ceiling(20_000, noisy=True))
    assert tried == [(192, 192)]
    size_of(photo, variant(), Ceiling(20_000))
    assert tried == [(192, 192), (800, 600)]


SHORT_OF_MEMORY = """
import io, resource
from PIL import Image
from imgsvc.imaging.encode import Ceiling, encode
from imgsvc.imaging.recipe import Variant

noise = Image.effect_noise((600, 400), 80).convert("RGB")
one = Variant("one", 4096, 85, 0)
encode(noise.resize((32, 32)), one, io.BytesIO(), Ceiling(1))
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for more in range(0, 20 << 20, 1 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (now + more, -1))
    try:
        print(encode(noise, one, io.BytesIO(), Ceiling(160_000)).size_bytes > 0)
    except MemoryError:
        print("MemoryError")
"""


def test_lossless_coding_that_runs_out_of_memory_leaves_the_lossy_result() -> None:
    """And lossy coding that does is short of memory: the picture is not damaged."""
    found = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == {"True", "MemoryError"}


async def test_what_stays_larger_is_counted(start: Starter) -> None:
    async with start(images={"sizes": {"one": 4096, "small": 64}, "webp_quality": 100}) as s:
        await s.completed(make.jpeg(400, 300, quality=60))
        text = (await s.http.get("/metrics", headers=s.operator)).text
        assert 'image_variants_larger_than_source_total{size="one"} 1.0' in text
        assert 'image_variants_larger_than_source_total{size="small"} 0.0' in text
