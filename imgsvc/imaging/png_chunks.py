"""The PNG chunks that a picture needs (PNG, third edition, W3C).

Text, time stamps and private chunks are not passed to a decoder. Nor are the chunks of an animation's further frames:
`header` counts the frames, and the first picture is in IDAT.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import field
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from .errors import Unreadable
from .header import MAX_SEGMENTS, PALETTE
from .pieces import Piece, Span, content, length_of, span_within

SIGNATURE = 8
FRAMING = 12  # bytes of a chunk in addition to its body: length, type, CRC
# The valid lengths in bytes of the chunks about colour. A chunk of another length is damaged and left out.
COLOUR = {b"cICP": (4,), b"sRGB": (1,), b"gAMA": (4,), b"cHRM": (32,)}
TRANSPARENCY = {0: (2,), 2: (6,), 3: range(1, 257)}  # tRNS, by colour type
# Left out if their checksum is wrong, as libpng does with ancillary chunks.
DISCARDED = frozenset((*COLOUR, b"tRNS", b"iCCP", b"eXIf"))
GREYS = (0, 4)  # colour types
STEP = 1 << 16  # bytes read at once
MAX_PALETTE = 3 * 256
MAX_PROFILE = 1 << 20  # bytes, both compressed and uncompressed
BYTES_PER_CHUNK = 256  # a file may have one pixel chunk per this many bytes, and a few thousand more


@dataclass(slots=True)
class Found:
    """The chunks found so far. Spans are chunk bodies."""

    header: Span
    colour_type: int
    palette: Span | None = None
    small: dict[bytes, Span] = field(default_factory=dict)
    pixels: list[Span] = field(default_factory=list)
    profile: Span | None = None
    exif: Span | None = None


@dataclass(frozen=True, slots=True)
class PngParts:
    """What comes before the pixels for the decoder, the spans of the compressed pixels, and the other chunks."""

    head: list[Piece]
    pixels: list[Span]
    grey: bool
    colour: dict[bytes, bytes]  # the bodies of the chunks in COLOUR that are there
    profile: Span | None
    exif: Span | None

    @property
    def pieces(self) -> list[Piece]:
        return self.with_pixels(self.pixels)

    def with_pixels(self, pixels: Sequence[Piece]) -> list[Piece]:
        """A PNG of one IDAT chunk: a million empty chunks cost a decoder seconds. Its checksum is not verified."""
        size = sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pixels)
        return [*self.head, struct.pack(">I4s", size, b"IDAT"), *pixels, bytes(4), chunk(b"IEND", b"")]


def check_chunks(stream: BinaryIO) -> None:
    """Raise Unreadable, before a receipt, if `essentials` would. It takes about 5 ms for a megabyte of empty chunks."""
    _walk(stream, length_of(stream))


def essentials(stream: BinaryIO) -> PngParts:
    """Read what a decoder needs of a PNG. Raises Unreadable."""
    end = length_of(stream)
    found = _walk(stream, end)
    pieces: list[Piece] = [Span(0, SIGNATURE), _whole(found.header, end)]
    colour = {kind: content(stream, body, 32) for kind, body in found.small.items() if kind != b"tRNS"}
    if found.palette:
        pieces.append(_whole(found.palette, end))
    if b"tRNS" in found.small:
        pieces.append(chunk(b"tRNS", content(stream, found.small[b"tRNS"], 256)))
    return PngParts(pieces, found.pixels, found.colour_type in GREYS, colour, found.profile, found.exif)


def profile_of(stream: BinaryIO, chunk: Span) -> bytes | None:
    """Return the ICC profile of an iCCP chunk; None if it is damaged or larger than MAX_PROFILE."""
    if chunk.length > MAX_PROFILE:
        return None
    _, _, packed = content(stream, chunk, chunk.length).partition(b"\0")
    if packed[:1] != b"\0":  # the only compression method that exists
        return None
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(packed[1:], MAX_PROFILE)
    except zlib.error:
        return None
    return None if inflate.unconsumed_tail else profile


def _walk(stream: BinaryIO, end: int) -> Found:
    stream.seek(SIGNATURE + 8)
    found = Found(Span(SIGNATURE + 8, 13), stream.read(13)[9])
    at, over, behind = SIGNATURE + FRAMING + 13, False, 0
    for _ in range(MAX_SEGMENTS + end // BYTES_PER_CHUNK):
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        body = span_within(at + 8, length, end)
        at += FRAMING + length
        if kind == b"IDAT" and not over:
            found.pixels.append(body)
            continue
        over, whole = bool(found.pixels), body.length == length and is_sound(stream, kind, body)
        behind += over
        if kind == b"IEND" or behind > MAX_SEGMENTS:
            break
        if kind == b"eXIf" and whole:
            found.exif = found.exif or body
        elif not over and whole:
            _note(found, kind, body)
    else:
        if not over:
            raise Unreadable("The PNG's pixels are in more chunks than are read.")
    if found.colour_type == PALETTE and not (found.palette and found.palette.length):
        raise Unreadable("The PNG has no palette before its pixels.")
    return found


def is_sound(stream: BinaryIO, kind: bytes, body: Span) -> bool:
    """Whether a chunk is used. Of those that are not in DISCARDED the decoder decides."""
    if kind not in DISCARDED:
        return True
    checksum, end = zlib.crc32(kind), body.at + body.length
    for at in range(body.at, end, STEP):
        checksum = zlib.crc32(content(stream, Span(at, end - at), STEP), checksum)
    return content(stream, Span(end, 4), 4) == struct.pack(">I", checksum)


def _note(found: Found, kind: bytes, body: Span) -> None:
    """Record a chunk before the pixels. Of several chunks of one type the last one counts, as in decoders."""
    if kind == b"PLTE":
        if body.length > MAX_PALETTE:
            raise Unreadable(f"The PNG's palette has {body.length // 3} colours; at most 256 are possible.")
        found.palette = body
    elif kind == b"iCCP":
        found.profile = found.profile or body
    elif body.length in (TRANSPARENCY.get(found.colour_type, ()) if kind == b"tRNS" else COLOUR.get(kind, ())):
        found.small[kind] = body


def _whole(body: Span, end: int) -> Span:
    """The chunk with its framing, unchanged. The decoder verifies the checksum of critical chunks."""
    return span_within(body.at - 8, body.length + FRAMING, end)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
