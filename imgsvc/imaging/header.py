"""What a header says, and the headers of JPEG, PNG and WebP: pure Python, no codec, no pixels.

Existing libraries for image sizes stop at width and height. The values that decide a decode's memory (progressive
scans, components, frames, bit depth) are in the same segments, so one pass reads everything. `any_header` chooses the
reader by the type.

Sources: JPEG ITU-T T.81 annex B, PNG third edition (W3C), WebP RFC 9649.
"""

import os
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from .errors import Unreadable, Unsupported

# More segments or chunks than any camera or editor writes. A file made of empty ones must not cost seconds.
MAX_SEGMENTS = 4_000
MAX_FRAMES = (1 << 31) - 1  # of a PNG (its third edition, 7.1: integers end there)
MAX_STRAY = 1 << 16  # bytes between two segments of a JPEG that belong to neither
MARKER = re.compile(rb"\xff[\x01-\xfe]")


@dataclass(frozen=True, slots=True)
class Scans:
    """The scans of a JPEG's first picture.

    `samples` is what they traverse together, `end` the byte offset of the picture's end, `data_end` of the end of the
    last scan's coded data. A picture that is not `closed` by an EOI marker may have been cut; `finished` says that its
    scans at least begin to send every coefficient in full.
    """

    count: int
    samples: int
    end: int
    data_end: int
    closed: bool
    finished: bool
    row: int  # pixels: the height of a row of MCUs, the smallest part of a picture that can be missing
    last: int  # bytes of coded data in the last scan
    last_two: int  # bytes: of the longer one of the last two


@dataclass(frozen=True, slots=True)
class Header:
    """The contents of a file's header. Sizes are in pixels, as stored (before EXIF orientation)."""

    format: str  # Pillow's name: JPEG, PNG, WEBP, GIF, HEIF or AVIF
    width: int
    height: int
    channels: int  # samples per pixel once a palette is resolved
    bits: int = 8  # per sample
    frames: int = 1
    whole: bool = False  # JPEG with several scans: its coefficients are held in memory until the last scan
    arithmetic: bool = False  # JPEG: arithmetic coding
    coefficients: float = 0  # JPEG: samples of all components together, per pixel
    profile: bool = False  # an ICC profile is embedded
    stored_bits: int = 0  # PNG: bits per pixel as stored
    interlaced: bool = False  # PNG
    indirect: bool = False  # has a palette or a colour key: decoding needs a second copy
    coded_pixels: int = 0  # HEIF, AVIF: pixels that the decoder allocates, those of all tiles and of the canvas
    canvas: tuple[int, int] | None = None  # HEIF, AVIF, GIF: width and height of the decoded picture
    crop: tuple[int, int, int, int] | None = None  # HEIF, AVIF: the part that is shown, as left, top, right, bottom
    place: tuple[int, int] = (0, 0)  # GIF: left and top of the first picture, which may be smaller than the screen
    # Known only once the whole file has arrived (`limits.probe`):
    scans: int = 1  # JPEG
    coded: int = 0  # JPEG: samples that all scans traverse together, however few bytes they have
    walked: Scans | None = None  # JPEG: more of its scans, which are read once
    length: int = 0  # bytes of the file
    playable: int = 0  # frames of an animation that can be shown, if there are several
    milliseconds: int = 0  # of one play

    @property
    def alpha(self) -> bool:
        return self.channels in (2, 4) and self.format != "JPEG"

    @property
    def pixels(self) -> int:
        return self.width * self.height


class Truncated(Unreadable):
    """The file ends inside its header. More bytes could still make it readable."""

    def __init__(self, message: str = "The file ends before its image header does.") -> None:
        super().__init__(message)


def take(stream: BinaryIO, count: int) -> bytes:
    """Read exactly `count` bytes. Raises Truncated."""
    data = stream.read(count)
    if len(data) < count:
        raise Truncated
    return data


