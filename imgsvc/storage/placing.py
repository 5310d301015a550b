"""Gives files their places in a storage folder: each is synced before it has its name, and then its folder is."""

import errno
import os
import shutil
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from ..lazy_dataclass import dataclass
from .durable_files import SetMode, partial_of, sync_folder

CHUNK = 256 * 1024  # bytes; most variants are one chunk


@dataclass(frozen=True, slots=True)
class Placed:
    """A file on its way to `target`.

    `is_open`: the reading group may pass through its folders. `linked`: its source is never written to again, and may
    get a second name.
    """

    source: Path
    target: Path
    set_mode: SetMode | None
    is_open: bool = False
    linked: bool = False


def place(files: Sequence[Placed], left: threading.Event) -> None:
    """Link or copy each under a temporary name, fsync it, rename it, fsync the folders. Raises OSError.

    All have a name before the first is synced: that writes the journal for the others too. After an error no temporary
    name is left. Nothing is renamed once `left` is set. A file is always a new one: what an interrupted copy left may
    be a second name of another image's file.
    """
    try:
        with ExitStack() as opened:
            for one, stream in [(one, opened.enter_context(_write(one))) for one in files]:
                _sync(one, stream)
        for one in files:
            if left.is_set():
                raise TimeoutError(errno.ETIMEDOUT, "the storage answered too late")
            partial_of(one.target).replace(one.target)
    except BaseException:
        _forget(files)
        raise
    if any(one.linked for one in files):
        _forget(files)  # rename(2) leaves the name of a file that had its place already
    for folder in dict.fromkeys(one.target.parent for one in files):
        sync_folder(folder)


def _forget(files: Sequence[Placed]) -> None:
    for one in files:
        partial_of(one.target).unlink(missing_ok=True)


def _write(one: Placed) -> IO[bytes]:
    """The source under the temporary name, open and not synced. The caller removes what is left of a failure.

    It is open for reading if it is a second name of the source, for writing if it is a copy.
    """
    unnamed = partial_of(one.target)
    if one.linked and _linked(one.source, unnamed):
        return os.fdopen(os.open(unnamed, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)
    unnamed.unlink(missing_ok=True)
    with one.source.open("rb") as reader:
        writer = unnamed.open("xb")
        try:
            shutil.copyfileobj(reader, writer, CHUNK)
            writer.flush()
        except BaseException:
            with suppress(OSError):  # it would be written once more
                writer.close()
            raise
    return writer


def _sync(one: Placed, stream: IO[bytes]) -> None:
    """Sync a file. A linked source whose sync failed is removed: a second sync would succeed without its bytes."""
    try:
        if one.set_mode:
            one.set_mode(stream.fileno())
        os.fsync(stream.fileno())
    except OSError:
        if not stream.writable():
            one.source.unlink(missing_ok=True)
        raise


def _linked(source: Path, unnamed: Path) -> bool:
    """False where the file can only be copied: it is on another disk, or on a file system that has no links.

    It is copied too where a crash has left the temporary name.
    """
    try:
        os.link(source, unnamed, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True
