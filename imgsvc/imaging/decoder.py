"""Pillow's decoders, given only what a picture needs: one format each, at the cheapest scale, with a deadline."""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import BinaryIO, cast

import PIL.GifImagePlugin  # the decoders of our formats register themselves
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import PIL.WebPImagePlugin
from PIL import Image, ImageFile, features

from ..lazy_dataclass import dataclass
from . import optional_codecs
from .colour import as_samples
from .errors import ImageError, Unreadable, Unsupported
from .geometry import fit
from .header import Header
from .pieces import Piece, Pieces, length_of
from .pixel_memory import PixelMemory


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes what is made of one open file.

    `deadline` is in time.monotonic. A JPEG of more than `again` samples should be decoded only once.
    """

    stream: BinaryIO
    header: Header
    deadline: float
    again: float = inf

    def read(self, pieces: Sequence[Piece]) -> BinaryIO:
        """The pieces as a file. Raises OutOfTime as it is read."""
        return cast(BinaryIO, Pieces(self.stream, pieces, self.deadline))

    def decode(self, pieces: Sequence[Piece], side: int, memory: PixelMemory | None = None) -> Image.Image:
        """Decode the pieces, a JPEG into `memory` if it can be shrunk there.

        Raises ImageError, MemoryError, or OSError with an errno for an error of the disk.
        """
        try:
            return _decoded(self.read(pieces), self.header, side, memory)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error, EOFError, …
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk, not of the file: Pillow's own OSErrors have no errno
            raise Unreadable(f"The image can't be decoded: {_reason(error)}.") from error


def _decoded(stream: BinaryIO, header: Header, side: int, memory: PixelMemory | None) -> Image.Image:
    if not optional_codecs.is_decoded(header.format):
        raise Unsupported("This kind of image is not decoded here.")
    with _pillow_set_up():
        image = Image.open(stream, formats=[header.format])
        if image.size != (header.canvas or (header.width, header.height)):
            raise Unreadable("The image's header and its pixels disagree about its size.")
        image.draft(None, fit(image.size, side))
        if header.arithmetic:  # libjpeg's arithmetic decoder can't wait for more data: it needs all of it at once
            image.decodermaxblock = max(image.decodermaxblock, length_of(stream))
        if memory is not None and header.format == "JPEG":
            memory.hold(image, side)
        image.load()
        if image.size != (header.canvas or image.size):  # some decoders learn the size from the pixels
            raise Unreadable("The image's header and its pixels disagree about its size.")
        if header.format == "GIF":
            return _on_screen(image, header)
        # Its pixels alone: a decoder may hold as much again as long as its image is there.
        return image.crop(header.crop) if header.crop else image._new(image.im)


def _on_screen(image: Image.Image, header: Header) -> Image.Image:
    """The first picture in its place on the screen, which is clear where it has no picture."""
    if image.size == (header.width, header.height):
        return image
    screen = Image.new("RGBA", (header.width, header.height))
    screen.paste(as_samples(image).convert("RGBA"), header.place)
    return screen


def part(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a decoded image, without Pillow's warning about large ones, which looks at a global switch."""
    with _pillow_set_up():
        return image.crop(box)


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


def codec_versions() -> dict[str, str | None]:
    """The versions of Pillow and of the libraries that it decodes and encodes with."""
    known = {name: features.version(name) for name in ("libjpeg_turbo", "jpg", "zlib", "webp", "littlecms2")}
    return {"pillow": decoder_version(), **known}


def decoder_version() -> str:
    """Pillow's version. The version of pillow-simd ends in `.post0`."""
    return str(PIL.__version__)
