"""Writes a source without its metadata, and without decoding it: the same pixels, in the same coded bytes.

What is kept is what pixels and their colours need: the coded data and its tables, the ICC profile, and of EXIF the
orientation alone, in a block of this program's own. Everything else is left out: further EXIF, XMP, IPTC, comments,
thumbnails, text, unknown chunks, data between segments and behind the end. `stripped` checks the result.

GIF, HEIC and AVIF are written from their blocks and boxes by `BARE`.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from . import jpeg_segments, png_chunks, webp_chunks
from .errors import ImageError
from .exif import MOST_BYTES, orientation
from .header import MAX_SEGMENTS
from .jpeg_segments import ADOBE_SEGMENT, APP0, EOI, EXIF_SEGMENT, ICC_SEGMENT, PROFILE_HEAD, SOS
from .pieces import Piece, Span, content, length_of, span_within
from .stripped import (
    BARE,
    COLOUR_CHUNKS,
    EXIF_OF,
    FRAME_CHUNKS,
    ICC_HEAD,
    JPEG_SEGMENTS,
    PROFILE_NAME,
    WEBP_FRAME,
    WEBP_PIXELS,
)

COPIED = 1 << 20  # bytes at once
PART = 65_519  # bytes of a profile in one JPEG segment


class NotStripped(Exception):
    """A damaged file, in which picture and metadata can't be told apart. The message is for the log."""


def stripped(source: BinaryIO, mime: str) -> Iterator[bytes]:
    """The bytes of the source, without its metadata. Raises NotStripped, perhaps midway."""
    try:
        for piece in WRITERS[mime](source):
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from _copied(source, piece)
    except (ImageError, struct.error, IndexError) as error:
        raise NotStripped(str(error)) from None


def _copied(source: BinaryIO, span: Span) -> Iterator[bytes]:
    at, end = span.at, span.at + span.length
    while at < end:
        part = content(source, Span(at, end - at), COPIED)
        if not part:
            raise NotStripped("the file has become shorter")
        yield part
        at += len(part)


def _jpeg(source: BinaryIO) -> Iterator[bytes | Span]:
    """ITU-T T.81 annex B. The order of what stays is that of the file."""
    parts = jpeg_segments.essentials(source)
    profile = jpeg_segments.profile_of(source, parts.profile)
    turn = orientation(content(source, parts.exif, MOST_BYTES)) if parts.exif else 1
    yield b"\xff\xd8"
    for segment in jpeg_segments.segments(source):
        head = content(source, segment.body, PROFILE_HEAD)
        if segment.marker == APP0 and head.startswith(b"JFIF\0") and len(head) >= 14:
            yield _segment(APP0, head[:12] + b"\0\0")  # without its thumbnail
            break
    if turn != 1:
        yield _segment(EXIF_SEGMENT, b"Exif\0\0" + EXIF_OF[turn])
    if profile:
        starts = range(0, len(profile), PART)
        for number, start in enumerate(starts, 1):
            yield _segment(ICC_SEGMENT, ICC_HEAD + bytes((number, len(starts))) + profile[start : start + PART])
    for segment in list(jpeg_segments.segments(source)):
        head = content(source, segment.body, PROFILE_HEAD)
        if segment.marker == ADOBE_SEGMENT and head.startswith(b"Adobe") and len(head) >= 12:
            yield _segment(ADOBE_SEGMENT, head[:12])
        elif segment.marker == SOS:
            yield from _scans(source, Span(segment.at, segment.body.at + segment.body.length - segment.at))
        elif segment.marker in JPEG_SEGMENTS:
            yield Span(segment.at, segment.body.at + segment.body.length - segment.at)
    yield b"\xff\xd9"


