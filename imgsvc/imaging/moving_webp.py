"""The strict reader of the service's own animations: a WebP (RFC 9649, 2.7) of frames as `animated_webp` writes them.

Headers only, like `still_webp`. No profile, no metadata, no chunk of another kind.
"""

import struct
from typing import BinaryIO

from .errors import Unreadable
from .header import take
from .pieces import length_of
from .still_webp import chunks_of, header_of

RIFF = 12  # bytes of the file's header
FLAGS = (0x02, 0x12)  # of VP8X: an animation, with or without alpha
FRAME = 16  # bytes of a frame's own header
FRAME_FLAGS = (0, 2)  # a frame is laid over what is there, or replaces it; nothing is disposed of
PICTURES = ([b"VP8 "], [b"VP8L"], [b"ALPH", b"VP8 "])


def moving_size(stream: BinaryIO, most_frames: int) -> tuple[int, int, int]:
    """Return the width and height in pixels, and the number of frames, of an animated variant. Raises Unreadable."""
    length = length_of(stream)
    stream.seek(0)
    riff, size, webp = struct.unpack("<4sI4s", take(stream, RIFF))
    if riff != b"RIFF" or webp != b"WEBP" or size + 8 != length:
        raise Unreadable("The file is no whole WebP.")
    chunks = chunks_of(stream, RIFF, length, 2 + most_frames)
    if [kind for kind, _, _ in chunks] != [b"VP8X", b"ANIM", *[b"ANMF"] * (len(chunks) - 2)] or len(chunks) < 4:
        raise Unreadable("The WebP has other chunks than those of an animation.")
    width, height = _canvas(stream, *chunks[0][1:])
    _, at, held = chunks[1]
    stream.seek(at)
    if held != 6 or take(stream, 4) != bytes(4):
        raise Unreadable("The WebP's animation has a background, or another length.")
    for number, (_, at, held) in enumerate(chunks[2:]):
        _check_frame(stream, at, held, (width, height), first=not number)
    return width, height, len(chunks) - 2


def _canvas(stream: BinaryIO, at: int, length: int) -> tuple[int, int]:
    stream.seek(at)
    body = take(stream, 10)
    if length != 10 or body[0] not in FLAGS or any(body[1:4]):
        raise Unreadable("The WebP announces something else than an animation.")
    return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1


def _check_frame(stream: BinaryIO, at: int, length: int, canvas: tuple[int, int], *, first: bool) -> None:
    stream.seek(at)
    body = take(stream, FRAME)
    left, top, wide, high = (int.from_bytes(body[start : start + 3], "little") for start in range(0, 12, 3))
    size = wide + 1, high + 1
    if body[15] not in FRAME_FLAGS or 2 * left + size[0] > canvas[0] or 2 * top + size[1] > canvas[1]:
        raise Unreadable("The WebP has a frame beside its canvas, or one that is disposed of.")
    if first and size != canvas:
        raise Unreadable("The WebP's first frame is not its canvas.")
    chunks = chunks_of(stream, at + FRAME, at + length, 2)
    if [kind for kind, _, _ in chunks] not in PICTURES:
        raise Unreadable("The WebP has a frame of something else than one picture.")
    header = header_of(stream, *chunks[-1])
    if (header.width, header.height) != size:
        raise Unreadable("The WebP has a frame of another size than it says.")
