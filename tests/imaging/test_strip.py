"""Sources without their metadata: the same pixels, nothing else, and a reader that lets nothing else pass."""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image, ImageSequence, PngImagePlugin

from fixtures import make, mutations
from imgsvc.imaging import strip
from imgsvc.imaging.any_header import read_header
from imgsvc.imaging.errors import ImageError, Unreadable
from imgsvc.imaging.strip import NotStripped
from imgsvc.imaging.stripped import check_stripped
from tests.support.corpus import Source, damaged, odd, sound
from tests.support.rendering import Studio

SECRET = b"51.4778N 0.0014W Ann"


def stripped(data: bytes, mime: str) -> bytes:
    clean = b"".join(strip.stripped(io.BytesIO(data), mime))
    check_stripped(io.BytesIO(clean), mime)
    return clean


def frames(data: bytes) -> list[tuple[bytes, object]]:
    with Image.open(io.BytesIO(data)) as image:
        return [(one.convert("RGBA").tobytes(), one.info.get("duration")) for one in ImageSequence.Iterator(image)]


def taken(sources: list[Source]) -> list[Source]:
    return [one for one in sources if one.mime in ("image/jpeg", "image/png", "image/webp")]


@pytest.mark.parametrize("kind", ["sound", "odd"])
def test_pixels_are_the_same(tmp_path: Path, kind: str) -> None:
    """What the pipeline makes of both is alike to the byte, turned and coloured as it was."""
    studio = Studio(tmp_path)
    compared = 0
    for source in taken(list(sound() if kind == "sound" else odd())):
        form = source.mime.removeprefix("image/").upper()
        try:
            expected = studio.render(source.data, form)
        except ImageError:
            continue
        clean = stripped(source.data, source.mime)
        found = studio.render(clean, form)
        assert found.variants and [one.sha256 for one in found.variants] == [one.sha256 for one in expected.variants]
        assert (found.width, found.height, found.frames) == (expected.width, expected.height, expected.frames)
        assert len(clean) <= len(source.data) + 64, source.name
        compared += 1
    assert compared > 15


def test_damaged_files_give_the_same_pixels_or_none(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    compared = 0
    for source in taken(list(damaged(400))):
        form = source.mime.removeprefix("image/").upper()
        try:
            expected = studio.render(source.data, form)
            clean = stripped(source.data, source.mime)
        except (ImageError, NotStripped):
            continue
        assert studio.render(clean, form).variants[0].sha256 == expected.variants[0].sha256, source.name
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_animations_keep_their_frames(form: str) -> None:
    data = make.animation(form, 4)
    assert frames(stripped(data, f"image/{form.lower()}")) == frames(data)


def jpeg_with_everything() -> bytes:
    """EXIF with GPS, XMP, IPTC, comments, a thumbnail, also among the scans and behind the end."""
    data = make.leaky_jpeg()
    comment = b"\xff\xfe" + struct.pack(">H", len(SECRET) + 2) + SECRET
    note = b"\xff\xed" + struct.pack(">H", len(SECRET) + 2) + SECRET
    image = io.BytesIO()
    make.photo(80, 60).save(image, "JPEG", progressive=True)
    body = image.getvalue()
    scan = body.index(b"\xff\xda", body.index(b"\xff\xda") + 2)
    head = data[2 : data.index(b"\xff\xdb")]
    return body[:2] + head + note + body[2:scan] + comment + body[scan:] + SECRET + data


def png_with_everything() -> bytes:
    info = PngImagePlugin.PngInfo()
    for add in (info.add_text, info.add_itxt):
        add("Comment", SECRET.decode())
    info.add_text("zipped", SECRET.decode(), zip=True)
    info.add(b"prVt", SECRET)
    info.add(b"prVt", SECRET, after_idat=True)
    target = io.BytesIO()
    make.photo(80, 60).save(target, "PNG", pnginfo=info, exif=make.exif(6))
    return target.getvalue() + SECRET


def webp_with_everything() -> bytes:
    target = io.BytesIO()
    make.photo(80, 60).save(target, "WEBP", exif=make.exif(6), xmp=SECRET * 3)
    data = target.getvalue() + b"NOTE" + struct.pack("<I", len(SECRET)) + SECRET
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:] + SECRET


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (jpeg_with_everything(), "image/jpeg"),
        (png_with_everything(), "image/png"),
        (webp_with_everything(), "image/webp"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_metadata_is_left(data: bytes, mime: str) -> None:
    assert SECRET in data
    with pytest.raises(Unreadable):
        check_stripped(io.BytesIO(data), mime)
    clean = stripped(data, mime)
    for secret in (
        SECRET,
        b"GPS",
        b"Exif\0\0MM",
        b"http://ns.adobe.com",
        b"Photoshop",
        b"Canon",
        zlib.compress(SECRET),
    ):
        assert secret not in clean
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(clean)) as after:
        assert after.tobytes() == before.tobytes()
        exif = dict(after.getexif())
        assert exif.keys() <= {0x0112} and exif.get(0x0112, 1) == before.getexif().get(0x0112, 1)
        assert not {"comment", "xmp", "photoshop", "Comment", "zipped"} & after.info.keys()
    assert stripped(clean, mime) == clean


