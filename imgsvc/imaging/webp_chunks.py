"""The WebP chunks that the first frame needs (RFC 9649)."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from .errors import Unreadable
from .header import MAX_SEGMENTS, WEBP_PICTURES
from .pieces import Piece, Span, content, length_of, span_within

RIFF = 12  # bytes of the file's header
EXTENDED = 10  # bytes of a VP8X chunk's body that are defined
ANIMATED, CLEAR = 0x02, 0x10  # flags of VP8X; the others announce chunks that are left out
ANIMATED_OR_CLEAR = ANIMATED | CLEAR
ANIM_BYTES = 6  # background colour and number of loops
MAX_PROFILE = 4 * 1024 * 1024  # bytes
ANIMATION = b"ANMF"
PICTURES = (*WEBP_PICTURES, ANIMATION)  # the first chunk of one of these types is the picture


def essentials(stream: BinaryIO) -> tuple[list[Piece], Span | None, Span | None]:
    """Return the pieces for the decoder, the ICC profile, and the EXIF block. Raises Unreadable.

    The container is written anew around the picture's chunk, so a wrong one costs nothing: neither sizes of the file,
    the canvas and the last chunk that don't fit, nor a flag of an animation that is a still, or the other way round.
    """
    found = _walk(stream)
    if next(iter(found), None) != b"VP8X":  # the simple format: the first chunk is the whole picture
        found = dict(list(found.items())[:1])
        chunks = [_chunk(*one) for one in found.items()]
    else:
        chunks = _extended(stream, found)
    pieces = [piece for chunk in chunks for piece in chunk]
    size = 4 + sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in pieces)
    riff = struct.pack("<4sI4s", b"RIFF", min(size, 0xFFFFFFFE), b"WEBP")
    return [riff, *pieces], found.get(b"ICCP"), found.get(b"EXIF")


def _extended(stream: BinaryIO, found: dict[bytes, Span]) -> list[list[Piece]]:
    """VP8X and what belongs to the first picture: of a still also its ALPH, of an animation its ANIM."""
    if found[b"VP8X"].length < EXTENDED:
        raise Unreadable("The WebP's extended header is too short.")
    order = [kind for kind in found if kind in (*PICTURES, b"ALPH")]
    kind = next((kind for kind in order if kind in PICTURES), None)
    if kind is None:
        raise Unreadable("The WebP has no picture.")
    body = content(stream, found[b"VP8X"], EXTENDED)
    picture = [_chunk(kind, found[kind])]
    if kind == ANIMATION:
        canvas, flags = body[4:], body[0] & CLEAR | ANIMATED
        loops = content(stream, found[b"ANIM"], ANIM_BYTES) if b"ANIM" in found else b""
        picture.insert(0, _chunk(b"ANIM", loops.ljust(ANIM_BYTES, b"\0")))
    else:
        stream.seek(found[kind].at)
        coded = WEBP_PICTURES[kind](stream)
        canvas, flags = sides(coded.width, coded.height), body[0] & CLEAR
        if kind == b"VP8 " and order[0] == b"ALPH":
            picture.insert(0, _chunk(b"ALPH", found[b"ALPH"]))
    return [_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + canvas), *picture]


def _chunk(kind: bytes, body: Piece) -> list[Piece]:
    length = len(body) if isinstance(body, bytes) else body.length
    return [struct.pack("<4sI", kind, length), body, bytes(length & 1)]


def profile_of(stream: BinaryIO, chunk: Span) -> bytes | None:
    """Return the ICC profile; None if it is larger than MAX_PROFILE."""
    return content(stream, chunk, chunk.length) if chunk.length <= MAX_PROFILE else None


def _walk(stream: BinaryIO) -> dict[bytes, Span]:
    """Return the body of the first chunk of each type, as far as it is there, in the order of the file."""
    found: dict[bytes, Span] = {}
    end = length_of(stream)
    for kind, at, length in walk(stream):
        found.setdefault(kind, span_within(at, length, end))
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


def sides(width: int, height: int) -> bytes:
    """A size in pixels as VP8X has it."""
    return (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
