"""Memory of our own for the pixels of a large photo, in which it is shrunk in place.

Pillow makes a new picture of each step, so that shrinking holds two nearly whole ones. It can also map a picture onto a
buffer, as `Image.frombuffer` does for some modes. So the photo is decoded into a buffer, and parts of it are shrunk and
written back: first bands of rows to the left, then bands of columns to the top, as the filter itself does it, which
gives the same pixels.
"""

import mmap
import os
from contextlib import suppress
from itertools import pairwise
from typing import Any

from PIL import Image, _imaging

from .geometry import Size, fit
from .malloc import LARGE_PAGES, TUNABLES
from .resize import resized

MODE, PIXEL = "RGB", 4  # bytes of a pixel in Pillow's memory
LEAST_PIXELS = 1_000_000  # of a smaller picture the second one is no matter
BANDS = 8  # each takes an eighth of the memory, and a millisecond for the weights of the filter


class PixelMemory:
    """The memory of one decoded picture, if it is shrunk in place."""

    def __init__(self) -> None:
        self._buffer: mmap.mmap | None = None
        self._pixels: Any = None  # Pillow's, which map the buffer

    def hold(self, image: Image.Image, side: int) -> None:
        """Let a picture of Pillow's be decoded into this memory, if it is large and will be shrunk to `side`.

        Raises MemoryError.
        """
        width, height = image.size
        if image.mode != MODE or width * height < LEAST_PIXELS or fit(image.size, side) == image.size:
            return
        try:
            # One row more, into which the last columns reach.
            buffer = mmap.mmap(-1, PIXEL * width * (height + 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError from error
        if LARGE_PAGES in os.environ.get(TUNABLES, ""):
            with suppress(OSError):  # the kernel has none
                buffer.madvise(mmap.MADV_HUGEPAGE)
        with suppress(AttributeError, TypeError, ValueError):  # another Pillow: it takes memory of its own
            image.im = self._pixels = _mapped(buffer, image.size, 0, width)
            self._buffer = buffer

    def holds(self, image: Image.Image) -> bool:
        """Whether these are the pixels that were decoded into this memory."""
        return self._pixels is not None and image.im is self._pixels

    def shrunk(self, image: Image.Image, size: Size, extent: tuple[float, float]) -> Image.Image:
        """The picture that this memory holds, resized as by `resized`. `image` has no pixels afterwards."""
        self._shrink(image.size, size, extent)
        self._pixels = None
        image.im = self._pixels
        self._end_after(PIXEL * size[0] * size[1])
        return self._image(size, 0, size[0])

    def _shrink(self, old: Size, new: Size, extent: tuple[float, float]) -> None:
        (old_width, rows), (width, height) = old, new
        narrow = self._image((width, rows), 0, width)
        for top, bottom in _bands(rows):
            band = self._image((old_width, bottom - top), top * old_width, old_width)
            _replace(narrow, band, resized(band, (width, bottom - top), (extent[0], bottom - top)), (0, top))
        whole = self._image(new, 0, width)
        for left, right in _bands(width):
            band = self._image((right - left, rows), left, width)
            _replace(whole, band, resized(band, (right - left, height), (right - left, extent[1])), (left, 0))

    def _end_after(self, length: int) -> None:
        """Unmap what is behind these bytes: a worker's ceiling counts what is mapped, used or not."""
        assert self._buffer is not None
        with suppress(BufferError, OSError, SystemError):  # still mapped by a picture, or a system without mremap(2)
            self._buffer.resize(length)

    def _image(self, size: Size, first: int, stride: int) -> Image.Image:
        """A picture in this memory: its first pixel, and the pixels from one row to the next."""
        return Image.new(MODE, (0, 0))._new(_mapped(self._buffer, size, first, stride))


def _mapped(buffer: mmap.mmap | None, size: Size, first: int, stride: int) -> Any:
    return _imaging.map_buffer(buffer, size, "raw", PIXEL * first, (MODE, PIXEL * stride, 1))


def _replace(whole: Image.Image, band: Image.Image, new: Image.Image, place: tuple[int, int]) -> None:
    if new is not band:
        whole.paste(new, place)


def _bands(length: int) -> list[tuple[int, int]]:
    """Start and end of each part of a side."""
    edges = sorted({length * number // BANDS for number in range(BANDS + 1)})
    return list(pairwise(edges))
