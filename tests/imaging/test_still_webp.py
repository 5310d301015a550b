"""The strict reader of variants accepts every layout that the encoder writes, and nothing else."""

import io
import struct
from contextlib import suppress

import pytest
from PIL import Image

from fixtures import make
from fixtures.containers import Chunk, webp_file, webp_parts
from imgsvc.imaging.encode import encode
from imgsvc.imaging.errors import Unreadable
from imgsvc.imaging.recipe import Variant
from imgsvc.imaging.still_webp import still_size

SIZE = (61, 43)
PHOTO = make.photo(*SIZE)
CLEAR = PHOTO.convert("RGBA")
CLEAR.putalpha(Image.linear_gradient("L").resize(SIZE))
LOSSY, LOSSLESS, ALPHA = (
    make.encoded(PHOTO, "WEBP"),
    make.encoded(PHOTO, "WEBP", lossless=True),
    make.encoded(CLEAR, "WEBP"),
)


def size_of(data: bytes) -> tuple[int, int]:
    return still_size(io.BytesIO(data))


def test_each_kind_of_variant_is_accepted() -> None:
    few = make.quadrants(*SIZE)
    few_clear = few.convert("RGBA")
    few_clear.putalpha(100)
    tall = make.photo(1, 300)
    for image in (PHOTO, CLEAR, few, few_clear, tall, Image.new("RGB", (1, 1))):
        output = io.BytesIO()
        encode(image.copy(), Variant("one", 1, 85, 4), output)
        assert still_size(output) == image.size
    assert {webp_parts(data)[0][0] for data in (LOSSY, LOSSLESS, ALPHA)} == {b"VP8 ", b"VP8L", b"VP8X"}


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


def with_chunk(data: bytes, *chunks: Chunk) -> bytes:
    return webp_file([*webp_parts(data), *chunks])


VP8X, ALPH, VP8 = webp_parts(ALPHA)
BAD: dict[str, bytes] = {
    "nothing": b"",
    "text": b"<script>alert(1)</script>",
    "JPEG": make.jpeg(*SIZE),
    "PNG": make.encoded(PHOTO, "PNG"),
    "AVI": LOSSY[:8] + b"AVI " + LOSSY[12:],
    "half": LOSSY[: len(LOSSY) // 2],
    "header alone": webp_file([]),
    "a byte less": LOSSY[:-1],
    "two bytes more": LOSSY + bytes(2),
    "wrong length": webp_file([VP8], off_by=2),
    "chunk beyond the end": LOSSY[:16] + struct.pack("<I", len(LOSSY)) + LOSSY[20:],
    "padding that is not zero": webp_file([(b"VP8L", webp_parts(LOSSLESS)[0][1][:25])])[:-1] + b"x",
    "animation": make.animation("WEBP"),
    "EXIF": make.encoded(PHOTO, "WEBP", exif=make.exif()),
    "XMP": make.encoded(PHOTO, "WEBP", xmp=b"<x/>"),
    "ICC profile": make.encoded(PHOTO, "WEBP", icc_profile=b"profile"),
    "EXIF that VP8X does not announce": with_chunk(ALPHA, (b"EXIF", make.exif())),
    "unknown chunk": with_chunk(LOSSY, (b"FAKE", b"data")),
    "two pictures": with_chunk(LOSSY, *webp_parts(LOSSY)),
    "many chunks": webp_file([(b"FAKE", b"")] * 10_000),
    "alpha alone": webp_file([VP8X, ALPH]),
    "VP8X that announces EXIF": webp_file([(b"VP8X", bytes((0x18, *VP8X[1][1:]))), ALPH, VP8]),
    "VP8X that announces an animation": webp_file([(b"VP8X", bytes((0x12, *VP8X[1][1:]))), ALPH, VP8]),
    "VP8X that is longer": webp_file([(b"VP8X", VP8X[1] + b"\0\0"), ALPH, VP8]),
    "canvas of another size": webp_file([(b"VP8X", VP8X[1][:-1] + b"\1"), ALPH, VP8]),
    "no key frame": changed(LOSSY, 20, LOSSY[20] | 1),
    "hidden frame": changed(LOSSY, 20, LOSSY[20] & ~0x10),
    "unknown version": changed(LOSSY, 20, LOSSY[20] | 0x0E),
    "enlarged by the viewer": changed(LOSSY, 27, LOSSY[27] | 0x40),
    "frame header alone": webp_file([(b"VP8 ", VP8[1][:9])]),
    "first partition beyond the chunk": webp_file([(b"VP8 ", VP8[1][:12])]),
    "unknown lossless version": changed(LOSSLESS, 24, LOSSLESS[24] | 0x20),
    "lossless header alone": webp_file([(b"VP8L", b"\x2f\0\0")]),
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(Unreadable):
        size_of(BAD[name])


def test_size_is_the_picture_s_however_few_its_bytes_are() -> None:
    bomb = make.one_colour_webp(16383, 16383)
    assert (len(bomb) < 100, size_of(bomb)) == (True, (16383, 16383))
    with Image.open(io.BytesIO(make.one_colour_webp(300, 200))) as image:
        assert image.convert("RGB").getcolors() == [(300 * 200, image.convert("RGB").getpixel((0, 0)))]


@pytest.mark.parametrize("data", [LOSSY, LOSSLESS, ALPHA], ids=["lossy", "lossless", "alpha"])
def test_every_prefix_and_every_flipped_header_bit_is_a_size_or_an_error(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(Unreadable):
            size_of(data[:length])
    for at in range(min(len(data), 64)):
        for bit in range(8):
            with suppress(Unreadable):
                size_of(changed(data, at, data[at] ^ 1 << bit))
