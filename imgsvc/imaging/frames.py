"""Reads an animation's frames: GIF89a, PNG third edition (W3C, 7.2 and 11.3.6), and WebP RFC 9649, 2.7.

Every length is held against the file's, and every frame against the canvas. What is wrong in a frame ends the animation
before it.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO

from . import gif_blocks, png_chunks
from .animation import Animation, Disposal, Frame, still
from .errors import Unreadable
from .header import MAX_SEGMENTS, WEBP_PICTURES, Header, take
from .pieces import Piece, Span, length_of
from .webp_chunks import sides, walk

MAX_FRAMES = MAX_SEGMENTS
Frames = tuple[int, list[Frame]]  # how often they are shown, and the frames


def read_animation(stream: BinaryIO, header: Header) -> Animation | None:
    """The animation in a file with this header; None if there are not at least two frames that can be shown."""
    if header.frames < 2 or header.format not in READERS:
        return None
    try:
        plays, frames = READERS[header.format](stream, header)
    except Unreadable:
        return None
    return Animation(header.width, header.height, plays, tuple(frames)) if len(frames) > 1 else None


def _gif(stream: BinaryIO, header: Header) -> Frames:
    gif, frames = gif_blocks.read_blocks(stream, MAX_FRAMES), []
    for one in gif.pictures:
        if one.width * one.height > header.pixels:
            break  # decoding it would take more memory than the canvas
        frames.append(
            Frame(
                one.left,
                one.top,
                still(header, one.width, one.height, channels=3 if one.control.transparent is None else 4),
                gif_blocks.file_of(one, gif),
                one.control.milliseconds,
                one.control.disposal,
                blend=True,
                length=one.data.length,
            )
        )
    return gif.plays, frames


WEBP_FRAME = 16  # bytes of a frame's own header


def _webp(stream: BinaryIO, header: Header) -> Frames:
    plays, end = 1, length_of(stream)
    frames: list[Frame] = []
    for kind, at, length in walk(stream):
        if kind == b"ANIM" and length >= 6:
            plays = int.from_bytes(take(stream, 6)[4:], "little")
        elif kind == b"ANMF":
            frame = _webp_frame(stream, header, length) if at + length <= end else None
            if frame is None:
                break
            frames.append(frame)
    return plays, frames


def _webp_frame(stream: BinaryIO, header: Header, length: int) -> Frame | None:
    """The frame at the stream's place; None if it is damaged or not on the canvas."""
    end = stream.tell() + length
    if length < WEBP_FRAME + 8:
        return None
    body = take(stream, WEBP_FRAME)
    left, top, wide, high, milliseconds = (int.from_bytes(body[at : at + 3], "little") for at in range(0, 15, 3))
    left, top, width, height = 2 * left, 2 * top, wide + 1, high + 1
    if left + width > header.width or top + height > header.height:
        return None
    found = _webp_chunks(stream, end)
    kind = next((kind for kind in found if kind in WEBP_PICTURES), None)
    if kind is None:
        return None
    stream.seek(found[kind].at)
    try:
        coded = WEBP_PICTURES[kind](stream)
    except Unreadable:
        return None
    if (coded.width, coded.height) != (width, height):
        return None
    clear = coded.alpha or (kind == b"VP8 " and b"ALPH" in found)
    return Frame(
        left,
        top,
        still(header, width, height, channels=4 if clear else 3, profile=False),
        _webp_file(kind, found, width, height),
        milliseconds,
        "clear" if body[15] & 1 else "keep",
        blend=not body[15] & 2,
        length=length,
    )


def _webp_chunks(stream: BinaryIO, end: int) -> dict[bytes, Span]:
    """The chunks in a frame, up to its picture."""
    found: dict[bytes, Span] = {}
    at = stream.tell()
    for _ in range(MAX_SEGMENTS):
        if at + 8 > end:
            break
        stream.seek(at)
        kind, length = struct.unpack("<4sI", take(stream, 8))
        if at + 8 + length > end:
            break
        found.setdefault(kind, Span(at + 8, length))
        if kind in WEBP_PICTURES:
            break
        at += 8 + length + (length & 1)
    return found


