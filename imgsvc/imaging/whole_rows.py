"""Finds pictures that lost rows. Decoders fill missing rows with grey or black and report no error.

Only suspicious files are measured: those without an end marker, and those whose last rows look like such a filling.
"""

from collections.abc import Sequence

from PIL import Image, ImageChops

from .decoder import Decoder, part
from .errors import NotCheap, Unreadable
from .essentials import Essentials
from .jpeg_segments import NOISE, JpegParts
from .pieces import Piece
from .png_chunks import PngParts
from .png_pixels import inflated, sealed

FORGIVEN_BYTES = 64  # of coded data
GREY = range(127, 130)  # libjpeg's value for a block without data, after any colour conversion
REDUCED = 8  # at this scale libjpeg uses only the first coefficient of each block
HALF = 2  # at this scale most of the detail in the last scans of a progressive JPEG is visible


def require_whole(decoder: Decoder, needed: Essentials, image: Image.Image) -> None:
    """Raises Unreadable if rows are missing from the picture that was decoded as `image`, or NotCheap."""
    if needed.jpeg is not None:
        scans = needed.jpeg.scans
        if not scans.closed and not scans.finished and scans.last_two > FORGIVEN_BYTES:
            raise Unreadable("The JPEG ends before its last scan.")
        unfinished = decoder.header.whole and not scans.finished  # a deliberate preview, or a truncated file
        if not scans.closed or unfinished or _uniform(image, GREY):
            _require_jpeg_rows(decoder, needed.jpeg)
    elif needed.png is not None and _uniform(image, range(1)):
        _require_png_rows(decoder, needed.png)


def sound_pixels(decoder: Decoder, png: PngParts) -> Sequence[Piece]:
    """Return the pieces of a PNG whose pixels end correctly. Raises Unreadable if rows are missing."""
    found = inflated(decoder.read(png.pixels), decoder.header)
    _require_rows(found.rows, decoder.header.height)
    return png.with_pixels(sealed(png.pixels, found))


def _require_png_rows(decoder: Decoder, png: PngParts) -> None:
    _require_rows(inflated(decoder.read(png.pixels), decoder.header).rows, decoder.header.height)


def _require_jpeg_rows(decoder: Decoder, jpeg: JpegParts) -> None:
    """Decode twice: once as it is, once with noise after the data. Rows that differ are missing from the file.

    A few missing bytes are tolerated: they are a part of the last row of blocks, or more rows of a flat picture.
    """
    header, scans = decoder.header, jpeg.scans
    if header.coded > decoder.again:
        raise NotCheap
    scale = HALF if header.whole else REDUCED
    side = max(1, max(header.width, header.height) // scale)
    plain = decoder.decode(jpeg.pieces, side)
    noisy = decoder.decode(jpeg.filled_with(NOISE), side)
    differs = ImageChops.difference(plain, noisy).getbbox()
    if differs is None:
        return
    scale = -(-header.height // plain.height)
    left, top = differs[0], differs[1] * scale
    last = (header.height - 1) // scans.row * scans.row  # where the last row of blocks begins
    if top >= last and (last or left):
        return
    if scans.last * (header.height - top) > FORGIVEN_BYTES * max(top, 1):
        _require_rows(top, header.height)


def _require_rows(rows: int, height: int) -> None:
    if rows < height:
        raise Unreadable(f"The picture ends after {rows} of {height} rows.")


def _uniform(image: Image.Image, values: range) -> bool:
    """Whether one of the last two rows holds only these values (an interlaced picture may lack every other row)."""
    for top in range(max(0, image.height - 2), image.height):
        extrema = part(image, (0, top, image.width, top + 1)).getextrema()
        channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
        if all(low in values and high in values for low, high in channels):
            return True
    return False
