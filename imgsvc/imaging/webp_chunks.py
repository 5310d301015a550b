"""The WebP chunks that the first frame needs (RFC 9649)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .errors import Unreadable
from .header import MAX_SEGMENTS
from .pieces import Piece, Span, content, length_of, span_within

RIFF = 12  # bytes of the file's header
EXTENDED = 10  # bytes of a VP8X chunk's body that are defined
ANIMATED_OR_CLEAR = 0x12  # flags of VP8X that are kept; the others announce chunks that are left out
MAX_PROFILE = 4 * 1024 * 1024  # bytes
# One chunk of each type is enough: only the first frame of an animation is decoded.
PICTURE = (b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")


@dataclass(frozen=True, slots=True)
class Chunk:
    """The present part of a chunk's body, and the length that the chunk declares."""

    body: Span
    claimed: int

    @property
    def whole(self) -> bool:
        return self.body.length == self.claimed


def essentials(stream: BinaryIO) -> tuple[list[Piece], Span | None, Span | None]:
    """Return the pieces for the decoder, the ICC profile, and the EXIF block. Raises Unreadable."""
    found = _walk(stream)
    chunks: list[Piece] = []
    if next(iter(found), None) != b"VP8X":  # the simple format: the first chunk is the whole picture
        found = dict(list(found.items())[:1])
    else:
        if found[b"VP8X"].body.length < EXTENDED:
            raise Unreadable("The WebP's extended header is too short.")
        body = content(stream, found[b"VP8X"].body, EXTENDED)
        chunks.append(struct.pack("<4sI", b"VP8X", EXTENDED) + bytes((body[0] & ANIMATED_OR_CLEAR,)) + body[1:])
    size = 4 + sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes))
    for kind, chunk in found.items():
        if kind in PICTURE:
            chunks += [struct.pack("<4sI", kind, chunk.claimed), chunk.body, bytes(chunk.whole and chunk.claimed & 1)]
            size += 8 + chunk.claimed + (chunk.claimed & 1)
    riff = struct.pack("<4sI4s", b"RIFF", min(size, 0xFFFFFFFE), b"WEBP")
    profile, exif = (found[kind].body if kind in found else None for kind in (b"ICCP", b"EXIF"))
    return [riff, *chunks], profile, exif


def profile_of(stream: BinaryIO, chunk: Span) -> bytes | None:
    """Return the ICC profile; None if it is larger than MAX_PROFILE."""
    return content(stream, chunk, chunk.length) if chunk.length <= MAX_PROFILE else None


def _walk(stream: BinaryIO) -> dict[bytes, Chunk]:
    """Return the first chunk of each type, in the order of the file."""
    found: dict[bytes, Chunk] = {}
    end = length_of(stream)
    for kind, at, length in walk(stream):
        found.setdefault(kind, Chunk(span_within(at, length, end), length))
    return found


def walk(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, place and declared length of each chunk's body, which the stream stands at; the last may be cut off.

    Chunks within a chunk are not entered.
    """
    at = RIFF
    for _ in range(MAX_SEGMENTS):
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8:
            return
        kind, length = struct.unpack("<4sI", head)
        yield kind, at + 8, length
        at += 8 + length + (length & 1)
