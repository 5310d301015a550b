import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from fixtures import make, profiles
from imgsvc.imaging.recipe import Recipe, Variant, scratch_file
from tests.support.rendered_paths import preview, render

RECIPE = Recipe((Variant("original", 320, 90, 1), Variant("medium", 100, 85, 4), Variant("small", 32, 85, 4)), 10**7, 9)
XMP = b"<x:xmpmeta>SECRET-XMP</x:xmpmeta>"
PROFILE = profiles.display_p3().replace(b"imgsvc fixtures", b"SECRET-PROFILE.")


def leaky_png(mode: str = "RGB") -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "SECRET-COMMENT")
    text.add_text("Author", "SECRET-AUTHOR", zip=True)
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    text.add(b"prVt", b"SECRET-CHUNK")
    data = make.encoded(make.quadrants(mode=mode), "PNG", exif=make.exif(6), pnginfo=text, icc_profile=PROFILE)
    return data + b"SECRET-TRAILER"


def leaky_webp(mode: str = "RGB") -> bytes:
    image = make.quadrants(mode=mode)
    return make.encoded(image, "WEBP", exif=make.exif(6), xmp=XMP, icc_profile=PROFILE) + b"SECRET-TRAILER"


def leaky_jpeg() -> bytes:
    return make.leaky_jpeg().replace(b"imgsvc fixtures", b"SECRET-PROFILE.") + b"SECRET-TRAILER"


def clear_webp() -> bytes:
    image = make.quadrants(mode="RGBA")
    image.putalpha(120)
    return make.encoded(image, "WEBP", lossless=True, exif=make.exif(3), xmp=XMP, icc_profile=PROFILE)


LEAKY = [
    pytest.param(leaky_jpeg, "image/jpeg", id="jpeg"),
    pytest.param(leaky_png, "image/png", id="png"),
    pytest.param(lambda: leaky_png("L"), "image/png", id="grey png"),
    pytest.param(lambda: leaky_png("P"), "image/png", id="palette png"),
    pytest.param(leaky_webp, "image/webp", id="webp"),
    pytest.param(clear_webp, "image/webp", id="lossless webp"),
]


def chunks(data: bytes) -> list[bytes]:
    riff, size, webp = struct.unpack("<4sI4s", data[:12])
    assert (riff, webp, size + 8) == (b"RIFF", b"WEBP", len(data))
    found, at = [], 12
    while at < len(data):
        kind, length = struct.unpack("<4sI", data[at : at + 8])
        found.append(kind)
        at += 8 + length + (length & 1)
    assert at == len(data)
    return found


def assert_clean(file: Path) -> None:
    data = file.read_bytes()
    kinds = chunks(data)
    assert set(kinds) <= {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
    assert len([kind for kind in kinds if kind in (b"VP8 ", b"VP8L")]) == 1
    if kinds[0] == b"VP8X":
        assert data[20] & ~0x10 == 0
    assert b"SECRET" not in data
    with Image.open(file) as image:
        assert not image.getexif()
        assert not {"exif", "xmp", "icc_profile", "comment"} & set(image.info)


@pytest.mark.parametrize(("leaky", "mime"), LEAKY)
def test_the_source_leaks(leaky: Callable[[], bytes], mime: str) -> None:
    assert leaky().count(b"SECRET") >= 2


@pytest.mark.parametrize(("leaky", "mime"), LEAKY)
def test_no_variant_holds_metadata(tmp_path: Path, leaky: Callable[[], bytes], mime: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(leaky())
    rendering = render(source, mime, RECIPE, tmp_path)
    assert {one.name for one in rendering.variants} == {"original", "medium", "small"}
    for one in rendering.variants:
        assert_clean(scratch_file(tmp_path, one.name))


@pytest.mark.parametrize(("leaky", "mime"), LEAKY)
def test_the_preview_holds_no_metadata(tmp_path: Path, leaky: Callable[[], bytes], mime: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(leaky())
    assert preview(source, mime, RECIPE, tmp_path)
    assert_clean(scratch_file(tmp_path, "small"))


@pytest.mark.parametrize(("leaky", "mime"), LEAKY)
def test_metadata_was_honoured_before_it_went(tmp_path: Path, leaky: Callable[[], bytes], mime: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(leaky())
    rendering = render(source, mime, RECIPE, tmp_path)
    turned = leaky is not clear_webp
    assert (rendering.width, rendering.height) == ((200, 320) if turned else (320, 200))
