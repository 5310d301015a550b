"""Checks a worker's answer and its files, both of which are untrusted, and takes the files.

The files are opened in the run's scratch folder without following links or blocking on a FIFO. A file that no process
holds open for writing any more is moved beside the folder and measured. Where that can't be told, the file is copied
and the copy is measured: the worker may still write to its own. What a machine has put was written by this process,
which has closed it, and is where a copy would be already: it is only measured.
"""

import errno
import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
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
from .lanes.messages import Rendered, SourceMade, Task, VariantMade

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


def received_at(task: Task) -> Path:
    """What the paths begin with at which the service writes what a machine puts. No other task has the same, ever:

    a late request may still be writing, held up by the disk, when the same run's next task is done already.
    """
    folder = Path(task.folder)
    return folder.with_name(f"received-{folder.name}.{task.id}")


def checked_file(copies: Path, name: str) -> Path:
    """The path of a checked file, which the worker does not know. Those of a run begin with the path `copies`.

    They have no folder of their own: making and removing one costs more than all copies of a small photo.
    """
    return copies.with_name(f"{copies.name}.{name}.{FORMAT}")


def take_checked(folder: Path, made: Collection[VariantMade], copies: Path, source_bytes: int) -> None:
    """Take each variant from `folder` to its `checked_file`.

    `source_bytes` is the length of the source. Raises Untrue for a file that does not match its answer, OSError if one
    is gone or can't be moved or copied.
    """
    with _opened(folder) as opened:
        for variant in made:
            taken = checked_file(copies, variant.name)
            whole = _take(opened, variant.name, variant, _most_bytes_of(variant, source_bytes), taken)
            with BytesIO(whole) if whole else taken.open("rb") as stream:
                _check_picture(variant, stream)


def check_received(made: Collection[VariantMade], copies: Path, source_bytes: int) -> None:
    """Check the variants that a machine has put, each of which is its `checked_file`. Raises as `take_checked`."""
    for variant in made:
        received = checked_file(copies, variant.name)
        whole = _measure(received, variant, _most_bytes_of(variant, source_bytes))
        with BytesIO(whole) if whole else received.open("rb") as stream:
            _check_picture(variant, stream)


def _most_bytes_of(made: VariantMade, source_bytes: int) -> int:
    return most_bytes(made.width * made.height, source_bytes if made.frames > 1 else None)


def take_source(folder: Path, made: SourceMade, copies: Path, mime: str, pixels: int, most: int) -> None:
    """Take the source without metadata to its `checked_file`, and walk it. Raises as `take_checked`."""
    taken = checked_file(copies, SOURCE)
    with _opened(folder) as opened:
        _take(opened, SOURCE, made, most, taken)
    _check_source(taken, mime, pixels)


def check_received_source(made: SourceMade, copies: Path, mime: str, pixels: int, most: int) -> None:
    """Measure and walk the source that a machine has put, its `checked_file`. Raises as `take_checked`."""
    received = checked_file(copies, SOURCE)
    _measure(received, made, most)
    _check_source(received, mime, pixels)


def _check_source(copy: Path, mime: str, pixels: int) -> None:
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


def _take(folder: int, name: str, made: VariantMade | SourceMade, most: int, target: Path) -> bytes:
    """Move a file that is final, or copy it; returns its bytes if they are one chunk, else nothing."""
    file = scratch_file(Path(), name).name
    try:
        source = _open(file, folder=folder)
    except FileNotFoundError:  # or it was moved by an attempt that found no free file for the next one
        return _measure(target, made, most)
    try:
        final = _is_final(source)
        _check_size(source, made, most)
        if final:
            os.replace(file, target, src_dir_fd=folder)
            if not os.path.samestat(os.fstat(source), target.lstat()):
                raise Untrue("another file than was opened")
        with nullcontext() if final else _new(target) as copy:
            for chunk in _digested(source, made):
                if copy:
                    _write(copy, chunk)
        return chunk if len(chunk) == made.size_bytes else b""
    finally:
        os.close(source)


def _is_final(source: int) -> bool:
    """Whether no process holds this open file open for writing, or has it mapped so.

    A read lease (fcntl(2), F_SETLEASE) is granted only then. It is returned at once: what it would report is that a
    file is opened anew, which a worker can't do. False on file systems without leases.
    """
    try:
        fcntl.fcntl(source, fcntl.F_SETSIG, signal.SIGURG)  # not SIGIO, which would end this process
        fcntl.fcntl(source, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(source, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (OSError, AttributeError):  # not Linux
        return False
    return True


def _measure(received: Path, made: VariantMade | SourceMade, most: int) -> bytes:
    """Compare a file with what was reported; returns its bytes if they are one chunk, else nothing."""
    source = _open(str(received))
    try:
        _check_size(source, made, most)
        for chunk in _digested(source, made):  # noqa: B007
            pass
        return chunk if len(chunk) == made.size_bytes else b""
    finally:
        os.close(source)


def _check_size(source: int, made: VariantMade | SourceMade, most: int) -> None:
    found = os.fstat(source)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise Untrue("something else than a file of its own")
    if found.st_size != made.size_bytes:
        raise Untrue("a file of another size than was reported")
    if found.st_size > most:
        raise Untrue("a file too large for its pixels")


def _digested(source: int, made: VariantMade | SourceMade) -> Iterator[bytes]:
    """The chunks of an open file. Raises Untrue after the last one if they are not those that were reported."""
    digest, left = hashlib.sha256(), made.size_bytes
    while left and (chunk := os.read(source, min(CHUNK, left))):
        digest.update(chunk)
        yield chunk
        left -= len(chunk)
    if left or digest.hexdigest() != made.sha256:
        raise Untrue("other bytes than were reported")


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
