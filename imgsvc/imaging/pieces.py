"""A file as a decoder is to see it: spans of the one on disk and bytes of ours between them, read in place."""

import io
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import BinaryIO

from .errors import OutOfTime


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of the file on disk: where they begin, and how many."""

    at: int
    length: int


Piece = bytes | Span


def length_of(stream: BinaryIO) -> int:
    """Bytes of a seekable stream; its position is kept."""
    at = stream.tell()
    end = stream.seek(0, io.SEEK_END)
    stream.seek(at)
    return end


def span_within(at: int, length: int, end: int) -> Span:
    """The part of a span that is there, in a file of `end` bytes: what a file says of its lengths is only a claim."""
    return Span(min(at, end), max(0, min(length, end - at)))


def content(stream: BinaryIO, span: Span, most: int) -> bytes:
    """Up to `most` bytes of a span."""
    stream.seek(span.at)
    return stream.read(min(span.length, most))


class Pieces(io.BufferedIOBase):
    """A readable file made of `pieces`; nothing of it is held in memory.

    A decoder asks for more every 64 KB, so each `read` looks at the clock: raises OutOfTime when `deadline`
    (time.monotonic) has passed. A read never asks for more than there is, whatever length a damaged file claims.
    """

    def __init__(self, stream: BinaryIO, pieces: Sequence[Piece], deadline: float = inf) -> None:
        self._stream = stream
        self._pieces = [piece for piece in pieces if _length(piece)]
        self._starts = [0, *accumulate(map(_length, self._pieces))]
        self._deadline = deadline
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise OutOfTime("Processing took too long (stopped after decode began).")
        rest = max(0, self._starts[-1] - self._at)
        wanted = rest if size is None or size < 0 else min(size, rest)
        parts = []
        while wanted:
            part = self._part(wanted)
            if not part:
                break  # the file was cut while it was read
            parts.append(part)
            self._at += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, wanted: int) -> bytes:
        """From the piece at the present position, at most to its end."""
        index = bisect_right(self._starts, self._at) - 1
        piece, skip = self._pieces[index], self._at - self._starts[index]
        if isinstance(piece, bytes):
            return piece[skip : skip + wanted]
        self._stream.seek(piece.at + skip)
        return self._stream.read(min(wanted, piece.length - skip))


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.length