def read_jpeg(stream: BinaryIO, _count_frames: bool) -> Header:
    if take(stream, 2) != b"\xff\xd8":
        raise Unreadable("The file does not begin like a JPEG.")
    frame: Header | None = None
    profile = False
    for _ in range(MAX_SEGMENTS):
        marker = next_marker(stream)
        if marker == 0xDA:  # start of scan: pixels from here on
            if frame is None:
                raise Unreadable("The JPEG has no frame header before its first scan.")
            scan = stream.read(3)  # third byte: components in this scan; if not all, more scans follow
            partial = len(scan) == 3 and scan[2] < frame.channels
            return replace(frame, profile=profile, whole=frame.whole or partial)
        if marker == 0xD9:
            raise Unreadable("The JPEG ends before its first scan.")
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue  # markers without a body
        length = struct.unpack(">H", take(stream, 2))[0] - 2
        if length < 0:
            raise Unreadable("A JPEG segment has an impossible length.")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = _jpeg_frame(marker, take(stream, length))
        elif marker == 0xE2:
            profile |= take(stream, length).startswith(b"ICC_PROFILE\0")
        else:
            stream.seek(length, os.SEEK_CUR)
    raise Unreadable(f"The JPEG has more than {MAX_SEGMENTS} segments before its pixels.")


def next_marker(stream: BinaryIO) -> int:
    """Read the next marker; the stream stands behind it. Raises Truncated or Unreadable.

    Fill bytes and stray bytes before it are skipped, as libjpeg does (`next_marker` in jdmarker.c), up to MAX_STRAY.
    """
    start = stream.read(2)
    if len(start) == 2 and start[0] == 0xFF and start[1] not in (0x00, 0xFF):
        return start[1]
    at = stream.seek(-len(start), os.SEEK_CUR)
    window = stream.read(MAX_STRAY)
    found = MARKER.search(window)
    if found:
        stream.seek(at + found.end())
        return window[found.end() - 1]
    if len(window) < MAX_STRAY:
        raise Truncated
    raise Unreadable("The JPEG has stray bytes between its segments.")