def _webp_file(kind: bytes, found: dict[bytes, Span], width: int, height: int) -> list[Piece]:
    parts: list[tuple[bytes, Span]] = [(kind, found[kind])]
    pieces: list[Piece] = []
    if kind == b"VP8 " and b"ALPH" in found:
        parts.insert(0, (b"ALPH", found[b"ALPH"]))
        pieces.append(struct.pack("<4sI", b"VP8X", 10) + b"\x10\0\0\0" + sides(width, height))
    for name, span in parts:
        pieces += [struct.pack("<4sI", name, span.length), span, bytes(span.length & 1)]
    size = sum(len(one) if isinstance(one, bytes) else one.length for one in pieces)
    return [struct.pack("<4sI4s", b"RIFF", 4 + size, b"WEBP"), *pieces]


FRAME_CONTROL = 26  # bytes
PNG_DISPOSALS: dict[int, Disposal] = {0: "keep", 1: "clear", 2: "restore"}


def _png(stream: BinaryIO, header: Header) -> Frames:
    plays, parts = 0, png_chunks.essentials(stream)
    frames: list[Frame] = []
    rest = _ihdr(stream)
    time = shown_until = 0.0
    for control, pixels in _png_frames(stream):
        if len(control) < FRAME_CONTROL - 4:
            plays = int.from_bytes(control, "big")
            continue
        width, height, left, top, part, whole, disposal, blend = struct.unpack(">IIIIHHBB", control)
        fits = 0 < width <= header.width - left and 0 < height <= header.height - top
        if not fits or disposal not in PNG_DISPOSALS or blend > 1 or not pixels:
            break
        if not frames:
            disposal = min(disposal, 1)  # nothing was there that could be restored
        time += 1000 * part / (whole or 100)
        milliseconds, shown_until = round(time - shown_until), shown_until + round(time - shown_until)
        own = png_chunks.chunk(b"IHDR", struct.pack(">II", width, height) + rest)
        frames.append(
            Frame(
                left,
                top,
                still(header, width, height),
                replace(parts, head=[parts.head[0], own, *parts.head[2:]]).with_pixels(pixels),
                milliseconds,
                PNG_DISPOSALS[disposal],
                blend=blend == 1,
                length=sum(span.length for span in pixels),
            )
        )
    return plays, frames


def _ihdr(stream: BinaryIO) -> bytes:
    """The bytes of IHDR behind the size."""
    stream.seek(png_chunks.SIGNATURE + 16)
    return take(stream, 5)


def _png_frames(stream: BinaryIO) -> Iterator[tuple[bytes, list[Span]]]:
    """(how often, nothing), and then each frame's control chunk and spans of pixels, as far as they are in order."""
    at, end = png_chunks.SIGNATURE, length_of(stream)
    control: bytes | None = None
    pixels: list[Span] = []
    number = 0
    for _ in range(MAX_SEGMENTS + end // png_chunks.BYTES_PER_CHUNK):
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        body, at = Span(at + 8, length), at + png_chunks.FRAMING + length
        if at > end:
            return
        if kind == b"acTL" and length == 8:
            yield take(stream, 8)[4:], []
        elif kind == b"IDAT":
            pixels += [body] if control else []
        elif kind in (b"fcTL", b"fdAT"):
            if length < 4 or int.from_bytes(take(stream, 4), "big") != number:
                return
            number += 1
            if kind == b"fdAT":
                pixels.append(Span(body.at + 4, length - 4))
                continue
            if control:
                yield control, pixels
            control, pixels = (take(stream, FRAME_CONTROL - 4), []) if length == FRAME_CONTROL else (None, [])
            if control is None:
                return
        elif kind == b"IEND":
            if control:
                yield control, pixels
            return


READERS: dict[str, Callable[[BinaryIO, Header], Frames]] = {"GIF": _gif, "WEBP": _webp, "PNG": _png}
