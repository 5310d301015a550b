"""Checks of a variant that was fetched. It is our own picture, so it may be decoded in this process."""

import io
import struct
from collections.abc import Iterator

from PIL import Image

from .http_client import Unexpected
from .photo import AREAS, SIGNS, SIZE

COLOUR_TOLERANCE = 14  # 0..255: JPEG, WebP and a profile's rounding
SIDE_TOLERANCE = 1  # pixels: sides may be rounded either way
PICTURE_CHUNKS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: ICC profile, EXIF, XMP


def check_picture(data: bytes, side: int) -> str:
    """Check that the picture has the size for `side`, the right orientation and colours. Returns a description."""
    try:
        image = Image.open(io.BytesIO(data), formats=["WEBP"]).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise Unexpected(f"is not a WebP image: {error}") from None
    expected = fitted(side)
    if any(abs(a - b) > SIDE_TOLERANCE for a, b in zip(image.size, expected, strict=True)):
        raise Unexpected(f"has {_size(image.size)} pixels and not {_size(expected)}")
    for (left, top, right, bottom), colour in AREAS.items():
        point = (int((left + right) / 2 * image.width), int((top + bottom) / 2 * image.height))
        sample = image.crop((point[0] - 1, point[1] - 1, point[0] + 2, point[1] + 2)).resize((1, 1)).getpixel((0, 0))
        assert isinstance(sample, tuple)
        if not near(sample, colour):
            raise Unexpected(
                f"is {_hex(sample)} where {_hex(colour)} is expected: wrong orientation, or its profile was ignored"
            )
    return f"{_size(image.size)}, {len(data):,} bytes"


def check_no_metadata(data: bytes) -> None:
    """Check the container's chunks (RFC 9649), and search for words from the upload's metadata."""
    for kind, body in _chunks(data):
        if kind not in PICTURE_CHUNKS or (kind == b"VP8X" and (not body or body[0] & METADATA_FLAGS)):
            raise Unexpected(f"contains a {kind.decode('ascii', 'replace').strip()} chunk with metadata")
    for sign in SIGNS:
        if sign in data:
            raise Unexpected(f"still contains {sign.decode()}")


def fitted(side: int) -> tuple[int, int]:
    """The photo's size within a square of `side` pixels, never enlarged."""
    scale = min(1.0, side / max(SIZE))
    return max(1, round(SIZE[0] * scale)), max(1, round(SIZE[1] * scale))


def near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= COLOUR_TOLERANCE for a, b in zip(one, other, strict=True))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
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
