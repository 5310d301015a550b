"""HEIC and AVIF files without metadata: the primary picture's coded bytes, and how they are shown.

Left out are other items (EXIF, XMP, thumbnails, further pictures), sequences, unknown properties, and what may stand
among the coded bytes beside the picture: HEVC's supplemental information (ITU-T H.265, annex D), in which encoders name
themselves, and AV1's metadata and padding units (AV1, 5.8). None of these takes part in decoding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from .coded_size import MAX_UNITS, units_of
from .errors import Unreadable
from .heif_file import written
from .heif_items import Item
from .heif_picture import CODECS, read_picture
from .isobmff import Box, Reader
from .pieces import Piece, Pieces, part_of

SLICES, SETS = range(32), (32, 33, 34)  # HEVC's units of a picture, and its parameter sets
AV1_UNITS = (1, 3, 4, 6, 7)  # sequence header, frame header, tile group, frame, frame header again
LENGTHS = {b"ispe": 12, b"irot": 1, b"imir": 1, b"clap": 32, b"pasp": 8, b"a1op": 1, b"lsel": 2}  # of properties, bytes
COLOURS = {b"nclx": 11, b"prof": None, b"rICC": None}  # of colours; None: all of it


def bare(stream: BinaryIO, form: str) -> list[Piece]:
    """A file of the same picture and nothing else. Raises as `read_picture`."""
    picture, clean = read_picture(stream, form, float("inf")), CLEANERS[form]
    return written(stream, picture, form, lambda item: _item(stream, item, clean, CODECS[form].configuration))


Cleaner = Callable[[BinaryIO, bytes, Sequence[Piece]], tuple[bytes, list[Piece]]]


def _item(stream: BinaryIO, item: Item, clean: Cleaner, configuration: bytes) -> Item:
    found = [(_property(one), essential) for one, essential in item.properties]
    properties, data = [(one, essential) for one, essential in found if one is not None], list(item.data)
    for place, (one, essential) in enumerate(item.properties):
        if one.kind == configuration:  # the first one counts
            body, data = clean(stream, one.body, item.data)
            properties.insert(min(place, len(properties)), (Box(one.kind, body), essential))
            break
    return replace(item, data=tuple(data), properties=tuple(properties))


def _property(one: Box) -> Box | None:
    """The property as far as it is read; None: it is left out."""
    body = one.body
    if one.kind == b"colr" and body[:4] in COLOURS:
        return Box(one.kind, body[: COLOURS[body[:4]]])
    if one.kind == b"auxC" and b"\0" in body[4:]:
        return Box(one.kind, body[: body.index(b"\0", 4) + 1])
    if one.kind == b"pixi" and len(body) > 4:
        return Box(one.kind, body[: 5 + body[4]])
    return Box(one.kind, body[: LENGTHS[one.kind]]) if one.kind in LENGTHS else None


def _hevc(stream: BinaryIO, configuration: bytes, data: Sequence[Piece]) -> tuple[bytes, list[Piece]]:
    """ISO/IEC 14496-15, 8.3.3. Raises Unreadable."""
    reader = Reader(configuration)
    head = reader.take(21)
    size = reader.number(1)
    arrays = []
    for _ in range(reader.number(1)):
        kind = reader.number(1)
        units = [reader.take(reader.number(2)) for _ in range(reader.number(2))]
        if kind & 63 in SETS:
            body = b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
            arrays.append(bytes((kind,)) + len(units).to_bytes(2, "big") + body)
    cleaned = head + bytes((size, len(arrays))) + b"".join(arrays)
    return cleaned, list(_hevc_units(stream, data, (size & 3) + 1))


def _hevc_units(stream: BinaryIO, data: Sequence[Piece], length_size: int) -> Iterator[Piece]:
    units, at = Pieces(stream, data), 0
    for _ in range(MAX_UNITS):
        units.seek(at)
        head = units.read(length_size + 1)
        if not head:
            return
        size = int.from_bytes(head[:length_size], "big")
        if len(head) <= length_size or at + length_size + size > units.seek(0, 2):
            raise Unreadable("A coded unit of the picture has no end.")
        if size and head[length_size] >> 1 & 63 in (*SLICES, *SETS):
            yield from part_of(data, at, length_size + size)
        at += length_size + size
    raise Unreadable(f"The picture has more than {MAX_UNITS} coded units.")


def _av1(stream: BinaryIO, configuration: bytes, data: Sequence[Piece]) -> tuple[bytes, list[Piece]]:
    """AV1 in ISO-BMFF, 2.3. Raises Unreadable."""
    known = _av1_units(stream, (configuration[4:],))
    return configuration[:4] + Pieces(stream, known).read(), _av1_units(stream, data)


def _av1_units(stream: BinaryIO, data: Sequence[Piece]) -> list[Piece]:
    units = Pieces(stream, data)
    end = units.seek(0, 2)
    found: list[Piece] = []
    for kind, start, body, size in units_of(units):
        stop = min(body + size, end)  # one without a size goes on to the end
        if kind in AV1_UNITS and size and stop > body:
            found += part_of(data, start, stop - start)
    return found


CLEANERS: dict[str, Cleaner] = {"HEIF": _hevc, "AVIF": _av1}