def refused(data: bytes, mime: str) -> bool:
    try:
        check_stripped(io.BytesIO(data), mime)
    except Unreadable:
        return True
    return False


def add_to_jpeg(clean: bytes) -> list[bytes]:
    comment = b"\xff\xfe\0\x04ab"
    scan = clean.index(b"\xff\xda")
    table = clean.index(b"\xff\xdb")
    return [
        clean + b"x",
        clean[:2] + comment + clean[2:],
        clean[:scan] + comment + clean[scan:],
        clean[:-2] + comment + clean[-2:],
        clean[:table] + b"xx" + clean[table:],
        clean[:2] + b"\xff\xe1\0\x0aExif\0\0ab" + clean[2:],
        clean[:table] + b"\xff\xdb\0\x04ab" + clean[table:],
        clean[:-2],
        clean[: scan // 2],
    ]


def add_to_png(clean: bytes) -> list[bytes]:
    end, text = len(clean) - 12, make.png_chunk(b"tEXt", b"a\0b")
    return [
        clean + b"x",
        clean[:end] + text + clean[end:],
        clean[:33] + text + clean[33:],
        clean[:33] + make.png_chunk(b"eXIf", b"II*\0") + clean[33:],
        clean[:33] + make.png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"x") + b"more") + clean[33:],
        clean[:33] + make.png_chunk(b"gAMA", bytes(5)) + clean[33:],
        clean[:end],
        clean[:-1] + b"x",
    ]


def add_to_webp(clean: bytes) -> list[bytes]:
    def sized(data: bytes) -> bytes:
        return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]

    note = b"NOTE\x02\0\0\0ab"
    return [
        clean + b"x",
        sized(clean + note),
        sized(clean[:12] + note + clean[12:]),
        sized(clean + b"EXIF\x04\0\0\0II*\0"),
        sized(clean + b"ICCP\x01\0\0\0xx"),
        clean[:-2],
    ]


@pytest.mark.parametrize(("form", "additions"), [("JPEG", add_to_jpeg), ("PNG", add_to_png), ("WEBP", add_to_webp)])
def test_whatever_is_added_is_refused(form: str, additions: Callable[[bytes], list[bytes]]) -> None:
    mime = f"image/{form.lower()}"
    clean = stripped(make.oriented(6, form), mime)
    for number, changed in enumerate(additions(clean)):
        assert refused(changed, mime), f"addition {number} passed"


def test_no_file_makes_the_reader_fail_otherwise() -> None:
    for _, mime, data in mutations.mutated(7, 300):
        if mime not in ("image/jpeg", "image/png", "image/webp"):
            continue
        if not refused(data, mime):
            with suppress(ImageError):
                read_header(io.BytesIO(data), mime)
