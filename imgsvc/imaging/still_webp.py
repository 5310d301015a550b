"""The strict reader of the service's own variants: a WebP (RFC 9649) of one still picture and nothing beside it.

`header` accepts every file that viewers show. This module accepts only the layouts that `encode` writes, because a
variant comes from a worker that a picture may have taken over. It reads headers alone: the coded pixels stay unread.
"""

import struct
from typing import BinaryIO

from .errors import Unreadable
from .header import WEBP_PICTURES, Header, take
from .pieces import length_of

RIFF = 12  # bytes of the file's header
CLEAR = b"\x10\0\0\0"  # the first bytes of a VP8X chunk: alpha and nothing else
LAYOUTS = ([b"VP8 "], [b"VP8L"], [b"VP8X", b"ALPH", b"VP8 "])
SCALE = 0xC000  # bits of a VP8 side that ask the viewer to enlarge the picture (RFC 6386, 9.1)


def still_size(stream: BinaryIO) -> tuple[int, int]:
    """Return the width and height in pixels of a variant, a whole seekable file. Raises Unreadable."""
    length = length_of(stream)
    stream.seek(0)
    riff, size, webp = struct.unpack("<4sI4s", take(stream, RIFF))
    if riff != b"RIFF" or webp != b"WEBP":
        raise Unreadable("The file does not begin like a WebP.")
    if size + 8 != length:
        raise Unreadable("The WebP has another length than its header says.")
    chunks = chunks_of(stream, RIFF, length, len(LAYOUTS[-1]))
    if [kind for kind, _, _ in chunks] not in LAYOUTS:
        raise Unreadable("The WebP has other chunks than those of one still picture.")
    header = header_of(stream, *chunks[-1])
    if len(chunks) > 1:
        _check_canvas(stream, chunks[0], header.width, header.height)
    return header.width, header.height


def header_of(stream: BinaryIO, kind: bytes, at: int, held: int) -> Header:
    """The header of a picture's chunk, whose bitstream is checked too. Raises Unreadable."""
    stream.seek(at)
    header = WEBP_PICTURES[kind](stream)
    stream.seek(at)
    check_bitstream(kind, take(stream, min(held, 10)), held)
    return header


def chunks_of(stream: BinaryIO, start: int, end: int, most: int) -> list[tuple[bytes, int, int]]:
    """Return the type, offset and length of the chunks, which together fill the place from `start` to `end`.

    Of more than `most` chunks it returns some more. Raises Unreadable.
    """
    found: list[tuple[bytes, int, int]] = []
    at = start
    while at < end and len(found) <= most:
        stream.seek(at)
        kind, length = struct.unpack("<4sI", take(stream, 8))
        found.append((kind, at + 8, length))
        at += 8 + length
        if at + (length & 1) > end:
            raise Unreadable("A chunk of the WebP is longer than the file.")
        if length & 1:
            stream.seek(at)
            if take(stream, 1) != b"\0":
                raise Unreadable("A chunk of the WebP is followed by something else than a zero.")
            at += 1
    return found


def check_bitstream(kind: bytes, head: bytes, length: int) -> None:
    """Check the bits of a picture's header that its size does not need."""
    if kind == b"VP8L":
        if head[4] >> 5:
            raise Unreadable("The WebP is of an unknown lossless version.")
        return
    tag = int.from_bytes(head[:3], "little")
    if 10 + (tag >> 5) > length:
        raise Unreadable("The WebP's first partition is longer than its chunk.")
    width, height = struct.unpack("<HH", head[6:])
    shown_key_frame = not tag & 1 and tag >> 4 & 1
    if not shown_key_frame or tag >> 1 & 7 > 3 or (width | height) & SCALE:
        raise Unreadable("The WebP has a frame that is not shown as it is.")


def _check_canvas(stream: BinaryIO, extended: tuple[bytes, int, int], width: int, height: int) -> None:
    """Check that the canvas is the picture's size, with alpha and no other feature."""
    _, at, length = extended
    stream.seek(at)
    wanted = CLEAR + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    if length != len(wanted) or take(stream, length) != wanted:
        raise Unreadable("The WebP announces something else than a picture with alpha.")
