"""The blocks of a GIF that its pictures need (GIF89a specification, CompuServe 1990; loops: Netscape 2.0).

Comments, texts and unknown extensions are passed over and never reach a decoder. Each picture becomes a file of its own
with one picture, so that a decoder knows nothing of the others.
"""

import struct
from dataclasses import field
from typing import BinaryIO, Literal

from ..lazy_dataclass import dataclass
from .errors import Unreadable
from .header import MAX_SEGMENTS, Header, Truncated
from .pieces import Piece, Span, content, length_of, span_within

Disposal = Literal["keep", "clear", "restore"]

SIGNATURES = (b"GIF87a", b"GIF89a")
WINDOW = 1 << 16  # bytes that are read at a time
BYTES_PER_BLOCK = 32  # a file may have one data block per this many bytes, and a few thousand more; encoders use 255
EXTENSION, PICTURE, END = 0x21, 0x2C, 0x3B
CONTROL, APPLICATION = 0xF9, 0xFF  # extensions
LOOPING = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
DISPOSALS: dict[int, Disposal] = {2: "clear", 3: "restore", 4: "restore"}
SHOWN_AT_ONCE = 1  # hundredths of a second: up to this delay browsers show a picture for a tenth of a second
TENTH = 100  # milliseconds
SHOWN = 0x1D  # flags of a picture's extension: disposal and transparency


@dataclass(frozen=True, slots=True)
class Control:
    """What the extension before a picture says of it: its flags (disposal, transparency), delay and clear colour."""

    flags: int = 0
    hundredths: int = 0
    index: int = 0

    @property
    def disposal(self) -> Disposal:
        return DISPOSALS.get(self.flags >> 2 & 7, "keep")

    @property
    def milliseconds(self) -> int:
        return 10 * self.hundredths if self.hundredths > SHOWN_AT_ONCE else TENTH

    @property
    def transparent(self) -> int | None:
        """The index of a colour."""
        return self.index if self.flags & 1 else None

    @property
    def block(self) -> bytes:
        """The extension, without the flags that are about nothing that is shown."""
        return struct.pack("<BBBBHBB", EXTENSION, CONTROL, 4, self.flags & SHOWN, self.hundredths, self.index, 0)


@dataclass(frozen=True, slots=True)
class GifPicture:
    """A picture: its place and size in pixels, its colours, and the span of its coded pixels."""

    left: int
    top: int
    width: int
    height: int
    interlaced: bool
    palette: Span | None
    control: Control
    data: Span
    whole: bool = True  # its coded pixels have their end


@dataclass(slots=True)
class Gif:
    """The logical screen in pixels, and the pictures. `plays`: how often they are shown, 0: for ever."""

    width: int
    height: int
    palette: Span | None
    plays: int = 1
    pictures: list[GifPicture] = field(default_factory=list)


