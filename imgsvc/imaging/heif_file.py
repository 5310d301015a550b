"""Writes the smallest HEIC or AVIF file that shows a picture: its coded items, and what a decoder must know of them."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from .heif_items import Item
from .heif_picture import GRID, HEADER_BYTES, HeifPicture
from .isobmff import Box, box, full_box
from .pieces import Piece, content

# What a decoder needs. Of the colours the code points alone: their matrix leads from YCbCr to RGB.
PASSED_ON = {b"ispe", b"hvcC", b"av1C", b"pixi", b"auxC", b"a1op", b"lsel"}
BRANDS = {"HEIF": b"heic", "AVIF": b"avif"}
PRIMARY = 1  # the number of the primary item


@dataclass(slots=True)
class _File:
    """The items of the file that is written, in the order of their numbers."""

    items: list[tuple[Item, list[Piece]]] = field(default_factory=list)
    references: list[tuple[bytes, int, list[int]]] = field(default_factory=list)

    def add(self, item: Item, data: Sequence[Piece]) -> int:
        self.items.append((item, list(data)))
        return len(self.items)


def for_decoder(item: Item) -> Item:
    """The item with the properties that a decoder needs."""
    return replace(item, properties=tuple(one for one in item.properties if _is_passed_on(one[0])))


def _is_passed_on(one: Box) -> bool:
    return one.kind in PASSED_ON or (one.kind == b"colr" and one.body[:4] == b"nclx")


def written(
    stream: BinaryIO, picture: HeifPicture, form: str, prepared: Callable[[Item], Item] = for_decoder
) -> list[Piece]:
    """The pieces of a file with the picture's own items and nothing else. `prepared`: each item as it is written."""
    file, description = _File(), picture.description

    def add(item: Item) -> int:
        wanted = prepared(item)
        return file.add(wanted, _data(stream, wanted))

    numbers = {picture.colour.number: add(picture.colour.item)}
    if picture.alpha:
        numbers[picture.alpha.number] = alpha = add(picture.alpha.item)
        file.references.append((b"auxl", alpha, [PRIMARY]))
        if picture.premultiplied:
            file.references.append((b"prem", PRIMARY, [alpha]))
    for layer in (picture.colour, picture.alpha):
        for tile in layer.tiles if layer else ():
            if tile not in numbers:
                numbers[tile] = add(description.item(tile))
        if layer and layer.tiles:
            file.references.append((b"dimg", numbers[layer.number], [numbers[tile] for tile in layer.tiles]))
    for one, tile in picture.tile_alphas:
        file.references.append((b"auxl", add(description.item(one)), [numbers[tile]]))
    return _pieces(file, BRANDS[form])


def _data(stream: BinaryIO, item: Item) -> Sequence[Piece]:
    """An item's own data; that of a grid is read, so that it is as it was when it was checked."""
    if item.kind != GRID:
        return item.data
    return [one[:HEADER_BYTES] if isinstance(one, bytes) else content(stream, one, HEADER_BYTES) for one in item.data]


def _pieces(file: _File, brand: bytes) -> list[Piece]:
    head = box(b"ftyp", brand, bytes(4), brand, b"mif1", b"miaf")
    start = len(head) + len(_meta(file, 0)) + 8
    data = [piece for _, pieces in file.items for piece in pieces]
    size = sum(map(_length, data))
    return [head, _meta(file, start), struct.pack(">I4s", 8 + size, b"mdat"), *data]


def _meta(file: _File, start: int) -> bytes:
    handler = full_box(b"hdlr", 0, 0, bytes(4), b"pict", bytes(12), b"\0")
    hidden = {tile for kind, _, tiles in file.references if kind == b"dimg" for tile in tiles}
    infos = [
        full_box(b"infe", 2, int(number in hidden), struct.pack(">HH4s", number, 0, item.kind), b"\0")
        for number, (item, _) in _numbered(file)
    ]
    parts = [
        handler,
        full_box(b"pitm", 0, 0, struct.pack(">H", PRIMARY)),
        _places(file, start),
        full_box(b"iinf", 0, 0, struct.pack(">H", len(infos)), *infos),
        _properties(file),
    ]
    if file.references:
        parts.append(full_box(b"iref", 0, 0, *map(_reference, file.references)))
    return full_box(b"meta", 0, 0, *parts)


def _reference(one: tuple[bytes, int, list[int]]) -> bytes:
    kind, source, targets = one
    return box(kind, struct.pack(f">HH{len(targets)}H", source, len(targets), *targets))


def _places(file: _File, start: int) -> bytes:
    entries, at = [], start
    for number, (_, pieces) in _numbered(file):
        size = sum(map(_length, pieces))
        entries.append(struct.pack(">HHHII", number, 0, 1, at, size))
        at += size
    return full_box(b"iloc", 0, 0, struct.pack(">HH", 0x4400, len(entries)), *entries)


def _properties(file: _File) -> bytes:
    kept: list[bytes] = []
    places: dict[bytes, int] = {}
    entries = []
    for number, (item, _) in _numbered(file):
        indices = []
        for one, essential in item.properties:
            body = box(one.kind, one.body)
            if body not in places:
                kept.append(body)
                places[body] = len(kept)
            indices.append(places[body] | 0x8000 * essential)
        entries.append(struct.pack(f">HB{len(indices)}H", number, len(indices), *indices))
    associations = full_box(b"ipma", 0, 1, struct.pack(">I", len(entries)), *entries)
    return box(b"iprp", box(b"ipco", *kept), associations)


def _numbered(file: _File) -> list[tuple[int, tuple[Item, list[Piece]]]]:
    return list(enumerate(file.items, 1))


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.length
