"""Checks of a variant that was fetched. It is our own picture, so it may be decoded in this process."""

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from PIL import Image

from ...imaging import still_avif, still_jpeg
from ...imaging.errors import ImageError
from ...imaging.geometry import output_size
from ...imaging.recipe import Variant
from .http_client import Unexpected
from .photo import AREAS, SIGNS, SIZE

COLOUR_TOLERANCE = 14  # 0..255: JPEG, WebP and a profile's rounding
SIDE_TOLERANCE = 1  # pixels: sides may be rounded either way
NAMES = {"webp": "WebP", "jpeg": "JPEG"}
MOVING_CHUNKS = {b"VP8X", b"ANIM", b"ANMF"}
PICTURE_CHUNKS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: ICC profile, EXIF, XMP


def check_picture(data: bytes, variant: Variant) -> str:
    """Check that the picture has the variant's size, the right orientation and colours. Returns a description.

    Of a crop, which shows a part, only the size is checked; so it is of an AVIF, which needs no decoder here.
    """
    expected = output_size(variant, SIZE)
    if variant.format == "avif":
        size = _strict_size(data, still_avif.still_size)
        _check_size(size, expected)
        return f"AVIF, {_size(size)}, {len(data):,} bytes"
    name = NAMES[variant.format]
    try:
        image = Image.open(io.BytesIO(data), formats=[name.upper()]).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise Unexpected(f"is not a {name} image: {error}") from None
    _check_size(image.size, expected)
    if not variant.cover:
        _check_colours(image)
    form = "" if variant.format == "webp" else f"{name}, "
    return f"{form}{_size(image.size)}, {len(data):,} bytes"


def variant_described(name: str, side: int, described: Mapping[str, Any] | None) -> Variant:
    """The variant as /info describes it."""
    if described is None:
        return Variant(name, side, 0, 0)
    cover = described["fit"] == "cover"
    moves = bool(described.get("animated"))
    return Variant(name, side, 0, 0, described["width"], described["height"], cover, described["format"], moves)


def _check_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    if any(abs(a - b) > SIDE_TOLERANCE for a, b in zip(size, expected, strict=True)):
        raise Unexpected(f"has {_size(size)} pixels and not {_size(expected)}")


def _strict_size(data: bytes, reader: Callable[[BinaryIO], tuple[int, int]]) -> tuple[int, int]:
    try:
        return reader(io.BytesIO(data))
    except ImageError as error:
        raise Unexpected(f"contains something beside its picture: {error}") from None


def _check_colours(image: Image.Image) -> None:
    for (left, top, right, bottom), colour in AREAS.items():
        point = (int((left + right) / 2 * image.width), int((top + bottom) / 2 * image.height))
        sample = image.crop((point[0] - 1, point[1] - 1, point[0] + 2, point[1] + 2)).resize((1, 1)).getpixel((0, 0))
        assert isinstance(sample, tuple)
        if not near(sample, colour):
            raise Unexpected(
                f"is {_hex(sample)} where {_hex(colour)} is expected: wrong orientation, or its profile was ignored"
            )


def check_no_metadata(data: bytes) -> None:
    """Check that the file holds its picture alone, and search for words from the upload's metadata."""
    if data[:2] == b"\xff\xd8":
        _strict_size(data, still_jpeg.still_size)
    elif data[4:8] == b"ftyp":
        _strict_size(data, still_avif.still_size)
    else:
        _check_chunks(data)
    for sign in SIGNS:
        if sign in data:
            raise Unexpected(f"still contains {sign.decode()}")


def _check_chunks(data: bytes) -> None:
    """Of a WebP (RFC 9649)."""
    for kind, body in chunks(data):
        if kind not in PICTURE_CHUNKS or (kind == b"VP8X" and (not body or body[0] & METADATA_FLAGS)):
            raise Unexpected(f"contains a {kind.decode('ascii', 'replace').strip()} chunk with metadata")


def near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= COLOUR_TOLERANCE for a, b in zip(one, other, strict=True))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a WebP: type and body. Raises Unexpected."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise Unexpected("is not a WebP image")
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _hex(colour: tuple[int, ...]) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)
