"""Write an animated WebP (RFC 9649, 2.7): each frame is what changed since the last one, coded like a still.

The frames go straight to the file, so that memory holds one at a time.
"""

import hashlib
import struct
from dataclasses import replace
from math import inf
from typing import BinaryIO

from PIL import Image, ImageChops

from ..lazy_dataclass import dataclass
from .encode import Ceiling, Encoded, webp_bytes
from .recipe import Variant

RIFF = 12  # bytes of the file's header
HEADERS = RIFF + 18 + 14  # and of VP8X and ANIM
ANIMATED, CLEAR = 0x02, 0x10  # flags of VP8X
REPLACES = 0x02  # flag of a frame: it is not laid over what is there
MOST_MILLISECONDS = (1 << 24) - 1
SAME_SHARE = 0.25  # from this share of unchanged pixels on it is tried to leave them out


@dataclass(slots=True)
class _Part:
    """A frame that waits for its duration to be known."""

    left: int
    top: int
    size: tuple[int, int]
    blend: bool
    data: bytes  # its chunks
    milliseconds: int


class AnimatedWebp:
    """Writes one variant's frames to `output`, which can be read and sought. Beyond `room` bytes it is a still."""

    def __init__(self, variant: Variant, output: BinaryIO, plays: int, room: int) -> None:
        self._variant, self._output, self._plays, self._room = variant, output, min(plays, 0xFFFF), room
        self._shown: Image.Image | None = None
        self._waiting: _Part | None = None
        self._still = b""
        self._clear = False
        self._frames, self._written = 0, HEADERS

    @property
    def full(self) -> bool:
        """Whether it has become a still, so that no frame is needed any more."""
        return self._written > self._room

    def add(self, image: Image.Image, milliseconds: int, most_bytes: float = inf) -> None:
        """The next frame (RGB or RGBA, all of one size): coded again with less quality beyond `most_bytes`."""
        if self.full:
            return
        image = image.convert("RGBA")
        left = top = 0
        part, blend = image, False
        if self._shown is not None:
            difference = ImageChops.difference(image, self._shown)
            box = difference.getbbox(alpha_only=False)
            if box is None:
                assert self._waiting is not None
                self._waiting.milliseconds += milliseconds
                return
            left, top = box[0] & ~1, box[1] & ~1
            box = (left, top, box[2], box[3])
            part = image.crop(box)
            data, blend = self._shortest(part, difference.crop(box), most_bytes)
        else:
            data = self._still = self._coded(part, most_bytes)
        self._write_waiting()
        self._waiting = _Part(left, top, part.size, blend, _chunks(data), milliseconds)
        self._shown = image

    def _shortest(self, part: Image.Image, difference: Image.Image, most_bytes: float) -> tuple[bytes, bool]:
        """A part of a frame coded as it is, or with clear pixels where nothing changed; and whether it is laid over."""
        found = self._coded(part, most_bytes)
        changed = _any_band(difference)
        same = changed.histogram()[0] / (part.width * part.height)
        opaque = part.getchannel("A").getextrema() == (255, 255)
        if same < SAME_SHARE or not opaque:
            return found, False
        sparse = Image.new("RGBA", part.size)
        sparse.paste(part, mask=changed)
        over = self._coded(sparse, most_bytes)
        return (over, True) if len(over) < len(found) else (found, False)

    def _coded(self, part: Image.Image, most_bytes: float) -> bytes:
        if part.getchannel("A").getextrema() == (255, 255):
            part = part.convert("RGB")
        else:
            self._clear = True
        return webp_bytes(part, self._variant, Ceiling(most_bytes))

    def _write_waiting(self) -> None:
        part = self._waiting
        if part is None:
            return
        self._written += 8 + 16 + len(part.data)
        if self.full:
            return
        if not self._frames:
            self._output.seek(HEADERS)
        self._frames += 1
        sides = (part.left // 2, part.top // 2, part.size[0] - 1, part.size[1] - 1)
        head = b"".join(one.to_bytes(3, "little") for one in (*sides, min(part.milliseconds, MOST_MILLISECONDS)))
        head += bytes((0 if part.blend else REPLACES,))
        self._output.write(struct.pack("<4sI", b"ANMF", 16 + len(part.data)) + head + part.data)

    def finish(self) -> Encoded:
        """Complete the file. Of a single frame, or beyond its room, it is a still."""
        assert self._shown is not None
        width, height = self._shown.size
        if self._frames:
            self._write_waiting()
        if not self._frames or self.full:
            return self._finish(self._still, 0, width, height, 1)
        flags = ANIMATED | CLEAR * self._clear
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        head = struct.pack("<4sI4s", b"RIFF", self._written - 8, b"WEBP")
        head += struct.pack("<4sIB3x", b"VP8X", 10, flags) + sides
        head += struct.pack("<4sIIH", b"ANIM", 6, 0, self._plays)
        return self._finish(head, self._written, width, height, self._frames)

    def _finish(self, start: bytes, length: int, width: int, height: int, frames: int) -> Encoded:
        """Write the start of the file, and cut it to its length (0: that of the start)."""
        output, length = self._output, length or len(start)
        output.seek(0)
        output.write(start)
        output.truncate(length)
        output.flush()
        output.seek(0)
        digest = hashlib.file_digest(output, "sha256").hexdigest()  # type: ignore[arg-type]
        return Encoded(self._variant.name, width, height, length, digest, frames=frames)


def copied(made: Encoded, source: BinaryIO, variant: Variant, output: BinaryIO) -> Encoded:
    """The same file as another variant of the same size and settings."""
    source.seek(0)
    while chunk := source.read(1 << 16):
        output.write(chunk)
    output.flush()
    return replace(made, name=variant.name, seconds=0.0)


def _any_band(difference: Image.Image) -> Image.Image:
    """255 where any band differs, else 0."""
    bands = difference.split()
    most = bands[0]
    for band in bands[1:]:
        most = ImageChops.lighter(most, band)
    return most.point(lambda value: 255 * (value > 0))


def _chunks(still: bytes) -> bytes:
    """The chunks of a still's picture, without the headers of its file."""
    return still[RIFF + 18 :] if still[RIFF : RIFF + 4] == b"VP8X" else still[RIFF:]