def _scans(source: BinaryIO, first: Span) -> Iterator[Span]:
    """The scans, each with its coded data, and the tables among them. `first` is the first scan's header."""
    stop, marker, kept = length_of(source), SOS, first
    for _ in range(MAX_SEGMENTS):
        source.seek(kept.at + kept.length)
        following = jpeg_segments.next_in_scan(source)
        behind = stop if following is None else source.tell() - 2
        body = jpeg_segments.body_of(source)  # before anything is yielded, which moves the stream
        if marker in JPEG_SEGMENTS:
            yield Span(kept.at, behind - kept.at) if marker == SOS else kept
        elif not (APP0 <= marker <= jpeg_segments.APP15 or marker == jpeg_segments.COMMENT):
            raise NotStripped(f"a segment {marker:#x} among the scans")
        if following is None or following == EOI:
            return
        if body is None or body.at + body.length > stop:
            raise NotStripped("a segment without an end")
        marker, kept = following, Span(behind, body.at + body.length - behind)
    raise NotStripped("too many segments")


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _png(source: BinaryIO) -> Iterator[bytes | Span]:
    """PNG, third edition. Chunks get a true checksum; an animation's frames stay."""
    parts, end = png_chunks.essentials(source), length_of(source)
    turn = orientation(content(source, parts.exif, MOST_BYTES)) if parts.exif else 1
    profile = png_chunks.profile_of(source, parts.profile) if parts.profile else None
    yield content(source, Span(0, png_chunks.SIGNATURE), png_chunks.SIGNATURE)
    at, pixels = png_chunks.SIGNATURE, False
    for _ in range(MAX_SEGMENTS + end // png_chunks.BYTES_PER_CHUNK):
        head = content(source, Span(at, 8), 8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        body = span_within(at + 8, length, end)
        at += png_chunks.FRAMING + length
        if kind == b"IEND":
            break
        if kind == b"IDAT" and not pixels:
            pixels = True
            if profile:
                yield _chunk(b"iCCP", PROFILE_NAME + zlib.compress(profile))
            if turn != 1:
                yield _chunk(b"eXIf", EXIF_OF[turn])
        wanted = _is_wanted(kind, length, pixels=pixels) and png_chunks.is_sound(source, kind, body)
        if kind == b"IHDR" or (kind == b"IDAT" and body.length) or wanted:
            if body.length != length and kind != b"IDAT":
                break
            yield _chunk(kind, content(source, body, body.length))
    yield _chunk(b"IEND", b"")


def _is_wanted(kind: bytes, length: int, *, pixels: bool) -> bool:
    """Whether it is a chunk about colours before the pixels, or of an animation."""
    if kind in FRAME_CHUNKS:
        lengths = FRAME_CHUNKS[kind]
        return lengths is None or length in lengths
    return not pixels and length in COLOUR_CHUNKS.get(kind, ())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _webp(source: BinaryIO) -> Iterator[bytes | Span]:
    """RFC 9649. Of the simple format the first chunk alone, of the extended one what its pixels need."""
    _, profile, exif = webp_chunks.essentials(source)
    turn = orientation(content(source, exif, MOST_BYTES)) if exif else 1
    if profile is not None and profile.length > webp_chunks.MAX_PROFILE:
        profile = None
    chunks = list(_webp_chunks(source, webp_chunks.RIFF, length_of(source)))
    if chunks[0][0] != b"VP8X":
        yield from _riff([_framed(*chunks[0])])
        return
    head = content(source, chunks[0][1], webp_chunks.EXTENDED)
    flags = head[0] & webp_chunks.ANIMATED_OR_CLEAR | (0x20 if profile else 0) | (0x08 if turn != 1 else 0)
    kept: list[list[bytes | Span]] = [[struct.pack("<4sI", b"VP8X", 10), bytes((flags, 0, 0, 0)) + head[4:]]]
    seen = set()
    for kind, body in chunks:
        if kind == b"ANMF":
            kept.append(_frame(source, body))
        elif (kind in (b"ANIM", *WEBP_PIXELS) and kind not in seen) or (kind == b"ICCP" and body == profile):
            kept.append(_framed(kind, body))
        seen.add(kind)
    if turn != 1:
        kept.append([struct.pack("<4sI", b"EXIF", len(EXIF_OF[turn])), EXIF_OF[turn]])
    yield from _riff(kept)


def _webp_chunks(source: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, Span]]:
    """The chunks of a range; what is left of it may be anything. Raises NotStripped if one is cut."""
    for _ in range(MAX_SEGMENTS):
        head = content(source, Span(at, 8), min(8, max(0, end - at)))
        if len(head) < 8:
            return
        kind, length = struct.unpack("<4sI", head)
        if at + 8 + length > end:
            if kind in (b"VP8X", b"ANIM", b"ANMF", *WEBP_PIXELS):
                raise NotStripped(f"a chunk {kind!r} without an end")
            return
        yield kind, Span(at + 8, length)
        at += 8 + length + (length & 1)


def _frame(source: BinaryIO, body: Span) -> list[bytes | Span]:
    inner: list[bytes | Span] = [content(source, body, WEBP_FRAME)]
    for kind, part in _webp_chunks(source, body.at + WEBP_FRAME, body.at + body.length):
        if kind in WEBP_PIXELS:
            inner += _framed(kind, part)
    return [struct.pack("<4sI", b"ANMF", _size(inner)), *inner]


def _framed(kind: bytes, body: Span) -> list[bytes | Span]:
    return [struct.pack("<4sI", kind, body.length), body, bytes(body.length & 1)]


def _size(pieces: list[bytes | Span]) -> int:
    return sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces)


def _riff(chunks: list[list[bytes | Span]]) -> list[bytes | Span]:
    pieces = [piece for chunk in chunks for piece in chunk]
    return [struct.pack("<4sI4s", b"RIFF", 4 + _size(pieces), b"WEBP"), *pieces]


WRITERS: dict[str, Callable[[BinaryIO], Iterable[Piece]]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    **BARE,
}
