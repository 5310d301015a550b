"""The strict reader of variants in AVIF, and what is encoded as one."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fixtures import coded, make
from imgsvc.imaging import coded_samples, optional_codecs
from imgsvc.imaging.encode import ANY_LENGTH, Ceiling, encode
from imgsvc.imaging.errors import Unreadable
from imgsvc.imaging.limits import probe, render_bytes
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.imaging.still_avif import still_size
from tests.support.rendered_paths import render

ICC = make.encoded(make.photo(8, 8), "PNG")


def variant(quality: int = 60, effort: int = 4, name: str = "one") -> Variant:
    return Variant(name, 4096, quality, effort, format="avif")


def encoded(image: Image.Image, one: Variant, most: Ceiling = ANY_LENGTH) -> bytes:
    buffer = io.BytesIO()
    made = encode(image.copy(), one, buffer, most)
    assert (made.format, made.size_bytes) == ("avif", len(buffer.getvalue()))
    return buffer.getvalue()


def clear(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 33), (64, 48)])
@pytest.mark.parametrize("effort", [0, 2, 6])
def test_each_kind_of_variant_is_accepted(size: tuple[int, int], effort: int) -> None:
    for image in (make.photo(*size), clear(make.photo(*size)), Image.new("RGB", size, "#123456")):
        for quality in (0, 60, 100):
            assert still_size(io.BytesIO(encoded(image, variant(quality, effort)))) == size


def avif(**options: object) -> bytes:
    return coded.avif(make.photo(64, 48), **{"codec": "aom", "autotiling": False, **options})


def replaced(old: bytes, new: bytes, *, alpha: bool = False) -> bytes:
    data = coded.avif(clear(make.photo(64, 48))) if alpha else avif()
    assert old in data
    return data.replace(old, new, 1)


def two_frames() -> bytes:
    buffer = io.BytesIO()
    frames = [make.photo(64, 48), make.quadrants(64, 48)]
    frames[0].save(buffer, "AVIF", save_all=True, append_images=frames[1:], max_threads=1, speed=9)
    return buffer.getvalue()


SPOILT: dict[str, Callable[[], bytes]] = {
    "exif": lambda: avif(exif=make.exif(1)),
    "turned": lambda: avif(exif=make.exif(6)),
    "xmp": lambda: avif(xmp=b"<x/>"),
    "profile": lambda: avif(icc_profile=ICC),
    "limited range": lambda: avif(range="limited"),
    "grey": lambda: coded.avif(make.photo(64, 48).convert("L")),
    "two frames": two_frames,
    "premultiplied": lambda: coded.avif(clear(make.photo(64, 48)), alpha_premultiplied=True),
    "trailing": lambda: avif() + b"\0",
    "second picture": lambda: avif() + avif(),
    "cut": lambda: avif()[:-1],
    "empty": lambda: b"",
    "WebP": lambda: make.encoded(make.photo(64, 48), "WEBP"),
    "HEIC": lambda: coded_samples.HEIF,
    "another brand": lambda: replaced(b"MA1B", b"heic"),
    "another name": lambda: replaced(b"Color", b"Paris"),
    "another property": lambda: replaced(b"pixi", b"free"),
    "another use of alpha": lambda: replaced(b"auxiliary:alpha", b"auxiliary:depth", alpha=True),
    "another size": lambda: replaced(b"\0\0\0\x40\0\0\0\x30", b"\0\0\0\x40\0\0\0\x31"),
    "another height of the handler": lambda: replaced(b"pict", b"vide"),
    "a hidden item": lambda: replaced(b"infe\2\0\0\0", b"infe\2\0\0\1"),
    "a metadata unit": lambda: replaced(b"mdat\x12\0", b"mdat\x2a\0"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_the_encoder_does_not_write_is_refused(kind: str) -> None:
    assert still_size(io.BytesIO(avif())) == (64, 48)
    with pytest.raises(Unreadable):
        still_size(io.BytesIO(SPOILT[kind]()))


@pytest.mark.parametrize("alpha", [False, True])
def test_every_prefix_and_every_flipped_header_bit_is_a_size_or_an_error(alpha: bool) -> None:
    data = coded.avif(clear(make.photo(16, 12)) if alpha else make.photo(16, 12))
    for end in range(len(data)):
        with pytest.raises(Unreadable):
            still_size(io.BytesIO(data[:end]))
    for place in range(data.index(b"mdat") + 20):
        for bit in range(8):
            spoilt = bytearray(data)
            spoilt[place] ^= 1 << bit
            try:
                still_size(io.BytesIO(bytes(spoilt)))
            except Unreadable:
                continue


def test_pixels_are_those_of_the_picture() -> None:
    optional_codecs.load()
    for image in (make.quadrants(64, 48), clear(make.quadrants(64, 48))):
        shown = Image.open(io.BytesIO(encoded(image, variant(90))))
        assert (shown.mode, shown.info.get("icc_profile"), shown.info.get("exif")) == (image.mode, None, None)
        for x, y in ((10, 10), (50, 10), (10, 40), (50, 40)):
            pairs = zip(shown.getpixel((x, y)), image.getpixel((x, y)), strict=True)  # type: ignore[arg-type]
            assert all(abs(a - b) <= 4 for a, b in pairs)


def test_same_bytes_again_and_shorter_ones_where_the_source_was() -> None:
    image = make.photo(200, 150)
    data = encoded(image, variant())
    assert encoded(image, variant()) == data
    assert len(encoded(image, variant(), Ceiling(len(data) - 1))) < len(data)


def test_whole_render_writes_avif(tmp_path: Path) -> None:
    recipe = Recipe((Variant("large", 200, 85, 4), variant(name="small")), 10**9, 1)
    source = tmp_path / "photo"
    source.write_bytes(make.jpeg(300, 200))
    made = {one.name: one for one in render(source, "image/jpeg", recipe, tmp_path).variants}
    assert (made["small"].format, made["small"].width, made["large"].format) == ("avif", 300, "webp")
    assert still_size(io.BytesIO((tmp_path / "small.webp").read_bytes())) == (300, 200)


def test_memory_of_the_encoder_is_in_the_estimate() -> None:
    source = io.BytesIO(make.jpeg(3000, 2000))
    header = probe(source, "image/jpeg", max_pixels=10**9)
    webp, avif = (
        render_bytes(header, Recipe((Variant("one", 3000, 60, 4, format=form),), 10**9, 1)) for form in ("webp", "avif")
    )
    assert avif > webp + 100_000_000
