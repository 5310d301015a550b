"""Opening an untrusted file: one allow-listed format, the cheapest decode that is large enough."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import BinaryIO, cast

import PIL
from PIL import Image, ImageFile

from .errors import ImageError, Unreadable
from .essentials import read_essentials
from .geometry import fit
from .header import Header
from .pieces import Pieces


@dataclass(frozen=True, slots=True)
class Opened:
    """The decoded first frame as it is stored, its ICC profile, and its EXIF orientation (1 to 8)."""

    image: Image.Image
    profile: bytes | None
    orientation: int


def open_image(path: Path, header: Header, side: int, deadline: float = inf) -> Opened:
    """The decoded first frame, with a longer side of at least `side` pixels where the file has them.

    JPEG is decoded at 1/2, 1/4 or 1/8 scale when that is still large enough: a quarter of the memory and time for
    each halving. The decoder's own idea of the size must be the header's. Raises ImageError (OutOfTime when `deadline`
    in time.monotonic passes amid the bytes) or MemoryError.
    """
    try:
        with path.open("rb") as stream:
            needed = read_essentials(stream, header.format)
            image = _decoded(cast(BinaryIO, Pieces(stream, needed.pieces, deadline)), header, side)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error, EOFError, …
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the file's: Pillow's own OSErrors have no number
        raise Unreadable(f"The image can't be decoded: {_reason(error)}.") from error
    return Opened(image, needed.profile, needed.orientation)


def _decoded(stream: BinaryIO, header: Header, side: int) -> Image.Image:
    with _pillow_set_up():
        image = Image.open(stream, formats=[header.format])
        if (image.width, image.height) != (header.width, header.height):
            raise Unreadable("The image's header and its pixels disagree about its size.")
        image.draft(None, fit(image.size, side))
        image.load()
    return image


_set_up = threading.Lock()


@contextmanager
def _pillow_set_up() -> Iterator[None]:
    """Pillow's switches as a decode here needs them, and afterwards as they were.

    They belong to the process, which may be somebody's test suite with limits of its own and pictures in several
    threads: one decode at a time, then. A worker has one thread and never waits.
    """
    with _set_up, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS = None  # the header was looked at before, and is compared after opening
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = usual


def _reason(error: Exception) -> str:
    """Pillow's words without a path, an address or a trailing stop."""
    text = str(error)
    known = {"truncated": "it is truncated", "broken data": "its data is broken", "cannot identify": "it is damaged"}
    return next((plain for sign, plain in known.items() if sign in text), "its data is damaged")


def decoder_version() -> str:
    """Pillow's version; that of pillow-simd ends in `.post0`."""
    return str(PIL.__version__)
