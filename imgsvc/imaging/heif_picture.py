"""The primary picture of a HEIC or AVIF file: its size, its tiles, its alpha, and how it is to be shown.

Sources: ISO/IEC 23008-12 (HEIF: 6.5 properties, 6.6 derived images), ISO/IEC 23000-22 (MIAF), AVIF 1.1.
"""

from collections.abc import Callable, Sequence
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from . import coded_size
from .coded_size import Coded
from .errors import TooLarge, Unreadable, Unsupported
from .heif_items import MAX_TILES, Description, Item, read_items
from .isobmff import Reader
from .pieces import Piece, content

GRID = b"grid"
ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
# Essential properties that are applied or passed on. One that is not known changes the picture in a way that is not.
KNOWN = {b"ispe", b"hvcC", b"av1C", b"colr", b"pixi", b"auxC", b"irot", b"imir", b"clap", b"pasp", b"a1op", b"lsel"}
HEADER_BYTES = 12  # of a grid


@dataclass(frozen=True, slots=True)
class Codec:
    """How one of the two formats names and describes its coded pictures."""

    item: bytes
    configuration: bytes
    words: str
    read: Callable[[BinaryIO, bytes, Sequence[Piece]], Coded]


CODECS = {
    "HEIF": Codec(b"hvc1", b"hvcC", "HEVC", coded_size.hevc),
    "AVIF": Codec(b"av01", b"av1C", "AV1", coded_size.av1),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture or its alpha: width and height in pixels, its item, and for a grid its tiles, with what is coded."""

    number: int
    item: Item
    width: int
    height: int
    tiles: tuple[int, ...]
    coded: tuple[Coded, ...]

    @property
    def coded_pixels(self) -> int:
        return sum(one.pixels for one in self.coded)


@dataclass(frozen=True, slots=True)
class HeifPicture:
    """The primary picture and its alpha. `premultiplied`: the colours were multiplied by alpha."""

    description: Description
    codec: Codec
    colour: Layer
    alpha: Layer | None
    tile_alphas: tuple[tuple[int, int], ...]  # (alpha, tile): where each tile of a grid has its own
    premultiplied: bool


def read_picture(stream: BinaryIO, form: str, max_pixels: float) -> HeifPicture:
    """Read the primary picture of a file of Pillow's format `form`.

    Raises TooLarge (a coded size or all of them together beyond `max_pixels`), Truncated, Unreadable or Unsupported.
    """
    found, codec = read_items(stream), CODECS[form]
    reading = _Reading(stream, found, codec, max_pixels)
    colour = reading.layer(found.primary)
    alphas = [one for one in found.referring(b"auxl", colour.number) if _is_alpha(found, one)]
    alpha = reading.layer(alphas[0]) if alphas else None
    tile_alphas = () if alpha else reading.alphas_of(colour.tiles)
    premultiplied = bool(alpha and found.referred(b"prem", colour.number))
    reading.check_bytes()
    return HeifPicture(found, codec, colour, alpha, tile_alphas, premultiplied)


def _is_alpha(found: Description, number: int) -> bool:
    if number not in found.kinds or number not in found.places:
        return False
    kinds = found.item(number).properties_of(b"auxC")
    return bool(kinds) and kinds[0][4:].partition(b"\0")[0] in ALPHA


class _Reading:
    """Reads the layers of one file, and adds up what they make a decoder do."""

    def __init__(self, stream: BinaryIO, found: Description, codec: Codec, max_pixels: float) -> None:
        self._stream, self._found, self._codec, self._max_pixels = stream, found, codec, max_pixels
        self._bytes = 0

    def layer(self, number: int) -> Layer:
        item = self._item(number)
        if item.kind == GRID:
            return self._grid(number, item)
        coded = self._coded(item)
        width, height = _extents(item) or (coded.width, coded.height)
        return Layer(number, item, width, height, (), (coded,))

    def alphas_of(self, tiles: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Raises Unreadable unless all tiles have an alpha, or none."""
        if not tiles:
            return ()
        alpha_of = {
            target: source
            for (kind, source), targets in self._found.references.items()
            if kind == b"auxl" and _is_alpha(self._found, source)
            for target in targets
        }
        pairs = tuple((alpha_of[tile], tile) for tile in dict.fromkeys(tiles) if tile in alpha_of)
        for alpha, _ in pairs:
            self._coded(self._item(alpha))
        return pairs

    def check_bytes(self) -> None:
        """Raises Unreadable: the same bytes in many items would be decoded as often."""
        end = self._stream.seek(0, 2)
        if self._bytes > end:
            raise Unreadable("The pictures of the file share their bytes.")

    def _item(self, number: int) -> Item:
        item = self._found.item(number)
        unknown = next((one.kind for one, essential in item.properties if essential and one.kind not in KNOWN), None)
        if unknown is not None:
            raise Unsupported("The picture has an essential property that is not supported.")
        return item

    def _coded(self, item: Item) -> Coded:
        """What an item's codec header says. Raises TooLarge, Unreadable or Unsupported."""
        if item.kind != self._codec.item:
            raise Unsupported(f"The picture is not coded in {self._codec.words}, nor as a grid of such pictures.")
        configurations = item.properties_of(self._codec.configuration)
        if not configurations:
            raise Unreadable("The picture has no coded header.")
        self._bytes += sum(one.length for one in item.data if not isinstance(one, bytes))
        coded = self._codec.read(self._stream, configurations[0], item.data)
        self._check(coded.width, coded.height, "The picture is coded as")
        return coded

    def _grid(self, number: int, item: Item) -> Layer:
        rows, columns, width, height = self._grid_header(item)
        self._check(width, height, "The image has")
        tiles = self._found.referred(b"dimg", number)
        if len(tiles) > MAX_TILES or rows * columns > MAX_TILES:
            most = max(len(tiles), rows * columns)
            raise TooLarge(f"The picture has {most} tiles; at most {MAX_TILES} are allowed.")
        if len(tiles) != rows * columns:
            raise Unreadable("The picture has another number of tiles than its grid.")
        items = {one: self._item(one) for one in dict.fromkeys(tiles)}
        read = {one: self._coded(item) for one, item in items.items()}
        coded = tuple(read[one] for one in tiles)
        self._check_tiles(coded, rows, columns, width, height)
        return Layer(number, item, width, height, tiles, coded)

    def _check_tiles(self, coded: Sequence[Coded], rows: int, columns: int, width: int, height: int) -> None:
        """HEIF, 6.6.2.3: tiles of one size that cover the canvas; only the last row and column may reach beyond it."""
        wide, high = coded[0].width, coded[0].height
        total = sum(one.pixels for one in coded)
        if total > 2 * self._max_pixels:
            raise TooLarge(
                f"The tiles of the picture have {total / 1e6:.1f} megapixels together; "
                f"at most {2 * self._max_pixels / 1e6:g} megapixels are allowed."
            )
        if wide * columns < width or high * rows < height:
            raise Unreadable("The tiles of the picture do not cover it.")

    def _grid_header(self, item: Item) -> tuple[int, int, int, int]:
        if len(item.data) != 1:
            raise Unreadable("The picture's grid is damaged.")
        piece = item.data[0]
        body = piece if isinstance(piece, bytes) else content(self._stream, piece, HEADER_BYTES)
        reader = Reader(body[:HEADER_BYTES])
        _, flags = reader.number(1), reader.number(1)
        rows, columns = reader.number(1) + 1, reader.number(1) + 1
        size = 4 if flags & 1 else 2
        width, height = reader.number(size), reader.number(size)
        if (_extents(item) or (width, height)) != (width, height):
            raise Unreadable("The image's header and its pixels disagree about its size.")
        return rows, columns, width, height

    def _check(self, width: int, height: int, words: str) -> None:
        pixels = width * height
        if pixels > self._max_pixels:
            exact = f"{pixels / 1e6:.1f}" if self._max_pixels >= 1e6 else f"{pixels / 1e6:g}"
            allowed = f"at most {self._max_pixels / 1e6:g} megapixels are allowed"
            raise TooLarge(f"{words} {width} x {height} = {exact} megapixels; {allowed}.")


def _extents(item: Item) -> tuple[int, int] | None:
    """The width and height that the container gives an item."""
    bodies = item.properties_of(b"ispe")
    if not bodies:
        return None
    reader = Reader(bodies[0])
    reader.version()
    return reader.number(4), reader.number(4)
