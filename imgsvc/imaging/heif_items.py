"""The items of a HEIC or AVIF file: where their bytes are, properties and references (ISO/IEC 23008-12, 14496-12).

Nothing is decoded and nothing is followed: what refers to what is a table here, so that no cycle can be walked.
"""

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from .errors import Unreadable, Unsupported
from .header import Truncated
from .isobmff import Box, Reader, boxes, description
from .pieces import Piece, Span, length_of

MAX_ITEMS = 1_000
MAX_TILES = 1_024
MAX_PROPERTIES = 64  # of one item
MAX_EXTENTS = 4_000  # of all items
MAX_REFERENCES = 10_000  # of all items
FILE, INSIDE = 0, 1  # construction methods: bytes of the file, bytes of the description


@dataclass(frozen=True, slots=True)
class Item:
    """One item: its type, the pieces that its data is made of, and its properties in their order."""

    kind: bytes
    data: tuple[Piece, ...]
    properties: tuple[tuple[Box, bool], ...]  # with whether it is essential

    def properties_of(self, kind: bytes) -> list[bytes]:
        return [one.body for one, _ in self.properties if one.kind == kind]


@dataclass(slots=True)
class Description:
    """What a `meta` box says."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, list[Piece]] = field(default_factory=dict)
    properties: list[Box] = field(default_factory=list)
    associations: dict[int, list[tuple[int, bool]]] = field(default_factory=dict)
    references: dict[tuple[bytes, int], tuple[int, ...]] = field(default_factory=dict)

    def item(self, number: int) -> Item:
        """Raises Unreadable for an item that is not there."""
        if number not in self.kinds or number not in self.places:
            raise Unreadable("The file refers to a picture that it does not have.")
        found = []
        for index, essential in self.associations.get(number, []):
            if not 1 <= index <= len(self.properties):
                raise Unreadable("The file refers to a property that it does not have.")
            found.append((self.properties[index - 1], essential))
        return Item(self.kinds[number], tuple(self.places[number]), tuple(found))

    def referred(self, kind: bytes, number: int) -> tuple[int, ...]:
        """The items that an item refers to."""
        return self.references.get((kind, number), ())

    def referring(self, kind: bytes, number: int) -> list[int]:
        """The items that refer to an item."""
        return [source for (one, source), targets in self.references.items() if one == kind and number in targets]


def read_items(stream: BinaryIO) -> Description:
    """Read the description of a file's items. Raises Truncated, Unreadable or Unsupported."""
    reader = Reader(description(stream))
    reader.version()
    found, inside = Description(), b""
    locations: list[bytes] = []
    for one in boxes(reader.rest):
        if one.kind in PARTS:
            PARTS[one.kind](found, one.body)
        elif one.kind == b"idat":
            inside = one.body
        elif one.kind == b"iloc":
            locations.append(one.body)
    for body in locations[:1]:
        _locations(found, body, inside, length_of(stream))
    if not found.primary:
        raise Unreadable("The file names no primary picture.")
    return found


def _primary(found: Description, body: bytes) -> None:
    reader = Reader(body)
    version, _ = reader.version()
    found.primary = reader.number(2 if version == 0 else 4)


def _item_infos(found: Description, body: bytes) -> None:
    reader = Reader(body)
    version, _ = reader.version()
    count = reader.number(2 if version == 0 else 4)
    if count > MAX_ITEMS:
        raise Unreadable(f"The file has {count} items; at most {MAX_ITEMS} are read.")
    for one in boxes(reader.rest):
        if one.kind == b"infe":
            _item_info(found, one.body)


def _item_info(found: Description, body: bytes) -> None:
    reader = Reader(body)
    version, _ = reader.version()
    if version not in (2, 3):
        return  # older entries have no type: nothing that is decoded here
    number = reader.number(2 if version == 2 else 4)
    protection = reader.number(2)
    kind = reader.take(4)
    if len(found.kinds) >= MAX_ITEMS:
        raise Unreadable(f"The file has more than {MAX_ITEMS} items.")
    if number in found.kinds:
        raise Unreadable("The file describes one item twice.")
    if not protection:
        found.kinds[number] = kind


def _properties(found: Description, body: bytes) -> None:
    for one in boxes(body):
        if one.kind == b"ipco":
            found.properties.extend(boxes(one.body))
        elif one.kind == b"ipma":
            _associations(found, one.body)


def _associations(found: Description, body: bytes) -> None:
    reader = Reader(body)
    version, flags = reader.version()
    size = 2 if flags & 1 else 1
    essential = 1 << (8 * size - 1)
    count = reader.number(4)
    if count > MAX_ITEMS:
        raise Unreadable(f"The file has {count} items; at most {MAX_ITEMS} are read.")
    for _ in range(count):
        number = reader.number(2 if version == 0 else 4)
        entries = [reader.number(size) for _ in range(reader.number(1))]
        if len(entries) > MAX_PROPERTIES or number in found.associations:
            raise Unreadable("The file gives one item its properties twice, or too many of them.")
        found.associations[number] = [(one & ~essential, bool(one & essential)) for one in entries if one & ~essential]


def _references(found: Description, body: bytes) -> None:
    reader = Reader(body)
    version, _ = reader.version()
    size, count = (2 if version == 0 else 4), 0
    for one in boxes(reader.rest):
        inner = Reader(one.body)
        source, number = inner.number(size), inner.number(2)
        count += number
        if count > MAX_REFERENCES:
            raise Unreadable(f"The file has more than {MAX_REFERENCES} references among its items.")
        targets = tuple(inner.number(size) for _ in range(number))
        found.references[one.kind, source] = found.references.get((one.kind, source), ()) + targets


def _locations(found: Description, body: bytes, inside: bytes, end: int) -> None:
    reader = Reader(body)
    version, _ = reader.version()
    sizes = reader.number(2)
    offset, length, base = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index = sizes & 15 if version else 0
    if not {offset, length, base, index} <= {0, 4, 8} or version > 2:
        raise Unreadable("The file says in an impossible way where its items are.")
    count, extents = reader.number(2 if version < 2 else 4), 0
    if count > MAX_ITEMS:
        raise Unreadable(f"The file has {count} items; at most {MAX_ITEMS} are read.")
    for _ in range(count):
        number = reader.number(2 if version < 2 else 4)
        method = reader.number(2) & 15 if version else FILE
        elsewhere = reader.number(2)
        start, parts = reader.number(base), reader.number(2)
        extents += parts
        if extents > MAX_EXTENTS:
            raise Unreadable(f"The items of the file are in more than {MAX_EXTENTS} parts.")
        pieces: list[Piece] = []
        for _ in range(parts):
            reader.take(index)
            at, size = start + reader.number(offset), reader.number(length)
            pieces += _piece(method, at, size, inside, end)
        if number in found.places:
            raise Unreadable("The file says twice where one item is.")
        if not elsewhere:
            found.places[number] = pieces


def _piece(method: int, at: int, size: int, inside: bytes, end: int) -> Sequence[Piece]:
    """The bytes of one extent; a length of 0 means all the rest. Raises Truncated, Unreadable or Unsupported."""
    if method not in (FILE, INSIDE):
        raise Unsupported("The items of this file are made of other items, which is not supported.")
    whole = end if method == FILE else len(inside)
    size = size or max(0, whole - at)
    if at + size > whole:
        raise Truncated("The file ends before its picture does.")
    return (Span(at, size) if method == FILE else inside[at : at + size],)


PARTS: dict[bytes, Callable[[Description, bytes], None]] = {
    b"pitm": _primary,
    b"iinf": _item_infos,
    b"iprp": _properties,
    b"iref": _references,
}
