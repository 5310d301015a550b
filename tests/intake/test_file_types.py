"""What a file really is, whatever it is called: the words of the 415."""

from collections.abc import AsyncIterator

import httpx
import pytest

from fixtures import make
from fixtures.other_types import (
    BYTES,
    JPEG_2000,
    JXL_CODESTREAM,
    JXL_CONTAINER,
    LONG,
    RAF,
    SHORT,
    SVG,
    TEXT,
    media_file,
    raw_with_preview,
    tiff,
)
from imgsvc.intake import file_types
from imgsvc.intake.file_types import LOOK_BYTES, file_type
from tests.conftest import Starter
from tests.support.refused import RAW, UPLOAD

XML = b'<?xml version="1.0"?>\n<!-- drawn by <svg> hands -->\n'
DOCTYPE = b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd" [<!ENTITY a "b">]>\n'
ADOBE_COMMENT = b"<!-- " + b"Generator " * 200 + b"-->\n"
EXPORTED = tiff({254: (LONG, 0), 262: (SHORT, 2), 271: (TEXT, b"NIKON CORPORATION\0")})

FILES: dict[str, tuple[bytes, str, str]] = {
    "heic": (media_file(b"heic", b"mif1", b"heic"), "image/heic", "HEIC"),
    "heix": (media_file(b"heix", b"mif1", b"heix"), "image/heic", "HEIC"),
    "hevc": (media_file(b"hevc", b"msf1", b"hevc"), "image/heic", "HEIC"),
    "heim": (media_file(b"heim"), "image/heic", "HEIC"),
    "mif1 for heic": (media_file(b"mif1", b"mif1", b"heic"), "image/heic", "HEIC"),
    "mif1 alone": (media_file(b"mif1", b"mif1"), "image/heic", "HEIC"),
    "msf1": (media_file(b"msf1", b"msf1", b"hevc"), "image/heic", "HEIC"),
    "msf1 alone": (media_file(b"msf1"), "image/heic", "HEIC"),
    "avif": (media_file(b"avif", b"mif1", b"miaf"), "image/avif", "AVIF"),
    "avis": (media_file(b"avis", b"msf1"), "image/avif", "AVIF"),
    "mif1 for avif": (media_file(b"mif1", b"mif1", b"miaf", b"avif"), "image/avif", "AVIF"),
    "msf1 for avis": (media_file(b"msf1", b"avis"), "image/avif", "AVIF"),
    "jxl": (JXL_CODESTREAM, "image/jxl", "JPEG XL"),
    "jxl container": (JXL_CONTAINER, "image/jxl", "JPEG XL"),
    "jp2": (JPEG_2000, "image/jp2", "JPEG 2000"),
    "gif": (make.animation("GIF"), "image/gif", "GIF"),
    "svg": (SVG, "image/svg+xml", "SVG"),
    "svg with a declaration": (b"\xef\xbb\xbf" + XML + DOCTYPE + SVG, "image/svg+xml", "SVG"),
    "svg with a prefix": (XML + b'<svg:svg xmlns:svg="http://www.w3.org/2000/svg"/>', "image/svg+xml", "SVG"),
    "svg behind a long comment": (XML + ADOBE_COMMENT + SVG, "image/svg+xml", "SVG"),
    "svg in UTF-16": (b"\xff\xfe" + SVG.decode().encode("utf-16-le"), "image/svg+xml", "SVG"),
    "html": (b"\n<!doctype html>\n<html><svg></svg></html>", "text/html", "HTML"),
    "pdf": (b"%PDF-1.7\n" + bytes(600), "application/pdf", "PDF"),
    "pdf behind a mark": (b"\xef\xbb\xbf\n%PDF-1.7\n" + bytes(600), "application/pdf", "PDF"),
    "tiff": (make.encoded(make.quadrants(), "TIFF"), "image/tiff", "TIFF"),
    "tiff, big-endian": (tiff({262: (SHORT, 2)}, ">"), "image/tiff", "TIFF"),
    "tiff, directory last": (tiff({262: (SHORT, 2)}, at=50_000), "image/tiff", "TIFF"),
    "BigTIFF": (b"II+\x00\x08\x00\x00\x00" + bytes(600), "image/tiff", "TIFF"),
    "tiff exported from raw": (EXPORTED, "image/tiff", "TIFF"),
    "cr2": (b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(600), "image/x-canon-cr2", "camera raw file (Canon CR2)"),
    "cr3": (media_file(b"crx ", b"crx ", b"isom"), "image/x-canon-cr3", "camera raw file (Canon CR3)"),
    "nef": (raw_with_preview(b"NIKON CORPORATION", ">"), "image/x-nikon-nef", "camera raw file (Nikon NEF)"),
    "arw": (raw_with_preview(b"SONY"), "image/x-sony-arw", "camera raw file (Sony ARW)"),
    "pef": (tiff({262: (SHORT, 32803), 271: (TEXT, b"PENTAX \0")}, ">"), "image/x-pentax-pef", "camera raw"),
    "dng": (tiff({50706: (BYTES, 0x00000401), 271: (TEXT, b"Google\0")}), "image/x-adobe-dng", "camera raw file (DNG)"),
    "raw of another": (raw_with_preview(b"Phase One"), "image/x-dcraw", "camera raw"),
    "raf": (RAF, "image/x-fuji-raf", "camera raw file (Fujifilm RAF)"),
    "rw2": (b"IIU\x00" + bytes(600), "image/x-panasonic-rw2", "camera raw"),
    "orf": (b"IIRO" + bytes(600), "image/x-olympus-orf", "camera raw"),
    "empty": (b"", "application/x-empty", "an empty file"),
    "mp4": (media_file(b"mp42", b"mp42", b"isom"), "video/mp4", "video/mp4"),
    "bmp": (make.encoded(make.quadrants(), "BMP"), "image/bmp", "image/bmp"),
    "zip": (b"PK\x03\x04" + bytes(600), "application/zip", "application/zip"),
    "text": (b"only words " * 60, "application/octet-stream", "no picture"),
    "markup": (b"<note>" + b"x" * 600 + b"</note>", "application/octet-stream", "no picture"),
    "one byte": (b"<", "application/octet-stream", "no picture"),
}


