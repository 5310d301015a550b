"""Reads an image's dimensions, frames and type from its header alone, by the reader of its type.

The API process uses this to refuse decompression bombs and truncated headers before it sends a receipt. The worker
reads the header again before it opens a codec.
"""

from collections.abc import Callable
from typing import BinaryIO

from .errors import Unreadable
from .gif_blocks import read_gif
from .header import Header, read_jpeg, read_png, read_webp
from .heif import read_avif, read_heic


def read_header(stream: BinaryIO, mime: str, *, count_frames: bool = True) -> Header:
    """Read the header of `stream` (binary, seekable, at any position) as the given MIME type.

    With `count_frames=False` only the first frame is looked for, so a prefix of the file is enough.
    Raises Truncated, Unreadable or Unsupported.
    """
    stream.seek(0)
    header = READERS[mime](stream, count_frames)
    if not header.width or not header.height:
        raise Unreadable(f"The image header says {header.width} x {header.height} pixels.")
    return header


READERS: dict[str, Callable[[BinaryIO, bool], Header]] = {
    "image/jpeg": read_jpeg,
    "image/png": read_png,
    "image/webp": read_webp,
    "image/gif": read_gif,
    "image/heic": read_heic,
    "image/avif": read_avif,
}
