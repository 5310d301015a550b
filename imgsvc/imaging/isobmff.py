"""Boxes of ISO base media files (ISO/IEC 14496-12, 4.2), which HEIC and AVIF are made of: bounded, not recursive."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from .errors import Unreadable
from .header import Truncated, take
from .pieces import length_of

MAX_META = 1 << 20  # bytes of the boxes that describe a picture
MAX_TOP_BOXES = 64  # boxes before the description
MAX_BOXES = 4_000  # inside one box


@dataclass(frozen=True, slots=True)
class Box:
    """A box that was read whole: its type and its body."""

    kind: bytes
    body: bytes


class Reader:
    """Reads big-endian numbers from a box's body. Raises Unreadable behind its end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def rest(self) -> bytes:
        return self._body[self._at :]

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes; 0 bytes give 0."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        part = self._body[self._at : self._at + size]
        if len(part) < size:
            raise Unreadable("A box of the file is too short.")
        self._at += size
        return part

    def version(self) -> tuple[int, int]:
        """The version and the flags that a full box begins with."""
        return self.number(1), self.number(3)


def boxes(body: bytes) -> Iterator[Box]:
    """The boxes that a body is filled with. Raises Unreadable."""
    at = 0
    for _ in range(MAX_BOXES):
        if at >= len(body):
            return
        head = body[at : at + 16]
        size, kind, start = _head(head)
        end = at + size if size else len(body)
        if end > len(body) or at + start > end:
            raise Unreadable("A box of the file has an impossible length.")
        yield Box(kind, body[at + start : end])
        at = end
    raise Unreadable(f"A box of the file holds more than {MAX_BOXES} boxes.")


def description(stream: BinaryIO) -> bytes:
    """Read the body of the file's `meta` box, which must lie at the top. Raises Truncated or Unreadable."""
    stream.seek(0)
    if take(stream, 8)[4:] != b"ftyp":
        raise Unreadable("The file does not begin like a HEIC or AVIF.")
    at = 0
    for _ in range(MAX_TOP_BOXES):
        stream.seek(at)
        size, kind, start = _head(take(stream, 8) + stream.read(8))
        if size == 0:  # to the end of the file
            size = length_of(stream) - at
        if size < start:
            raise Unreadable("A box of the file has an impossible length.")
        if kind == b"meta":
            if size > MAX_META:
                raise Unreadable(f"The file describes its picture in {size} bytes; at most {MAX_META} are read.")
            stream.seek(at + start)
            return take(stream, size - start)
        at += size
        if at >= length_of(stream):
            raise Truncated
    raise Unreadable(f"The file has more than {MAX_TOP_BOXES} boxes before its description.")


def _head(head: bytes) -> tuple[int, bytes, int]:
    """The size of a box with its head, 0 for "to the end", its type, and the length of its head. Raises Unreadable."""
    if len(head) < 8:
        raise Unreadable("A box of the file is too short.")
    size, kind = struct.unpack(">I4s", head[:8])
    if size == 1:
        if len(head) < 16:
            raise Unreadable("A box of the file is too short.")
        return max(16, int.from_bytes(head[8:16], "big")), kind, 16
    if 0 < size < 8:
        raise Unreadable("A box of the file has an impossible length.")
    return size, kind, 8


def box(kind: bytes, *parts: bytes) -> bytes:
    """Write a box."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """Write a box with version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)
