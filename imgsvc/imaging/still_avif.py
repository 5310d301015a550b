"""The strict reader of the service's own AVIF variants (AVIF 1.1, ISO/IEC 23008-12): one picture, its alpha, no more.

`header` accepts every file that viewers show. This module accepts only what `encode` writes: three boxes at the top,
one coded picture with at most one alpha, no metadata, no profile, no turn or crop, and no byte that is not theirs. The
coded pixels stay unread but for the headers of their units (AV1 5.3.1, 5.5).
"""

import struct
from typing import BinaryIO

from .coded_size import av1, leb128
from .errors import ImageError, Unreadable
from .heif_items import Description, Item, read_items
from .isobmff import Box, boxes
from .pieces import Span, length_of

BRANDS = {b"avif", b"mif1", b"miaf", b"MA1A", b"MA1B"}
PARTS = ([b"hdlr", b"pitm", b"iloc", b"iinf", b"iprp"], [b"hdlr", b"pitm", b"iloc", b"iinf", b"iref", b"iprp"])
HANDLER = bytes(8) + b"pict" + bytes(13)
COLOUR, ALPHA = 1, 2  # the numbers of the items
NAMES = {COLOUR: b"Color", ALPHA: b"Alpha"}  # libavif's
PROPERTIES = {COLOUR: [b"ispe", b"pixi", b"av1C", b"colr"], ALPHA: [b"ispe", b"pixi", b"av1C", b"auxC"]}
DEPTHS = {COLOUR: b"\x00\x00\x00\x00\x03\x08\x08\x08", ALPHA: b"\x00\x00\x00\x00\x01\x08"}
AUXILIARY = bytes(4) + b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
SRGB = {struct.pack(">4sHHHB", b"nclx", 1, 13, matrix, 0x80) for matrix in (1, 5, 6)}  # full range, ITU-T H.273
UNITS = (2, 1, 6)  # temporal delimiter, sequence header, frame
STILL = 0x18  # bits of a sequence header: a still picture with a reduced header, so that no frame has its own size
MOST_META = 1 << 12  # bytes


def still_size(stream: BinaryIO) -> tuple[int, int]:
    """Return the width and height in pixels of a variant, a whole seekable file. Raises Unreadable."""
    try:
        return _still_size(stream)
    except Unreadable:
        raise
    except (ImageError, struct.error, IndexError) as error:
        raise Unreadable("The AVIF has other parts than those of one picture.") from error


def _still_size(stream: BinaryIO) -> tuple[int, int]:
    meta, start = _top(stream)
    parts = list(boxes(meta[4:]))
    if meta[:4] != bytes(4) or [one.kind for one in parts] not in PARTS or parts[0].body != HANDLER:
        raise Unreadable("The AVIF describes something else than one picture.")
    found = read_items(stream)
    _check_items(found, {one.kind: one.body for one in parts})
    _check_places(found, start, length_of(stream))
    sizes = {_coded(stream, found.item(number), number) for number in found.kinds}
    if len(sizes) != 1:
        raise Unreadable("The AVIF has an alpha of another size.")
    return sizes.pop()


def _top(stream: BinaryIO) -> tuple[bytes, int]:
    """The body of `meta`, and where the data begins. Raises Unreadable unless the file is ftyp, meta and mdat."""
    at, bodies, end = 0, [], length_of(stream)
    for kind in (b"ftyp", b"meta", b"mdat"):
        stream.seek(at)
        size, found = struct.unpack(">I4s", stream.read(8))
        if found != kind or size < 8 or at + size > end or (kind != b"mdat" and size > MOST_META):
            raise Unreadable("The AVIF has other boxes than those of one picture.")
        bodies.append(b"" if kind == b"mdat" else stream.read(size - 8))
        at += size
    if at != end:
        raise Unreadable("The AVIF is followed by other bytes.")
    brands = {bodies[0][place : place + 4] for place in range(8, len(bodies[0]), 4)}
    if bodies[0][:8] != b"avif" + bytes(4) or not brands <= BRANDS:
        raise Unreadable("The file does not begin like an AVIF.")
    return bodies[1], at - (size - 8)


