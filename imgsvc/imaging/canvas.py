"""The canvas that an animation's frames are shown on: places, disposal and blending, in one way for all formats."""

from collections.abc import Iterator
from dataclasses import field
from typing import BinaryIO

from PIL import Image

from ..lazy_dataclass import dataclass
from . import colour
from .animation import Animation, Frame
from .decoder import Decoder
from .errors import Unreadable

CLEAR = (0, 0, 0, 0)


@dataclass(slots=True)
class Canvas:
    """What a viewer shows: RGBA, clear at first."""

    image: Image.Image
    _last: Frame | None = None
    _before: Image.Image | None = field(default=None)  # what the last frame covered, if it is restored

    def show(self, frame: Frame, picture: Image.Image) -> None:
        """Dispose of the last frame, and draw the next one, decoded as RGBA."""
        self._dispose()
        left, top, right, bottom = box = frame.box(self.image.size)
        self._last = frame
        if left == right or top == bottom:
            return
        if frame.disposal == "restore":
            self._before = self.image.crop(box)
        if picture.size != (right - left, bottom - top):
            picture = picture.crop((0, 0, right - left, bottom - top))
        if frame.blend:
            self.image.alpha_composite(picture, (left, top))
        else:
            self.image.paste(picture, box)

    def _dispose(self) -> None:
        if self._last is None:
            return
        left, top, right, bottom = box = self._last.box(self.image.size)
        if left == right or top == bottom:
            return
        if self._last.disposal == "clear":
            self.image.paste(CLEAR, box)
        elif self._before is not None:
            self.image.paste(self._before, box)
        self._before = None


@dataclass(frozen=True, slots=True)
class Shown:
    """The canvas while a frame is shown: valid until the next one. `length`: bytes of the frame's coded pixels."""

    image: Image.Image
    milliseconds: int
    length: int


def shown(stream: BinaryIO, animation: Animation, deadline: float) -> Iterator[Shown]:
    """The canvas frame by frame. A frame that can't be decoded ends the animation, as in browsers.

    Raises OutOfTime, or MemoryError.
    """
    canvas = Canvas(Image.new("RGBA", (animation.width, animation.height)))
    for frame in animation.frames:
        longer = max(frame.header.width, frame.header.height)
        try:
            picture = Decoder(stream, frame.header, deadline).decode(frame.pieces, longer)
        except Unreadable:
            return
        picture = colour.as_samples(picture, frame.header.bits)
        picture = picture.convert("RGBA")
        canvas.show(frame, picture)
        del picture
        yield Shown(canvas.image, frame.milliseconds, frame.length)
