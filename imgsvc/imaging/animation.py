"""The frames of an animation, each as a still of its own: no decoder sees an animation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ..lazy_dataclass import dataclass
from .header import Header
from .pieces import Piece

Disposal = Literal["keep", "clear", "restore"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its place on the canvas in pixels, how long it is shown, and what becomes of it afterwards.

    `blend`: it is laid over what is there; else it replaces that. `header` and `pieces` are those of the still.
    """

    left: int
    top: int
    header: Header
    pieces: Sequence[Piece]
    milliseconds: int
    disposal: Disposal
    blend: bool
    length: int  # bytes of its coded pixels

    def box(self, size: tuple[int, int]) -> Box:
        """Its place, as far as it is on a canvas of this size."""
        width, height = size
        right, bottom = self.left + self.header.width, self.top + self.header.height
        return min(self.left, width), min(self.top, height), min(right, width), min(bottom, height)


@dataclass(frozen=True, slots=True)
class Animation:
    """Frames in their order on a canvas, in pixels. `plays`: how often they are shown, 0: for ever."""

    width: int
    height: int
    plays: int
    frames: tuple[Frame, ...]

    @property
    def milliseconds(self) -> int:
        return sum(frame.milliseconds for frame in self.frames)


def still(header: Header, width: int, height: int, **known: int | bool) -> Header:
    """The header of a frame as a still."""
    own = {"canvas": None, "place": (0, 0), "frames": 1, **known}
    return replace(header, width=width, height=height, **own)  # type: ignore[arg-type]