def _jpeg_frame(marker: int, body: bytes) -> Header:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise Unreadable("The JPEG frame header is too short.")
    bits, height, width, components = struct.unpack(">BHHB", body[:6])
    if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or bits != 8:
        raise Unsupported(f"This kind of JPEG is not supported (frame type {marker - 0xC0}, {bits} bits).")
    if components not in (1, 3, 4):
        raise Unreadable(f"The JPEG has {components} colour components.")
    factors = [(body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(components)]
    if not all(1 <= h <= 4 and 1 <= v <= 4 for h, v in factors):
        raise Unreadable("The JPEG has impossible sampling factors.")
    largest = max(h for h, _ in factors) * max(v for _, v in factors)
    return Header(
        "JPEG",
        width,
        height,
        channels=components,
        whole=marker in (0xC2, 0xCA),
        arithmetic=marker in (0xC9, 0xCA),
        coefficients=sum(h * v for h, v in factors) / largest,
    )


PALETTE = 3
PNG_CHANNELS = {0: 1, 2: 3, PALETTE: 3, 4: 2, 6: 4}  # by colour type; a palette becomes RGB


def read_png(stream: BinaryIO, count_frames: bool) -> Header:
    if take(stream, 8) != b"\x89PNG\r\n\x1a\n":
        raise Unreadable("The file does not begin like a PNG.")
    length, kind = _png_chunk(stream)
    if kind != b"IHDR" or length != 13:
        raise Unreadable("The PNG does not begin with its IHDR chunk.")
    width, height, bits, colour = struct.unpack(">IIBB", take(stream, 10))
    if colour not in PNG_CHANNELS:
        raise Unreadable(f"The PNG has the unknown colour type {colour}.")
    interlaced = take(stream, 3)[2] == 1
    stream.seek(4, os.SEEK_CUR)
    channels = PNG_CHANNELS[colour]
    header = Header(
        "PNG",
        width,
        height,
        channels,
        bits,
        stored_bits=bits * (1 if colour == PALETTE else channels),
        interlaced=interlaced,
        indirect=colour == PALETTE or bits == 1,
    )
    for _ in range(MAX_SEGMENTS):
        length, kind = _png_chunk(stream)
        if kind == b"IDAT":
            return header
        if kind == b"IEND":
            raise Unreadable("The PNG has no pixels.")
        if kind == b"acTL" and length == 8 and count_frames:
            claimed = struct.unpack(">I", take(stream, 4))[0]
            header = replace(header, frames=claimed if 1 <= claimed <= MAX_FRAMES else 1)
            length -= 4
        elif kind == b"tRNS" and header.channels in (1, 3):
            header = replace(header, channels=header.channels + 1, indirect=True)
        elif kind == b"iCCP":
            header = replace(header, profile=True)
        stream.seek(length + 4, os.SEEK_CUR)
    raise Unreadable(f"The PNG has more than {MAX_SEGMENTS} chunks before its pixels.")


def _png_chunk(stream: BinaryIO) -> tuple[int, bytes]:
    length, kind = struct.unpack(">I4s", take(stream, 8))
    if length > 0x7FFFFFFF:
        raise Unreadable("A PNG chunk has an impossible length.")
    return length, kind


def read_webp(stream: BinaryIO, count_frames: bool) -> Header:
    riff, _, webp, kind, length = struct.unpack("<4sI4s4sI", take(stream, 20))
    if riff != b"RIFF" or webp != b"WEBP":
        raise Unreadable("The file does not begin like a WebP.")
    if kind in WEBP_PICTURES:
        return WEBP_PICTURES[kind](stream)
    if kind != b"VP8X":
        raise Unreadable("The WebP begins with an unknown chunk.")
    body = take(stream, 10)
    header = Header(
        "WEBP",
        int.from_bytes(body[4:7], "little") + 1,
        int.from_bytes(body[7:10], "little") + 1,
        channels=4 if body[0] & 0x10 else 3,
        profile=bool(body[0] & 0x20),
    )
    stream.seek(length - 10 + (length & 1), os.SEEK_CUR)
    return _webp_picture(stream, header, animated=bool(body[0] & 0x02)) if count_frames else header


def _vp8(stream: BinaryIO) -> Header:
    """Read the frame header of a lossy picture (RFC 6386, 9.1)."""
    head = take(stream, 10)
    if head[3:6] != b"\x9d\x01\x2a":
        raise Unreadable("The WebP has no key frame.")
    width, height = struct.unpack("<HH", head[6:])
    return Header("WEBP", width & 0x3FFF, height & 0x3FFF, channels=3)


def _vp8l(stream: BinaryIO) -> Header:
    """Read the header of a lossless picture (RFC 9649, 3.4)."""
    signature, packed = struct.unpack("<BI", take(stream, 5))
    if signature != 0x2F:
        raise Unreadable("The WebP has a damaged lossless header.")
    return Header("WEBP", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, channels=3 + (packed >> 28 & 1))


WEBP_PICTURES: dict[bytes, Callable[[BinaryIO], Header]] = {b"VP8 ": _vp8, b"VP8L": _vp8l}  # by the chunk's type


def _webp_picture(stream: BinaryIO, header: Header, *, animated: bool) -> Header:
    """The header with the frames of an animation, or with the size that a still says itself: that of VP8X may be wrong.

    The stream stands behind VP8X.
    """
    frames = 0
    for _ in range(MAX_SEGMENTS):
        head = stream.read(8)
        if len(head) < 8:
            return replace(header, frames=max(1, frames))
        kind, length = struct.unpack("<4sI", head)
        at = stream.tell()
        if kind in WEBP_PICTURES and not frames:
            still = WEBP_PICTURES[kind](stream)
            channels = max(still.channels, header.channels)
            return replace(header, width=still.width, height=still.height, channels=channels)
        frames += animated and kind == b"ANMF"
        stream.seek(at + length + (length & 1))
    raise Unreadable(f"The WebP has more than {MAX_SEGMENTS} chunks.")
