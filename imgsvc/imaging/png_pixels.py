"""Counts the rows in the compressed pixels of a PNG (PNG third edition, W3C, clauses 7, 8 and 10)."""

import zlib
from collections.abc import Sequence
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from .header import Header
from .pieces import Piece, Span

STEP = 1 << 16  # bytes read, and at most inflated, at once
ZLIB_HEADER = 2  # bytes before the deflate stream
# The passes of an interlaced picture (8.2): first column, first row, columns apart, rows apart.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class Inflated:
    """The number of whole rows, the bytes of the deflate stream that hold them, and the Adler-32 of the rows."""

    rows: int
    deflated: int
    adler: int


def inflated(compressed: BinaryIO, header: Header) -> Inflated:
    """Inflate the pixels and count them; nothing is kept. The checksum is not verified; damaged data ends the count.

    `compressed` is a zlib stream, read in steps; reading may raise OutOfTime. At most as many bytes are inflated as a
    picture of the header's size has.
    """
    passes = _passes(header)
    needed = sum(rows * length for rows, length in passes)
    inflate, found, adler, taken = zlib.decompressobj(-zlib.MAX_WBITS), 0, 1, 0
    compressed.seek(ZLIB_HEADER)
    while found < needed and not inflate.eof and (block := compressed.read(STEP)):
        rest = block
        while rest and found < needed and not inflate.eof:
            try:
                made = inflate.decompress(rest, min(STEP, needed - found))
            except zlib.error:
                return Inflated(_rows(header, passes, found), taken, adler)
            found, adler = found + len(made), zlib.adler32(made, adler)
            rest = inflate.unconsumed_tail
        taken += len(block) - len(inflate.unused_data or rest)
    return Inflated(_rows(header, passes, found), taken, adler)


def sealed(pixels: Sequence[Span], found: Inflated) -> list[Piece]:
    """Return the pixels up to the end of their deflate stream, followed by the right checksum."""
    left, pieces = ZLIB_HEADER + found.deflated, list[Piece]()
    for span in pixels:
        pieces.append(Span(span.at, min(span.length, left)))
        left -= min(span.length, left)
    return [*pieces, found.adler.to_bytes(4, "big")]


def _passes(header: Header) -> list[tuple[int, int]]:
    """(rows, bytes of a row with its filter type), in the order of the stream."""
    bits = header.stored_bits
    if not header.interlaced:
        return [(header.height, 1 + -(-header.width * bits // 8))]
    sizes = (
        (-(-(header.width - x) // across), -(-(header.height - y) // down))
        for x, y, across, down in ADAM7
        if x < header.width and y < header.height
    )
    return [(rows, 1 + -(-columns * bits // 8)) for columns, rows in sizes]


def _rows(header: Header, passes: Sequence[tuple[int, int]], found: int) -> int:
    """The whole rows in `found` bytes. For an interlaced picture this is an estimate from the share of all bytes."""
    if header.interlaced:
        return header.height * found // sum(rows * length for rows, length in passes)
    return found // passes[0][1]