def _check_items(found: Description, parts: dict[bytes, bytes]) -> None:
    """Compare the boxes with those of one picture, byte by byte where they hold no number of this picture."""
    numbers = [COLOUR, ALPHA] if b"iref" in parts else [COLOUR]
    infos = struct.pack(">IH", 0, len(numbers)) + b"".join(
        _box(b"infe", struct.pack(">IHH4s", 2 << 24, number, 0, b"av01") + NAMES[number] + b"\0") for number in numbers
    )
    reference = bytes(4) + _box(b"auxl", struct.pack(">HHH", ALPHA, 1, COLOUR))
    if found.primary != COLOUR or parts[b"iinf"] != infos or parts.get(b"iref", reference) != reference:
        raise Unreadable("The AVIF has other items than one picture and its alpha.")
    used = {index for pairs in found.associations.values() for index, _ in pairs}
    kinds = [one.kind for one in boxes(parts[b"iprp"])]
    if sorted(found.associations) != numbers or len(used) != len(found.properties) or kinds != [b"ipco", b"ipma"]:
        raise Unreadable("The AVIF has properties that belong to no picture.")


def _check_places(found: Description, start: int, end: int) -> None:
    """The data of the items fills the rest of the file, and no byte belongs to two of them."""
    spans = []
    for pieces in found.places.values():
        if len(pieces) != 1 or not isinstance(pieces[0], Span):
            raise Unreadable("The AVIF has a picture in several parts.")
        spans.append((pieces[0].at, pieces[0].length))
    for at, length in sorted(spans):
        if at != start or not length:
            raise Unreadable("The AVIF has bytes that belong to no picture.")
        start += length
    if start != end:
        raise Unreadable("The AVIF has bytes that belong to no picture.")


def _coded(stream: BinaryIO, item: Item, number: int) -> tuple[int, int]:
    """The size of an item, by its property and by its coded header alike. Raises Unreadable."""
    kept = [one for one, _ in item.properties]
    if [one.kind for one in kept] != PROPERTIES[number] or len(item.data) != 1:
        raise Unreadable("The AVIF has other properties than those of a picture.")
    extent, depth, configuration, _ = (one.body for one in kept)
    if depth != DEPTHS[number] or not _is_known(kept[-1], number) or len(configuration) != 4 or len(extent) != 12:
        raise Unreadable("The AVIF has other properties than those of a picture.")
    coded = av1(stream, configuration, item.data)
    width, height = struct.unpack(">II", extent[4:])
    if (coded.width, coded.height, coded.bits) != (width, height, 8) or extent[:4] != bytes(4):
        raise Unreadable("The AVIF has a picture of another size than it says.")
    span = item.data[0]
    assert isinstance(span, Span)
    _check_units(stream, span)
    return width, height


def _is_known(one: Box, number: int) -> bool:
    return one.body == AUXILIARY if number == ALPHA else one.body in SRGB


def _check_units(stream: BinaryIO, span: Span) -> None:
    """The units of a still picture, which fill its data: no metadata, no padding, no second frame."""
    at, end, kinds = span.at, span.at + span.length, list[int]()
    while at < end and len(kinds) <= len(UNITS):
        stream.seek(at)
        head = stream.read(10)
        if head[0] & 0b10000111 != 2:  # no extension, with a size
            raise Unreadable("The AVIF has a coded unit of another kind.")
        kinds.append(head[0] >> 3)
        size, used = leb128(head[1:6])
        at += 1 + used
        if kinds[-1] == 1:
            stream.seek(at)
            if stream.read(1)[0] & STILL != STILL:
                raise Unreadable("The AVIF has something else than a still picture.")
        at += size
    if tuple(kinds) != UNITS or at != end:
        raise Unreadable("The AVIF has other coded units than those of one picture.")


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body
