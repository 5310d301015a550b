"""Open an untrusted file with the one decoder of its format, at the cheapest scale that is large enough."""

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
    """The first frame as decoded, its ICC profile, and its EXIF orientation (1 to 8)."""

    image: Image.Image
    profile: bytes | None
    orientation: int


def open_image(path: Path, header: Header, side: int, deadline: float = inf) -> Opened:
    """Decode the first frame, with a longer side of at least `side` pixels if the file has that many.

    A JPEG is decoded at 1/2, 1/4 or 1/8 scale if that is still large enough. Each halving takes a quarter of the memory
    and time. The size that the decoder reports must match the header's. Raises ImageError (OutOfTime if `deadline`, in
    time.monotonic, passes while the file is read) or MemoryError.
    """
    try:
        with path.open("rb") as stream:
            needed = read_essentials(stream, header.format)
            image = _decoded(cast(BinaryIO, Pieces(stream, needed.pieces, deadline)), header, side)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error, EOFError, …
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk, not of the file: Pillow's own OSErrors have no errno
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
    """Set Pillow's global switches for a decode, and restore them afterwards.

    The switches are global to the process, which may be a user's test suite with its own limits and several threads.
    Therefore only one decode runs at a time. A worker has one thread and never waits here.
    """
    with _set_up, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS = None  # `header` has already checked the size, and it is compared again after opening
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = usual


def _reason(error: Exception) -> str:
    """A plain reason for Pillow's error, without paths, memory addresses or a trailing full stop."""
    text = str(error)
    known = {"truncated": "it is truncated", "broken data": "its data is broken", "cannot identify": "it is damaged"}
    return next((plain for sign, plain in known.items() if sign in text), "its data is damaged")


def decoder_version() -> str:
    """Pillow's version. The version of pillow-simd ends in `.post0`."""
    return str(PIL.__version__)
