"""Reads the parts of a file that are needed: the bytes for a decoder, the colour profile, and the orientation.

Everything else (text, EXIF, XMP, thumbnails, further pictures, data after the end) is dropped before a decoder sees
the file, so it can't cost time or memory. Each part that is kept has a size limit, and every length that a file
claims is checked against the file's real size.
"""

from dataclasses import dataclass
from typing import BinaryIO

from . import jpeg_segments, png_chunks, webp_chunks
from .exif import MOST_BYTES, orientation
from .pieces import Piece, Span, content


@dataclass(frozen=True, slots=True)
class Essentials:
    """The needed parts of one file. `orientation` is that of EXIF, 1 to 8."""

    pieces: list[Piece]
    profile: bytes | None
    orientation: int


def read_essentials(stream: BinaryIO, form: str) -> Essentials:
    """Read the parts of a file whose header was read as `form` (Pillow's format name). Raises Unreadable."""
    pieces, profile, exif = READERS[form](stream)
    held = orientation(content(stream, exif, MOST_BYTES)) if exif else 1
    return Essentials(pieces, profile, held)


Read = tuple[list[Piece], bytes | None, Span | None]


def _jpeg(stream: BinaryIO) -> Read:
    pieces, parts, exif = jpeg_segments.essentials(stream)
    return pieces, jpeg_segments.profile_of(stream, parts), exif


def _png(stream: BinaryIO) -> Read:
    pieces, chunk, exif = png_chunks.essentials(stream)
    return pieces, png_chunks.profile_of(stream, chunk) if chunk else None, exif


def _webp(stream: BinaryIO) -> Read:
    pieces, chunk, exif = webp_chunks.essentials(stream)
    return pieces, webp_chunks.profile_of(stream, chunk) if chunk else None, exif


READERS = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp}
