"""The compressed pixels of a PNG, inflated to be counted (PNG third edition, W3C, clauses 7, 8 and 10)."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .header import Header
from .pieces import Piece, Span

STEP = 1 << 16  # bytes read, and at most inflated, at once
ZLIB_HEADER = 2  # bytes before the deflate stream
# The passes of an interlaced picture (8.2): first column, first row, columns apart, rows apart.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class Inflated:
    """How many rows the pixels hold, how many bytes of deflate stream that took, and the Adler-32 of what it holds."""

    rows: int
    deflated: int
    adler: int


def inflated(compressed: BinaryIO, header: Header) -> Inflated:
    """Inflate the pixels without keeping them. Their checksum is not verified, and what is damaged ends them.

    `compressed` is a zlib stream, read in steps; it may raise OutOfTime. No more is inflated than a picture of the
    header's size has.
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
    """The pixels up to the end of their deflate stream, with the checksum that belongs to them."""
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
    """Whole rows in so many bytes. The rows of an interlaced picture come in seven parts: its share of all bytes."""
    if header.interlaced:
        return header.height * found // sum(rows * length for rows, length in passes)
    return found // passes[0][1]