@pytest.mark.parametrize(("data", "mime", "words"), FILES.values(), ids=FILES)
def test_type_is_named(data: bytes, mime: str, words: str) -> None:
    kind = file_type(data)
    assert kind.mime == mime
    assert words in kind.words
    assert kind.advice.endswith(".")


async def test_answer_names_it_with_advice(start: Starter) -> None:
    async with start() as s:
        for name, (data, mime, words) in FILES.items():
            if mime == "image/gif":
                continue
            headers = s.bearer() | RAW
            answer = await s.http.post(UPLOAD, params={"bucket": "b"}, content=_slowly(data), headers=headers)
            body = answer.json()
            assert (answer.status_code, body["code"]) == (415, "unsupported_type"), name
            assert (
                body["detail"]
                == f"Unsupported file type: {mime}. Allowed: image/jpeg, image/png, image/webp, image/gif"
            )
            assert words in body["reason"] and body["reason"].startswith("This is "), name


async def _slowly(data: bytes) -> AsyncIterator[bytes]:
    """In pieces that are shorter than what decides the type."""
    for start in range(0, len(data), 700):
        yield data[start : start + 700]


async def test_type_that_only_this_token_may_not_send(start: Starter) -> None:
    async with start(uploads={"allowed_mime_types": ["image/png"]}) as s:
        refused: httpx.Response = await s.upload(make.jpeg())
        assert refused.json()["reason"] == "This is a JPEG. Convert it to one of the accepted types."
        refused = await s.upload(make.animation("GIF"))
        assert refused.json()["detail"] == "Unsupported file type: image/gif. Allowed: image/png"
        assert refused.json()["reason"] == "This is a GIF. Save it as PNG, or as WebP if it moves."


@pytest.mark.parametrize(
    "kind", [make.jpeg(), make.encoded(make.quadrants(), "PNG"), make.animation("PNG"), make.animation("GIF")]
)
def test_accepted_types(kind: bytes) -> None:
    assert file_type(kind).mime in ("image/jpeg", "image/png", "image/webp", "image/gif")


def test_prefix_and_garbage_never_raise() -> None:
    for data, *_ in FILES.values():
        for end in range(min(len(data), 300)):
            file_type(data[:end])
            file_types.is_undecided(data[:end])
    for start in (b"II*\x00\xff\xff\xff\xff", b"MM\x00*\x00\x00\x00\x08\xff\xff", b"\xff\xff\xff\xffftypmif1"):
        file_type(start + bytes(20))
    assert file_types.is_undecided(b"<!-- " * 10)
    assert not file_types.is_undecided(b"<!-- " + bytes(LOOK_BYTES))