class _Blocks:
    """Reads a GIF from front to back, `at` being the place. Raises Truncated behind the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._window, self._start, self.at = stream, b"", 0, 0
        self.end = length_of(stream)
        self._left = MAX_SEGMENTS + self.end // BYTES_PER_BLOCK

    def take(self, count: int) -> bytes:
        self._stream.seek(self.at)
        data = self._stream.read(count)
        if len(data) < count:
            raise Truncated
        self.at += count
        return data

    def skip_blocks(self) -> None:
        """Go behind a chain of data blocks, whose last one is empty. Raises Unreadable if it has too many."""
        at, start, window = self.at, self._start, self._window
        for left in range(self._left, 0, -1):
            if not start <= at < start + len(window):
                self._stream.seek(at)
                start, window = at, self._stream.read(WINDOW)
                if not window:
                    raise Truncated
            size = window[at - start]
            at += 1 + size
            if not size:
                self.at, self._start, self._window, self._left = at, start, window, left
                return
        raise Unreadable("The GIF's pixels are in more blocks than are read.")

    def colours(self, flags: int) -> Span | None:
        """The colour table that these flags announce."""
        if not flags & 0x80:
            return None
        span = Span(self.at, 3 << (flags & 7) + 1)
        if span.at + span.length > self.end:
            raise Truncated
        self.at += span.length
        return span


def read_blocks(stream: BinaryIO, most: int) -> Gif:
    """Read the GIF up to its picture number `most`. What ends inside a later picture ends before it.

    Raises Truncated or Unreadable if not even the place and size of a first picture are there.
    """
    blocks = _Blocks(stream)
    if blocks.take(6) not in SIGNATURES:
        raise Unreadable("The file does not begin like a GIF.")
    width, height, flags = struct.unpack("<HHBxx", blocks.take(7))
    gif = Gif(width, height, blocks.colours(flags))
    try:
        _read_pictures(blocks, gif, most)
    except Unreadable:
        if not gif.pictures:
            raise
    if not gif.pictures:
        raise Unreadable("The GIF has no picture.")
    first = gif.pictures[0]  # a screen that is smaller than its first picture is wrong: browsers enlarge it
    gif.width, gif.height = max(gif.width, first.left + first.width), max(gif.height, first.top + first.height)
    return gif


def _read_pictures(blocks: _Blocks, gif: Gif, most: int) -> None:
    control, between = Control(), 0
    while len(gif.pictures) < most:
        kind = blocks.take(1)[0]
        if kind == PICTURE:
            _read_picture(blocks, gif, control)
            control, between = Control(), 0
        elif kind == EXTENSION:
            control = _read_extension(blocks, gif, control)
        elif kind:
            return  # the trailer, or an unknown block
        between += 1
        if between > MAX_SEGMENTS:
            raise Unreadable(f"The GIF has more than {MAX_SEGMENTS} blocks before a picture.")


def _read_picture(blocks: _Blocks, gif: Gif, control: Control) -> None:
    left, top, width, height, flags = struct.unpack("<HHHHB", blocks.take(9))
    palette, at, whole = blocks.colours(flags), blocks.at, True
    try:
        blocks.take(1)  # the size of the first codes
        blocks.skip_blocks()
    except Truncated:
        if gif.pictures or not width or not height:
            raise
        blocks.at, whole = blocks.end, False  # its decoder says how many rows are there
    if width and height:
        data = span_within(at, blocks.at - at, blocks.end)
        gif.pictures.append(GifPicture(left, top, width, height, bool(flags & 0x40), palette, control, data, whole))


def _read_extension(blocks: _Blocks, gif: Gif, control: Control) -> Control:
    """Go behind an extension. Returns what is known of the next picture."""
    label = blocks.take(1)[0]
    size = blocks.take(1)[0]
    body = blocks.take(size)
    if label == CONTROL and size >= 4:
        control = Control(*struct.unpack("<BHB", body[:4]))
    elif label == APPLICATION and body in LOOPING:
        size = blocks.take(1)[0]
        body = blocks.take(size)
        if size == 3 and body[0] & 7 == 1:
            again = int.from_bytes(body[1:], "little")
            gif.plays = again + 1 if again else 0
    if size:
        blocks.skip_blocks()
    return control


def read_gif(stream: BinaryIO, count_frames: bool) -> Header:
    """The header of a GIF. `frames` ends at MAX_SEGMENTS. Raises Truncated or Unreadable."""
    gif = read_blocks(stream, MAX_SEGMENTS) if count_frames else _start(stream)
    first = gif.pictures[0]
    covers = (first.width, first.height) == (gif.width, gif.height)
    return Header(
        "GIF",
        gif.width,
        gif.height,
        channels=3 if covers and first.control.transparent is None else 4,
        frames=len(gif.pictures),
        indirect=True,
        canvas=(first.width, first.height),
        place=(first.left, first.top),
    )


def _start(stream: BinaryIO) -> Gif:
    return read_blocks(stream, 1)


def first_picture(stream: BinaryIO) -> list[Piece]:
    """The first picture as a file for a decoder. Raises Truncated or Unreadable."""
    gif = read_blocks(stream, 1)
    return file_of(gif.pictures[0], gif)


def file_of(picture: GifPicture, gif: Gif) -> list[Piece]:
    """A GIF of this picture alone, on a screen of its size."""
    palette, control = picture.palette or gif.palette, picture.control
    size = struct.pack("<HH", picture.width, picture.height)
    pieces: list[Piece] = [SIGNATURES[1] + size + bytes((_table_flags(palette), 0, 0))]
    if palette:
        pieces.append(palette)
    if control.transparent is not None:
        pieces.append(bytes((EXTENSION, CONTROL, 4, 1, 0, 0, control.transparent, 0)))
    end = b"" if picture.whole else b"\0"
    pieces.append(bytes((PICTURE, 0, 0, 0, 0)) + size + bytes((0x40 * picture.interlaced,)))
    return [*pieces, picture.data, end + bytes((END,))]


def bare(stream: BinaryIO) -> list[Piece]:
    """The GIF without comments, texts, unknown extensions, and what follows its last picture: the same pictures.

    Raises Truncated or Unreadable, also for a first picture without an end.
    """
    gif = read_blocks(stream, MAX_SEGMENTS)
    if not gif.pictures[0].whole:
        raise Truncated
    pieces: list[Piece] = [SIGNATURES[1] + struct.pack("<HH", gif.width, gif.height) + _screen(stream, gif)]
    if gif.palette:
        pieces.append(gif.palette)
    if gif.plays != 1:
        again = max(0, gif.plays - 1)
        pieces.append(bytes((EXTENSION, APPLICATION, 11)) + LOOPING[0] + struct.pack("<BBHB", 3, 1, again, 0))
    for one in gif.pictures:
        if one.control != Control():
            pieces.append(one.control.block)
        pieces.append(bytes((PICTURE,)) + struct.pack("<HHHH", one.left, one.top, one.width, one.height))
        pieces.append(bytes((_table_flags(one.palette) | 0x40 * one.interlaced,)))
        pieces += [one.palette, one.data] if one.palette else [one.data]
    return [*pieces, bytes((END,))]


def _screen(stream: BinaryIO, gif: Gif) -> bytes:
    """Flags, background colour and aspect ratio. Other viewers than browsers show a background."""
    index, ratio = content(stream, Span(11, 2), 2)
    return bytes((_table_flags(gif.palette), index, ratio))


def _table_flags(palette: Span | None) -> int:
    return 0x80 | (palette.length // 3).bit_length() - 2 if palette else 0
