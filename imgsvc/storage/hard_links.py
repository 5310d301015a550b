"""A second name for a stored file, so that its bytes are neither rendered nor written again."""

import hashlib
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from ..lazy_dataclass import dataclass
from .base import Differs, Original
from .durable_files import SetMode, partial_of, sync_folder


@dataclass(frozen=True, slots=True)
class Link:
    """A second name, `target`, of `source`, which is to be `original` still."""

    source: Path
    target: Path
    original: Original
    set_mode: SetMode | None


def link_all(links: Sequence[Link], left: threading.Event) -> None:
    """Link each under a temporary name, compare it with its original, rename it, and sync the folders.

    Both names are of one file from then on, which is never written into. Nothing is renamed once `left` is set. All are
    linked before the first is synced: that writes the journal for the others too. Raises Differs, FileNotFoundError if
    a file or folder is missing, or OSError.
    """
    try:
        for one in links:
            _link(one.source, partial_of(one.target))
        for one in links:
            _compare(partial_of(one.target), one.original, one.set_mode)
        for one in links:
            if left.is_set():
                raise TimeoutError
            partial_of(one.target).replace(one.target)
    finally:
        for one in links:  # rename(2) leaves it if both are names of the same file already
            partial_of(one.target).unlink(missing_ok=True)
    for folder in dict.fromkeys(one.target.parent for one in links):
        sync_folder(folder)


def _link(source: Path, unnamed: Path) -> None:
    try:
        os.link(source, unnamed, follow_symlinks=False)
    except FileExistsError:  # a crash has left it
        unnamed.unlink()
        os.link(source, unnamed, follow_symlinks=False)


def _compare(path: Path, original: Original, set_mode: SetMode | None) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:  # noqa: PTH123
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != original.size_bytes:
            raise Differs(original.key)
        if hashlib.file_digest(stream, "sha256").hexdigest() != original.sha256:
            raise Differs(original.key)
        if set_mode:
            set_mode(descriptor)
        os.fsync(descriptor)  # a file that was restored by hand may be in memory only
