"""Headers of HEIC and AVIF files, and the file that a decoder gets in their place.

The decoder sees a file that is written here: the primary picture with its tiles and its alpha, and no thumbnail, depth
map, metadata or sequence. Turns and crops are left out too: they are applied to the pixels once, by the pipeline.
"""

import struct
from fractions import Fraction
from math import inf
from typing import BinaryIO

from . import colour_description
from .errors import Unreadable
from .header import Header
from .heif_file import written
from .heif_items import Item
from .heif_picture import HeifPicture, read_picture
from .isobmff import Reader
from .pieces import Piece, length_of

MAX_PROFILE = 4 * 1024 * 1024  # bytes
Crop = tuple[int, int, int, int]
# (mirrored left to right first, then turned left by so many quarters) as EXIF's orientation
ORIENTATIONS = {(0, 0): 1, (1, 0): 2, (0, 2): 3, (1, 2): 4, (1, 1): 5, (0, 3): 6, (1, 3): 7, (0, 1): 8}


def read_heif(stream: BinaryIO, form: str, max_pixels: float = inf) -> Header:
    """The header of a file of Pillow's format `form`: HEIF (coded in HEVC) or AVIF. Raises as `read_picture`."""
    picture = read_picture(stream, form, max_pixels)
    colour, alpha = picture.colour, picture.alpha
    left, top, right, bottom = crop = clean_aperture(colour.item, colour.width, colour.height)
    grey = colour.coded[0].samples == 1
    return Header(
        form,
        right - left,
        bottom - top,
        channels=(1 if grey else 3) + bool(alpha or picture.tile_alphas),
        bits=max(one.bits for one in colour.coded),
        profile=_profile(colour.item) is not None,
        coded_pixels=max(colour.coded_pixels, colour.width * colour.height),
        canvas=(colour.width, colour.height),
        crop=None if crop == (0, 0, colour.width, colour.height) else crop,
        length=length_of(stream),
    )


def essentials(stream: BinaryIO, form: str) -> tuple[list[Piece], bytes | None, int]:
    """The file for the decoder, the colour profile, and the orientation as EXIF counts it. Raises as `read_picture`."""
    picture = read_picture(stream, form, inf)
    return written(stream, picture, form), profile_of(picture), orientation(picture.colour.item)


def orientation(item: Item) -> int:
    """What `irot` and `imir` do, in their order, as EXIF's orientation. That of the file's EXIF is not used (MIAF)."""
    mirrored = quarters = 0
    for box, _ in item.properties:
        if box.kind == b"irot" and box.body:
            quarters += box.body[0] & 3
        elif box.kind == b"imir" and box.body:
            mirrored ^= 1
            quarters = -quarters + (0 if box.body[0] & 1 else 2)
    return ORIENTATIONS[mirrored, quarters % 4]


def clean_aperture(item: Item, width: int, height: int) -> Crop:
    """The part that is shown (ISO/IEC 14496-12, 12.1.4), as left, top, right, bottom. Raises Unreadable."""
    found = item.properties_of(b"clap")
    if not found:
        return 0, 0, width, height
    if len(found[0]) < 32:
        raise Unreadable("A box of the file is too short.")
    numbers = struct.unpack(">IIIIiIiI", found[0][:32])
    if not all(numbers[1::2]):
        raise Unreadable("The picture's crop is damaged.")
    wide, high, right, down = (Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = round((width - wide) / 2 + right), round((height - high) / 2 + down)
    box = left, top, left + round(wide), top + round(high)
    if not (0 <= left < box[2] <= width and 0 <= top < box[3] <= height):
        raise Unreadable("The picture's crop is damaged.")
    return box


def profile_of(picture: HeifPicture) -> bytes | None:
    """The ICC profile, else one made from the code points of `colr`; None for sRGB. A damaged one is not seen here."""
    embedded = _profile(picture.colour.item)
    if embedded is not None:
        return embedded
    grey = picture.colour.coded[0].samples == 1
    for body in picture.colour.item.properties_of(b"colr"):
        if body[:4] == b"nclx" and len(body) >= 11:
            reader = Reader(body[4:])
            primaries, transfer = reader.number(2), reader.number(2)
            if primaries < 256 and transfer < 256:
                points = bytes((primaries, transfer, 0, 1))
                return colour_description.profile_of({b"cICP": points}, None, grey=grey)
    return None


def _profile(item: Item) -> bytes | None:
    for body in item.properties_of(b"colr"):
        if body[:4] in (b"prof", b"rICC") and len(body) <= MAX_PROFILE:
            return body[4:]
    return None


def read_heic(stream: BinaryIO, _count_frames: bool) -> Header:
    return read_heif(stream, "HEIF")


def read_avif(stream: BinaryIO, _count_frames: bool) -> Header:
    return read_heif(stream, "AVIF")


def check_coded(stream: BinaryIO, form: str, max_pixels: int) -> None:
    """Raises TooLarge where a coded size is beyond the limit, whatever the size of the picture that is shown."""
    read_picture(stream, form, max_pixels)
