"""Opening an untrusted file: one allow-listed format, the cheapest decode that is large enough."""

import io
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import PIL
from PIL import Image, ImageFile

from .errors import Unreadable
from .geometry import fit
from .header import Header

PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")  # PNG chunks


def open_image(path: Path, header: Header, side: int) -> Image.Image:
    """The decoded first frame, with a longer side of at least `side` pixels where the file has them.

    JPEG is decoded at 1/2, 1/4 or 1/8 scale when that is still large enough: a quarter of the memory and time for
    each halving. The decoder's own idea of the size must be the header's. Raises ImageError or MemoryError.
    """
    try:
        with path.open("rb") as stream:
            try:
                image = _decoded(stream, header, side)
            except (SyntaxError, ValueError, OSError, struct.error) as error:
                if header.format != "PNG" or getattr(error, "errno", None) is not None:
                    raise
                image = _decoded(_bare_png(stream), header, side)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error, EOFError, …
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the file's: Pillow's own OSErrors have no number
        raise Unreadable(f"The image can't be decoded: {_reason(error)}.") from error
    return image


def _decoded(stream: BinaryIO, header: Header, side: int) -> Image.Image:
    image = _lazy(stream, header)
    if (image.width, image.height) != (header.width, header.height):
        raise Unreadable("The image's header and its pixels disagree about its size.")
    image.draft(None, fit(image.size, side))
    image.load()
    return image


def _bare_png(stream: BinaryIO) -> BinaryIO:
    """The chunks that make the picture: one damaged text or calibration chunk stops Pillow."""
    stream.seek(0)
    bare, kind = io.BytesIO(stream.read(8)), b""
    bare.seek(8)
    while len(head := stream.read(8)) == 8 and kind != b"IEND":
        length, kind = struct.unpack(">I4s", head)
        body = stream.read(length + 4)
        sound_profile = kind == b"iCCP" and body.partition(b"\0")[2][:1] == b"\0"
        if kind in PICTURE or sound_profile:
            bare.write(head + body)
    bare.seek(0)
    return bare


def _lazy(stream: BinaryIO, header: Header) -> Image.Image:
    """The file opened but not decoded. Damaged metadata is forgiven, damaged pixels are not."""
    usual = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = header.pixels  # a decoder that finds more than the header said is stopped by Pillow
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # lets Pillow pass over an oversized profile or text chunk
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(stream, formats=[header.format])
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        Image.MAX_IMAGE_PIXELS = usual


def _reason(error: Exception) -> str:
    """Pillow's words without a path, an address or a trailing stop."""
    text = str(error)
    known = {"truncated": "it is truncated", "broken data": "its data is broken", "cannot identify": "it is damaged"}
    return next((plain for sign, plain in known.items() if sign in text), "its data is damaged")


def decoder_version() -> str:
    """Pillow's version; that of pillow-simd ends in `.post0`."""
    return str(PIL.__version__)
