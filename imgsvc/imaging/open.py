"""Open an untrusted file with the one decoder of its format, at the cheapest scale that is large enough."""

from math import inf
from typing import BinaryIO

from PIL import Image

from ..lazy_dataclass import dataclass
from .decoder import Decoder, part
from .errors import Unreadable
from .essentials import read_essentials
from .header import Header
from .pixel_memory import PixelMemory
from .whole_rows import require_whole, sound_pixels


@dataclass(frozen=True, slots=True)
class Opened:
    """The first frame as decoded, its extent in it, its ICC profile, its EXIF orientation (1 to 8), and its memory.

    The extent (width, height, in pixels of `image`) is below the image's size where a reduced decode was rounded up.
    """

    image: Image.Image
    extent: tuple[float, float]
    profile: bytes | None
    orientation: int
    memory: PixelMemory


def open_image(stream: BinaryIO, header: Header, side: int, deadline: float = inf, *, again: float = inf) -> Opened:
    """Decode the first frame, with a longer side of at least `side` pixels if the file has that many.

    A JPEG is decoded at 1/2, 1/4 or 1/8 scale if that is still large enough. Each halving takes a quarter of the memory
    and time. The size that the decoder reports must match the header's. Raises ImageError (OutOfTime if `deadline`, in
    time.monotonic, passes while the file is read; NotCheap if a JPEG of more than `again` samples has to be decoded
    again) or MemoryError.
    """
    needed = read_essentials(stream, header.format, header.walked)
    decoder, memory = Decoder(stream, header, deadline, again), PixelMemory()
    try:
        image = decoder.decode(needed.pieces, side, memory)
    except Unreadable:
        if needed.png is None:
            raise
        image = decoder.decode(sound_pixels(decoder, needed.png), side)
    require_whole(decoder, needed, image)
    return Opened(image, _true_edges(image, header), needed.profile, needed.orientation, memory)


def _true_edges(image: Image.Image, header: Header) -> tuple[float, float]:
    """Repair the edges of a reduced JPEG, in place, and return the extent of the picture in it.

    Where a side is no multiple of the scale, the last column or row is partly made of what the encoder put beyond the
    picture to fill its last block. It is replaced by the one before it.
    """
    sizes = {scale: (-(-header.width // scale), -(-header.height // scale)) for scale in (1, 2, 4, 8)}
    scale = next(scale for scale, size in sizes.items() if size == image.size)
    width, height = image.size
    if header.width % scale and width > 1:
        image.paste(part(image, (width - 2, 0, width - 1, height)), (width - 1, 0))
    if header.height % scale and height > 1:
        image.paste(part(image, (0, height - 2, width, height - 1)), (0, height - 1))
    return header.width / scale, header.height / scale
