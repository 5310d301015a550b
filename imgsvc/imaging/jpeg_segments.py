"""The JPEG segments that a picture needs, and the cost of its scans (ITU-T T.81, annex B)."""

import os
import random
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from itertools import chain, repeat
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from .errors import Unreadable
from .header import MAX_SEGMENTS, Scans, next_marker
from .pieces import Piece, Span, content, length_of

SOS, EOI, DRI, COMMENT = 0xDA, 0xD9, 0xDD, 0xFE
APP0, EXIF_SEGMENT, ICC_SEGMENT, ADOBE_SEGMENT, APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that libjpeg gives up at: a second frame, arithmetic or hierarchical extensions, reserved ones (`read_markers`
# in jdmarker.c); and a second picture's start.
ENDS_PICTURE = frozenset((*range(0x02, 0xC0), 0xC8, 0xD8, 0xDE, 0xDF, *range(0xF0, COMMENT))) | FRAMES
BODILESS = frozenset((0x01, *range(0xD0, 0xD8)))
# In coded data 0xFF is followed by 0 or a restart marker, where there is a restart interval. Any other byte ends the
# scan, for libjpeg too.
ENDS_SCAN = {True: re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]"), False: re.compile(rb"\xff[\x01-\xfe]")}
# Bytes searched at once: few for a short scan, and few reads of a long one, each of which lets other threads in first.
WINDOWS = (1 << 12, 1 << 14, 1 << 16, 1 << 18)
FILL = b"\xff" * (1 << 14)  # libjpeg starts over on such a run with every block of input that it gets
BLOCK = 8  # samples on a side
ALL_COEFFICIENTS = (1 << 64) - 1
EOI_BYTES = b"\xff\xd9"
# Coded data to put where data may be missing: the result differs from what a decoder makes of missing data. No byte is
# 0xFF, which would start a marker.
NOISE = bytes(value % 255 for value in random.Random(1).randbytes(4096))  # noqa: S311

MAX_PROFILE = 4 * 1024 * 1024  # bytes
PROFILE_HEAD = 14  # bytes before a segment's part of the profile: name, part number, number of parts


@dataclass(frozen=True, slots=True)
class Segment:
    """A marker, its position, and the span of its body."""

    marker: int
    at: int
    body: Span


def segments(stream: BinaryIO) -> Iterator[Segment]:
    """Yield the segments up to and including the first scan's header. Raises Unreadable if there is no scan."""
    stream.seek(2)
    for _ in range(MAX_SEGMENTS):
        marker = next_marker(stream)
        at = stream.tell() - 2
        if marker == EOI:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        body = body_of(stream)
        if body is None:
            break
        yield Segment(marker, at, body)
        if marker == SOS:
            return
        stream.seek(body.at + body.length)
    raise Unreadable("The JPEG has no scan.")


def read_scans(stream: BinaryIO) -> Scans:
    """Read all scans of the first picture. Data after its end (a video, a depth map) is not read.

    Raises Unreadable.
    """
    stop = length_of(stream)
    frame, restarts = b"", False
    for segment in segments(stream):
        if segment.marker in FRAMES:
            frame = content(stream, segment.body, 1 << 12)
        elif segment.marker == DRI:
            restarts = any(content(stream, segment.body, 2))
    walk = _Walk(frame, restarts=restarts)
    end = _walk_scans(stream, segment, walk)
    closed = end is not None and _is_eoi(stream, end)
    end = end or _end_of_data(stream, stop)
    coded = [(begun, min(behind, end)) for begun, behind in walk.coded[-2:]] or [(end, end)]
    last, last_two = coded[-1], max(behind - begun for begun, behind in coded)
    return Scans(walk.count, walk.samples, end, last[1], closed, walk.finished, walk.row, last[1] - last[0], last_two)


class _Walk:
    """Sums up the scan headers of one picture."""

    def __init__(self, frame: bytes, *, restarts: bool) -> None:
        self.restarts = restarts  # whether there is a restart interval
        self.count = self.samples = 0
        self.coded: list[tuple[int, int]] = []  # by scan: where its coded data begins and ends
        self._blocks = _samples_by_component(frame)
        self._sent = dict.fromkeys(self._blocks, 0)  # by component: a bit for each coefficient that is sent in full
        factors = [frame[at] & 15 for at in range(7, 6 + 3 * frame[5], 3)]
        self.row = BLOCK * max(factors, default=1)

    @property
    def finished(self) -> bool:
        return all(sent == ALL_COEFFICIENTS for sent in self._sent.values())

    def add(self, scan: bytes) -> None:
        """Take the body of a scan header (T.81, B.2.3)."""
        self.count += 1
        if not scan:
            return
        components = scan[1 : 1 + 2 * scan[0] : 2]
        self.samples += sum(self._blocks.get(component, 0) for component in components)
        parameters = scan[1 + 2 * scan[0] : 4 + 2 * scan[0]]
        if len(parameters) == 3 and not parameters[2] & 15:
            first, last = parameters[0], min(parameters[1], 63)
            for component in components:
                self._sent[component] = self._sent.get(component, 0) | (2 << last) - (1 << first)


def _walk_scans(stream: BinaryIO, first: Segment, walk: _Walk) -> int | None:
    """Return the offset behind the EOI marker, or of what libjpeg would give up at; None if the data just ends."""
    stop = length_of(stream)
    marker: int | None = SOS
    stream.seek(first.at + 2)
    for _ in range(MAX_SEGMENTS):
        if marker is None:
            return None
        if marker == EOI:
            return stream.tell()
        if marker in BODILESS:
            marker = next_in_scan(stream, restarts=walk.restarts)
            continue
        at = stream.tell() - 2
        body = None if marker in ENDS_PICTURE else body_of(stream)
        if body is None or body.at + body.length > stop:
            return at
        if marker == SOS:
            walk.add(content(stream, body, 1 << 9))
        elif marker == DRI:
            walk.restarts = any(content(stream, body, 2))
        begun = stream.seek(body.at + body.length)
        after = next_in_scan(stream, restarts=walk.restarts)
        if marker == SOS:
            walk.coded.append((begun, stop if after is None else stream.tell() - 2))
        marker = after
    raise Unreadable(f"The JPEG has more than {MAX_SEGMENTS} segments among its scans.")


def _is_eoi(stream: BinaryIO, end: int) -> bool:
    return content(stream, Span(end - 2, 2), 2) == b"\xff\xd9"


def _end_of_data(stream: BinaryIO, stop: int) -> int:
    """Return where the data of a file without EOI ends, not counting zeros that a broken transfer left behind it."""
    while stop:
        size = min(stop, WINDOWS[-1])
        window = content(stream, Span(stop - size, size), size)
        if left := window.rstrip(b"\0"):
            return stop - size + len(left.removesuffix(b"\xff"))
        stop -= size
    return 0


@dataclass(frozen=True, slots=True)
class JpegParts:
    """The pieces for the decoder, the scans, and the spans of the ICC profile's segments and of the EXIF block."""

    pieces: list[Piece]
    scans: Scans
    profile: list[Span]
    exif: Span | None

    def filled_with(self, coded: bytes) -> list[Piece]:
        """Return the pieces with further `coded` data behind that of the last scan, and nothing else before the EOI."""
        *head, scan = self.pieces if self.scans.closed else self.pieces[:-1]
        assert isinstance(scan, Span)
        return [*head, Span(scan.at, self.scans.data_end - scan.at), coded, EOI_BYTES]


def essentials(stream: BinaryIO, scans: Scans | None = None) -> JpegParts:
    """Read what a decoder needs of a JPEG, whose scans may have been read before. Raises Unreadable."""
    pieces: list[Piece] = [b"\xff\xd8"]
    profile: list[Span] = []
    exif: Span | None = None
    for segment in segments(stream):
        marker, body = segment.marker, segment.body
        if marker == SOS:
            scans = scans or read_scans(stream)
            pieces.append(Span(segment.at, scans.end - segment.at))
            pieces += [] if scans.closed else [EOI_BYTES]
            break
        if not (APP0 <= marker <= APP15 or marker == COMMENT):
            pieces.append(Span(segment.at, body.at + body.length - segment.at))
            continue
        head = content(stream, body, PROFILE_HEAD)
        if marker == APP0 and head.startswith(b"JFIF\0") and len(head) >= 14:
            pieces.append(_segment(marker, head[:12] + b"\0\0"))  # without its thumbnail
        elif marker == ADOBE_SEGMENT and head.startswith(b"Adobe") and len(head) >= 12:
            pieces.append(_segment(marker, head[:12]))
        elif marker == ICC_SEGMENT and head.startswith(b"ICC_PROFILE\0") and len(head) == PROFILE_HEAD:
            profile.append(body)
        elif marker == EXIF_SEGMENT and head.startswith(b"Exif\0\0") and exif is None:
            exif = body
        stream.seek(body.at + body.length)
    assert scans  # `segments` ends with a scan or raises
    return JpegParts(pieces, scans, profile, exif)


def profile_of(stream: BinaryIO, parts: list[Span]) -> bytes | None:
    """Return the ICC profile if all its parts are present (ICC.1:2022, B.4) and within MAX_PROFILE, else None."""
    if not parts or sum(part.length for part in parts) > MAX_PROFILE:
        return None
    bodies = sorted(content(stream, part, part.length) for part in parts)  # each part begins with its number
    whole = bodies[0][PROFILE_HEAD - 1] == len(bodies)
    return b"".join(body[PROFILE_HEAD:] for body in bodies) if whole else None


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def body_of(stream: BinaryIO) -> Span | None:
    """Return the body of the segment whose marker was just read; None if its length is missing or impossible."""
    length = stream.read(2)
    if len(length) < 2 or (bytes_of := struct.unpack(">H", length)[0]) < 2:
        return None
    return Span(stream.tell(), bytes_of - 2)


def next_in_scan(stream: BinaryIO, *, restarts: bool = True) -> int | None:
    """Read the next marker in coded data and position the stream behind it. None at the end of the file.

    With `restarts` the markers of restart intervals are passed over.
    """
    whole = stream.getvalue() if type(stream) is BytesIO else None  # searched where it is
    for size in chain(WINDOWS, repeat(WINDOWS[-1])):
        if whole is None:
            window = stream.read(size)
            begin, end = 0, len(window)
        else:
            window, begin = whole, stream.tell()
            end = stream.seek(min(begin + size, len(whole)))
        if end - begin < 2:
            break
        if found := ENDS_SCAN[restarts].search(window, begin, end):
            stream.seek(found.end() - end, os.SEEK_CUR)
            return window[found.end() - 1]
        if 0xFF in window[begin : end : len(FILL)] and window.find(FILL, begin, end) >= 0:  # the first is soon known
            raise Unreadable("The JPEG has thousands of fill bytes among its pixels.")
        if window[end - 1] == 0xFF:
            stream.seek(-1, os.SEEK_CUR)
    return None


def _samples_by_component(frame: bytes) -> dict[int, int]:
    """Count the samples of whole blocks, by component id. A scan traverses all of them even if it is empty."""
    _, height, width, count = struct.unpack_from(">BHHB", frame)
    components = [(frame[at], frame[at + 1] >> 4, frame[at + 1] & 15) for at in range(6, 6 + 3 * count, 3)]
    most_across, most_down = (max(component[axis] for component in components) for axis in (1, 2))
    across, down = -(-width // (BLOCK * most_across)), -(-height // (BLOCK * most_down))
    return {name: across * h * down * v * BLOCK * BLOCK for name, h, v in components}
