"""The strict reader of the service's own JPEG variants (ITU-T T.81, JFIF): one picture, and nothing beside it.

`header` accepts every file that viewers show. This module accepts only what `encode` writes: the JFIF header, tables,
a progressive picture of three components that are not subsampled, and its scans. No EXIF, no profile, no comment, and
no byte after the end. The coded pixels stay unread but for the markers that end a scan.
"""

import re
import struct
from typing import BinaryIO

from .errors import Unreadable
from .header import take
from .pieces import length_of

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
JFIF = re.compile(rb"JFIF\x00\x01[\x00-\x02][\x00-\x02].{4}\x00\x00", re.DOTALL)  # without a thumbnail
APP0, SOF2, DHT, SOS, DQT = 0xE0, 0xC2, 0xC4, 0xDA, 0xDB
MAX_SCANS = 20  # libjpeg's progressive script for three components has 10
MARKER = re.compile(rb"\xff[^\x00]")  # nothing else follows 0xFF in coded data: there are no restart markers
CHUNK = 1 << 16  # bytes


def still_size(stream: BinaryIO) -> tuple[int, int]:
    """Return the width and height in pixels of a variant, a whole seekable file. Raises Unreadable."""
    end = length_of(stream)
    stream.seek(0)
    if take(stream, 2) != SOI:
        raise Unreadable("The file does not begin like a JPEG.")
    size: tuple[int, int] | None = None
    scans, first = 0, True
    while True:
        head = take(stream, 2)
        if head == EOI:
            break
        marker, body = head[1], _body(stream, head, first=first)
        first = False
        if marker == SOF2:
            if size is not None:
                raise Unreadable("The JPEG has two pictures.")
            size = _size(body)
        elif marker == SOS:
            scans += 1
            if size is None or scans > MAX_SCANS:
                raise Unreadable("The JPEG has a scan without a picture, or too many.")
            _skip_scan(stream)
    if size is None or not scans:
        raise Unreadable("The JPEG has no picture.")
    if stream.tell() != end:
        raise Unreadable("The JPEG is followed by other bytes.")
    return size


def _body(stream: BinaryIO, head: bytes, *, first: bool) -> bytes:
    """The body of the segment that begins with this marker."""
    allowed = (APP0,) if first else (SOF2, DHT, SOS, DQT)
    if head[0] != 0xFF or head[1] not in allowed:
        raise Unreadable("The JPEG has other segments than those of one picture.")
    (length,) = struct.unpack(">H", take(stream, 2))
    if length < 2:
        raise Unreadable("A segment of the JPEG has no length.")
    body = take(stream, length - 2)
    if first and not JFIF.fullmatch(body):
        raise Unreadable("The JPEG has another header than JFIF's.")
    return body


def _size(frame: bytes) -> tuple[int, int]:
    if len(frame) != 15:
        raise Unreadable("The JPEG has not three components.")
    bits, height, width, components = struct.unpack(">BHHB", frame[:6])
    sampling = {frame[at] for at in range(7, 15, 3)}
    if (bits, components) != (8, 3) or sampling != {0x11} or not (width and height):
        raise Unreadable("The JPEG is not of 8 bits, 4:4:4.")
    return width, height


def _skip_scan(stream: BinaryIO) -> None:
    """Read coded data up to the marker behind it."""
    kept = b""
    while True:
        at = stream.tell() - len(kept)
        data = kept + stream.read(CHUNK)
        if len(data) == len(kept):
            raise Unreadable("The JPEG ends within a scan.")
        if found := MARKER.search(data):
            stream.seek(at + found.start())
            return
        kept = data[-1:] if data.endswith(b"\xff") else b""
