"""Checks a worker's answer and copies its files, both of which are untrusted.

The files are opened in the run's scratch folder without following links or blocking on a FIFO. They are copied beside
it, and measured while they are copied; only the copy is published. A link or a rename would not do: the worker may
still hold its file open for writing.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..imaging import moving_webp, still_avif, still_jpeg, still_webp
from ..imaging.any_header import read_header
from ..imaging.errors import ImageError
from ..imaging.geometry import output_size
from ..imaging.header import Header
from ..imaging.limits import most_animation_bytes
from ..imaging.recipe import FORMAT, SOURCE, Format, Recipe, Variant, scratch_file
from ..imaging.stripped import check_stripped
from .lanes.messages import Rendered, SourceMade, VariantMade

CHUNK = 1 << 20  # bytes
SMALLEST_CAP = 1 << 16  # bytes that any variant may have, however few pixels it has
BYTES_PER_PIXEL = 8  # more than any format ever needs
# The strict reader of each format: raises Unreadable, returns the size in pixels.
STILL_SIZE: dict[Format, Callable[[BinaryIO], tuple[int, int]]] = {
    "webp": still_webp.still_size,
    "jpeg": still_jpeg.still_size,
    "avif": still_avif.still_size,
}
# The errors of opening something that is not a regular file of this user.
STRANGE = {errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENODEV}


class Untrue(Exception):
    """A worker's answer or file does not match its task. The message is generated here and may be logged."""


def source_header(source: Path, mime: str, pixels: int) -> Header:
    """Read the header of the staged source again. Raises Untrue if it has not as many pixels, OSError if it is gone."""
    with open(_open(str(source)), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise Untrue("a picture of something else than a file")
        try:
            header = read_header(stream, mime)
        except ImageError:
            raise Untrue("a picture of a file that has no header") from None
    if header.pixels != pixels:
        raise Untrue("a picture of another file than was accepted")
    return header


def check_answer(rendered: Rendered, recipe: Recipe, expected: Collection[str], source: Header) -> None:
    """Compare a worker's answer with its task: `expected` are the variants' names.

    Raises Untrue.
    """
    names = [made.name for made in rendered.variants]
    if len(names) != len(set(names)) or set(names) != set(expected):
        raise Untrue("other variants than were asked for")
    stored = (source.width, source.height)
    # EXIF orientation may swap the sides. Without a variant to make nothing is decoded.
    if (rendered.width, rendered.height) not in ((stored, stored[::-1]) if expected else ((0, 0),)):
        raise Untrue("another size than the source's")
    if rendered.frames != source.frames:
        raise Untrue("other frames than the source's")
    wanted: dict[str, Variant] = {variant.name: variant for variant in recipe.variants}
    for made in rendered.variants:
        if made.format != wanted[made.name].format:
            raise Untrue("a variant of another format than was asked for")
        if made.frames > (recipe.frames if wanted[made.name] in recipe.moving else 1):
            raise Untrue("an animation that was not asked for, or one of more frames")
        if (made.width, made.height) != output_size(wanted[made.name], (rendered.width, rendered.height)):
            raise Untrue("a variant of another size than was asked for")


def checked_file(copies: Path, name: str) -> Path:
    """The path of a checked copy, which the worker does not know. Those of a run begin with the path `copies`.

    They have no folder of their own: making and removing one costs more than all copies of a small photo.
    """
    return copies.with_name(f"{copies.name}.{name}.{FORMAT}")


def copy_checked(folder: Path, made: Collection[VariantMade], copies: Path, source_bytes: int) -> None:
    """Copy each variant from `folder` to its `checked_file`.

    `source_bytes` is the length of the source. Raises Untrue for a file that does not match its answer, OSError if one
    is gone or the copy can't be written.
    """
    with _opened(folder) as opened:
        for variant in made:
            most = most_bytes(variant.width * variant.height, source_bytes if variant.frames > 1 else None)
            copy = checked_file(copies, variant.name)
            whole = _copy(opened, variant.name, variant, most, copy)
            with BytesIO(whole) if whole else copy.open("rb") as stream:
                _check_picture(variant, stream)


def copy_source(folder: Path, made: SourceMade, copies: Path, mime: str, pixels: int, most: int) -> None:
    """Copy the source without metadata to its `checked_file`, and walk it. Raises as `copy_checked`."""
    copy = checked_file(copies, SOURCE)
    with _opened(folder) as opened:
        _copy(opened, SOURCE, made, most, copy)
    with copy.open("rb") as stream:
        try:
            check_stripped(stream, mime)
        except ImageError as error:
            raise Untrue(f"a source with more than its picture: {error}") from None
    source_header(copy, mime, pixels)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = _open(str(folder), os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(name: str, flags: int = 0, folder: int | None = None) -> int:
    """Open a path for reading. Raises Untrue if it is not a regular file or folder, else OSError."""
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=folder)
    except OSError as error:
        if error.errno in STRANGE:
            raise Untrue("something else than a file of its own") from None
        raise


def most_bytes(pixels: int, source_bytes: int | None = None) -> int:
    """The most bytes that a variant of so many pixels may have; with the length of its source, one that is animated."""
    still = SMALLEST_CAP + BYTES_PER_PIXEL * pixels
    return still if source_bytes is None else max(still, most_animation_bytes(source_bytes))


def _copy(folder: int, name: str, made: VariantMade | SourceMade, most: int, target: Path) -> bytes:
    """Copy a file; returns its bytes if they are one chunk, else nothing."""
    source = _open(scratch_file(Path(), name).name, folder=folder)
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise Untrue("something else than a file of its own")
        if found.st_size != made.size_bytes:
            raise Untrue("a file of another size than was reported")
        if found.st_size > most:
            raise Untrue("a file too large for its pixels")
        digest, left = hashlib.sha256(), made.size_bytes
        with _new(target) as copy:
            while left and (chunk := os.read(source, min(CHUNK, left))):
                digest.update(chunk)
                _write(copy, chunk)
                left -= len(chunk)
        if left or digest.hexdigest() != made.sha256:
            raise Untrue("other bytes than were reported")
        return chunk if len(chunk) == made.size_bytes else b""
    finally:
        os.close(source)


def _new(target: Path) -> BinaryIO:
    """A new file with the mode of any: it may become the stored one. Unbuffered: each file is a few large pieces."""
    try:
        return target.open("xb", buffering=0)
    except FileExistsError:  # of an attempt that found no free file
        target.unlink(missing_ok=True)
        return target.open("xb", buffering=0)


def _write(copy: BinaryIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[copy.write(left) :]


def _check_picture(made: VariantMade, copy: BinaryIO) -> None:
    """Check that the copy is a picture of the reported format, size and frames, without metadata or trailing bytes."""
    try:
        if made.frames > 1 and made.format == FORMAT:
            found = moving_webp.moving_size(copy, made.frames)
        else:
            found = (*STILL_SIZE[made.format](copy), 1)
    except ImageError as error:
        raise Untrue(f"another file than a variant: {error}") from None
    if found != (made.width, made.height, made.frames):
        raise Untrue("another picture than was reported")
