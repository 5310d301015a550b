"""Reads the parts of a file that are needed: the bytes for a decoder, the colour profile, and the orientation.

Everything else (text, EXIF, XMP, thumbnails, further pictures, data after the end) is dropped before a decoder sees
the file, so it can't cost time or memory. Each part that is kept has a size limit, and every length that a file
claims is checked against the file's real size.
"""

from collections.abc import Callable
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from . import colour_description, gif_blocks, heif, jpeg_segments, png_chunks, webp_chunks
from .exif import MOST_BYTES, orientation
from .header import Scans
from .jpeg_segments import JpegParts
from .pieces import Piece, Span, content
from .png_chunks import PngParts


@dataclass(frozen=True, slots=True)
class Essentials:
    """The needed parts of one file. `orientation` is as EXIF counts, 1 to 8; `jpeg` and `png` say more of these two."""

    pieces: list[Piece]
    profile: bytes | None
    orientation: int
    jpeg: JpegParts | None = None
    png: PngParts | None = None


def read_essentials(stream: BinaryIO, form: str, scans: Scans | None = None) -> Essentials:
    """Read the parts of a file whose header was read as `form` (Pillow's format name). Raises Unreadable.

    `scans`: those of a JPEG, if they have been read.
    """
    return READERS[form](stream) if scans is None else _jpeg(stream, scans)


def _jpeg(stream: BinaryIO, scans: Scans | None = None) -> Essentials:
    parts = jpeg_segments.essentials(stream, scans)
    profile = jpeg_segments.profile_of(stream, parts.profile)
    return Essentials(parts.pieces, profile, _orientation(stream, parts.exif), jpeg=parts)


def _png(stream: BinaryIO) -> Essentials:
    parts = png_chunks.essentials(stream)
    embedded = png_chunks.profile_of(stream, parts.profile) if parts.profile else None
    profile = colour_description.profile_of(parts.colour, embedded, grey=parts.grey)
    return Essentials(parts.pieces, profile, _orientation(stream, parts.exif), png=parts)


def _webp(stream: BinaryIO) -> Essentials:
    pieces, chunk, exif = webp_chunks.essentials(stream)
    profile = webp_chunks.profile_of(stream, chunk) if chunk else None
    return Essentials(pieces, profile, _orientation(stream, exif))


def _gif(stream: BinaryIO) -> Essentials:
    return Essentials(gif_blocks.first_picture(stream), None, 1)


def _heif(stream: BinaryIO) -> Essentials:
    return Essentials(*heif.essentials(stream, "HEIF"))


def _avif(stream: BinaryIO) -> Essentials:
    return Essentials(*heif.essentials(stream, "AVIF"))


def _orientation(stream: BinaryIO, exif: Span | None) -> int:
    return orientation(content(stream, exif, MOST_BYTES)) if exif else 1


READERS: dict[str, Callable[[BinaryIO], Essentials]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "HEIF": _heif,
    "AVIF": _avif,
}
