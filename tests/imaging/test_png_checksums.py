"""PNG chunks with a wrong checksum: of colours or the turn they are left out, as by libpng; needed ones are refused."""

import struct
import zlib

import pytest

from fixtures import containers as c
from fixtures import make, profiles
from imgsvc.imaging.errors import Unreadable
from imgsvc.imaging.strip import stripped
from tests.support.rendering import Studio, same_as

SOUND = make.encoded(make.quadrants(), "PNG")
HEADER_END = 33
OPTIONAL = {
    "gAMA": struct.pack(">I", 100_000),
    "cICP": b"\x0c\x0d\x00\x01",
    "iCCP": b"p\0\0" + zlib.compress(profiles.display_p3()),
    "tRNS": struct.pack(">3H", *make.RED),
    "eXIf": make.exif(6),
}


def with_chunk(name: str, *, crc: int | None = None) -> bytes:
    chunk = c.png_chunk(name.encode(), OPTIONAL[name], crc=crc)
    return SOUND[:HEADER_END] + chunk + SOUND[HEADER_END:]


@pytest.mark.parametrize("name", OPTIONAL)
def test_chunk_with_a_wrong_checksum_is_left_out(studio: Studio, name: str) -> None:
    same_as(studio, with_chunk(name, crc=1), SOUND, "PNG")
    with pytest.raises(AssertionError):  # with a true one it counts
        same_as(studio, with_chunk(name), SOUND, "PNG")


@pytest.mark.parametrize("name", OPTIONAL)
def test_kept_source_does_not_make_it_count(studio: Studio, name: str) -> None:
    with studio.place(with_chunk(name, crc=1)).open("rb") as source:
        kept = b"".join(stripped(source, "image/png"))
    assert name.encode() not in kept
    same_as(studio, kept, SOUND, "PNG")


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_needed_chunk_with_a_wrong_checksum_is_refused(studio: Studio, kind: bytes) -> None:
    parts = c.png_parts(make.encoded(make.quadrants(mode="P"), "PNG"))
    chunks = [c.png_chunk(*part, crc=1 if part[0] == kind else None) for part in parts]
    with pytest.raises(Unreadable):
        studio.render(SOUND[:8] + b"".join(chunks), "PNG")


@pytest.mark.parametrize("place", ["nowhere", "behind the pixels", "empty"])
def test_picture_by_palette_without_one_is_refused(studio: Studio, place: str) -> None:
    palette, *others = sorted(
        c.png_parts(make.encoded(make.quadrants(mode="P"), "PNG")), key=lambda one: one[0] != b"PLTE"
    )
    assert palette[0] == b"PLTE"
    *rest, end = others
    chunks = {
        "nowhere": [*rest, end],
        "behind the pixels": [*rest, palette, end],
        "empty": [rest[0], (b"PLTE", b""), *rest[1:], end],
    }[place]
    with pytest.raises(Unreadable, match="no palette"):
        studio.render(c.png_file(chunks), "PNG")
